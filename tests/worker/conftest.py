"""Real worker processes against a scripted broker."""

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from chervil_worker import children
from tests.worker.broker import DEADLINE, ScriptedBroker, row
from tests.worker.rig import Clock

APP = '''
import os, signal, socket, subprocess, sys, time
from chervil import Chervil

app = Chervil("proj")

@app.task
def add(x, y):
    return x + y

@app.task
def pid():
    return os.getpid()

@app.task
def nap(seconds):
    time.sleep(seconds)
    return seconds

@app.task
def wait_for(path):
    """Runs until a file is there."""
    while not os.path.exists(path):
        time.sleep(0.002)
    return path

@app.task
def note_and_wait(note, path):
    """Writes its process id, then runs until a file is there."""
    with open(note + ".part", "w") as file:
        file.write(str(os.getpid()))
    os.rename(note + ".part", note)
    wait_for.run(path)

@app.task
def fail():
    raise ZeroDivisionError("no")

@app.task
def kill_self():
    os.kill(os.getpid(), signal.SIGKILL)

@app.task
def kill_nursery():
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(60)

@app.task
def fork():
    """Comes back twice, as a careless task does."""
    return os.fork()

@app.task
def leave(code):
    os._exit(code)

@app.task
def big(size):
    return "x" * size

@app.task
def start_and_die(note):
    process = subprocess.Popen(["sleep", "60"])
    with open(note + ".part", "w") as file:
        file.write(str(process.pid))
    os.rename(note + ".part", note)
    os.kill(os.getpid(), signal.SIGSTOP)

@app.task
def unencodable():
    return object()

@app.task(bind=True)
def again(self):
    raise self.retry(countdown=3)

@app.task(bind=True)
def about_me(self):
    return [self.request.id, self.request.hostname, self.request.headers]

@app.task
def process():
    """What a child has inherited."""
    return {
        "group": os.getpgid(0) == os.getpid(),
        "int": signal.getsignal(signal.SIGINT) is signal.SIG_DFL,
        "term": signal.getsignal(signal.SIGTERM) is signal.SIG_DFL,
        "descriptors": sorted(int(name) for name in os.listdir("/proc/self/fd")),
    }

@app.task
def draw():
    import random
    return random.random()
'''


class Worker:
    """A worker process."""

    def __init__(self, folder: Path, url: str, arguments: tuple[str, ...], module: str) -> None:
        self.log = folder / f"worker-{time.monotonic_ns()}.log"
        self._out = self.log.open("wb")
        command = [sys.executable, "-m", "chervil_worker", "-A", module, "-b", url, *arguments]
        environment = os.environ | {"XDG_STATE_HOME": str(folder)}
        self.process = subprocess.Popen(
            command, cwd=folder, stdout=self._out, stderr=subprocess.STDOUT, env=environment
        )

    @property
    def pid(self) -> int:
        return self.process.pid

    def tree(self) -> tuple[int, list[int]]:
        """The nursery's process id and its children's."""
        (nursery,) = children_of(self.pid)
        return nursery, children_of(nursery)

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def wait(self, seconds: float = DEADLINE) -> int:
        return self.process.wait(seconds)

    def said(self) -> str:
        return self.log.read_text()

    def close(self) -> None:
        if self.process.poll() is None:
            with suppress(ProcessLookupError):
                self.process.terminate()
            try:
                self.process.wait(DEADLINE)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self._out.close()


def children_of(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def stop(worker: Worker, broker: ScriptedBroker) -> int:
    worker.signal(signal.SIGTERM)
    broker.until_closed()
    return worker.wait()


def wait_for_file(path: Path) -> str:
    deadline = time.monotonic() + DEADLINE
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not come"
        time.sleep(0.005)
    return path.read_text()


def wait_until_said(worker: Worker, text: str) -> None:
    deadline = time.monotonic() + DEADLINE
    while text not in worker.said():
        assert time.monotonic() < deadline, f"not said: {text}; but: {worker.said()}"
        time.sleep(0.01)


def run_endless(broker: ScriptedBroker, folder: Path, **more: Any) -> int:
    """Has the worker run task 1, which does not end by itself; the process id of its child."""
    note = folder / "note"
    broker.deliver(row(1, "proj.note_and_wait", str(note), str(folder / "never"), **more))
    return int(wait_for_file(note))


@contextmanager
def no_descriptor_left(pid: int) -> Iterator[None]:
    """A process can open nothing meanwhile."""
    folder = Path(f"/proc/{pid}/fd")
    taken = {int(path.name) for path in list(folder.iterdir()) if path.is_symlink()}
    free = next(number for number in count() if number not in taken)
    limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (free, limits[1]))
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)


class Watched:
    """Processes whose end can be waited for, though they are not ours to wait for."""

    def __init__(self, pids: list[int]) -> None:
        self._descriptors = [os.pidfd_open(pid) for pid in pids]

    def gone_within(self, seconds: float) -> bool:
        import select

        deadline = time.monotonic() + seconds
        try:
            return all(
                select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))[0]
                for descriptor in self._descriptors
            )
        finally:
            for descriptor in self._descriptors:
                os.close(descriptor)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """What time it is for the link's children."""
    clock = Clock()
    monkeypatch.setattr(children, "time", clock)
    return clock


@pytest.fixture
def proj(tmp_path: Path) -> Path:
    (tmp_path / "proj.py").write_text(APP)
    return tmp_path


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[ScriptedBroker]:
    scripted = ScriptedBroker(str(tmp_path / "b.sock"))
    yield scripted
    scripted.close()


StartWorker = Callable[..., Worker]


@pytest.fixture
def start_worker(proj: Path, broker: ScriptedBroker) -> Iterator[StartWorker]:
    workers: list[Worker] = []

    def start(*arguments: str, url: str = broker.url, module: str = "proj") -> Worker:
        workers.append(Worker(proj, url, arguments, module))
        return workers[-1]

    yield start
    broker.close()
    for worker in workers:
        if worker.process.poll() is None:
            worker.signal(signal.SIGTERM)
            worker.signal(signal.SIGTERM)
        worker.close()
