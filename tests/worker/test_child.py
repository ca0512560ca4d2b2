"""A child's answers, without a process of its own; then what a real one has inherited."""

import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import msgpack
import pytest

from chervil import Chervil
from chervil.exceptions import Reject, Retry
from chervil.protocol import Outcome, RetryOption, RevokedOption, TaskOption, unpack_failure
from chervil_worker import completion, log, packets
from chervil_worker.child import READY, Child
from chervil_worker.options import WorkerOptions
from chervil_worker.terms import special_terms
from tests.worker.broker import DEADLINE, ScriptedBroker, results, row, run_all, task_id
from tests.worker.conftest import StartWorker, Watched, stop

LIMIT = 1000


@pytest.fixture
def app() -> Chervil:
    app = Chervil("proj", set_as_current=False)

    @app.task(name="add")
    def add(x: Any, y: Any) -> Any:
        return x + y

    @app.task(name="hush", ignore_result=True)
    def hush() -> object:
        return object()

    @app.task(name="exit")
    def leave() -> None:
        raise SystemExit(3)

    @app.task(name="again", bind=True)
    def again(self: Any, arg: str) -> None:
        raise self.retry(args=[arg * 2], countdown=1, exc=ValueError("busy"))

    @app.task(name="bad_retry")
    def bad_retry() -> None:
        raise Retry(when="soon")  # type: ignore[arg-type]

    @app.task(name="refuse")
    def refuse(requeue: bool) -> None:
        raise Reject("bad order", requeue)

    return app


def complete(app: Chervil, *given: Any, deadline: int | None = None, **more: Any) -> completion.Parts:
    terms = special_terms(app.tasks, app.conf, WorkerOptions(concurrency=1))
    return Child(app, "me@here", terms).complete(row(1, *given, **more), deadline, LIMIT)


def test_result_is_encoded_with_the_apps_serializer(app: Chervil):
    app.conf.result_serializer = "msgpack"
    assert complete(app, "add", 1, 2) == [Outcome.SUCCESS, "msgpack", b"\x03", None]


def test_tasks_that_ignore_results_need_none_that_can_be_sent(app: Chervil):
    assert complete(app, "hush") == [Outcome.SUCCESS, None, None, None]


def test_call_decides_whether_its_result_is_kept(app: Chervil):
    refused = complete(app, "hush", options={TaskOption.IGNORE_RESULT: False})
    assert refused[0] == Outcome.FAILURE
    app.conf.task_ignore_result = True
    assert complete(app, "add", 1, 2)[2] is None
    assert complete(app, "add", 1, 2, options={TaskOption.IGNORE_RESULT: False})[2] == b"3"


def test_serializer_that_the_app_does_not_accept_is_refused(app: Chervil):
    app.conf.accept_content = ("msgpack",)
    parts = complete(app, "add", 1, 2)
    assert parts[0] == Outcome.REJECT
    assert unpack_failure(parts[2]).type.endswith("DecodeError")


def test_system_exit_is_a_failure_and_not_the_end(app: Chervil):
    assert unpack_failure(complete(app, "exit")[2]).type == "builtins.SystemExit"


def test_retry_carries_cause_and_new_arguments(app: Chervil):
    outcome, codec, body, options = complete(app, "again", "x")
    assert (outcome, codec) == (Outcome.RETRY, "failure")
    record = unpack_failure(body)
    assert (record.kind, record.type, record.message) == ("retry", "builtins.ValueError", "busy")
    assert options == {RetryOption.DELAY_MS: 1000, RetryOption.BODY: [None, "json", b'[["xx"],{}]']}


def test_retry_with_arguments_over_the_limit_is_a_failure(app: Chervil):
    record = unpack_failure(complete(app, "again", "x" * 600)[2])
    assert record.type.endswith("EncodeError")
    assert "--body-limit" in str(record.message)


def test_retry_that_asks_for_what_cannot_be_is_a_failure(app: Chervil):
    assert complete(app, "bad_retry")[0] == Outcome.FAILURE


def test_deadline_of_the_monotonic_clock_is_kept(app: Chervil):
    assert complete(app, "add", 1, 2, deadline=time.monotonic_ns() + 10**12)[0] == Outcome.SUCCESS
    expired = complete(app, "add", 1, 2, deadline=time.monotonic_ns())
    assert (expired[0], expired[3]) == (Outcome.REVOKED, {RevokedOption.EXPIRED: True})
    assert unpack_failure(expired[2]).kind == "expired"


