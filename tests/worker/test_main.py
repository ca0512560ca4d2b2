"""How a worker starts, or says why it does not."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.worker.broker import DEADLINE, ScriptedBroker, row, task_id
from tests.worker.conftest import StartWorker, Watched, Worker, children_of
from tests.worker.test_link import results, stop, wait_for_file


def wait_until_said(worker: Worker, text: str) -> None:
    deadline = time.monotonic() + DEADLINE
    while text not in worker.said():
        assert time.monotonic() < deadline, f"not said: {text}; but: {worker.said()}"
        time.sleep(0.01)


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


def test_error_in_an_included_module_is_told(start_worker: StartWorker, proj: Path):
    (proj / "bad.py").write_text("1 / 0\n")
    worker = start_worker("-I", "bad")
    assert worker.wait() == 2
    assert "module to include cannot be imported" in worker.said()


def test_import_that_kills_its_process_ends_the_worker(start_worker: StartWorker, proj: Path):
    (proj / "deadly.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n")
    worker = start_worker(module="deadly")
    assert worker.wait() == 1
    assert "imports the app died" in worker.said()


def test_foreign_broker_url_is_a_usage_error(start_worker: StartWorker):
    worker = start_worker(url="redis://localhost/0")
    assert worker.wait() == 2
    assert "broker_url" in worker.said()


def test_tls_is_refused_as_long_as_there_is_none(start_worker: StartWorker):
    worker = start_worker(url="chervils://localhost")
    assert worker.wait() == 2
    assert "TLS" in worker.said()


def test_unreadable_token_file_ends_the_worker(
    start_worker: StartWorker, broker: ScriptedBroker, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("CHERVIL_TOKEN_FILE", "/nonexistent")
    worker = start_worker()
    assert worker.wait() == 1
    assert "CHERVIL_TOKEN_FILE cannot be read" in worker.said()


def test_link_killed_during_the_import_takes_the_nursery_with_it(start_worker: StartWorker, proj: Path):
    note = proj / "importing"
    (proj / "slow.py").write_text(f"import time\nopen({str(note)!r}, 'w').close()\ntime.sleep(60)\n")
    worker = start_worker(module="slow")
    wait_for_file(note)
    tree = Watched(children_of(worker.pid))
    os.kill(worker.pid, signal.SIGKILL)
    assert tree.gone_within(10)


def test_threads_of_the_import_are_named_once(start_worker: StartWorker, broker: ScriptedBroker, proj: Path):
    (proj / "threaded.py").write_text(
        "import threading\n"
        "threading.Thread(target=threading.Event().wait, name='ticker', daemon=True).start()\n"
        "from proj import app\n"
    )
    worker = start_worker("-c", "2", module="threaded")
    broker.greet()
    broker.deliver(row(1, "proj.add", 1, 2))
    broker.until(lambda: broker.rows)
    assert results(broker)[task_id(1)] == 3
    assert stop(worker, broker) == 0
    assert worker.said().count("ticker") == 1


def test_included_modules_are_loaded(start_worker: StartWorker, broker: ScriptedBroker, proj: Path):
    (proj / "more.py").write_text("from proj import app\n@app.task\ndef extra(): return 1\n")
    start_worker("-I", "more")
    subscribed = broker.greet()
    assert subscribed.tasks is not None
    assert "more.extra" in subscribed.tasks


def test_child_that_dies_at_start_is_replaced_only_after_a_while(
    start_worker: StartWorker, broker: ScriptedBroker, proj: Path
):
    count = proj / "count"
    (proj / "stillborn.py").write_text(
        "import os\n"
        "from proj import app\n"
        "def leave():\n"
        f"    with open({str(count)!r}, 'a') as file:\n"
        "        file.write('x')\n"
        "    os._exit(7)\n"
        "os.register_at_fork(after_in_child=leave)\n"
    )
    worker = start_worker("-c", "1", module="stillborn")
    wait_until_said(worker, "replaced in 1 s")
    assert "exit code 7" in worker.said()
    assert count.read_text() == "x"
    wait_until_said(worker, "replaced in 2 s")
    assert count.read_text() == "xx"


def test_connections_made_by_the_import_are_not_shared(
    start_worker: StartWorker, broker: ScriptedBroker, proj: Path
):
    (proj / "sharing.py").write_text(
        "import os, socket\n"
        "from proj import app\n"
        "stream = socket.socketpair()[0]\n"
        "datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
        f"log = open({str(proj / 'app.log')!r}, 'a')\n"
        "@app.task\n"
        "def look():\n"
        "    log.write('line'); log.flush()\n"
        "    return [os.readlink(f'/proc/self/fd/{s.fileno()}')[:6] for s in (stream, datagrams)]\n"
    )
    start_worker("-c", "1", module="sharing")
    broker.greet()
    broker.deliver(row(1, "sharing.look"))
    broker.until(lambda: broker.rows)
    assert results(broker)[task_id(1)] == ["/dev/n", "socket"]
    assert (proj / "app.log").read_text() == "line"


def test_inherited_descriptors_reach_no_task(proj: Path, broker: ScriptedBroker):
    read, write = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-m", "chervil_worker", "-A", "proj", "-c", "1", "-b", broker.url],
        cwd=proj, pass_fds=[write], stdout=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(write)
    try:
        broker.greet()
        broker.deliver(row(1, "proj.process"))
        broker.until(lambda: broker.rows)
        found = results(broker)[task_id(1)]
        assert isinstance(found, dict)
        assert len(found["descriptors"]) == 5
    finally:
        process.terminate()
        broker.until_closed()
        assert process.wait(DEADLINE) == 0
        os.close(read)


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
