"""The link and its tree as real processes, against a scripted broker."""

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from chervil.protocol import Outcome, TaskOption, unpack_failure
from chervil.protocol.messages import Completed, Error, Goodbye
from tests.worker.broker import DEADLINE, ScriptedBroker, row, task_id
from tests.worker.conftest import StartWorker, Watched, Worker

#: Long enough for any machine; the design's figure is 2 s.
GONE_SECONDS = 10.0


def results(broker: ScriptedBroker) -> dict[bytes, object]:
    return {row[0]: json.loads(row[4]) for row in broker.rows if row[2] == Outcome.SUCCESS and row[4]}


def wait_for_file(path: Path) -> str:
    deadline = time.monotonic() + DEADLINE
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not come"
        time.sleep(0.005)
    return path.read_text()


def run_all(broker: ScriptedBroker, rows: list[list[Any]]) -> None:
    """Delivers rows, and again under the next lease what is released, until each has come to an end.

    Anything may be released on a slow machine, where every run looks like a long one.
    """
    while rows:
        done = len(broker.rows)
        broker.deliver(*rows)
        keys = {(row[0], row[1]) for row in rows}
        broker.until(lambda keys=keys: keys <= {(row[0], row[1]) for row in broker.rows})
        released = {row[0] for row in broker.rows[done:] if row[2] == Outcome.RELEASE}
        rows = [[row[0], row[1] + 1, *row[2:]] for row in rows if row[0] in released]


def stop(worker: Worker, broker: ScriptedBroker) -> int:
    worker.signal(signal.SIGTERM)
    broker.until_closed()
    return worker.wait()


def test_subscribes_with_queues_task_names_and_process_id(start_worker: StartWorker, broker: ScriptedBroker):
    worker = start_worker("-c", "2", "-Q", "a,b", "-n", "me@%n")
    subscribed = broker.greet()
    assert broker.hello is not None
    assert broker.hello.name.startswith("me@")
    assert subscribed.queues == ["a", "b"]
    assert subscribed.tasks is not None
    assert {"proj.add", "proj.nap"} <= set(subscribed.tasks)
    assert subscribed.options == {1: 2, 3: worker.pid}


def test_default_queue_is_the_apps(start_worker: StartWorker, broker: ScriptedBroker, proj: Path):
    (proj / "other.py").write_text(
        "from chervil import Chervil\napp = Chervil(task_default_queue='mail', include=['proj'])\n"
    )
    start_worker("-c", "1", module="other")
    assert broker.greet().queues == ["mail"]


def test_runs_tasks_and_completes_them(start_worker: StartWorker, broker: ScriptedBroker):
    worker = start_worker("-c", "2")
    broker.greet()
    run_all(broker, [row(n, "proj.add", n, 1) for n in range(1, 301)])
    assert results(broker) == {task_id(n): n + 1 for n in range(1, 301)}
    assert stop(worker, broker) == 0
    assert broker.said_goodbye


def test_banner_names_app_broker_queues_and_when_it_acks(start_worker: StartWorker, broker: ScriptedBroker):
    worker = start_worker("-c", "1")
    broker.greet()
    assert stop(worker, broker) == 0
    lines = worker.said().splitlines()
    assert len(lines) == 4
    assert "proj" in lines[0]
    assert "durability: memory" in lines[1]
    assert "default" in lines[2]
    assert lines[3] == "acks after the run; a task whose process dies runs again, at most 3 starts"


def test_request_has_id_node_name_and_headers(start_worker: StartWorker, broker: ScriptedBroker):
    start_worker("-c", "1", "-n", "n@h")
    broker.greet()
    broker.deliver(row(7, "proj.about_me", headers={"k": "v"}))
    broker.until(lambda: broker.rows)
    assert results(broker)[task_id(7)] == ["00000000-0000-0000-0000-000000000007", "n@h", {"k": "v"}]


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


def test_children_draw_different_random_numbers(
    start_worker: StartWorker, broker: ScriptedBroker, tmp_path: Path
):
    start_worker("-c", "1")
    broker.greet()
    broker.deliver(row(1, "proj.draw"), row(2, "proj.kill_self"), row(3, "proj.draw"))
    broker.until(lambda: len(broker.rows) >= 3)
    drawn = results(broker)
    assert drawn[task_id(1)] != drawn[task_id(3)]


