"""A broker and a worker of this project, as processes in a folder of their own."""

import contextlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from benchmarks import tasks
from chervil.address import BrokerURL, Found
from chervil.client import Client

#: How long a process may take to be there, and a measurement to finish, in seconds.
START_SECONDS = 60.0
FINISH_SECONDS = 120.0

#: What the broker keeps: nothing, or everything before it is confirmed (`--fsync always`).
Durability = Literal["memory", "always"]


class Stage:
    """One broker, and workers when asked for; everything ends with `Setting.stage`."""

    def __init__(self, folder: Path, url: str, broker: "subprocess.Popen[bytes]") -> None:
        self.folder = folder
        self.url = url
        self.pid = broker.pid
        self._broker = broker
        self.stamps = folder / "stamps"
        self.stamps.mkdir(exist_ok=True)
        tasks.app.conf.broker_url = self.url
        self.client = Client(Found(BrokerURL.parse(self.url), "benchmark"), name="bench")

    def report(self) -> dict[str, Any]:
        return self.client.stats()

    def kill(self) -> None:
        """`kill -9`: the broker has no time for last words. What it kept is there for the next one."""
        self._broker.kill()
        self._broker.wait()

    @contextlib.contextmanager
    def worker(self, concurrency: int = 2, *flags: str) -> Iterator[None]:
        """A worker that consumes while the block runs."""
        command = [sys.executable, "-m", "chervil_worker", "-A", "benchmarks.tasks:app", "-b", self.url]
        environment = os.environ | {tasks.STAMPS_FOLDER: str(self.stamps)}
        with _process([*command, "-c", str(concurrency), *flags], environment, self.folder / "worker.log"):
            yield

    def wait_until(self, what: str, done: Any) -> None:
        """Asks the broker until `done(report)`; raises TimeoutError naming what was waited for."""
        deadline = time.monotonic() + FINISH_SECONDS
        while not done(self.report()):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{what} did not happen within {FINISH_SECONDS} s: {self.report()}")
            time.sleep(0.05)


class Setting:
    """Where a figure is taken: a folder of its own on a disk, and what its broker keeps."""

    def __init__(self, folder: Path, durability: Durability) -> None:
        self.folder = folder
        self.durability: Durability = durability
        #: What the broker said of itself when the figure was taken (STATS).
        self.report: dict[str, Any] = {}

    @contextlib.contextmanager
    def stage(self) -> Iterator[Stage]:
        """A broker on loopback TCP, as by default. After one that was killed it has what that one kept."""
        self.folder.mkdir(exist_ok=True)
        os.environ["XDG_STATE_HOME"] = str(self.folder)
        log = self.folder / "broker.log"
        log.unlink(missing_ok=True)
        command = [sys.executable, "-m", "chervil_broker", "--bind", "127.0.0.1:0"]
        # Nothing of this rests on a default: tables say what they compare.
        if self.durability == "memory":
            command += ["--memory"]
        else:
            command += ["--data", str(self.folder / "data"), "--fsync", self.durability]
        with _process(command, dict(os.environ), log) as broker:
            here = Stage(self.folder, _url_said_in(log), broker)
            yield here
            if broker.poll() is None:
                self.report = here.report()
            here.client.close()


def _url_said_in(log: Path) -> str:
    """The URL in the line by which a broker says that it is ready."""
    deadline = time.monotonic() + START_SECONDS
    while (found := re.search(r"ready on (chervil://[\d.:]+)", log.read_text())) is None:
        if time.monotonic() > deadline:
            raise TimeoutError(log.read_text())
        time.sleep(0.01)
    return found[1]


@contextlib.contextmanager
def _process(
    command: list[str], environment: dict[str, str], log: Path
) -> Iterator["subprocess.Popen[bytes]"]:
    with log.open("ab") as output:
        started = subprocess.Popen(command, stdout=output, stderr=output, env=environment)
    try:
        yield started
    finally:
        started.terminate()
        started.wait(START_SECONDS)
