"""The processes of a run with faults: one broker, workers and publishers behind proxies, each started again
when it has ended before its time."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from tests.faults import processes
from tests.faults.broker import Broker
from tests.faults.history import Death, History
from tests.faults.proxy import Proxy
from tests.faults.tasks import FOLDER_VARIABLE

ROOT = Path(__file__).parents[2]
START_SECONDS = 30.0
#: Longer than a worker waits for a broker that is away.
STOP_SECONDS = 60.0

#: What a worker says at last when its nursery has died: by a kill of ours, or by one of a task.
NURSERY_DIED = ("the nursery died", "the process that imports the app died of it")


class Worker:
    """A worker's process, what it says, and whether its end was our doing."""

    def __init__(self, process: subprocess.Popen[bytes], output: Path) -> None:
        self.process = process
        self.pid = process.pid
        self.killed = False
        self._output = output

    @property
    def at_work(self) -> bool:
        """Whether the broker has greeted it: it obeys signals then, and does not just die of them."""
        return ", durability: " in self._said()

    def end_explained(self, code: int | str) -> bool:
        """Whether a fault, or a task that fells its worker, is why it ended with this code.

        Told to stop when it is on its way out, and listens to signals no more, it dies of TERM.
        """
        if code in (1, -signal.SIGTERM):
            return any(text in self._said() for text in NURSERY_DIED)
        return code == -signal.SIGKILL and self.killed

    def _said(self) -> str:
        return self._output.read_text(errors="replace")


