"""Child processes for `dev` and `demo`: started in groups of their own, read line by line, ended by id.

Nothing here polls: whatever happens (a child ended, a signal came, a file changed) is put into one queue,
and the verb's loop takes it from there. Signal handlers only record.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from types import FrameType

#: Linux wants a Unix socket's path in 108 bytes, the last one a NUL; macOS in 104. The smaller one holds.
SOCKET_PATH_MAX = 103

#: How long a broker may take until it accepts connections, in seconds: many times what a slow laptop needs.
READY_SECONDS = 10.0

#: How long a child may take to stop after SIGTERM, in seconds, before a second one cuts off what it does: a
#: worker finishes what runs, and who has saved a file wants to see the new code soon.
STOP_SECONDS = 5.0

#: Seconds after SIGTERM when it is said that the child still runs: one with nothing to do is gone by then.
SLOW_SECONDS = 1.0

#: How long a child may take to stop after the second SIGTERM before it is killed, in seconds. A worker may
#: take 2 to tell its broker of what it has cut off: what is killed instead costs a task an attempt.
KILL_SECONDS = 5.0

#: How long a dead child's last lines are waited for, in seconds: a grandchild may hold the pipe open.
LAST_LINES_SECONDS = 1.0

#: Asks Linux (prctl, PR_SET_PDEATHSIG = 1) to send SIGTERM when the parent dies, then becomes the command
#: that follows. A program of its own, as code between fork and exec is not safe beside threads.
_LEASH = (
    "import ctypes, os, signal, sys;"
    "ctypes.CDLL(None).prctl(1, signal.SIGTERM);"
    "os.execv(sys.argv[1], sys.argv[1:])"
)


@dataclass(frozen=True, slots=True)
class Ended:
    """A child is gone; `code` is as `Popen.returncode` gives it: negative for a signal."""

    child: "Child"
    code: int

    def __str__(self) -> str:
        if self.code < 0:
            return f"the {self.child.name} was ended by {signal.Signals(-self.code).name}"
        return f"the {self.child.name} exited with code {self.code}"


@dataclass(frozen=True, slots=True)
class Signalled:
    """This process was asked to stop."""

    number: int


@dataclass(frozen=True, slots=True)
class Changed:
    """Source files were changed, made or removed."""

    paths: tuple[str, ...]


Event = Ended | Signalled | Changed
#: What happened, in order. SimpleQueue, because its put is allowed inside a signal handler.
Events = SimpleQueue[Event]


class Child:
    """A running child process whose output goes line by line to `output(name, line)`.

    It gets a process group of its own, so that a terminal's Ctrl-C reaches only its parent, which then
    ends its children in the right order. On Linux it is told to stop when its parent dies.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        cwd: Path,
        events: Events,
        output: Callable[[str, str], None],
    ) -> None:
        self.name = name
        self._events = events
        self._output = output
        # Unbuffered, or a child's lines would come in blocks of 8 KiB through the pipe.
        leash = [sys.executable, "-I", "-S", "-c", _LEASH] if sys.platform == "linux" else []
        environment = os.environ | {"PYTHONUNBUFFERED": "1"}
        self._process = subprocess.Popen(
            [*leash, *command],
            cwd=cwd,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            process_group=0,
        )
        self._reader = threading.Thread(target=self._read, name=f"{name} output", daemon=True)
        self._reader.start()
        threading.Thread(target=self._wait, name=f"{name} exit", daemon=True).start()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def stop(self, seconds: float, on_slow: Callable[[], None] | None = None) -> bool:
        """Has it stop: by SIGTERM, by another after `seconds`, by SIGKILL to its group KILL_SECONDS later.

        A worker finishes what runs after the first, and cuts it off after the second. `on_slow` is called
        if it has not stopped within SLOW_SECONDS. Whether it stopped without the SIGKILL.
        """
        slow = min(SLOW_SECONDS, seconds)
        self._process.terminate()
        if self._ends_within(slow):
            return True
        if on_slow is not None:
            on_slow()
        if self._ends_within(seconds - slow):
            return True
        self._process.terminate()
        if self._ends_within(KILL_SECONDS):
            return True
        self.kill()
        return False

    def _ends_within(self, seconds: float) -> bool:
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def kill(self) -> None:
        """Ends it and its group at once."""
        if self.running:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()

    def _read(self) -> None:
        pipe = self._process.stdout
        assert pipe is not None
        with pipe:
            for line in pipe:
                self._output(self.name, line.decode("utf-8", "replace").rstrip("\r\n"))

    def _wait(self) -> None:
        code = self._process.wait()
        self._reader.join(LAST_LINES_SECONDS)
        self._events.put(Ended(self, code))


def broker_command(path: Path, data: Path | None = None) -> list[str]:
    """How to start a broker that listens on a Unix socket; without a `data` folder all is in memory."""
    kept = ["--memory"] if data is None else ["--data", str(data)]
    return [sys.executable, "-m", "chervil_broker", "--unix", str(path), *kept]


def worker_command(app: str, url: str, *options: str) -> list[str]:
    """How to start a worker for an app on the broker at `url`."""
    return [sys.executable, "-m", "chervil_worker", "-A", app, "-b", url, *options]


def listens(path: Path) -> bool:
    """Whether someone accepts connections on a Unix socket; a killed broker leaves its file behind."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(os.fspath(path))
        except OSError:
            return False
    return True


def wait_until_listening(child: Child, path: Path, seconds: float = READY_SECONDS) -> bool:
    """Waits until `child` accepts connections on `path`; False when it died or took too long."""
    deadline = time.monotonic() + seconds
    while child.running and time.monotonic() < deadline:
        if listens(path):
            return True
        time.sleep(0.02)  # a socket file cannot be waited for
    return False


@contextlib.contextmanager
def recorded_signals(events: Events) -> Iterator[None]:
    """While this lasts SIGINT, SIGTERM and SIGHUP end nothing: they are put into `events`."""

    def record(number: int, frame: FrameType | None) -> None:
        events.put(Signalled(number))

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, record) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def next_event(events: Events, timeout: float | None = None) -> Event | None:
    """The next event, or None after `timeout` seconds."""
    try:
        return events.get(timeout=timeout)
    except Empty:
        return None
