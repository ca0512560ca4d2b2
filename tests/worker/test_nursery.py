"""The nursery: alone, with the test as its link; then in a real worker."""

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from chervil import Chervil
from chervil.cli.common import Common
from chervil.protocol import Outcome
from chervil_worker import control, lifeline, log, nursery, packets
from chervil_worker.child import READY
from chervil_worker.options import WorkerOptions
from chervil_worker.terms import Terms
from tests.worker.broker import DEADLINE, ScriptedBroker, results, row, run_all, task_id
from tests.worker.conftest import (
    StartWorker,
    Watched,
    children_of,
    no_descriptor_left,
    run_endless,
    stop,
    wait_for_file,
)

#: Long enough for any machine; the design's figure is 2 s.
GONE_SECONDS = 10.0

LIMIT = 1000

#: A nursery for a link that is the parent of this process: arguments are its socket, its link, its app,
#: the modules to include, and how long it lets children end.
SCRIPT = """
import pathlib, socket, sys
from chervil.cli.common import Common
from chervil_worker import log, nursery
from chervil_worker.options import WorkerOptions

descriptor, link, app, include, nursery.STOP_SECONDS = sys.argv[1:5] + [float(sys.argv[5])]
log.set_up("text", 30)
options = WorkerOptions(concurrency=1, hostname="me@here", include=tuple(include.split()))
common = Common(app=app, workdir=pathlib.Path.cwd(), broker="chervils://127.0.0.1:1")
sys.exit(nursery._run(options, common, socket.socket(fileno=int(descriptor)), int(link)))
"""


class Alone:
    """A nursery in a process of its own, and the link's end of its socket."""

    def __init__(
        self, folder: Path, app: str = "proj", include: str = "", link: int = 0, seconds: float = 60
    ) -> None:
        self.sock, theirs = packets.pair()
        self.sock.settimeout(DEADLINE)
        arguments = [theirs.fileno(), link or os.getpid(), app, include, seconds]
        self.process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, *map(str, arguments)],
            cwd=folder, pass_fds=[theirs.fileno()], stderr=subprocess.PIPE, text=True,
            env=os.environ | {"XDG_STATE_HOME": str(folder)},
        )  # fmt: skip
        theirs.close()
        self._children: list[socket.socket] = []

    def hear(self) -> control.Message | None:
        """What the nursery says next; None when it is gone."""
        received = control.receive(self.sock)
        return None if received is None else received[0]

    def spawn(self, slot: int) -> tuple[int, socket.socket]:
        """A child that is ready: its process id and the link's end of its socket."""
        ours = self.ask(slot)
        born = self.hear()
        assert isinstance(born, control.Born)
        assert born.slot == slot
        ready = packets.receive(ours)
        assert ready is not None
        assert ready.number == READY
        return born.pid, ours

    def ask(self, slot: int) -> socket.socket:
        """Asks for a child; the link's end of its socket."""
        ours, theirs = packets.pair()
        ours.settimeout(DEADLINE)
        self._children.append(ours)
        with theirs:
            control.send(self.sock, control.Spawn(slot), [theirs.fileno()])
        return ours

    def end(self) -> tuple[int, str]:
        """The exit code and what it wrote, once it has ended."""
        _, said = self.process.communicate(timeout=DEADLINE)
        return self.process.returncode, said

    def close(self) -> None:
        for sock in (self.sock, *self._children):
            sock.close()
        if self.process.poll() is None:
            self.end()
        assert self.process.stderr is not None
        self.process.stderr.close()


def give(child: socket.socket, *given: Any) -> None:
    """Sends a child its next task."""
    packets.send(child, 5, packets.pack((row(*given), None, LIMIT)))


@pytest.fixture
def start(proj: Path) -> Iterator[Callable[..., Alone]]:
    alone: list[Alone] = []

    def start(**options: Any) -> Alone:
        alone.append(Alone(proj, **options))
        return alone[-1]

    yield start
    for each in alone:
        each.close()


Start = Callable[..., Alone]


def test_manifest_says_what_the_link_must_know_of_the_app(start: Start, proj: Path):
    (proj / "shop.py").write_text(
        "from chervil import Chervil\n"
        "app = Chervil('shop', broker=['chervils://h:1', 'chervils://h:2'], task_default_queue='mail')\n"
        "app.conf.broker_use_ssl = {'ca_certs': '/ca'}\n"
        "@app.task\n"
        "def sell(): pass\n"
        "@app.task(time_limit=2.5, acks_late=False, reject_on_worker_lost=False)\n"
        "def careful(): pass\n"
        "@app.task(soft_time_limit=1)\n"
        "def soft(): pass\n"
    )
    (proj / "more.py").write_text("from shop import app\n@app.task\ndef extra(): pass\n")
    manifest = start(app="shop", include="more").hear()
    assert isinstance(manifest, control.Manifest)
    assert manifest[:4] == ("shop", ["chervils://h:1", "chervils://h:2"], ["/ca", None, None], "mail")
    assert {"shop.sell", "more.extra"} <= set(manifest.tasks)
    assert {name: Terms(*each) for name, each in manifest.terms.items()} == {
        "shop.careful": Terms(2500, None, early=True, fail_on_lost=True),
        "shop.soft": Terms(soft_ms=1000),
    }
    assert manifest.tasks == sorted(manifest.tasks)


