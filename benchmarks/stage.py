"""A broker and a worker of this project, as processes in a folder of their own."""

import contextlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import tasks
from chervil.address import BrokerURL, Found
from chervil.client import Client

#: How long a process may take to be there, and a measurement to finish, in seconds.
START_SECONDS = 20.0
FINISH_SECONDS = 120.0


class Stage:
    """One broker, and workers when asked for; everything ends with `stage`."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self.url = url
        self.stamps = folder / "stamps"
        self.stamps.mkdir()
        tasks.app.conf.broker_url = self.url
        self.client = Client(Found(BrokerURL.parse(self.url), "benchmark"), name="bench")

    def report(self) -> dict[str, Any]:
        return self.client.stats()

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


@contextlib.contextmanager
def stage(folder: Path, *flags: str) -> Iterator[Stage]:
    """A fresh broker in memory mode on loopback TCP, as it is by default."""
    folder.mkdir()
    os.environ["XDG_STATE_HOME"] = str(folder)
    log = folder / "broker.log"
    command = [sys.executable, "-m", "chervil_broker", "--bind", "127.0.0.1:0", "--memory", *flags]
    with _process(command, dict(os.environ), log):
        yield Stage(folder, _url_said_in(log))


def _url_said_in(log: Path) -> str:
    """The URL in the line by which a broker says that it is ready."""
    deadline = time.monotonic() + START_SECONDS
    while (found := re.search(r"ready on (chervil://[\d.:]+)", log.read_text())) is None:
        if time.monotonic() > deadline:
            raise TimeoutError(log.read_text())
        time.sleep(0.01)
    return found[1]


@contextlib.contextmanager
def _process(command: list[str], environment: dict[str, str], log: Path) -> Iterator[None]:
    with log.open("ab") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environment)
    try:
        yield
    finally:
        process.terminate()
        process.wait(START_SECONDS)
