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
from tests.faults.history import Death
from tests.faults.proxy import Proxy
from tests.faults.tasks import FOLDER_VARIABLE

ROOT = Path(__file__).parents[2]
START_SECONDS = 30.0
STOP_SECONDS = 20.0


class Troupe:
    """Starts, kills and restarts; what it has started is gone when it is closed."""

    def __init__(self, folder: Path, rng: random.Random, slots: list[int]) -> None:
        self.folder = folder
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
        self._workers: list[subprocess.Popen[bytes]] = []
        self._publishers: dict[int, tuple[list[str], subprocess.Popen[bytes]]] = {}
        #: Worker -> (nursery, children), as last seen.
        self._seen: dict[int, tuple[list[int], list[int]]] = {}
        self._count = 0
        #: Processes that were stopped, and when they go on.
        self._frozen: list[tuple[int, float]] = []
        self._stack = contextlib.ExitStack()
        self._broker: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Broker, proxies, workers; returns when the broker listens."""
        socket_path = f"{self.folder}/broker.sock"
        self._broker = self._run("broker", ["chervil_broker", "--memory", "--unix", socket_path])
        self._wait_for_broker()
        # Workers on TCP, where a cut is a reset; publishers on a Unix socket, where it is an end of file.
        self.to_workers = self._stack.enter_context(
            Proxy(("127.0.0.1", 0), socket_path, self._random.getrandbits(32))
        )
        self.to_publishers = self._stack.enter_context(
            Proxy(f"{self.folder}/publishers.sock", socket_path, self._random.getrandbits(32))
        )
        self._workers = [self._worker(slots) for slots in self._slots]

    def publish(self, publishers: int, count: int, seconds: float, seed: int) -> None:
        """Starts publishers that share `count` tasks and take about so long."""
        for number in range(publishers):
            share = count // publishers + (number < count % publishers)
            arguments = [
                "tests.faults.publisher", self.to_publishers.url, str(self.logbooks), f"p{number}",
                str(seed), str(share), str(seconds),
            ]  # fmt: skip
            self._publishers[number] = (arguments, self._run(f"publisher {number}", arguments))

    def look_after(self) -> None:
        """Notes who is there, and starts again what has ended; to be called often."""
        self.thaw(time.monotonic())
        for at, worker in enumerate(self._workers):
            if worker.poll() is not None:
                self._mourn(worker)
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
        assert self._broker is not None
        if self._broker.poll() is not None:
            raise AssertionError(f"the broker ended with {self._broker.returncode}: see {self.folder}")

    @property
    def publishing(self) -> bool:
        return bool(self._publishers)

    # Faults

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
        self.faults["workers killed"] += processes.kill(worker.pid)

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
        self._seen[worker] = found
        return found

    def _note_deaths(self, worker: int) -> None:
        now = time.monotonic_ns()
        self.deaths += [Death(pid, now) for pid in self._seen.get(worker, ([], []))[1]]

    def _mourn(self, worker: subprocess.Popen[bytes]) -> None:
        """A worker has ended: by a kill of ours, or because a task felled its nursery."""
        self._note_deaths(worker.pid)
        self._seen.pop(worker.pid, None)
        if worker.returncode not in (-signal.SIGKILL, 1):
            self.complaints.append(f"a worker ended with {worker.returncode}")

    # The end

    def stop(self) -> list[str]:
        """Ends workers, then the broker, in order; what did not go as it should."""
        for worker in self._workers:
            worker.terminate()
        codes = [_ended(worker) for worker in self._workers]
        wrong = [f"a worker that was told to stop ended with {code}" for code in codes if code != 0]
        assert self._broker is not None
        self._broker.terminate()
        if (code := _ended(self._broker)) != 0:
            wrong.append(f"the broker that was told to stop ended with {code}")
        left = processes.wait_until_none(self.mark, 5)
        if left:
            wrong.append(f"processes left behind: {left}")
        return wrong

    def close(self) -> None:
        """Ends everything that may still be there."""
        everybody = [*self._workers, *(publisher for _, publisher in self._publishers.values())]
        if self._broker is not None:
            everybody.append(self._broker)
        for process in everybody:
            if process.poll() is None:
                process.kill()
                process.wait()
        self._stack.close()
        for pid in processes.wait_until_none(self.mark, 5):
            processes.kill(pid)

    def errors(self) -> list[str]:
        """Lines of the processes' output that tell of an error of their own."""
        found = []
        for path in sorted(self.folder.glob("*.out")):
            text = path.read_text(errors="replace")
            at = text.find("Traceback (most recent call last)")
            if at >= 0:
                found.append(f"{path.name}: {text[at : at + 2000]}")
        return found

    def _worker(self, slots: int) -> subprocess.Popen[bytes]:
        self._count += 1
        name = f"w{self._count}@faults"
        return self._run(
            f"worker {self._count}",
            ["chervil_worker", "-A", "tests.faults.tasks", "-b", self.to_workers.url, "-c", str(slots),
             "-n", name],
        )  # fmt: skip

    def _run(self, name: str, command: list[str]) -> subprocess.Popen[bytes]:
        # Not measured by coverage: a kill in the middle of its writing would leave a damaged file.
        environment = {key: text for key, text in os.environ.items() if not key.startswith("COVERAGE")}
        environment |= {FOLDER_VARIABLE: str(self.logbooks), "PYTHONUNBUFFERED": "1"}
        with (self.folder / f"{name}.out").open("ab") as output:
            return subprocess.Popen(
                [sys.executable, "-m", *command],
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )

    def _wait_for_broker(self) -> None:
        end = time.monotonic() + START_SECONDS
        assert self._broker is not None
        while not (self.folder / "broker.sock").exists():
            if self._broker.poll() is not None or time.monotonic() > end:
                raise AssertionError((self.folder / "broker.out").read_text())
            time.sleep(0.02)


def _ended(process: subprocess.Popen[bytes]) -> int | str:
    try:
        return process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return f"nothing within {STOP_SECONDS:g} s"