def test_failures_come_as_records(start_worker: StartWorker, broker: ScriptedBroker):
    worker = start_worker("-c", "1", "-l", "info")
    broker.greet(body_limit=1000)
    broker.deliver(
        row(1, "proj.fail"),
        row(2, "proj.nowhere"),
        row(3, "proj.add", body=b"not json"),
        row(4, "proj.unencodable"),
        row(5, "proj.big", 2000),
        row(6, "proj.add", 1, 2, options={TaskOption.EXPIRES_MS: 0}),
        row(7, "proj.add", 1, 2, options={TaskOption.EXPIRES_AT: 1}),
        row(8, "proj.add", body=b"[1]"),
    )
    broker.until(lambda: len(broker.rows) == 8)
    assert set(broker.outcomes().values()) == {Outcome.FAILURE}
    records = {r[0]: unpack_failure(r[4]) for r in broker.rows}
    kinds = [(records[task_id(n)].kind, records[task_id(n)].type.rpartition(".")[2]) for n in range(1, 9)]
    assert kinds == [
        ("exception", "ZeroDivisionError"),
        ("exception", "NotRegistered"),
        ("exception", "DecodeError"),
        ("exception", "EncodeError"),
        ("exception", "EncodeError"),
        ("expired", "TaskRevokedError"),
        ("expired", "TaskRevokedError"),
        ("exception", "DecodeError"),
    ]
    assert stop(worker, broker) == 0
    assert "proj.fail[00000000-0000-0000-0000-000000000001] failed: ZeroDivisionError: no" in worker.said()


def test_retry_travels_with_its_delay_and_its_cause(start_worker: StartWorker, broker: ScriptedBroker):
    start_worker("-c", "1", "-l", "info", "--log-format", "json")
    broker.greet()
    broker.deliver(row(1, "proj.again"))
    broker.until(lambda: broker.rows)
    (completion,) = broker.rows
    assert completion[2] == Outcome.RETRY
    assert unpack_failure(completion[4]).kind == "retry"
    assert completion[5] == {2: 3000}


def test_ignored_results_do_not_travel(start_worker: StartWorker, broker: ScriptedBroker):
    start_worker("-c", "1")
    broker.greet()
    broker.deliver(row(1, "proj.add", 1, 2, options={TaskOption.IGNORE_RESULT: True}))
    broker.until(lambda: broker.rows)
    assert broker.rows[0][2:5] == [Outcome.SUCCESS, None, None]


def test_large_arguments_and_results_pass(start_worker: StartWorker, broker: ScriptedBroker):
    start_worker("-c", "1")
    broker.greet()
    long = "y" * 200_000
    broker.deliver(row(1, "proj.add", long, "z"), row(2, "proj.big", 500_000))
    broker.until(lambda: len(broker.rows) == 2)
    assert results(broker) == {task_id(1): long + "z", task_id(2): "x" * 500_000}


def test_death_of_a_child_loses_only_the_task_that_ran(start_worker: StartWorker, broker: ScriptedBroker):
    worker = start_worker("-c", "1")
    broker.greet()
    run_all(broker, [row(n, "proj.add", n, 1) for n in range(1, 101)])  # the slot is deep now
    broker.deliver(row(101, "proj.kill_self"), *[row(n, "proj.add", n, 1) for n in range(102, 121)])
    broker.until(lambda: len({row[0] for row in broker.rows}) == 120)
    outcomes = broker.outcomes()
    assert outcomes.pop(task_id(101)) == Outcome.LOST
    assert set(outcomes.values()) <= {Outcome.SUCCESS, Outcome.RELEASE}
    (lost,) = [row for row in broker.rows if row[2] == Outcome.LOST]
    assert lost[4].startswith(b"SIGKILL (pid ")
    assert stop(worker, broker) == 0
    assert "proj.kill_self[00000000-0000-0000-0000-000000000065] lost" in worker.said()