@pytest.mark.parametrize(("app", "include"), [("bad", ""), ("proj", "bad"), ("nowhere", "")])
def test_app_that_cannot_be_imported_is_told_and_ends_the_nursery(
    start: Start, proj: Path, app: str, include: str
):
    (proj / "bad.py").write_text("1 / 0\n")
    alone = start(app=app, include=include)
    assert alone.hear() == control.Failed(2)
    assert alone.hear() is None
    code, said = alone.end()
    assert code == 2
    assert ("ZeroDivisionError" if "bad" in (app, include) else "nowhere") in said


def test_child_is_forked_into_a_group_of_its_own_and_runs_tasks(start: Start):
    alone = start()
    assert isinstance(alone.hear(), control.Manifest)
    for slot in (3, 0):
        pid, child = alone.spawn(slot)
        assert os.getpgid(pid) == pid
        give(child, 1, "proj.pid")
        answer = packets.receive(child)
        assert answer is not None
        assert answer.number == 5
        assert packets.unpack(answer.payload) == [Outcome.SUCCESS, "json", str(pid).encode(), None]


def test_end_of_a_child_is_reported_as_waitpid_gives_it(start: Start):
    alone = start()
    alone.hear()
    left, child = alone.spawn(0)
    give(child, 1, "proj.leave", 3)
    assert alone.hear() == control.Exited(0, left, 3 << 8)
    killed, _ = alone.spawn(1)
    os.kill(killed, signal.SIGKILL)
    assert alone.hear() == control.Exited(1, killed, signal.SIGKILL)


def test_processes_of_the_apps_own_are_left_to_the_app(start: Start, proj: Path):
    (proj / "helped.py").write_text(
        "import subprocess\nfrom proj import app\n"
        "helper = subprocess.Popen(['cat'], stdin=subprocess.PIPE)\n"
        "@app.task\n"
        "def number(): return helper.pid\n"
    )
    alone = start(app="helped")
    alone.hear()
    pid, child = alone.spawn(0)
    give(child, 1, "helped.number")
    answer = packets.receive(child)
    assert answer is not None
    helper = int(packets.unpack(answer.payload)[2])
    os.kill(helper, signal.SIGKILL)
    os.kill(pid, signal.SIGKILL)
    # Whichever SIGCHLD comes first, the helper's end is nobody's to hear of here.
    assert alone.hear() == control.Exited(0, pid, signal.SIGKILL)
    assert Path(f"/proc/{helper}").exists(), "and it was not waited for in place of the app"


def test_child_that_cannot_be_forked_is_reported_and_its_end_closed(start: Start, proj: Path):
    (proj / "forkless.py").write_text(
        "import errno, os\n"
        "from proj import app\n"
        "def fork():\n"
        "    raise OSError(errno.EAGAIN, 'no')\n"
        "os.fork = fork\n"
    )
    alone = start(app="forkless")
    alone.hear()
    child = alone.ask(2)
    assert alone.hear() == control.Exited(2, 0, 1 << 8)
    assert packets.receive(child) is None
    alone.sock.close()
    assert "no child for slot 2: Resource temporarily unavailable" in alone.end()[1]


def test_nursery_without_a_descriptor_makes_no_child_and_goes_on(start: Start):
    alone = start()
    alone.hear()
    with no_descriptor_left(alone.process.pid):
        child = alone.ask(2)
        assert alone.hear() == control.Exited(2, 0, 1 << 8)
        assert packets.receive(child) is None
    pid, _ = alone.spawn(2)
    assert pid
    alone.sock.close()
    assert "no child for slot 2: Too many open files" in alone.end()[1]


def test_vanished_link_kills_children_and_what_they_have_started(start: Start, proj: Path):
    alone = start()
    alone.hear()
    pid, child = alone.spawn(0)
    idle, _ = alone.spawn(1)
    note = proj / "note"
    give(child, 1, "proj.start_and_die", str(note))
    tree = Watched([pid, idle, int(wait_for_file(note))])
    alone.sock.close()
    assert tree.gone_within(GONE_SECONDS)
    assert alone.end()[0] == 0


def test_stop_lets_children_finish_what_they_run(start: Start, proj: Path):
    alone = start()
    alone.hear()
    gate, note = proj / "gate", proj / "note"
    pid, child = alone.spawn(0)
    give(child, 1, "proj.note_and_wait", str(note), str(gate))
    wait_for_file(note)
    tree = Watched([pid])
    control.send(alone.sock, control.Stop())
    gate.touch()
    answer = packets.receive(child)
    assert answer is not None, "it was not killed"
    child.close()
    assert tree.gone_within(GONE_SECONDS)
    assert alone.hear() is None
    assert alone.end() == (0, "")


