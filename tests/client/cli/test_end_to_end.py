"""The verbs against real brokers and workers, as a person would type them."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from chervil.cli.processes import Child, Events, broker_command, wait_until_listening
from chervil.protocol import to_text

pytestmark = pytest.mark.e2e

DEADLINE = 30.0

TASKS = """
import time
from chervil import Chervil
app = Chervil("tasks")
@app.task
def add(x, y): return x + y
@app.task
def fail(why): raise ValueError(why)
"""


def chervil(*argv: str, timeout: float = DEADLINE) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "chervil.cli", *argv],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


@pytest.fixture
def broker() -> Iterator[str]:
    """The URL of a broker of our own, on a socket in the working folder."""
    path = Path.cwd() / "b.sock"
    lines: list[str] = []
    child = Child("broker", broker_command(path), Path.cwd(), Events(), lambda _, line: lines.append(line))
    assert wait_until_listening(child, path), lines
    yield f"chervil+unix://{path}"
    assert child.stop(DEADLINE)


@pytest.fixture
def dev() -> Iterator[subprocess.Popen[str]]:
    """A running `chervil dev` on TASKS; its worker is ready once a task has run."""
    Path("tasks.py").write_text(TASKS)
    running = subprocess.Popen(
        [sys.executable, "-m", "chervil.cli", "-A", "tasks", "dev", "-c", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    deadline = time.monotonic() + DEADLINE
    while chervil("health").returncode:
        assert time.monotonic() < deadline
    yield running
    if running.poll() is None:
        running.send_signal(signal.SIGINT)
    running.communicate(timeout=DEADLINE)


def test_health_of_a_real_broker(broker: str) -> None:
    ran = chervil("health", "-b", broker)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith(f"ok: {broker}, Chervil ")


def test_calls_wait_are_seen_in_status_and_are_purged(broker: str) -> None:
    ran = chervil("-b", broker, "call", "far.away", "-1", "--queue", "mail")
    task_id = ran.stdout.strip()
    assert (ran.returncode, len(task_id)) == (0, len(to_text(bytes(16))))
    assert chervil("-b", broker, "result", task_id).returncode == 124
    assert chervil("-b", broker, "result", "no-such-id").returncode == 69
    shown = chervil("-b", broker, "status")
    assert shown.stderr.startswith("Warning: queue 'mail'")
    assert "no worker consumes it" in shown.stdout
    report = json.loads(chervil("-b", broker, "status", "--json").stdout)
    assert [(q["name"], q["ready"]) for q in report["queues"]] == [("mail", 1)]
    assert chervil("-b", broker, "purge", "-f").stdout == "Purged 1 task.\n"
    assert chervil("-b", broker, "result", task_id).returncode == 1


def test_waiting_in_vain_is_explained_and_times_out(broker: str) -> None:
    ran = chervil("-b", broker, "call", "far.away", "--wait", "--timeout", "2.2")
    assert ran.returncode == 124
    assert "no worker consumes 'default'; start one: chervil -A MODULE worker" in ran.stderr


def test_a_lost_broker_is_told_at_once_and_ctrl_c_ends_the_wait() -> None:
    path = Path.cwd() / "b.sock"
    child = Child("broker", broker_command(path), Path.cwd(), Events(), lambda *_: None)
    assert wait_until_listening(child, path)
    url = f"chervil+unix://{path}"
    task_id = chervil("-b", url, "call", "far.away").stdout.strip()
    command = [sys.executable, "-m", "chervil.cli", "-b", url, "result", task_id, "--wait"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as waiting:
        assert waiting.stderr is not None
        assert "no worker consumes" in waiting.stderr.readline()
        assert child.stop(DEADLINE)
        assert waiting.stderr.readline() == f"lost the broker at {url}; trying again until it is back\n"
        waiting.send_signal(signal.SIGINT)
        assert waiting.wait(DEADLINE) == 130
        assert "Traceback" not in waiting.stderr.read()


def test_first_run_of_the_readme(dev: subprocess.Popen[str]) -> None:
    ran = chervil("-A", "tasks", "call", "tasks.add", "2", "3", "--wait")
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "5\n", "")
    assert chervil("-A", "tasks", "call", "tasks.add", "-2", "y=3", "--wait").stdout == "1\n"
    status = chervil("status").stdout
    assert "WORKER" in status
    dev.send_signal(signal.SIGINT)
    out, _ = dev.communicate(timeout=DEADLINE)
    assert dev.returncode == 130
    assert not Path(".chervil/broker.sock").exists(), out


def test_a_failed_task_shows_its_own_traceback(dev: subprocess.Popen[str]) -> None:
    ran = chervil("-A", "tasks", "call", "tasks.fail", "because", "--wait")
    assert (ran.returncode, ran.stdout) == (1, "")
    assert "raise ValueError(why)" in ran.stderr
    assert "ValueError: because" in ran.stderr


def test_changed_code_is_what_runs_next(dev: subprocess.Popen[str]) -> None:
    assert chervil("-A", "tasks", "call", "tasks.add", "2", "3", "--wait").stdout == "5\n"
    Path("tasks.py").write_text(TASKS.replace("x + y", "x * y"))
    deadline = time.monotonic() + DEADLINE
    while chervil("-A", "tasks", "call", "tasks.add", "2", "3", "--wait").stdout != "6\n":
        assert time.monotonic() < deadline


def test_demo_parses_measures_and_leaves_nothing(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "chervil.cli", "demo", "--json"],
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
        env=os.environ | {"TMPDIR": str(tmp_path)},
    )
    assert ran.returncode == 0, ran.stderr
    shown = json.loads(ran.stdout)
    assert shown["files"] > 300
    assert len(shown["longest"]) == 10
    assert shown["tasks_per_second"] > 100
    assert list(tmp_path.glob("chervil-demo-*")) == []
