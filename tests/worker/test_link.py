"""The link and its tree as real processes, against a scripted broker."""

import os
import signal
from pathlib import Path

from chervil.protocol import Outcome
from chervil.protocol.messages import Completed, Error, Goodbye
from tests.worker.broker import ScriptedBroker, results, row, run_all, task_id
from tests.worker.conftest import StartWorker, Watched, stop, wait_for_file, wait_until_said

#: Long enough for any machine; the design's figure is 2 s.
GONE_SECONDS = 10.0


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
    assert "running tasks that were cut off, and run again: 1" in worker.said()


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
    assert "tasks that finished after their connection was lost, and did not count: 1" in worker.said()


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
