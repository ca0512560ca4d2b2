"""The link and its tree as real processes, against a scripted broker."""

import os
import signal
from pathlib import Path

import pytest

from chervil.protocol import Outcome, to_text, unpack_failure
from chervil.protocol.messages import Cancel, Complete, Completed, Error, Goodbye
from tests.worker.broker import ScriptedBroker, results, row, run_all, task_id
from tests.worker.conftest import (
    StartWorker,
    Watched,
    no_descriptor_left,
    run_endless,
    stop,
    wait_for_file,
    wait_until_said,
)

#: Long enough for any machine; the design's figure is 2 s.
GONE_SECONDS = 10.0


def run_gated(broker: ScriptedBroker, folder: Path) -> Path:
    """Has the worker run task 1, a long run, until this file is there."""
    gate = folder / "gate"
    broker.deliver(row(1, "proj.wait_for", str(gate)))
    broker.until(lambda: broker.started)
    return gate


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


def test_large_arguments_and_results_pass(start_worker: StartWorker, broker: ScriptedBroker):
    start_worker("-c", "1")
    broker.greet()
    long = "y" * 200_000
    broker.deliver(row(1, "proj.add", long, "z"), row(2, "proj.big", 500_000))
    broker.until(lambda: len(broker.rows) == 2)
    assert results(broker) == {task_id(1): long + "z", task_id(2): "x" * 500_000}


def test_large_results_arrive_though_the_link_has_no_descriptor_left(
    start_worker: StartWorker, broker: ScriptedBroker
):
    worker = start_worker("-c", "1")
    broker.greet()
    run_all(broker, [row(1, "proj.add", 1, 2)])
    with no_descriptor_left(worker.pid):
        broker.deliver(row(2, "proj.big", 500_000))
        broker.until(lambda: task_id(2) in broker.outcomes())
    assert results(broker)[task_id(2)] == "x" * 500_000
    assert stop(worker, broker) == 0


def test_warm_stop_waits_for_running_tasks_and_returns_the_rest(
    start_worker: StartWorker, broker: ScriptedBroker, tmp_path: Path
):
    worker = start_worker("-c", "2")
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
    broker.deliver(row(1, "proj.nap", 1))
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
    child = Watched([run_endless(broker, tmp_path)])
    worker.signal(signal.SIGINT)
    broker.until(lambda: "once more" in worker.said())
    worker.signal(signal.SIGTERM)
    broker.until_closed()
    assert worker.wait() == 1
    assert child.gone_within(GONE_SECONDS)
    ((_, _, outcome, _, body, options, _),) = broker.rows
    assert (outcome, body, options) == (Outcome.RELEASE, b"worker stopped", {2: True})
    assert broker.said_goodbye
    assert "was cut off and runs again, uncharged: worker stopped" in worker.said()


def test_cold_stop_while_the_broker_is_away_tells_it_when_it_comes_back_at_once(
    start_worker: StartWorker, broker: ScriptedBroker, tmp_path: Path
):
    worker = start_worker("-c", "1")
    broker.greet()
    child = Watched([run_endless(broker, tmp_path)])
    broker.hang_up()
    wait_until_said(worker, "lost the broker")
    worker.signal(signal.SIGTERM)
    wait_until_said(worker, "once more")
    worker.signal(signal.SIGTERM)
    broker.accept()
    broker.welcome(resumed=True)
    broker.until_closed()
    assert {id_: row[5] for id_, row in ((row[0], row) for row in broker.rows)} == {task_id(1): {2: True}}
    assert worker.wait() == 1
    assert child.gone_within(GONE_SECONDS)


def test_cold_stop_without_a_broker_ends_all_the_same(
    start_worker: StartWorker, broker: ScriptedBroker, tmp_path: Path
):
    worker = start_worker("-c", "1")
    broker.greet()
    child = Watched([run_endless(broker, tmp_path)])
    broker.stop_listening()
    broker.hang_up()
    worker.signal(signal.SIGTERM)
    wait_until_said(worker, "once more")
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 1
    assert child.gone_within(GONE_SECONDS)
    assert "did not confirm, completions: 1" in worker.said()


def test_warm_stop_after_a_broker_that_keeps_nothing_has_stopped_waits_for_nobody(
    start_worker: StartWorker, broker: ScriptedBroker
):
    worker = start_worker("-c", "1")
    broker.greet()
    broker.answers_completions = False
    broker.deliver(row(1, "proj.add", 1, 2))
    broker.until(lambda: broker.rows)
    broker.stop_listening()
    broker.send(Goodbye("SHUTDOWN"))
    broker.until_closed()
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 1, "long before the broker would have given up on us"
    assert "did not confirm, completions: 1" in worker.said()