@pytest.mark.parametrize(
    ("task", "arguments", "line"),
    [
        ("add", (1, 2), "succeeded in 0."),
        ("again", ("x",), "retry: in 1 s: ValueError: busy"),
        ("exit", (), "failed: SystemExit: 3"),
        ("nowhere", (), "rejected: NotRegistered: this worker has no task 'nowhere'; it is parked"),
        ("refuse", (False,), "rejected: bad order; it is parked as a dead letter"),
        ("refuse", (True,), "rejected: bad order; back to its queue"),
    ],
)
def test_each_run_is_one_line(
    app: Chervil, caplog: pytest.LogCaptureFixture, task: str, arguments: tuple[Any, ...], line: str
):
    caplog.set_level("INFO", log.task.name)
    complete(app, task, *arguments)
    (record,) = caplog.records
    assert record.getMessage().startswith(f"{task}[00000000-0000-0000-0000-000000000001] {line}")
    assert vars(record)["task_name"] == task


def test_serves_packets_until_the_link_is_gone(app: Chervil):
    link, theirs = packets.pair()
    link.settimeout(10)
    thread = threading.Thread(target=Child(app, "me@here", {}).serve, args=(theirs,))
    thread.start()
    try:
        ready = packets.receive(link)
        assert ready is not None
        assert ready.number == READY
        for number in (5, 6):
            packets.send(link, number, msgpack.packb((row(number, "add", number, 1), None, LIMIT)))
        for number in (5, 6):
            answer = packets.receive(link)
            assert answer is not None
            assert answer.number == number
            assert msgpack.unpackb(answer.payload) == [1, "json", b"%d" % (number + 1), None]
    finally:
        link.shutdown(socket.SHUT_RDWR)
        link.close()
        thread.join(10)
        theirs.close()
    assert not thread.is_alive()


def test_child_is_a_process_group_with_default_signals_and_no_foreign_descriptors(
    start_worker: StartWorker, broker: ScriptedBroker
):
    start_worker("-c", "2")
    broker.greet()
    broker.deliver(row(1, "proj.process"))
    broker.until(lambda: broker.rows)
    found = results(broker)[task_id(1)]
    assert isinstance(found, dict)
    # stdio, its own socket, and the listing of the folder itself
    assert len(found.pop("descriptors")) == 5
    assert found == {"group": True, "int": True, "term": True}


def test_forked_copy_that_comes_back_from_its_task_ends_and_answers_nothing(
    start_worker: StartWorker, broker: ScriptedBroker
):
    worker = start_worker("-c", "1")
    broker.greet()
    run_all(broker, [row(1, "proj.fork"), *[row(n, "proj.add", n, 1) for n in range(2, 42)]])
    copy = results(broker)[task_id(1)]
    assert isinstance(copy, int)
    assert copy > 0, "the original's answer"
    assert Watched([copy]).gone_within(DEADLINE)
    assert [results(broker)[task_id(n)] for n in range(2, 42)] == list(range(3, 43))
    broker.deliver(row(50, "proj.kill_self"))
    broker.until(lambda: task_id(50) in broker.outcomes())
    assert broker.outcomes()[task_id(50)] == Outcome.LOST
    assert stop(worker, broker) == 0
    assert "ignored" not in worker.said()


def test_task_that_cuts_its_process_off_is_lost_and_no_other(
    start_worker: StartWorker, broker: ScriptedBroker, proj: Path
):
    (proj / "rude.py").write_text(
        "import os\nfrom proj import app\n@app.task\ndef cut(): os.closerange(3, 256)\n"
    )
    worker = start_worker("-c", "1", module="rude")
    broker.greet()
    broker.deliver(row(1, "rude.cut"), row(2, "proj.add", 1, 2))
    broker.until(lambda: len(broker.rows) >= 2)
    assert broker.outcomes() == {task_id(1): Outcome.LOST, task_id(2): Outcome.SUCCESS}
    assert "rude.cut[00000000-0000-0000-0000-000000000001] closed or replaced the socket" in worker.said()


def test_children_draw_different_random_numbers(
    start_worker: StartWorker, broker: ScriptedBroker, tmp_path: Path
):
    start_worker("-c", "1")
    broker.greet()
    run_all(broker, [row(1, "proj.draw"), row(2, "proj.kill_self"), row(3, "proj.draw")])
    drawn = results(broker)
    assert drawn[task_id(1)] != drawn[task_id(3)]


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