class Troupe:
    """Starts, kills and restarts; what it has started is gone when it is closed."""

    def __init__(self, folder: Path, rng: random.Random, slots: list[int], *, durable: bool) -> None:
        """`slots` of each worker. A broker that is not `durable` can not be killed."""
        self.folder = folder
        self._durable = durable
        self.logbooks = folder / "logbooks"
        self.logbooks.mkdir()
        #: What marks every process of this run, through its environment.
        self.mark = f"{FOLDER_VARIABLE}={self.logbooks}"
        self.url = f"chervil+unix://{folder}/broker.sock"
        self.deaths: list[Death] = []
        self.faults: Counter[str] = Counter()
        #: Ends that nobody asked for and that are no fault of ours, with what was said.
        self.complaints: list[str] = []
        self._random = rng
        self._slots = slots
        self._workers: list[Worker] = []
        self._publishers: dict[int, tuple[list[str], subprocess.Popen[bytes]]] = {}
        #: Worker -> (nursery, children), as last seen.
        self._seen: dict[int, tuple[list[int], list[int]]] = {}
        self._count = 0
        #: Processes that were stopped, and when they go on.
        self._frozen: list[tuple[int, float]] = []
        self._stack = contextlib.ExitStack()
        self.broker: Broker | None = None

    def start(self) -> None:
        """Broker, proxies, workers; returns when the broker listens."""
        socket_path = f"{self.folder}/broker.sock"
        kept = ["--data", f"{self.folder}/data"] if self._durable else ["--memory"]
        command = ["chervil_broker", *kept, "--unix", socket_path]
        self.broker = Broker(lambda: self._run("broker", command), self.url)
        self.await_broker()
        # Workers on TCP, where a cut is a reset; publishers on a Unix socket, where it is an end of file.
        self.to_workers = self._stack.enter_context(
            Proxy(("127.0.0.1", 0), socket_path, self._random.getrandbits(32))
        )
        self.to_publishers = self._stack.enter_context(
            Proxy(f"{self.folder}/publishers.sock", socket_path, self._random.getrandbits(32))
        )
        self._workers = [self._worker(slots) for slots in self._slots]

    @property
    def broker_answers(self) -> bool:
        """Whether it has answered since its start."""
        return self.broker is not None and self.broker.answers_within(0)

    def await_broker(self) -> None:
        """Returns when the broker answers."""
        assert self.broker is not None
        if not self.broker.answers_within(START_SECONDS):
            raise AssertionError((self.folder / "broker.out").read_text())

    def publish(self, publishers: int, count: int, seconds: float, seed: int) -> None:
        """Starts publishers, every second one of asyncio, that share `count` tasks and take about so long."""
        end = time.monotonic() + seconds
        for number in range(publishers):
            share = count // publishers + (number < count % publishers)
            kind = "async_publisher" if number % 2 else "publisher"
            arguments = [
                f"tests.faults.{kind}", self.to_publishers.url, str(self.logbooks), f"p{number}",
                str(seed), str(share), str(end),
            ]  # fmt: skip
            self._publishers[number] = (arguments, self._run(f"publisher {number}", arguments))

    def look_after(self) -> None:
        """Notes who is there, and starts again what has ended; to be called often."""
        self.thaw(time.monotonic())
        for at, worker in enumerate(self._workers):
            if (code := worker.process.poll()) is not None:
                self._mourn(worker, code)
                self._workers[at] = self._worker(self._slots[at])
                self.faults["workers started again"] += 1
            else:
                self._present(worker.pid)
        for number, (arguments, publisher) in list(self._publishers.items()):
            code = publisher.poll()
            if code == 0:
                del self._publishers[number]
            elif code is not None:
                if code != -signal.SIGKILL:
                    self.complaints.append(f"publisher {number} ended with {code}")
                self._publishers[number] = (arguments, self._run(f"publisher {number}", arguments))
        assert self.broker is not None
        if (code := self.broker.process.poll()) is not None:
            raise AssertionError(f"the broker ended with {code}: see {self.folder}")

    @property
    def publishing(self) -> bool:
        return bool(self._publishers)

    # Faults

    def kill_broker(self) -> None:
        """Kills it and starts another one."""
        assert self.broker is not None
        self.broker.kill()
        self.faults["brokers killed"] += 1

    def kill_child(self) -> None:
        worker = self._random.choice(self._workers)
        _, there = self._present(worker.pid)
        if there:
            pid = self._random.choice(there)
            self.deaths.append(Death(pid, time.monotonic_ns()))
            self.faults["children killed"] += processes.kill(pid)

    def kill_nursery(self) -> None:
        worker = self._random.choice(self._workers)
        nurseries, _ = self._present(worker.pid)
        for pid in nurseries:
            self._note_deaths(worker.pid)
            self.faults["nurseries killed"] += processes.kill(pid)

    def kill_worker(self) -> None:
        worker = self._random.choice(self._workers)
        self._note_deaths(worker.pid)
        worker.killed = processes.kill(worker.pid)
        self.faults["workers killed"] += worker.killed

    def freeze(self) -> None:
        """Stops a link or a child for up to 2 s: a machine that swaps, or starves it."""
        worker = self._random.choice(self._workers)
        _, there = self._present(worker.pid)
        pid = self._random.choice([worker.pid, *there])
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
            self._frozen.append((pid, time.monotonic() + self._random.uniform(0.1, 2)))
            self.faults["processes frozen"] += 1

    def thaw(self, due: float = float("inf")) -> None:
        """Lets those go on whose time is over; all of them unless `due` is given."""
        for pid, until in self._frozen:
            if until <= due:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)
        self._frozen = [(pid, until) for pid, until in self._frozen if until > due]

    def kill_publisher(self) -> None:
        if self._publishers:
            _, publisher = self._publishers[self._random.choice(list(self._publishers))]
            if publisher.poll() is None:
                publisher.kill()
                self.faults["publishers killed"] += 1

    def _present(self, worker: int) -> tuple[list[int], list[int]]:
        """A worker's nursery and children that are there now: a number may have gone to another process."""
        parent_of = processes.parents()
        nurseries = processes.children(worker, parent_of)
        found = (nurseries, [child for pid in nurseries for child in processes.children(pid, parent_of)])
        # Some die of what tasks do, and of the death of their nursery.
        _, before = self._seen.get(worker, ([], []))
        now = time.monotonic_ns()
        self.deaths += [Death(child, now) for child in before if child not in found[1]]
        self._seen[worker] = found
        return found

    def _note_deaths(self, worker: int) -> None:
        now = time.monotonic_ns()
        self.deaths += [Death(pid, now) for pid in self._seen.get(worker, ([], []))[1]]

    def _mourn(self, worker: Worker, code: int) -> None:
        """A worker has ended: by a kill of ours, or because a task felled its nursery."""
        self._note_deaths(worker.pid)
        self._seen.pop(worker.pid, None)
        if not worker.end_explained(code):
            self.complaints.append(f"a worker ended with {code}")

    # The end

    def stop(self) -> list[str]:
        """Ends workers, then the broker, in order; what did not go as it should.

        The last tasks may have felled a worker that has not ended yet, or whose successor has not begun.
        """
        self._wait_for_workers()
        for worker in self._workers:
            worker.process.terminate()
        codes = [(worker, _ended(worker.process)) for worker in self._workers]
        wrong = [
            f"a worker that was told to stop ended with {code}"
            for worker, code in codes
            if code != 0 and not worker.end_explained(code)
        ]
        assert self.broker is not None
        self.broker.process.terminate()
        if (code := _ended(self.broker.process)) != 0:
            wrong.append(f"the broker that was told to stop ended with {code}")
        left = processes.wait_until_none(self.mark, STOP_SECONDS)
        if left:
            wrong.append(f"processes left behind: {left}")
        return wrong

    def close(self) -> None:
        """Ends everything that may still be there."""
        everybody = [worker.process for worker in self._workers]
        everybody += [publisher for _, publisher in self._publishers.values()]
        if self.broker is not None:
            everybody.append(self.broker.process)
        for process in everybody:
            if process.poll() is None:
                process.kill()
                process.wait()
        self._stack.close()
        for pid in processes.wait_until_none(self.mark, 5):
            processes.kill(pid)

    def add_to(self, history: History) -> None:
        """What was done to whom, so that the checker can tell why tasks were repeated."""
        history.deaths += self.deaths
        history.cuts += self.to_workers.disturbed_at
        if self.broker is not None:
            history.broker_kills += self.broker.kills

    @property
    def recoveries(self) -> list[float]:
        return [] if self.broker is None else self.broker.recoveries

    def errors(self) -> list[str]:
        """Lines of the processes' output that tell of an error of their own."""
        found = []
        for path in sorted(self.folder.glob("*.out")):
            text = path.read_text(errors="replace")
            at = text.find("Traceback (most recent call last)")
            if at >= 0:
                found.append(f"{path.name}: {text[at : at + 2000]}")
        return found

    def _worker(self, slots: int) -> Worker:
        self._count += 1
        name = f"worker {self._count}"
        process = self._run(
            name,
            ["chervil_worker", "-A", "tests.faults.tasks", "-b", self.to_workers.url, "-c", str(slots),
             "-n", f"w{self._count}@faults"],
        )  # fmt: skip
        return Worker(process, self._output(name))

    def _run(self, name: str, command: list[str]) -> subprocess.Popen[bytes]:
        # Not measured by coverage: a kill in the middle of its writing would leave a damaged file.
        environment = {key: text for key, text in os.environ.items() if not key.startswith("COVERAGE")}
        environment |= {FOLDER_VARIABLE: str(self.logbooks), "PYTHONUNBUFFERED": "1"}
        with self._output(name).open("ab") as output:
            return subprocess.Popen(
                [sys.executable, "-m", *command],
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )

    def _output(self, name: str) -> Path:
        return self.folder / f"{name}.out"

    def _wait_for_workers(self) -> None:
        """Until all that were started are at work; those that have ended by then are replaced."""
        end = time.monotonic() + START_SECONDS
        self.look_after()
        while not all(worker.at_work for worker in self._workers):
            if time.monotonic() > end:
                self.complaints.append(f"not all workers were at work within {START_SECONDS:g} s")
                return
            time.sleep(0.02)
            self.look_after()


def _ended(process: subprocess.Popen[bytes]) -> int | str:
    try:
        return process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return f"nothing within {STOP_SECONDS:g} s"