def test_kill_9_of_the_nursery_ends_the_worker_without_orphans(
    start_worker: StartWorker, broker: ScriptedBroker, tmp_path: Path
):
    worker = start_worker("-c", "2")
    broker.greet()
    run_endless(broker, tmp_path)
    nursery, children = worker.tree()
    tree = Watched(children)
    os.kill(nursery, signal.SIGKILL)
    broker.until_closed()
    assert broker.said_goodbye
    assert worker.wait() == 1
    assert tree.gone_within(GONE_SECONDS)
    assert broker.outcomes() == {task_id(1): Outcome.LOST}
    assert "the nursery died" in worker.said()


def test_task_that_kills_the_nursery_is_charged_and_those_behind_it_are_not(
    start_worker: StartWorker, broker: ScriptedBroker
):
    worker = start_worker("-c", "1")
    broker.greet()
    run_all(broker, [row(n, "proj.add", n, 1) for n in range(1, 101)])  # the slot is deep now
    others = {task_id(n) for n in range(102, 110)}
    broker.deliver(row(101, "proj.kill_nursery"), *[row(n, "proj.add", n, 1) for n in range(102, 110)])
    broker.until_closed()
    assert worker.wait() == 1
    (lost,) = [row for row in broker.rows if row[2] == Outcome.LOST]
    assert (lost[0], lost[4]) == (task_id(101), b"the worker's nursery died, on attempt 1")
    outcomes = broker.outcomes()
    assert {outcomes[id_] for id_ in others} == {Outcome.RELEASE}


def test_death_of_the_nursery_ends_the_worker_though_the_broker_answers_nothing(
    start_worker: StartWorker, broker: ScriptedBroker
):
    worker = start_worker("-c", "1")
    broker.greet()
    broker.answers_completions = False
    broker.deliver(row(1, "proj.kill_nursery"))
    broker.until_closed()
    assert broker.outcomes() == {task_id(1): Outcome.LOST}
    assert worker.wait() == 1


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


def test_session_is_taken_up_with_inventory_and_completions(
    start_worker: StartWorker, broker: ScriptedBroker, tmp_path: Path
):
    worker = start_worker("-c", "1")
    assert broker.accept().resume is None
    broker.welcome()
    broker.answers_completions = False
    broker.deliver(row(1, "proj.add", 1, 2))
    broker.until(lambda: broker.rows)
    gate, note = tmp_path / "gate", tmp_path / "note"
    broker.deliver(row(2, "proj.note_and_wait", str(note), str(gate)))
    wait_for_file(note)
    broker.hang_up()
    assert broker.accept().resume == [b"s" * 16, b"x" * 32]
    broker.welcome(resumed=True)
    assert broker.inventory == {(task_id(1), 1): 1, (task_id(2), 1): 1}
    broker.until(lambda: broker.rows)
    assert broker.outcomes() == {task_id(1): Outcome.SUCCESS}
    kinds = [type(message).__name__ for message in broker.inbox[:4]]
    assert kinds == ["Hello", "Resume", "Complete", "Subscribe"]
    gate.touch()
    broker.until(lambda: len(broker.rows) == 2)
    assert broker.outcomes()[task_id(2)] == Outcome.SUCCESS
    assert [message.sequence for message in broker.inbox if isinstance(message, Complete)] == [1, 2]
    assert stop(worker, broker) == 0
    assert "connected to the broker again: tasks kept: 2" in worker.said()


def test_task_that_finished_while_the_broker_was_away_is_told_when_it_is_back(
    start_worker: StartWorker, broker: ScriptedBroker, tmp_path: Path
):
    worker = start_worker("-c", "1")
    broker.greet()
    gate = run_gated(broker, tmp_path)
    broker.send(Goodbye("SHUTDOWN", "be right back"))
    broker.until_closed()
    broker.accept()
    gate.touch()
    broker.welcome(resumed=True)
    broker.until(lambda: broker.rows)
    assert broker.outcomes() == {task_id(1): Outcome.SUCCESS}
    assert stop(worker, broker) == 0
    assert "be right back" in worker.said()


def test_broker_that_was_started_anew_is_named_and_running_tasks_finish_for_nothing(
    start_worker: StartWorker, broker: ScriptedBroker, tmp_path: Path
):
    worker = start_worker("-c", "2")
    broker.greet()
    gate = run_gated(broker, tmp_path)
    broker.hang_up()
    broker.accept()
    broker.welcome(instance=b"j")
    broker.deliver(row(2, "proj.add", 1, 2))
    broker.until(lambda: broker.rows)
    gate.touch()
    assert broker.outcomes() == {task_id(2): Outcome.SUCCESS}
    assert stop(worker, broker) == 0
    assert "started anew and has forgotten its tasks (--memory)" in worker.said()
    assert "whose results are dropped: 1" in worker.said()
    assert "came to its end (SUCCESS), and that is dropped" in worker.said()
    assert f"did not count: 1 ({to_text(task_id(1))})" in worker.said()


def test_session_that_the_broker_called_wrong_is_not_taken_up_again(
    start_worker: StartWorker, broker: ScriptedBroker
):
    start_worker("-c", "1")
    broker.greet()
    broker.send(Error(None, "BAD_STATE", "RESUME out of turn"))
    broker.until_closed()
    assert broker.accept().resume is None


