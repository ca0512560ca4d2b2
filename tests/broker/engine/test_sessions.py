import pytest

from chervil.protocol import Outcome, Stage, TaskOption
from chervil.protocol.messages import Ok
from tests.broker.engine.rig import SECOND, Rig, changed

EARLY = {TaskOption.EARLY_ACK.value: True}


@pytest.fixture
def rig():
    return Rig()


@pytest.fixture
def worker(rig):
    return rig.worker("q", credit=3)


def lease(rig, *ids, options=None):
    rig.publish(*[rig.row(id_, options=options) for id_ in ids])
    return rig.lease()


def granted(rig):
    rig.worker("q", credit=9)
    return [(task.id, task.lease, task.redelivered, task.attempts) for task in rig.lease()]


def test_suspended_session_keeps_its_leases_and_is_given_nothing(rig, worker):
    lease(rig, "a")
    rig.engine.watch(worker, 1, ["a"])
    rig.engine.suspend(worker, 5 * SECOND)
    rig.publish("b")
    effects = rig.pump()
    assert (effects.grants, effects.ended) == ([], [])
    assert rig.stage("a") == Stage.LEASED
    assert rig.engine._state.watchers == {}
    report = rig.engine.stats()
    assert (report["suspended"], report["workers"]) == (1, [])
    assert rig.engine.next_timer()[0] == rig.now + 5 * SECOND


def test_session_whose_grace_is_over_is_closed_by_the_engine_and_told(rig, worker):
    lease(rig, "a", "b")
    rig.engine.started(worker, [["b", 1]], None)
    rig.engine.suspend(worker, 5 * SECOND)
    rig.advance(5 * SECOND - 1)
    assert rig.pump().ended == []
    rig.advance(1)
    effects = rig.pump()
    assert effects.ended == [worker]
    assert ("session_lost", {"worker": "worker", "leases": 2}) in effects.events
    assert {*changed(effects)} == {"a", "b"}
    assert rig.engine.stats()["counters"]["sessions_lost"] == 1
    assert granted(rig) == [("a", 2, True, 0), ("b", 2, True, 1)]
    assert worker not in rig.engine._state.sessions


def test_session_that_is_resumed_in_time_is_not_closed_by_its_old_grace(rig, worker):
    (task,) = lease(rig, "a")
    rig.engine.suspend(worker, 5 * SECOND)
    rig.engine.resume(worker)
    rig.advance(9 * SECOND)
    assert rig.pump().ended == []
    assert rig.succeed(worker, task).exceptions is None


def test_session_that_is_lost_again_has_its_newest_grace(rig, worker):
    lease(rig, "a")
    rig.engine.suspend(worker, 5 * SECOND)
    rig.engine.resume(worker)
    rig.advance(3 * SECOND)
    rig.engine.suspend(worker, 5 * SECOND)
    rig.advance(4 * SECOND)
    assert rig.pump().ended == []
    rig.advance(SECOND)
    assert rig.pump().ended == [worker]


def test_completion_before_the_grace_ends_stands_and_one_after_it_is_stale(rig, worker):
    first, second = lease(rig, "a", "b")
    rig.engine.suspend(worker, 5 * SECOND)
    rig.engine.resume(worker)
    assert rig.succeed(worker, first).exceptions is None
    rig.engine.suspend(worker, 5 * SECOND)
    rig.advance(5 * SECOND)
    rig.pump()
    later = rig.open("worker")
    assert rig.succeed(later, second).exceptions == [[0, 2]]
    assert (rig.stage("a"), rig.stage("b")) == (Stage.SUCCESS, Stage.QUEUED)


def test_session_closed_while_it_is_suspended_ends_once(rig, worker):
    lease(rig, "a")
    rig.engine.suspend(worker, 5 * SECOND)
    assert rig.engine.close(worker) == 1
    rig.advance(9 * SECOND)
    assert rig.pump().ended == []
    assert rig.engine.next_timer() == (rig.now + SECOND, None), "that nobody consumes the queue"


