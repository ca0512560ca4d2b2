"""`chervil dev`, with small programs in the place of broker and worker."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import Empty, SimpleQueue

import pytest

from chervil.cli.common import Common
from chervil.cli.dev import Session, socket_path
from chervil.cli.processes import SOCKET_PATH_MAX
from tests.client.cli.conftest import Ran

DEADLINE = 30.0

#: `dev` with its two commands replaced: the broker listens, the worker does what worker.txt says.
STAND_INS = """
import sys
from chervil.cli import dev, processes
from chervil.cli.main import main
BROKER = '''
import signal, socket, sys
s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen(); print("listening")
signal.signal(signal.SIGTERM, lambda *_: sys.exit(print("broker stopped")))
while True: signal.pause()
'''
WORKER = '''
import os, signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(print("worker stopped")))
print("working", *sys.argv[1:])
exec(open("worker.txt").read())
while True: signal.pause()
'''
dev.broker_command = lambda path: [sys.executable, "-c", open("broker.txt").read() or BROKER, str(path)]
dev.worker_command = lambda app, url, *options: [sys.executable, "-c", WORKER, app, url, *options]
dev.STOP_SECONDS = 1.2
processes.KILL_SECONDS = 0.5
main(sys.argv[1:])
"""

#: `dev` as it is, but in more of a hurry.
HASTY = """
import sys
from chervil.cli import dev
from chervil.cli.main import main
dev.STOP_SECONDS = 0.2
main(sys.argv[1:])
"""

LONG_TASK = """
import time
from chervil import Chervil
app = Chervil("tasks")
@app.task
def rest(): print("resting", flush=True); time.sleep(100)
"""


class Dev:
    """A running `chervil dev`, and what it prints."""

    def __init__(self, *argv: str, code: str = STAND_INS) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, *argv],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
        )
        self.lines: list[str] = []
        self._queue: SimpleQueue[str] = SimpleQueue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout:
            for line in self.process.stdout:
                self._queue.put(line.rstrip())

    def until(self, text: str) -> str:
        """The next line that holds `text`."""
        deadline = time.monotonic() + DEADLINE
        while True:
            try:
                line = self._queue.get(timeout=max(deadline - time.monotonic(), 0))
            except Empty:
                raise AssertionError(f"no {text!r} in {json.dumps(self.lines, indent=1)}") from None
            self.lines.append(line)
            if text in line:
                return line

    def end(self, number: int) -> int:
        self.process.send_signal(number)
        return self.code()

    def code(self) -> int:
        code = self.process.wait(DEADLINE)
        self._reader.join()
        while not self._queue.empty():
            self.lines.append(self._queue.get())
        return code


@pytest.fixture
def dev() -> Iterator[Callable[..., Dev]]:
    for name in ("broker.txt", "worker.txt", "tasks.py"):
        Path(name).write_text("")
    running: list[Dev] = []

    def start(*argv: str, code: str = STAND_INS) -> Dev:
        running.append(Dev(*(argv or ("-A", "tasks", "dev")), code=code))
        return running[-1]

    yield start
    for one in running:
        one.end(signal.SIGTERM)


def test_one_ctrl_c_stops_the_worker_and_then_the_broker(dev: Callable[..., Dev]) -> None:
    running = dev()
    url = f"chervil+unix://{Path.cwd()}/.chervil/broker.sock"
    assert running.until("working") == f"worker | working tasks {url} -v"
    assert running.end(signal.SIGINT) == 130
    assert running.lines[-2:] == ["worker | worker stopped", "broker | broker stopped"]


def test_sigterm_is_an_orderly_end(dev: Callable[..., Dev]) -> None:
    running = dev()
    running.until("working")
    assert running.end(signal.SIGTERM) == 0


def test_worker_options_are_handed_on(dev: Callable[..., Dev]) -> None:
    running = dev("dev", "-A", "tasks", "-c", "3", "-Q", "a,b", "-vv")
    assert running.until("working").endswith("-c 3 -Q a,b -v -v")


def test_quiet_is_handed_on(dev: Callable[..., Dev]) -> None:
    assert dev("-q", "dev", "-A", "tasks").until("working").endswith(" -q")


def test_second_dev_of_a_folder_adds_a_worker_to_the_first(dev: Callable[..., Dev]) -> None:
    first = dev()
    first.until("working")
    second = dev()
    assert "runs in this folder already" in second.until("dev    |")
    assert f"-n worker-{second.process.pid}@%h" in second.until("working")
    assert second.end(signal.SIGINT) == 130
    assert not any("broker stopped" in line for line in second.lines)
    assert first.process.poll() is None


def test_changed_source_restarts_the_worker_alone(dev: Callable[..., Dev]) -> None:
    running = dev()
    running.until("working")
    Path("tasks.py").write_text("x = 1\n")
    assert "tasks.py changed: restarting" in running.until("changed")
    running.until("worker stopped")
    running.until("working")
    assert not any("broker stopped" in line for line in running.lines)


def test_no_reload_leaves_the_worker_alone(dev: Callable[..., Dev]) -> None:
    running = dev("-A", "tasks", "dev", "--no-reload")
    running.until("working")
    assert running.end(signal.SIGINT) == 130
    assert not any("reloads" in line for line in running.lines)


def test_worker_that_cannot_import_waits_for_a_change(dev: Callable[..., Dev]) -> None:
    Path("worker.txt").write_text("sys.exit(2)")
    running = dev()
    assert "worker exited with code 2; waiting for a .py file" in running.until("exited")
    Path("worker.txt").write_text("")
    Path("tasks.py").write_text("mended = True\n")
    running.until("working")


def test_worker_that_dies_stops_the_rest_and_is_named(dev: Callable[..., Dev]) -> None:
    Path("worker.txt").write_text("os.kill(os.getpid(), signal.SIGKILL)")
    running = dev()
    assert running.code() == 1
    assert "dev    | the worker was ended by SIGKILL; stopping" in running.lines
    assert running.lines[-1] == "broker | broker stopped"


def test_broker_that_dies_stops_the_rest_and_is_named(dev: Callable[..., Dev]) -> None:
    Path("broker.txt").write_text(
        "import socket, sys, time\n"
        "s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen()\n"
        "s.accept(); s.accept(); sys.exit(7)"
    )
    Path("worker.txt").write_text(
        "import socket; socket.socket(socket.AF_UNIX).connect('.chervil/broker.sock')"
    )
    running = dev()
    assert running.code() == 1
    assert "dev    | the broker exited with code 7; stopping" in running.lines
    assert running.lines[-1] == "worker | worker stopped"


def test_broker_that_never_listens_is_shown_with_its_lines(dev: Callable[..., Dev]) -> None:
    Path("broker.txt").write_text("print('no room left'); raise SystemExit(3)")
    running = dev()
    assert running.code() == 1
    assert "broker | no room left" in running.lines
    assert any("the broker does not answer" in line for line in running.lines)


def test_worker_that_does_not_stop_is_killed_and_that_is_said(dev: Callable[..., Dev]) -> None:
    Path("worker.txt").write_text("signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf')")
    running = dev()
    running.until("deaf")
    assert running.end(signal.SIGINT) == 130
    assert "dev    | a task still runs: in 0.2 s it is cut off" in running.lines
    assert "dev    | the worker did not stop when asked twice, and was killed" in running.lines


def test_worker_that_is_busy_is_asked_twice_and_the_saver_is_told(dev: Callable[..., Dev]) -> None:
    Path("worker.txt").write_text(
        "def busy(*_):\n"
        "    signal.signal(signal.SIGTERM, lambda *_: sys.exit(print('worker cut it off')))\n"
        "signal.signal(signal.SIGTERM, busy)"
    )
    running = dev()
    running.until("working")
    Path("tasks.py").write_text("x = 1\n")
    assert running.until("a task still runs").endswith(
        ": in 0.2 s it is cut off and runs again, unless it is acks_late=False"
    )
    running.until("worker cut it off")
    running.until("working")
    assert not any("killed" in line for line in running.lines)


@pytest.mark.e2e
def test_saving_costs_a_long_task_no_attempt_however_often(
    dev: Callable[..., Dev], chervil: Callable[..., Ran]
) -> None:
    Path("tasks.py").write_text(LONG_TASK)
    running = dev(code=HASTY)
    running.until("runs tasks (")
    url = f"chervil+unix://{Path.cwd()}/.chervil/broker.sock"
    task_id = chervil("-b", url, "call", "tasks.rest").out.strip()
    for save in range(3):
        running.until("resting")
        Path("tasks.py").write_text(f"{LONG_TASK}# {save}\n")
        running.until("restarting the worker")
    running.until("resting")
    story = json.loads(chervil("-b", url, "why", task_id, "--json").out)
    assert (story["attempts"], story["stage"]) == (0, "STARTED")
    assert [event["event"] for event in story["events"]].count("released") == 3


def test_its_own_words_are_wrapped_beside_who_says_them(
    screen: Callable[[int], None], capsys: pytest.CaptureFixture[str]
) -> None:
    screen(80)
    session = Session(Common(color=False), Path("broker.sock"), [])
    session._say(
        "a dev runs in this folder already: adding a worker to its broker, chervil+unix:///home/me/x"
    )
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("dev    | a dev runs")
    assert second.startswith("         ")
    assert max(len(first), len(second)) <= 80


def test_without_an_app_it_says_what_to_type(chervil: Callable[..., Ran]) -> None:
    ran = chervil("dev")
    assert ran.code == 2
    assert "chervil -A tasks dev" in ran.err


def test_folder_is_made_and_hidden_from_git(tmp_path: Path) -> None:
    assert socket_path(tmp_path) == tmp_path / ".chervil" / "broker.sock"
    assert (tmp_path / ".chervil" / ".gitignore").read_text() == "*\n"
    (tmp_path / ".chervil" / ".gitignore").write_text("mine")
    socket_path(tmp_path)
    assert (tmp_path / ".chervil" / ".gitignore").read_text() == "mine"


def test_path_that_is_too_long_for_a_socket_says_what_to_do(
    chervil: Callable[..., Ran], tmp_path: Path
) -> None:
    deep = tmp_path / ("d" * SOCKET_PATH_MAX)
    deep.mkdir()
    ran = chervil("-A", "tasks", "--workdir", str(deep), "dev")
    assert ran.code == 2
    assert "Move the project to a shorter path, or use TCP" in ran.err
    assert not (deep / ".chervil").exists()
