"""A broker, a producer and workers, each on a machine of its own."""

import contextlib
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.e2e.stage import DEADLINE, ROOT, Process
from tests.machines.credentials import Secured
from tests.machines.network import Network

#: The machines of workers, each of which serves a queue with the name of its machine.
WORKERS = ("one", "two")
#: Seconds between two tasks that the producer publishes to the same queue.
PACE = 0.05


class Run(NamedTuple):
    """A task that ran, as `tests.machines.tasks` says it."""

    id: str
    redelivered: bool
    #: As time.monotonic_ns() counts, on whichever machine.
    at: int


class Machines:
    """The machines `broker`, `producer`, `crowd` and the workers', and what was started on them."""

    def __init__(self, folder: Path, credentials: Secured) -> None:
        self._folder = folder
        self._credentials = credentials
        self.network = Network("broker", "producer", "crowd", *WORKERS)
        self._processes: list[Process] = []

    def start(self, machine: str, user: str, *command: str) -> Process:
        """Starts a Python program of a user on a machine."""
        home = self._folder / machine
        home.mkdir(exist_ok=True)
        process = Process(
            machine,
            [*self.network.entrance(machine), sys.executable, "-m", *command],
            home,
            # A state directory of its own: no token is found there that another machine has made.
            **{"PYTHONPATH": str(ROOT), "XDG_STATE_HOME": str(home), **self._credentials.environment(user)},
        )
        self._processes.append(process)
        return process

    def broker(self) -> Process:
        """A broker that listens."""
        broker = self.start("broker", "worker", "chervil_broker", "--memory", *self._credentials.broker_flags)
        broker.wait_for("ready")
        return broker

    def worker(self, name: str) -> Process:
        """A worker that has subscribed to the queue of its machine."""
        worker = self.start(
            *(name, "worker", "chervil_worker", "-A", "tests.machines.tasks"),
            *("-Q", name, "-n", f"{name}@machines", "-c", "1"),
        )
        worker.wait_for("queues ")
        return worker

    def producer(self, *queues: str) -> Process:
        """A producer that publishes to each queue in turn until it is told to stop."""
        return self._publish("mark", PACE, 0, queues)

    def publish(self, *queues: str, task: str = "mark", count: int = 1) -> list[str]:
        """Publishes so many tasks to each queue, from a program that has just been started; their ids.

        What is not confirmed is published as another task, again and again.
        """
        confirmed: list[str] = []
        missing = count
        while missing:
            producer = self._publish(task, 0, missing, queues)
            assert producer.ended() == 0, producer.output
            producer.stop()  # its pipe: a long run has many
            confirmed += ids(producer, "confirmed")
            missing = count - min(sum(id_.startswith(f"{queue}-") for id_ in confirmed) for queue in queues)
        return confirmed

    def _publish(self, task: str, seconds: float, count: int, queues: tuple[str, ...]) -> Process:
        command = ["tests.machines.producer", task, str(seconds), str(count), *queues]
        return self.start("producer", "producer", *command)

    def storm(self, count: int) -> Process:
        """So many workers' connections from the machine `crowd`, all of them there."""
        storm = self.start("crowd", "worker", "tests.machines.storm", str(count), "crowd")
        storm.wait_for(f"connected {count}")
        return storm

    def stop(self, process: Process) -> int:
        """Tells a process to end in order; its exit code."""
        process.signal(signal.SIGTERM)
        return process.ended()

    def close(self) -> None:
        """Ends everything; what is to end in order has been told to before."""
        self.network.close()
        for process in self._processes:
            process.stop()


def said(process: Process, text: str, deadline: float = DEADLINE) -> str:
    """The first line with a text that a process writes, or has written: `Process.wait_for` takes new ones only."""
    for line in process.output:
        if text in line:
            return line
    return process.wait_for(text, deadline)


def wait_for_run(worker: Process, id_: str, deadline: float = DEADLINE) -> Run:
    """The first run of a task on a worker, which may be over."""
    return _parse(said(worker, f"ran {id_} ", deadline))


def runs(worker: Process) -> list[Run]:
    """The tasks in a worker's output, as far as it was read."""
    return [_parse(line) for line in worker.output if line.startswith("ran ")]


def ids(producer: Process, what: str) -> list[str]:
    """Of which tasks a producer has said that they are `what`, in its output as far as it was read."""
    return [line.split()[1] for line in producer.output if line.startswith(f"{what} ")]


def _parse(line: str) -> Run:
    _, id_, again, at = line.split()
    return Run(id_, again == "again", int(at))


@contextlib.contextmanager
def machines(folder: Path, credentials: Secured) -> Iterator[Machines]:
    """Machines in a folder, ended at the end."""
    found = Machines(folder, credentials)
    try:
        yield found
    finally:
        found.close()
