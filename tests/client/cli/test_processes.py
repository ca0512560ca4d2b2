"""Child processes: their output, their end, and ours."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from chervil.cli import processes
from chervil.cli.processes import (
    Child,
    Ended,
    Events,
    Signalled,
    broker_command,
    listens,
    next_event,
    recorded_signals,
    wait_until_listening,
    worker_command,
)

DEADLINE = 20.0

LISTEN = "import socket, signal, sys; s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen(); print('ready'); signal.pause()"
STUBBORN = (
    "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf')\nwhile True: signal.pause()"
)

#: Goes on after a first SIGTERM, and ends in order after a second.
BUSY = """
import signal, sys
def stop(*_):
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))
    print("once more cuts it off")
signal.signal(signal.SIGTERM, stop); print("busy")
while True: signal.pause()
"""

PARENT = """
import signal, sys
from pathlib import Path
from chervil.cli.processes import Child, Events
show = lambda name, line: print(line, flush=True)
child = Child('x', [sys.executable, '-c', sys.argv[1], 's'], Path.cwd(), Events(), show)
signal.pause()
"""


class Starter:
    """Starts Python one-liners as children, collects what they say, ends what is left."""

    def __init__(self, folder: Path) -> None:
        self.events = Events()
        self.lines: list[tuple[str, str]] = []
        self.folder = folder
        self._said = Events()
        self._children: list[Child] = []

    def __call__(self, code: str, *args: str) -> Child:
        child = Child("child", [sys.executable, "-c", code, *args], self.folder, self.events, self.hear)
        self._children.append(child)
        return child

    def hear(self, name: str, line: str) -> None:
        self.lines.append((name, line))
        self._said.put(Signalled(0))

    def wait_for_a_line(self) -> None:
        assert next_event(self._said, DEADLINE) is not None

    def end_all(self) -> None:
        for child in self._children:
            child.kill()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Starter]:
    starter = Starter(tmp_path)
    yield starter
    starter.end_all()


def test_output_comes_line_by_line_and_all_of_it_before_the_end(start: Starter) -> None:
    child = start("import sys; print('one'); print('tw\\u00f6', file=sys.stderr); sys.exit(3)")
    assert next_event(start.events, DEADLINE) == Ended(child, 3)
    assert start.lines == [("child", "one"), ("child", "twö")]


@pytest.mark.parametrize(
    ("code", "words"), [(2, "the child exited with code 2"), (-9, "the child was ended by SIGKILL")]
)
def test_an_end_is_told_in_words(start: Starter, code: int, words: str) -> None:
    assert str(Ended(start("pass"), code)) == words


def test_stop_asks_and_waits(start: Starter) -> None:
    child = start(LISTEN, "s")
    start.wait_for_a_line()
    assert child.stop(DEADLINE)
    assert not child.running
    assert next_event(start.events, DEADLINE) == Ended(child, -signal.SIGTERM)


def test_stop_asks_who_is_busy_a_second_time_and_kills_nothing(start: Starter) -> None:
    child = start(BUSY)
    start.wait_for_a_line()
    slow: list[str] = []
    assert child.stop(0.2, lambda: slow.append("still runs"))
    assert next_event(start.events, DEADLINE) == Ended(child, 3)
    assert start.lines[-1] == ("child", "once more cuts it off")
    assert slow == ["still runs"]


def test_stop_kills_who_does_not_listen_after_a_further_grace(
    start: Starter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "KILL_SECONDS", 0.2)
    child = start(STUBBORN)
    start.wait_for_a_line()
    before = time.monotonic()
    assert not child.stop(0.1)
    assert time.monotonic() - before >= 0.3
    assert next_event(start.events, DEADLINE) == Ended(child, -signal.SIGKILL)


def test_stop_of_one_that_has_ended_is_nothing(start: Starter) -> None:
    child = start("pass")
    next_event(start.events, DEADLINE)
    assert child.stop(DEADLINE)
    child.kill()


def test_a_child_is_no_member_of_our_process_group(start: Starter) -> None:
    child = start(LISTEN, "s")
    start.wait_for_a_line()
    assert os.getpgid(child.pid) == child.pid != os.getpgrp()


@pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")
def test_a_child_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT, LISTEN], cwd=tmp_path, stdout=subprocess.PIPE)
    assert parent.stdout is not None
    assert parent.stdout.readline() == b"ready\n"
    assert listens(tmp_path / "s")
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + DEADLINE
    while listens(tmp_path / "s"):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_socket_listens_only_while_someone_accepts(tmp_path: Path) -> None:
    path = tmp_path / "s"
    assert not listens(path)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        assert listens(path)
    assert path.exists()
    assert not listens(path)


def test_waiting_for_a_socket_ends_when_it_is_there(start: Starter) -> None:
    assert wait_until_listening(start(LISTEN, "s"), start.folder / "s", DEADLINE)


def test_waiting_for_a_socket_ends_when_the_child_dies(start: Starter) -> None:
    before = time.monotonic()
    assert not wait_until_listening(start("pass"), start.folder / "s", DEADLINE)
    assert time.monotonic() - before < DEADLINE / 2


def test_waiting_for_a_socket_ends_after_its_time(start: Starter) -> None:
    assert not wait_until_listening(start(STUBBORN), start.folder / "s", 0.1)


def test_signals_become_events_and_end_nothing() -> None:
    events = Events()
    before = signal.getsignal(signal.SIGTERM)
    with recorded_signals(events):
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.raise_signal(number)
            assert next_event(events, DEADLINE) == Signalled(number)
    assert signal.getsignal(signal.SIGTERM) is before
    assert next_event(events, 0.0) is None


def test_the_commands_are_this_pythons() -> None:
    assert broker_command(Path("/x/s")) == [
        sys.executable, "-m", "chervil_broker", "--unix", "/x/s", "--memory",
    ]  # fmt: skip
    assert broker_command(Path("/x/s"), Path("/x/d"))[-2:] == ["--data", "/x/d"]
    assert worker_command("tasks", "chervil://h:1", "-c", "2") == [
        sys.executable, "-m", "chervil_worker", "-A", "tasks", "-b", "chervil://h:1", "-c", "2",
    ]  # fmt: skip
