"""How a worker starts, or says why it does not."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.worker.broker import DEADLINE, ScriptedBroker, row
from tests.worker.conftest import StartWorker


def test_wrong_app_is_a_usage_error_with_what_to_type(start_worker: StartWorker):
    worker = start_worker(module="nowhere")
    assert worker.wait() == 2
    assert "-A" in worker.said()
    assert "Traceback" not in worker.said()


def test_error_in_the_users_module_shows_the_users_frame_first(start_worker: StartWorker, proj: Path):
    (proj / "bad.py").write_text("from chervil import Chervil\n1 / 0\n")
    worker = start_worker(module="bad")
    assert worker.wait() == 2
    lines = worker.said().splitlines()
    assert "ZeroDivisionError" in lines[0]
    first_frame = next(line for line in lines if line.lstrip().startswith("File "))
    assert "bad.py" in first_frame


def test_import_that_kills_its_process_ends_the_worker(start_worker: StartWorker, proj: Path):
    (proj / "deadly.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n")
    worker = start_worker(module="deadly")
    assert worker.wait() == 1
    assert "imports the app died" in worker.said()


def test_foreign_broker_url_is_a_usage_error(start_worker: StartWorker):
    worker = start_worker(url="redis://localhost/0")
    assert worker.wait() == 2
    assert "type -b chervil://127.0.0.1:2437" in worker.said()


def test_tls_wanted_by_the_app_at_an_address_without_it_is_a_usage_error(
    start_worker: StartWorker, proj: Path
):
    (proj / "secure.py").write_text("from proj import app\napp.conf.broker_use_ssl = True\n")
    worker = start_worker(url="chervil://localhost", module="secure")
    assert worker.wait() == 2
    assert "write chervils://localhost:2437" in worker.said()


def test_unreadable_token_file_ends_the_worker(start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CHERVIL_TOKEN_FILE", "/nonexistent")
    worker = start_worker(url="chervil://127.0.0.1:1")
    assert worker.wait() == 1
    (line,) = worker.said().splitlines()
    assert line.endswith(
        "cannot go to the broker at chervil://127.0.0.1:1: cannot read CHERVIL_TOKEN_FILE, /nonexistent: "
        "No such file or directory"
    )


def test_runs_without_uvloop(proj: Path, broker: ScriptedBroker):
    script = (
        "import sys; sys.modules['uvloop'] = None\n"
        "from chervil.cli.main import main\n"
        f"main(['worker', '-A', 'proj', '-c', '1', '-q', '-b', {broker.url!r}])\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script], cwd=proj, stdout=subprocess.PIPE)
    broker.greet()
    broker.deliver(row(1, "proj.add", 1, 2))
    broker.until(lambda: broker.rows)
    process.terminate()
    broker.until_closed()
    out, _ = process.communicate(timeout=DEADLINE)
    assert process.returncode == 0
    assert out == b""  # -q: no banner
