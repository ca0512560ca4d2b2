"""The verbs against real brokers and workers, as a person would type them."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from chervil.address import BrokerURL
from chervil.cli.processes import Child, Events, broker_command, wait_until_listening
from chervil.protocol import to_text
from tests.client.relay import Authority, Relay

pytestmark = pytest.mark.e2e

DEADLINE = 30.0

TASKS = """
import os, signal
from chervil import Chervil
app = Chervil("tasks")
@app.task
def add(x, y): return x + y
@app.task
def fail(why): raise ValueError(why)
@app.task(delivery_limit=2)
def die(): os.kill(os.getpid(), signal.SIGKILL)
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


def test_a_held_task_is_called_off_run_again_and_dropped(broker: str) -> None:
    task_id = chervil("-b", broker, "call", "far.away", "--countdown", "60").stdout.strip()
    told = chervil("-b", broker, "why", task_id)
    assert told.returncode == 0, told.stderr
    head, call, published, held, now = told.stdout.splitlines()
    assert call == "Called with: ()"
    assert head == f"Task far.away[{task_id}] in queue default: SCHEDULED"
    assert "published by " in published
    assert "held until " in held
    assert now.startswith("Now: scheduled; due in 5")
    assert chervil("-b", broker, "forget", task_id).returncode == 1
    assert chervil("-b", broker, "revoke", task_id).stdout == f"{task_id}: revoked\n"
    assert chervil("-b", broker, "revoke", task_id).returncode == 1
    assert chervil("-b", broker, "result", task_id).returncode == 1
    assert chervil("-b", broker, "list", "dead").stdout == "No dead letters.\n"
    assert chervil("-b", broker, "retry", task_id).stdout == "1 task runs again.\n"
    told = chervil("-b", broker, "why", task_id)
    assert "queued anew by " in told.stdout.splitlines()[-2]
    assert told.stdout.splitlines()[-1].startswith("Now: queued; no worker consumes 'default'; start one:")
    chervil("-b", broker, "revoke", task_id)
    assert chervil("-b", broker, "forget", task_id).stdout == "Dropped 1 task.\n"
    assert chervil("-b", broker, "result", task_id).returncode == 69


def test_a_task_that_died_twice_and_was_parked_is_told_listed_and_run_again(
    dev: subprocess.Popen[str],
) -> None:
    task_id = chervil("-A", "tasks", "call", "tasks.die").stdout.strip()
    ran = chervil("result", task_id, "--wait", timeout=2 * DEADLINE)
    assert (ran.returncode, ran.stdout) == (1, "")
    assert f"chervil why {task_id}" in ran.stderr
    told = chervil("why", task_id).stdout
    assert told.count("its process died: ") == 2
    assert told.count("SIGKILL") >= 2
    assert "attempt 2 of 2 lost" in told
    assert "parked: " in told
    assert told.splitlines()[-1].endswith(f"chervil retry {task_id}, or chervil forget {task_id}")
    assert "1 dead letter: chervil list dead" in chervil("status").stdout
    (letter,) = [json.loads(line) for line in chervil("list", "dead", "--json").stdout.splitlines()]
    assert (letter["id"], letter["name"], letter["attempts"]) == (task_id, "tasks.die", 2)
    assert "SIGKILL" in letter["reason"]
    assert chervil("retry", "--dead", "--yes").stdout == "1 task runs again.\n"
    assert chervil("result", task_id, "--wait", timeout=2 * DEADLINE).returncode == 1
    assert chervil("why", task_id).stdout.count("its process died: ") == 4
    dev.send_signal(signal.SIGINT)
    log, _ = dev.communicate(timeout=DEADLINE)
    deaths = [line for line in log.splitlines() if task_id in line and "SIGKILL" in line]
    assert len(deaths) == 4, log


def test_a_task_that_no_worker_knows_waits_and_says_so(dev: subprocess.Popen[str]) -> None:
    assert chervil("-A", "tasks", "call", "tasks.add", "2", "3", "--wait").stdout == "5\n"
    task_id = chervil("call", "tasks.ad", "2", "3").stdout.strip()
    waiting = chervil("result", task_id, "--wait", "--timeout", "2.2")
    assert waiting.returncode == 124
    assert "no worker of 'default' knows the task 'tasks.ad'; start one that does" in waiting.stderr
    assert "no worker of 'default' knows the task 'tasks.ad'" in chervil("why", task_id).stdout
    assert "no worker knows tasks.ad" in chervil("status").stdout


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


TLS_TASKS = """
from chervil import Chervil
app = Chervil("tasks", broker={urls!r}, broker_use_ssl={{"ca_certs": {ca!r}}})
@app.task
def add(x, y): return x + y
@app.task
def publish_one(): return add.delay(2, 3).id
"""


def test_app_worker_and_children_speak_tls_as_the_app_says(broker: str, authority: Authority) -> None:
    relay = Relay(BrokerURL.parse(broker), authority.server_context())
    ca = authority.files.ca
    urls = [str(BrokerURL("chervils", host="localhost", port=free_port())), str(relay.url)]
    Path("tasks.py").write_text(TLS_TASKS.format(urls=urls, ca=ca))
    worker = subprocess.Popen([sys.executable, "-m", "chervil.cli", "-A", "tasks", "worker", "-c", "1"])
    try:
        published = chervil("-A", "tasks", "call", "tasks.publish_one", "--wait")
        assert (published.returncode, published.stderr) == (0, "")
        added = chervil("-A", "tasks", "result", published.stdout.strip(), "--wait")
        assert added.stdout == "5\n"
    finally:
        worker.terminate()
        assert worker.wait(DEADLINE) == 0
        relay.close()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port
