"""An engine that begins with what another one knew."""

from copy import copy

import pytest

from chervil.protocol import Outcome, RetryOption, Stage, TaskOption
from chervil_broker.engine import Engine
from chervil_broker.engine.charges import id_bytes
from chervil_broker.engine.restoring import Known, RestoredSession
from chervil_broker.engine.task import NO_HANDLE, Times
from tests.broker.engine.rig import HOUR, MS, SECOND, Rig, changed

DELAY = {TaskOption.DELAY_MS.value: 5000}
EXPIRES = {TaskOption.EXPIRES_MS.value: 2000}
GRACE = 30 * SECOND


def restart(rig, *, sessions=None, grace=GRACE):
    """Has the rig go on with another engine; the publisher's session is there again at once."""
    old = rig.engine._state
    tasks = {}
    for id_, before in old.tasks.items():
        task = tasks[id_] = copy(before)
        if task.times is not None:
            times = task.times = Times()
            for field in ("due", "due_wall", "expires", "expires_wall"):
                setattr(times, field, getattr(before.times, field))
    known = Known(tasks, dict(old.forgotten.times), dict(old.revoked_ids.by), old.sequence)
    rig.engine = Engine(old.config)
    rig.engine.tick(rig.now, rig.wall)
    named = [RestoredSession(one.number, one.name, one.sequence) for one in old.sessions.values()]
    rig.engine.restore(known, [one for one in named if sessions is None or one.number in sessions], grace)
    rig.engine.resume(rig.publisher)
    return rig.engine


def told(engine):
    """What stats tell that outlives an engine."""
    stats = engine.stats()
    del stats["memory"]["other"]
    queues = {
        queue["name"]: [queue[key] for key in ("ready", "scheduled", "leased", "oldest_ms")]
        for queue in stats["queues"]
        if queue["ready"] or queue["scheduled"] or queue["leased"]
    }
    return [stats["tasks"], stats["memory"], stats["dedup"], queues]


@pytest.fixture
def rig():
    return Rig()


def test_everything_is_charged_and_counted_as_before(rig):
    worker = rig.worker("q", credit=7)
    options = {TaskOption.ROOT_ID.value: b"1" * 16, TaskOption.RESULT_EXPIRES_MS.value: 60_000}
    rig.publish(*(rig.row(f"t{n}", options=options) for n in range(7)), rig.row("held", options=DELAY))
    rig.publish(rig.row(b"u" * 16, queue="other"), rig.row("x" * 60, name="n" * 300, queue="other"))
    assert id_bytes("x" * 60) > 0
    done, failed, dead, retried, lost, started, _ = rig.lease()
    rig.complete(
        worker,
        rig.outcome(done, Outcome.SUCCESS),
        rig.outcome(failed, Outcome.FAILURE, reason="why"),
        rig.outcome(dead, Outcome.REJECT, reason="no"),
        rig.outcome(retried, Outcome.RETRY, {RetryOption.DELAY_MS.value: 9}),
        rig.outcome(lost, Outcome.LOST, reason="kill"),
    )
    rig.engine.started(worker, [[started.id, 1]], None)
    rig.publish("gone")
    rig.engine.revoke(rig.publisher, 1, ["gone", "strange"], False, 15)
    rig.engine.forget(rig.publisher, 2, ["gone"])
    rig.pump()
    before = told(rig.engine), dict(rig.engine.forgotten), dict(rig.engine.revoked_ids), {*rig.engine.tasks}
    assert len(before[0][0]) == 8, "a task of each stage that is usual"
    engine = restart(rig)
    assert (told(engine), dict(engine.forgotten), dict(engine.revoked_ids), {*engine.tasks}) == before
    assert engine._state.charges.bytes > 0
    rig.engine.purge(rig.publisher, 1, [])
    rig.advance(GRACE)
    rig.pump()
    rig.engine.purge(rig.publisher, 1, [])
    rig.engine.forget(rig.publisher, 1, list(engine.tasks))
    rig.pump()
    assert (told(engine)[0], rig.live, engine._state.memory) == ({}, {}, 0)


def test_ready_tasks_run_in_their_order_and_what_comes_is_behind_them(rig):
    worker = rig.worker("q", credit=2)
    rig.publish("a", "b", "c", rig.row("urgent", priority=5), "d")
    first = rig.lease()
    rig.complete(worker, *[rig.outcome(task, Outcome.RELEASE, body=False) for task in first])
    restart(rig)
    rig.publish("e")
    worker = rig.worker("q", credit=9)
    assert rig.ids(worker) == ["urgent", "a", "b", "c", "d", "e"]


def test_session_takes_up_its_leases_and_repeats_no_completion(rig):
    worker = rig.worker("q", credit=3)
    rig.publish("a", "b", "c")
    tasks = rig.lease()
    rig.succeed(worker, tasks[0])
    rig.engine.started(worker, [["b", 1]], None)
    rig.pump()
    engine = restart(rig)
    assert engine.stats()["suspended"] == 1
    engine.resume(worker)
    engine.reconcile(worker, 5, [["b", 1, 1]])
    assert rig.succeed(worker, tasks[1]).exceptions is None
    assert rig.complete(worker, rig.outcome(tasks[0], Outcome.SUCCESS), sequence=1).exceptions == [[0, 1]]
    assert [rig.stage(id_) for id_ in "abc"] == [Stage.SUCCESS, Stage.SUCCESS, Stage.QUEUED]


