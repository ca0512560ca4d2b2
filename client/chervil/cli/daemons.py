"""The broker and the worker of `chervil demo`."""

import shutil
import tempfile
import time
from collections import deque
from pathlib import Path
from typing import NoReturn

import click

from chervil.address import BrokerURL, Found
from chervil.cli import demo_tasks
from chervil.cli.processes import (
    STOP_SECONDS,
    Child,
    Events,
    broker_command,
    wait_until_listening,
    worker_command,
)

#: The worker's child processes: with one, nothing would be seen to run side by side.
SLOTS = 2

#: Output lines of broker and worker that are kept, to be shown if something goes wrong.
_LINES_KEPT = 40


class Daemons:
    """A broker and a worker in a temporary folder; both are gone, and the folder too, when it is left."""

    def __init__(self, *, durable: bool = False) -> None:
        """A `durable` broker has a journal in the folder, and may be killed."""
        self.folder = Path(tempfile.mkdtemp(prefix="chervil-demo-"))
        self._socket = self.folder / "broker.sock"
        self._data = self.folder / "data" if durable else None
        #: By name, in the order of their start.
        self._children: dict[str, Child] = {}
        self._lines: deque[str] = deque(maxlen=_LINES_KEPT)

    def __enter__(self) -> "Daemons":
        try:
            self._start_broker()
            url = BrokerURL("chervil+unix", path=str(self._socket))
            demo_tasks.app.use_broker(Found(url, "chervil demo"))
            self._start_worker()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        demo_tasks.app.close()
        for child in reversed(self._children.values()):
            child.stop(STOP_SECONDS)
        shutil.rmtree(self.folder, ignore_errors=True)

    def kill_broker(self) -> float:
        """kill -9, and at once another on the same folder; the seconds until that one answers."""
        self._children["broker"].kill()
        began = time.monotonic()
        self._start_broker()
        return time.monotonic() - began

    def kill_worker(self) -> None:
        """kill -9 of it and its processes, and at once another one."""
        self._children["worker"].kill()
        self._start_worker()

    def check(self) -> None:
        """Gives up if one of them is gone."""
        for child in self._children.values():
            if not child.running:
                self.give_up(f"the {child.name} is gone")

    def give_up(self, why: str) -> NoReturn:
        lines = "\n".join(self._lines)
        raise click.ClickException(
            f"the demo does not work here: {why}. What broker and worker said:\n{lines}"
        )

    def _start_broker(self) -> None:
        broker = self._start("broker", broker_command(self._socket, self._data))
        if not wait_until_listening(broker, self._socket):
            self.give_up("the broker does not answer")

    def _start_worker(self) -> None:
        url = BrokerURL("chervil+unix", path=str(self._socket))
        self._start("worker", worker_command(demo_tasks.__name__, str(url), "-c", str(SLOTS)))

    def _start(self, name: str, command: list[str]) -> Child:
        # Nothing waits for events here: who is gone is noticed when results stay out.
        child = Child(name, command, self.folder, Events(), self._keep)
        self._children[name] = child
        return child

    def _keep(self, name: str, line: str) -> None:
        self._lines.append(f"{name} | {line}")