def test_exit_of_a_child_is_reported_with_its_code(start_worker: StartWorker, broker: ScriptedBroker):
    start_worker("-c", "1")
    broker.greet()
    broker.deliver(row(1, "proj.leave", 3), row(2, "proj.add", 1, 2))
    broker.until(lambda: len(broker.rows) == 2)
    assert broker.rows[0][2] == Outcome.LOST
    assert broker.rows[0][4].startswith(b"exit code 3 (pid ")
    assert broker.outcomes()[task_id(2)] == Outcome.SUCCESS


def test_child_killed_while_idle_is_replaced(start_worker: StartWorker, broker: ScriptedBroker):
    worker = start_worker("-c", "1")
    broker.greet()
    broker.deliver(row(1, "proj.pid"))
    broker.until(lambda: broker.rows)
    first = results(broker)[task_id(1)]
    assert isinstance(first, int)
    os.kill(first, signal.SIGKILL)
    broker.deliver(row(2, "proj.pid"))
    broker.until(lambda: len(broker.rows) == 2)
    assert broker.outcomes()[task_id(2)] in (Outcome.SUCCESS, Outcome.LOST, Outcome.RELEASE)
    broker.deliver(row(3, "proj.pid"))
    broker.until(lambda: task_id(3) in results(broker))
    assert results(broker)[task_id(3)] != first
    assert worker.process.poll() is None


def test_long_run_is_reported_started_and_holds_no_hostages(
    start_worker: StartWorker, broker: ScriptedBroker, tmp_path: Path
):
    start_worker("-c", "2")
    broker.greet()
    run_all(broker, [row(n, "proj.add", n, 1) for n in range(1, 201)])
    gate = tmp_path / "gate"
    # Both slots get a long one with others behind it.
    broker.deliver(*[row(n, "proj.wait_for", str(gate)) for n in (501, 502)])
    broker.until(lambda: len(broker.started) == 2)
    broker.deliver_anyway(*[row(n, "proj.add", n, 1) for n in range(503, 523)])
    late = {task_id(n) for n in range(503, 523)}
    broker.until(lambda: late <= set(broker.outcomes()))
    assert [broker.outcomes()[task_id(n)] for n in range(503, 523)] == [Outcome.RELEASE] * 20
    assert set(broker.started) == {task_id(501), task_id(502)}
    # Nothing is wanted while both are busy.
    assert broker.credit == broker.delivered
    gate.touch()
    broker.until(lambda: task_id(501) in broker.outcomes())
    assert broker.outcomes()[task_id(501)] == Outcome.SUCCESS


def test_what_lies_behind_a_long_run_goes_to_the_other_slot(
    start_worker: StartWorker, broker: ScriptedBroker, tmp_path: Path
):
    start_worker("-c", "2")
    broker.greet()
    run_all(broker, [row(n, "proj.add", n, 1) for n in range(1, 201)])
    gate = tmp_path / "gate"
    broker.deliver(row(501, "proj.wait_for", str(gate)))
    run_all(broker, [row(n, "proj.add", n, 1) for n in range(502, 530)])
    done = results(broker)
    assert [done[task_id(n)] for n in range(502, 530)] == list(range(503, 531))
    assert task_id(501) not in broker.outcomes()
    gate.touch()
    broker.until(lambda: task_id(501) in results(broker))


def test_warm_stop_waits_for_running_tasks_and_returns_the_rest(
    start_worker: StartWorker, broker: ScriptedBroker, tmp_path: Path
):
    worker = start_worker("-c", "1")
    broker.greet()
    gate, note = tmp_path / "gate", tmp_path / "note"
    broker.deliver(row(1, "proj.note_and_wait", str(note), str(gate)))
    wait_for_file(note)
    worker.signal(signal.SIGTERM)
    broker.until(lambda: "once more" in worker.said())
    broker.deliver_anyway(row(2, "proj.add", 1, 2))
    broker.until(lambda: len(broker.rows) == 1)
    assert broker.outcomes() == {task_id(2): Outcome.RELEASE}
    gate.touch()
    broker.until_closed()
    assert broker.outcomes()[task_id(1)] == Outcome.SUCCESS
    assert broker.said_goodbye
    assert worker.wait() == 0


