"""Broker and worker as systemd has them: sockets passed, words heard, and nothing of it left to children."""

import contextlib
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.stage import DEADLINE, ROOT, Stage, staged

pytestmark = pytest.mark.e2e


class Manager:
    """Stands where systemd would: hears what services say."""

    def __init__(self, path: Path) -> None:
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._sock.bind(str(path))
        self.heard: list[str] = []
        #: What services are started with; the watchdog is to be answered every 100 ms.
        self.environment = {"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": "200000"}

    def wait_for(self, word: str) -> str:
        """The next message that has a line which begins with `word`."""
        end = time.monotonic() + DEADLINE
        while (left := end - time.monotonic()) > 0:
            self._sock.settimeout(left)
            with contextlib.suppress(TimeoutError):
                self.heard.append(self._sock.recv(4096).decode())
                if any(line.startswith(word) for line in self.heard[-1].split("\n")):
                    return self.heard[-1]
        raise AssertionError(f"{word} was not said; heard: {self.heard}")

    def close(self) -> None:
        self._sock.close()


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with staged(tmp_path) as stage:
        yield stage


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    with contextlib.closing(Manager(tmp_path / "notify")) as manager:
        yield manager


def test_a_broker_serves_the_socket_that_it_was_passed_and_leaves_its_file(stage, manager):
    path = stage.folder / "broker.sock"
    broker = stage.run(
        "broker",
        ["tests.deploy.activate", str(path), "--memory"],
        PYTHONPATH=str(ROOT),
        **manager.environment,
    )
    assert manager.wait_for("READY=1") == f"READY=1\nSTATUS=ready on chervil+unix://{path}"
    assert stage.app().client.stats()["durability"] == "memory"
    for _ in range(3):
        manager.wait_for("WATCHDOG=1")
    broker.signal(signal.SIGTERM)
    manager.wait_for("STOPPING=1")
    assert broker.ended() == 0
    # Beside the passed one it had no address: the default was not asked for.
    assert not [line for line in broker.output if "2437" in line]
    assert path.is_socket()


APP = """
import os
from chervil import Chervil
app = Chervil("managed")
@app.task
def inherited() -> list[str]:
    return sorted({"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"} & set(os.environ))
"""


def test_a_worker_is_ready_when_the_broker_has_welcomed_it(stage, manager):
    (stage.folder / "managed.py").write_text(APP)
    worker = stage.run(
        "worker",
        ["chervil_worker", "-A", "managed", "-b", stage.url, "-c", "1"],
        **manager.environment,
    )
    manager.wait_for(f"STATUS=trying to reach the broker at {stage.url}: ")
    manager.wait_for("WATCHDOG=1")
    assert not any("READY=1" in message for message in manager.heard)
    stage.broker()
    assert manager.wait_for("READY=1") == f"READY=1\nSTATUS=connected to {stage.url}"
    assert stage.app().send_task("managed.inherited").get(timeout=DEADLINE) == []
    worker.signal(signal.SIGTERM)
    assert manager.wait_for("STOPPING=1") == "STOPPING=1\nSTATUS=finishing what runs (tasks: 0)"
    assert worker.ended() == 0