def test_session_that_does_not_come_loses_its_leases_when_its_grace_is_over(rig):
    worker = rig.worker("q", credit=3)
    rig.publish("a")
    rig.lease()
    restart(rig)
    rig.advance(GRACE - 1)
    assert rig.pump().ended == []
    rig.advance(1)
    assert rig.pump().ended == [worker]
    assert rig.engine.tasks["a"].redelivered


def test_leases_of_a_session_that_is_no_more_go_back_at_once_and_are_told(rig):
    gone = rig.worker("q", credit=3)
    rig.publish("a", "b", rig.row("limited", options={TaskOption.DELIVERY_LIMIT.value: 1}))
    rig.lease()
    rig.engine.started(gone, [["b", 1], ["limited", 1]], None)
    rig.pump()
    restart(rig, sessions=[rig.publisher])
    assert {*changed(rig.pump())} == {"a", "b", "limited"}
    assert rig.stage("limited") == Stage.DEAD
    worker = rig.worker("q", credit=9)
    assert [(task.id, task.redelivered, task.attempts) for task in rig.lease(worker)] == [
        ("a", True, 0),
        ("b", True, 1),
    ]
    assert gone not in rig.engine._state.sessions


def test_what_is_held_is_due_in_time_and_in_the_order_in_which_it_was_held(rig):
    rig.publish(*(rig.row(f"t{n}", options=DELAY) for n in range(9)))
    rig.publish(rig.row("wall", options={TaskOption.DUE_AT.value: rig.wall // MS + 7000}))
    rig.advance(SECOND)
    engine = restart(rig)
    assert engine.next_timer() == (rig.now + 4 * SECOND, rig.wall + 6 * SECOND)
    worker = rig.worker("q", credit=99)
    assert rig.ids(worker) == []
    rig.advance(4 * SECOND, wall=0)
    assert rig.ids(worker) == [f"t{n}" for n in range(9)]
    rig.advance(0, wall=6 * SECOND)
    assert rig.ids(worker) == ["wall"]


def test_expiry_that_came_while_a_worker_had_the_task_counts_once_it_comes_back(rig):
    worker = rig.worker("q", credit=1)
    rig.publish(rig.row("leased", options=EXPIRES), rig.row("ready", options=EXPIRES))
    (task,) = rig.lease()
    rig.advance(3 * SECOND)
    rig.pump()
    assert [rig.stage(id_) for id_ in ("leased", "ready")] == [Stage.LEASED, Stage.EXPIRED]
    engine = restart(rig)
    rig.pump()
    assert rig.stage("leased") == Stage.LEASED
    engine.resume(worker)
    engine.reconcile(worker, 1, [["leased", 1, 0]])
    rig.complete(worker, rig.outcome(task, Outcome.RELEASE, body=False))
    rig.pump()
    assert rig.stage("leased") == Stage.EXPIRED


def test_dead_letters_keep_their_numbers_and_new_ones_come_behind(rig):
    worker = rig.worker("q", credit=9)
    rig.publish("a", "b", "c")
    for task in reversed(rig.lease()):
        rig.complete(worker, rig.outcome(task, Outcome.REJECT, body=False))
    rig.pump()
    page, cursor = rig.engine.dead(None, 2)
    engine = restart(rig)
    assert engine.dead(None, 2) == (page, cursor)
    rig.publish("d")
    worker = rig.worker("q", credit=9)
    rig.complete(worker, rig.outcome(*rig.lease(), Outcome.REJECT, body=False))
    assert [row["id"] for row in engine.dead(cursor, 9)[0]] == ["a", "d"]


def test_results_are_kept_until_their_time_and_the_oldest_goes_first():
    rig = Rig(results_limit=100_000)
    worker = rig.worker("q", credit=9)
    brief = {TaskOption.RESULT_EXPIRES_MS.value: 60_000}
    rig.publish("a", "b", rig.row("brief", options=brief))
    for task in rig.lease():
        rig.advance(1)
        rig.complete(worker, rig.outcome(task, Outcome.SUCCESS, size=30_000))
    rig.pump()
    restart(rig)
    rig.publish("c")
    worker = rig.worker("q", credit=9)
    rig.complete(worker, rig.outcome(*rig.lease(), Outcome.SUCCESS, size=20_000))
    assert rig.pump().evicted == ["a"]
    rig.advance(62 * SECOND)
    assert rig.pump().forgotten == [(rig.now, ["brief"])]
    rig.advance(25 * HOUR)
    assert rig.pump().forgotten == [(rig.now, ["a", "b", "c"])]


def test_ids_are_remembered_with_their_times_and_in_their_order(rig):
    for id_ in "abc":
        rig.publish(id_)
        rig.engine.purge(rig.publisher, 1, [])
        rig.engine.forget(rig.publisher, 1, [id_])
        rig.advance(SECOND)
        rig.pump()
    rig.engine.revoke(rig.publisher, 1, ["x", "y"], False, 15)
    engine = restart(rig)
    assert [row[1] for row in rig.publish("a", "b", "c", "d").exceptions] == ["DUPLICATE"] * 3
    assert engine.stats()["dedup"]["horizon_ms"] == 3000
    assert list(engine.revoked_ids) == ["x", "y"]
    rig.publish("x")
    assert rig.stage("x") == Stage.REVOKED


def test_broker_that_was_full_is_full(rig):
    rig.engine.set_limits(2000, 10**6, None)
    rig.publish("a", "b")
    assert rig.engine.publishing_state == "full"
    assert restart(rig).publishing_state == "full"
    assert rig.engine.tasks["a"].handle != NO_HANDLE