def test_warm_stop_waits_until_completions_are_answered(start_worker: StartWorker, broker: ScriptedBroker):
    worker = start_worker("-c", "1")
    broker.greet()
    broker.answers_completions = False
    broker.deliver(row(1, "proj.nap", 0.05))
    broker.until(lambda: broker.started)
    worker.signal(signal.SIGTERM)
    broker.until(lambda: broker.rows)
    assert worker.process.poll() is None
    assert not broker.said_goodbye
    broker.send(Completed(1))
    broker.until_closed()
    assert broker.said_goodbye
    assert worker.wait() == 0


def test_second_signal_cuts_running_tasks_off(
    start_worker: StartWorker, broker: ScriptedBroker, tmp_path: Path
):
    worker = start_worker("-c", "2")
    broker.greet()
    note = tmp_path / "note"
    broker.deliver(row(1, "proj.note_and_wait", str(note), str(tmp_path / "never")))
    child = Watched([int(wait_for_file(note))])
    worker.signal(signal.SIGINT)
    broker.until(lambda: "once more" in worker.said())
    worker.signal(signal.SIGTERM)
    broker.until_closed()
    assert worker.wait() == 1
    assert child.gone_within(GONE_SECONDS)
    assert broker.rows == []
    assert "1 running tasks were cut off" in worker.said()


def test_kill_9_of_the_link_leaves_no_process(
    start_worker: StartWorker, broker: ScriptedBroker, tmp_path: Path
):
    worker = start_worker("-c", "2")
    broker.greet()
    note = tmp_path / "note"
    broker.deliver(row(1, "proj.note_and_wait", str(note), str(tmp_path / "never")))
    wait_for_file(note)
    nursery, children = worker.tree()
    tree = Watched([nursery, *children])
    assert len(children) == 2
    os.kill(worker.pid, signal.SIGKILL)
    assert tree.gone_within(GONE_SECONDS)


def test_kill_9_of_the_nursery_ends_the_worker_without_orphans(
    start_worker: StartWorker, broker: ScriptedBroker, tmp_path: Path
):
    worker = start_worker("-c", "2")
    broker.greet()
    note = tmp_path / "note"
    broker.deliver(row(1, "proj.note_and_wait", str(note), str(tmp_path / "never")))
    wait_for_file(note)
    nursery, children = worker.tree()
    tree = Watched(children)
    os.kill(nursery, signal.SIGKILL)
    assert worker.wait() == 1
    assert tree.gone_within(GONE_SECONDS)
    assert "the nursery died" in worker.said()


def test_reconnects_after_the_broker_was_away(start_worker: StartWorker, broker: ScriptedBroker):
    worker = start_worker("-c", "1")
    broker.greet()
    broker.deliver(row(1, "proj.add", 1, 2))
    broker.until(lambda: broker.rows)
    broker.hang_up()
    broker.greet()
    assert broker.credit >= 1
    broker.deliver(row(2, "proj.add", 1, 2))
    broker.until(lambda: task_id(2) in broker.outcomes())
    assert stop(worker, broker) == 0
    assert worker.said().count("lost the broker") == 1
    assert worker.said().count("connected to the broker again") == 1


def test_task_that_outlives_its_connection_is_completed_in_vain(
    start_worker: StartWorker, broker: ScriptedBroker, tmp_path: Path
):
    worker = start_worker("-c", "1")
    broker.greet()
    gate = tmp_path / "gate"
    broker.deliver(row(1, "proj.wait_for", str(gate)))
    broker.until(lambda: broker.started)
    broker.send(Goodbye("SHUTDOWN", "be right back"))
    broker.until_closed()
    broker.accept()
    gate.touch()
    broker.welcome()
    broker.deliver(row(2, "proj.add", 1, 2))
    broker.until(lambda: broker.rows)
    assert broker.outcomes() == {task_id(2): Outcome.SUCCESS}
    assert stop(worker, broker) == 0
    assert "be right back" in worker.said()
    assert "1 tasks had finished after their connection was lost" in worker.said()


def test_refused_token_at_start_ends_the_worker(start_worker: StartWorker, broker: ScriptedBroker):
    worker = start_worker("-c", "1")
    broker.accept()
    broker.send(Error(None, "AUTH_FAILED", "the token is not this broker's; set CHERVIL_TOKEN_FILE"))
    assert worker.wait() == 1
    assert "CHERVIL_TOKEN_FILE" in worker.said()


