"""Real processes for end-to-end tests: started, watched through their output, always ended."""

import contextlib
import json
import os
import queue
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from chervil import Chervil
from tests.faults.proxy import Proxy

ROOT = Path(__file__).parent.parent.parent
DEADLINE = 20.0
#: For what takes heartbeats and graces as long as they really are: part of `make test`, but not of CI.
REAL_TIME = pytest.mark.skipif("CI" in os.environ, reason="takes two heartbeats and more of real time")


class Process:
    """A process whose output lines can be waited for."""

    def __init__(self, name: str, command: list[str], cwd: Path, **environment: str) -> None:
        self.name = name
        self.output: list[str] = []
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self.popen = subprocess.Popen(
            command,
            cwd=cwd,
            env=os.environ | {"PYTHONUNBUFFERED": "1"} | environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.popen.stdout is not None
        for line in self.popen.stdout:
            self._lines.put(line.rstrip("\n"))
        self._lines.put(None)

    def wait_for(self, text: str, deadline: float = DEADLINE) -> str:
        """The next line that contains `text`; fails with all output when it does not come."""
        end = time.monotonic() + deadline
        while True:
            try:
                line = self._lines.get(timeout=max(0.01, end - time.monotonic()))
            except queue.Empty:
                raise AssertionError(
                    f"{self.name} did not say {text!r}:\n" + "\n".join(self.output)
                ) from None
            if line is None:
                raise AssertionError(f"{self.name} ended without saying {text!r}:\n" + "\n".join(self.output))
            self.output.append(line)
            if text in line:
                return line

    def signal(self, number: int) -> None:
        self.popen.send_signal(number)

    def ended(self, deadline: float = DEADLINE) -> int:
        """Its exit code, once it has ended."""
        code = self.popen.wait(deadline)
        self._reader.join(deadline)
        while True:
            line = self._lines.get()
            if line is None:
                return code
            self.output.append(line)

    def stop(self) -> None:
        if self.popen.poll() is None:
            self.popen.terminate()
            try:
                self.popen.wait(DEADLINE)
            except subprocess.TimeoutExpired:
                self.popen.kill()
                self.popen.wait(DEADLINE)
        self._reader.join(DEADLINE)
        if self.popen.stdout is not None:
            self.popen.stdout.close()


class Stage:
    """Starts brokers and workers in one folder; `app` publishes to its broker from the test's process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = f"chervil+unix://{folder}/broker.sock"
        self._stack = contextlib.ExitStack()
        self._workers: list[Process] = []

    def run(self, name: str, command: list[str], **environment: str) -> Process:
        process = Process(name, [sys.executable, "-m", *command], self.folder, **environment)
        self._stack.callback(process.stop)
        return process

    def broker(self, *flags: str, module: str = "chervil_broker", memory: bool = True) -> Process:
        kept = ["--memory"] if memory else []
        command = [module, *kept, "--unix", str(self.folder / "broker.sock"), *flags]
        broker = self.run("broker", command, PYTHONPATH=str(ROOT))
        broker.wait_for("ready")
        return broker

    def worker(
        self,
        *flags: str,
        app: str = "tests.e2e.tasks",
        url: str | None = None,
        settings: dict[str, Any] | None = None,
    ) -> Process:
        """A worker that has subscribed. `settings` are its app's."""
        command = ["chervil_worker", "-A", app, "-b", url or self.url, "-l", "INFO", *flags]
        worker = self.run(
            "worker",
            command,
            PYTHONPATH=str(ROOT),
            E2E_FOLDER=str(self.folder),
            E2E_SETTINGS=json.dumps(settings or {}),
        )
        self._workers.append(worker)
        worker.wait_for("queues ")
        return worker

    def stop_workers(self) -> None:
        """Ends all workers that have not ended."""
        for worker in list(self._workers):
            worker.stop()

    def proxy(self) -> Proxy:
        """A fault proxy before the broker, on TCP."""
        return self._stack.enter_context(Proxy(("127.0.0.1", 0), f"{self.folder}/broker.sock"))

    def app(self, url: str | None = None) -> Chervil:
        from tests.e2e import tasks

        tasks.app.conf.broker_url = url or self.url
        self._stack.callback(tasks.app.client.close)
        return tasks.app

    def fifo(self, *names: str) -> None:
        for name in names:
            os.mkfifo(self.folder / name)

    def read_pid(self, name: str) -> int:
        """The pid that a task tells through a FIFO; opening it waits for the task."""
        with (self.folder / name).open() as fifo:
            return int(fifo.readline())

    def lines(self, name: str) -> list[str]:
        """What tasks have told in a file so far."""
        path = self.folder / name
        return path.read_text().splitlines() if path.exists() else []

    def close(self) -> None:
        # Workers first: without a broker they cannot tell what became of their tasks.
        self.stop_workers()
        self._stack.close()


@contextlib.contextmanager
def staged(folder: Path) -> Iterator[Stage]:
    stage = Stage(folder)
    try:
        yield stage
    finally:
        stage.close()


def alive(pid: int) -> bool:
    """Whether a process that is no child of ours runs (a zombie does not)."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def wait_until_gone(pids: list[int], deadline: float) -> list[int]:
    """Those of the processes that still run after `deadline` seconds."""
    end = time.monotonic() + deadline
    left = pids
    while left and time.monotonic() < end:
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                handle = os.pidfd_open(pid)
                try:
                    select.select([handle], [], [], max(0.0, end - time.monotonic()))
                finally:
                    os.close(handle)
        left = [pid for pid in left if alive(pid)]
    return left


def until(holds: Callable[[], object], what: str, deadline: float = DEADLINE) -> None:
    """Waits for what nobody can be told of; `what` is for the failure's message."""
    end = time.monotonic() + deadline
    while not holds():
        assert time.monotonic() < end, f"not within {deadline:g} s: {what}"
        time.sleep(0.02)


KILL = signal.SIGKILL