def test_reconcile_keeps_what_is_named_and_puts_back_the_rest_as_it_was(rig, worker):
    lease(rig, "a", "b", "c")
    rig.engine.started(worker, [["b", 1], ["c", 1, True]], None)
    rig.engine.suspend(worker, 5 * SECOND)
    rig.engine.resume(worker)
    inventory = [["a", 1, 1], ["b", 1, 0], ["c", 7, 1], ["strange", 1, 1]]
    rig.engine.reconcile(worker, 4, inventory)
    effects = rig.pump()
    assert (worker, Ok(4, 2)) in effects.replies
    assert {*changed(effects)} == {"a", "b", "c"}
    assert [rig.stage(id_) for id_ in "abc"] == [Stage.STARTED, Stage.LEASED, Stage.QUEUED]
    assert granted(rig) == [("c", 2, False, 0)]


def test_reconcile_does_not_take_an_earlier_flag_away(rig, worker):
    (task,) = lease(rig, "a")
    rig.complete(worker, rig.outcome(task, Outcome.LOST, body=False))
    rig.pump()
    rig.engine.suspend(worker, SECOND)
    rig.engine.resume(worker)
    rig.engine.reconcile(worker, 1, [])
    assert granted(rig) == [("a", 3, True, 1)]


def test_what_was_claimed_early_and_comes_back_unstarted_may_run_again(rig, worker):
    lease(rig, "a", options=EARLY)
    rig.engine.started(worker, [["a", 1, True]], 1)
    rig.engine.suspend(worker, SECOND)
    rig.engine.resume(worker)
    rig.engine.reconcile(worker, 1, [["a", 1, 0]])
    rig.engine.close(worker)
    assert granted(rig) == [("a", 2, False, 0)]


def test_reconcile_of_nothing_changes_nothing(rig, worker):
    rig.engine.suspend(worker, SECOND)
    rig.engine.resume(worker)
    rig.engine.reconcile(worker, 1, [])
    effects = rig.pump()
    assert (worker, Ok(1, 0)) in effects.replies
    assert changed(effects) == []


def test_credit_counts_from_the_resumed_connection(rig, worker):
    lease(rig, "a")
    rig.engine.suspend(worker, SECOND)
    rig.engine.resume(worker)
    rig.engine.reconcile(worker, 1, [["a", 1, 0]])
    assert rig.stage("a") == Stage.LEASED
    rig.subscribe(worker, "q")
    rig.publish("b", "c")
    assert rig.ids() == []
    rig.engine.credit(worker, 1)
    assert rig.ids() == ["b"]


def test_answered_completion_that_is_repeated_after_a_resume_applies_nothing(rig, worker):
    (task,) = lease(rig, "a")
    rig.complete(worker, rig.outcome(task, Outcome.RELEASE, body=False), sequence=1)
    rig.engine.suspend(worker, SECOND)
    rig.engine.resume(worker)
    again = rig.complete(worker, rig.outcome(task, Outcome.SUCCESS), sequence=1)
    assert again.exceptions == [[0, 1]]
    assert rig.stage("a") == Stage.QUEUED
    rig.pump()
    assert list(rig.live) == [task.handle]
    assert rig.engine.stats()["counters"]["duplicate_completions"] == 1


def test_early_claim_ends_with_its_session_and_never_runs_again(rig, worker):
    lease(rig, "a", "b", options=EARLY)
    rig.engine.started(worker, [["a", 1, True]], 1)
    rig.engine.close(worker)
    view = rig.view("a")
    assert (view.stage, view.handle) == (Stage.FAILURE, None)
    assert view.failure == ("lost", "its worker worker was lost")
    assert granted(rig) == [("b", 2, False, 0)], "unclaimed: no child can have begun it"


def test_nothing_is_delivered_to_a_session_that_does_not_read(rig, worker):
    rig.engine.hold(worker, True)
    rig.publish("a")
    assert rig.ids() == []
    rig.engine.hold(worker, False)
    assert rig.ids() == ["a"]


def test_task_that_no_child_has_claimed_after_all_is_told_as_leased(rig, worker):
    lease(rig, "a")
    rig.engine.started(worker, [["a", 1]], None)
    rig.pump()
    rig.engine.suspend(worker, SECOND)
    rig.engine.resume(worker)
    rig.engine.reconcile(worker, 1, [["a", 1, 0]])
    (task,) = rig.pump().changed
    assert (task.id, task.stage) == ("a", Stage.LEASED)