def test_stop_kills_children_that_do_not_end_in_time(start: Start, proj: Path):
    alone = start(seconds=0.05)
    alone.hear()
    pid, child = alone.spawn(0)
    note = proj / "note"
    give(child, 1, "proj.note_and_wait", str(note), str(proj / "never"))
    wait_for_file(note)
    tree = Watched([pid])
    child.close()
    control.send(alone.sock, control.Stop())
    assert tree.gone_within(GONE_SECONDS)
    assert alone.end()[0] == 0


def test_link_that_is_gone_after_the_import_ends_the_nursery(start: Start, proj: Path):
    gate = proj / "gate"
    (proj / "slow.py").write_text(
        f"import proj\nopen({str(proj / 'note')!r}, 'w').close()\nproj.wait_for.run({str(gate)!r})\n"
        "app = proj.app\n"
    )
    alone = start(app="slow")
    wait_for_file(proj / "note")
    alone.sock.close()
    gate.touch()
    assert alone.end() == (0, "")


def test_nursery_whose_link_died_before_it_looked_imports_nothing(start: Start, proj: Path):
    (proj / "trace.py").write_text(f"open({str(proj / 'note')!r}, 'w').close()\nfrom proj import app\n")
    alone = start(app="trace", link=1)
    assert alone.hear() is None
    assert alone.end()[0] == 1
    assert not (proj / "note").exists()


def test_nursery_is_not_forked_from_a_process_with_threads():
    enough = threading.Event()
    thread = threading.Thread(target=enough.wait)
    thread.start()
    try:
        with pytest.raises(AssertionError, match="before any thread exists"):
            nursery.start(WorkerOptions(concurrency=1), Common(app="proj"))
    finally:
        enough.set()
        thread.join()


def test_what_a_dead_task_had_started_dies_with_it(
    start_worker: StartWorker, broker: ScriptedBroker, tmp_path: Path
):
    worker = start_worker("-c", "1")
    broker.greet()
    note = tmp_path / "note"
    broker.deliver(row(1, "proj.start_and_die", str(note)))
    broker.until(lambda: broker.started)
    grandchild = Watched([int(wait_for_file(note))])
    _, (child,) = worker.tree()
    os.kill(child, signal.SIGKILL)
    assert grandchild.gone_within(GONE_SECONDS)
    broker.until(lambda: broker.rows)
    assert broker.outcomes() == {task_id(1): Outcome.LOST}


def test_system_that_can_fork_no_more_is_tried_again_later(
    start_worker: StartWorker, broker: ScriptedBroker, proj: Path
):
    (proj / "forkless.py").write_text(
        "import errno, os\n"
        "from proj import app\n"
        "real = os.fork\n"
        "def fork():\n"
        "    os.fork = real\n"
        "    raise OSError(errno.EAGAIN, 'no')\n"
        "os.fork = fork\n"
    )
    worker = start_worker("-c", "1", module="forkless")
    broker.greet()
    run_all(broker, [row(1, "proj.add", 1, 2)])
    assert results(broker) == {task_id(1): 3}
    assert "no child for slot 0: Resource temporarily unavailable" in worker.said()
    assert "could not be forked" in worker.said()


@pytest.mark.parametrize("with_nursery", [False, True])
def test_kill_9_of_the_link_leaves_no_process(
    start_worker: StartWorker, broker: ScriptedBroker, tmp_path: Path, with_nursery: bool
):
    worker = start_worker("-c", "2")
    broker.greet()
    run_endless(broker, tmp_path)
    nursery, children = worker.tree()
    assert len(children) == 2
    tree = Watched([nursery, *children])
    killed = (worker.pid, nursery) if with_nursery else (worker.pid,)
    # Stopped first, so that neither of them sees the other's end and does something about it.
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for pid in killed:
            os.kill(pid, number)
    assert tree.gone_within(GONE_SECONDS)


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


def test_threads_that_python_does_not_know_are_counted(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    ours, theirs = packets.pair()
    app = Chervil("proj", set_as_current=False)
    monkeypatch.setattr(lifeline, "thread_count", lambda: threading.active_count() + 2)
    caplog.set_level("WARNING", log.worker.name)
    with ours, theirs:
        alone = nursery.Nursery(app, WorkerOptions(concurrency=1), theirs)
        alone._name_threads()
        os.close(alone._wakeup_read)
        os.close(alone._wakeup_write)
    (record,) = caplog.records
    assert "2 of a library's own" in record.getMessage()


def test_included_modules_are_loaded(start_worker: StartWorker, broker: ScriptedBroker, proj: Path):
    (proj / "more.py").write_text("from proj import app\n@app.task\ndef extra(): return 1\n")
    start_worker("-I", "more")
    subscribed = broker.greet()
    assert subscribed.tasks is not None
    assert "more.extra" in subscribed.tasks


def test_error_in_an_included_module_is_told(start_worker: StartWorker, proj: Path):
    (proj / "bad.py").write_text("1 / 0\n")
    worker = start_worker("-I", "bad")
    assert worker.wait() == 2
    assert "module to include cannot be imported" in worker.said()