def test_refused_token_later_is_tried_again(start_worker: StartWorker, broker: ScriptedBroker):
    worker = start_worker("-c", "1")
    broker.greet()
    broker.hang_up()
    broker.accept()
    broker.send(Error(None, "AUTH_FAILED", "not mine"))
    broker.until_closed()
    broker.greet()
    assert stop(worker, broker) == 0


def test_absent_broker_is_waited_for(start_worker: StartWorker, broker: ScriptedBroker, tmp_path: Path):
    broker.close()
    worker = start_worker("-c", "1", url=f"chervil+unix://{tmp_path}/later.sock")
    deadline = time.monotonic() + DEADLINE
    while "cannot reach the broker" not in worker.said():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    later = ScriptedBroker(f"{tmp_path}/later.sock")
    try:
        later.greet()
        assert stop(worker, later) == 0
    finally:
        later.close()
    assert worker.said().count("cannot reach the broker") == 1


def test_heartbeats_go_out_while_nothing_else_does(start_worker: StartWorker, broker: ScriptedBroker):
    start_worker("-c", "1")
    broker.greet(heartbeat_ms=1000)
    broker.until(lambda: broker.heartbeats >= 2)


def test_silent_broker_is_left(start_worker: StartWorker, broker: ScriptedBroker):
    worker = start_worker("-c", "1")
    broker.greet(heartbeat_ms=100)
    broker.until_closed()
    broker.greet()
    assert "silent" in worker.said()
    assert stop(worker, broker) == 0


def test_broken_frames_end_the_connection_only(start_worker: StartWorker, broker: ScriptedBroker):
    worker = start_worker("-c", "1")
    broker.greet()
    assert broker._sock is not None
    broker._sock.sendall(b"\0\0\0\1\xc1")
    broker.until_closed()
    broker.greet()
    assert "broke the protocol" in worker.said()


def test_stale_verdict_is_logged(start_worker: StartWorker, broker: ScriptedBroker):
    worker = start_worker("-c", "1")
    broker.greet()
    broker.answers_completions = False
    broker.deliver(row(1, "proj.add", 1, 2))
    broker.until(lambda: broker.rows)
    broker.send(Completed(1, [[0, 2]]))
    assert stop(worker, broker) == 0
    assert "was not applied" in worker.said()


def test_stopped_while_the_broker_is_away(start_worker: StartWorker, broker: ScriptedBroker):
    worker = start_worker("-c", "1")
    broker.greet()
    broker.stop_listening()
    broker.hang_up()
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0


def test_speaks_tcp_and_shows_the_token_that_it_was_given(
    start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("CHERVIL_TOKEN", "s3cret")
    broker = ScriptedBroker()
    try:
        worker = start_worker("-c", "1", url=broker.url)
        assert broker.accept().token == "s3cret"
        broker.welcome()
        broker.deliver(row(1, "proj.add", 1, 2))
        broker.until(lambda: broker.rows)
        assert stop(worker, broker) == 0
        assert "s3cret" not in worker.said()
    finally:
        broker.close()


def test_more_bytes_than_a_childs_socket_holds_wait_in_the_link(
    start_worker: StartWorker, broker: ScriptedBroker
):
    start_worker("-c", "1")
    broker.greet()
    run_all(broker, [row(n, "proj.add", n, 1) for n in range(1, 101)])
    text = "x" * 30_000
    run_all(broker, [row(n, "proj.add", text, str(n)) for n in range(101, 201)])
    done = results(broker)
    assert [done[task_id(n)] for n in range(101, 201)] == [text + str(n) for n in range(101, 201)]


def test_what_a_dead_task_had_started_dies_with_it(
    start_worker: StartWorker, broker: ScriptedBroker, tmp_path: Path
):
    worker = start_worker("-c", "1")
    broker.greet()
    note = tmp_path / "note"
    broker.deliver(row(1, "proj.start_and_die", str(note)))
    broker.until(lambda: broker.started)
    deadline = time.monotonic() + DEADLINE
    while not (note.exists() and note.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    grandchild = Watched([int(note.read_text())])
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