def test_broker_that_delivers_more_than_it_may_is_left(start_worker: StartWorker, broker: ScriptedBroker):
    worker = start_worker("-c", "1")
    broker.greet()
    broker.deliver_anyway(*[row(n, "proj.add", n, 1) for n in range(1, 41)])
    broker.until_closed()
    broker.accept()
    broker.welcome(resumed=True)
    assert broker.inventory == {}
    broker.deliver(row(1, "proj.add", 1, 2))
    broker.until(lambda: broker.rows)
    assert stop(worker, broker) == 0
    assert "delivers more than it was given credit for" in worker.said()


def test_task_that_runs_at_most_once_is_claimed_before_it_begins(
    start_worker: StartWorker, broker: ScriptedBroker
):
    worker = start_worker("-c", "1")
    broker.greet()
    broker.deliver(row(1, "proj.add", 1, 2, options={12: True}))
    broker.until(lambda: broker.rows)
    assert broker.claims == [[task_id(1), 1, True]]
    assert broker.outcomes() == {task_id(1): Outcome.SUCCESS}
    broker.grants = 0
    broker.deliver(row(2, "proj.add", 1, 2, options={12: True}))
    broker.until(lambda: len(broker.claims) == 2)
    broker.deliver(row(3, "proj.add", 1, 2))
    broker.until(lambda: len(broker.rows) == 2)
    assert task_id(2) not in broker.outcomes()
    assert stop(worker, broker) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_running_task_that_is_called_off_with_a_signal_is_revoked(
    start_worker: StartWorker, broker: ScriptedBroker, tmp_path: Path, number: signal.Signals
):
    worker = start_worker("-c", "1")
    broker.greet()
    child = Watched([run_endless(broker, tmp_path)])
    broker.until(lambda: broker.started)  # a long run by now: nothing else is due
    broker.send(Cancel([[task_id(1), 1, int(number)]]))
    broker.until(lambda: broker.rows)
    assert child.gone_within(GONE_SECONDS)
    (revoked,) = broker.rows
    assert revoked[2] == Outcome.REVOKED
    assert unpack_failure(revoked[4]).message == f"terminated by {number.name}"
    broker.deliver(row(2, "proj.add", 1, 2))
    broker.until(lambda: task_id(2) in broker.outcomes())
    assert stop(worker, broker) == 0
    assert f"revoked while it ran: terminated by {number.name}" in worker.said()


def test_running_task_that_is_called_off_without_a_signal_goes_on(
    start_worker: StartWorker, broker: ScriptedBroker, tmp_path: Path
):
    start_worker("-c", "1")
    broker.greet()
    note, gate = tmp_path / "note", tmp_path / "gate"
    broker.deliver(row(1, "proj.note_and_wait", str(note), str(gate)))
    wait_for_file(note)
    broker.send(Cancel([[task_id(1), 1, None]]))
    gate.touch()
    broker.until(lambda: broker.rows)
    assert broker.outcomes() == {task_id(1): Outcome.SUCCESS}


def test_task_over_its_time_limit_is_killed_though_its_process_is_stopped(
    start_worker: StartWorker, broker: ScriptedBroker, tmp_path: Path
):
    worker = start_worker("-c", "1")
    broker.greet()
    pid = run_endless(broker, tmp_path, options={18: 2000})
    child = Watched([pid])
    os.kill(pid, signal.SIGSTOP)
    broker.until(lambda: broker.rows)
    assert child.gone_within(GONE_SECONDS)
    (failed,) = broker.rows
    record = unpack_failure(failed[4])
    assert (failed[2], record.kind) == (Outcome.FAILURE, "time_limit")
    assert record.type == "chervil.exceptions.TimeLimitExceeded"
    assert stop(worker, broker) == 0
    assert "ran longer than its time limit of 2 s, on attempt 1: its process was killed" in worker.said()


def test_time_limit_of_the_flag_holds_for_every_task(
    start_worker: StartWorker, broker: ScriptedBroker, tmp_path: Path
):
    start_worker("-c", "1", "--time-limit", "0.5")
    broker.greet()
    broker.deliver(row(1, "proj.wait_for", str(tmp_path / "never")))
    broker.until(lambda: broker.rows)
    assert unpack_failure(broker.rows[0][4]).kind == "time_limit"


def test_absent_broker_is_waited_for(start_worker: StartWorker, broker: ScriptedBroker, tmp_path: Path):
    broker.close()
    worker = start_worker("-c", "1", url=f"chervil+unix://{tmp_path}/later.sock")
    wait_until_said(worker, "cannot reach the broker")
    later = ScriptedBroker(f"{tmp_path}/later.sock")
    try:
        later.greet()
        assert stop(worker, later) == 0
    finally:
        later.close()
    assert worker.said().count("cannot reach the broker") == 1


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
