import pytest

from chervil.protocol import Outcome, RejectOption, RetryOption, RevokedOption, Stage, TaskOption
from chervil.protocol.messages import Ok
from tests.broker.engine.rig import MS, SECOND, Rig, changed

DELAY = {TaskOption.DELAY_MS.value: 1000}


@pytest.fixture
def rig():
    return Rig()


@pytest.fixture
def worker(rig):
    return rig.worker("q", credit=1)


def revoke(rig, *ids, terminate=False, signal=15):
    """Returns how many it counted."""
    rig.engine.revoke(rig.publisher, 9, list(ids), terminate, signal)
    return rig.engine._state.effects.replies[-1][1].value


def test_task_that_waits_is_over_at_once_and_its_watchers_are_told(rig):
    rig.publish("a", rig.row("b", options=DELAY))
    rig.engine.watch(rig.publisher, 1, ["a"])
    rig.pump()
    assert revoke(rig, "a", "b", "a") == 2
    effects = rig.pump()
    assert changed(effects) == ["a", "b"]
    ((_, _, (view,)),) = effects.statuses
    assert (view.id, view.stage, view.failure) == ("a", Stage.REVOKED, ("revoked", "called off by publisher"))
    rig.worker("q", credit=9)
    rig.advance(2 * SECOND)
    assert rig.ids() == []
    assert revoke(rig, "a") == 0


@pytest.mark.parametrize(("terminate", "signal"), [(False, None), (True, 9)])
def test_worker_that_has_the_task_is_sent_a_cancel(rig, worker, terminate, signal):
    rig.publish("a")
    rig.pump()
    assert revoke(rig, "a", terminate=terminate, signal=9) == 1
    effects = rig.pump()
    assert effects.cancels == [(worker, [["a", 1, signal]])]
    assert changed(effects) == ["a"]
    assert (rig.publisher, Ok(9, 1)) in effects.replies
    assert rig.stage("a") == Stage.LEASED


@pytest.mark.parametrize(
    ("outcome", "options"),
    [
        (Outcome.RETRY, None),
        (Outcome.RETRY, {RetryOption.DELAY_MS.value: 10}),
        (Outcome.RELEASE, None),
        (Outcome.REJECT, {RejectOption.REQUEUE.value: True}),
        (Outcome.LOST, None),
    ],
)
def test_task_that_was_called_off_does_not_run_again(rig, worker, outcome, options):
    rig.publish("a")
    (task,) = rig.lease()
    revoke(rig, "a")
    assert rig.complete(worker, rig.outcome(task, outcome, options)).exceptions is None
    view = rig.view("a")
    assert (view.stage, view.failure) == (Stage.REVOKED, ("revoked", "called off by publisher"))
    rig.pump()
    assert list(rig.live) == [task.handle]
    assert rig.engine.stats()["counters"]["revoked"] == 1


def test_retry_with_a_new_body_of_a_task_that_was_called_off_frees_it(rig, worker):
    rig.publish("a")
    (task,) = rig.lease()
    revoke(rig, "a")
    options = {RetryOption.BODY.value: (rig.body(50), 50)}
    rig.complete(worker, rig.outcome(task, Outcome.RETRY, options, body=False))
    rig.pump()
    assert list(rig.live) == [task.handle]


@pytest.mark.parametrize("outcome", [Outcome.SUCCESS, Outcome.FAILURE])
def test_verdict_that_was_reported_stands(rig, worker, outcome):
    rig.publish("a")
    (task,) = rig.lease()
    revoke(rig, "a", terminate=True)
    rig.complete(worker, rig.outcome(task, outcome))
    assert rig.stage("a") == Stage[outcome.name]
    assert revoke(rig, "a") == 0


def test_task_that_is_called_off_goes_with_its_session(rig, worker):
    rig.publish("a")
    rig.pump()
    revoke(rig, "a")
    rig.engine.close(worker)
    assert rig.stage("a") == Stage.REVOKED


def test_worker_that_was_away_is_told_when_it_has_said_what_it_holds(rig):
    worker = rig.worker("q", credit=2)
    rig.publish("a", "b")
    rig.pump()
    rig.engine.suspend(worker, SECOND)
    revoke(rig, "a", "b", terminate=True, signal=2)
    assert rig.pump().cancels == []
    rig.engine.resume(worker)
    rig.engine.reconcile(worker, 1, [["b", 1, 1]])
    assert rig.pump().cancels == [(worker, [["b", 1, 2]])]
    assert rig.stage("a") == Stage.REVOKED, "it would have been QUEUED"


def test_worker_completes_what_was_called_off_as_revoked(rig, worker):
    rig.publish("a")
    (task,) = rig.lease()
    revoke(rig, "a")
    rig.complete(worker, rig.outcome(task, Outcome.REVOKED, body=False))
    view = rig.view("a")
    assert (view.stage, view.failure) == (Stage.REVOKED, ("revoked", "called off by publisher"))


@pytest.mark.parametrize(
    ("options", "stage", "failure"),
    [
        (None, Stage.REVOKED, ("revoked", "its worker called it off")),
        ({RevokedOption.EXPIRED.value: True}, Stage.EXPIRED, ("expired", "it expired before it began")),
    ],
)
def test_worker_says_that_a_task_is_revoked_or_expired(rig, worker, options, stage, failure):
    rig.publish("a")
    (task,) = rig.lease()
    rig.complete(worker, rig.outcome(task, Outcome.REVOKED, options, body=False))
    view = rig.view("a")
    assert (view.stage, view.failure) == (stage, failure)


def test_record_that_a_worker_brings_is_shown_in_place_of_the_brokers(rig, worker):
    rig.publish(rig.row("a", options={TaskOption.IGNORE_RESULT.value: True}))
    (task,) = rig.lease()
    row = rig.outcome(task, Outcome.REVOKED, reason="TaskRevokedError: terminated")
    rig.complete(worker, row)
    view = rig.view("a")
    assert (view.stage, view.handle, view.failure) == (Stage.REVOKED, row[3], None)


def test_unknown_id_is_remembered_and_its_task_is_over_when_it_comes(rig, worker):
    assert revoke(rig, "a", "b") == 2
    assert rig.pump().revoked_ids == [("publisher", ["a", "b"])]
    confirm = rig.publish(rig.row("a", options=DELAY), "b", "c")
    assert (confirm.accepted, confirm.exceptions) == (3, None)
    effects = rig.pump()
    assert changed(effects) == ["a", "b"]
    assert [task.id for _, tasks in effects.grants for task in tasks] == ["c"]
    assert [rig.stage(id_) for id_ in "ab"] == [Stage.REVOKED, Stage.REVOKED]
    assert len(rig.engine._state.revoked_ids) == 0


def test_as_many_unknown_ids_are_remembered_as_there_is_room_for():
    rig = Rig(revoked_ids=2)
    revoke(rig, "a", "b", "c")
    revoke(rig, "b")
    revoke(rig, "d")
    assert list(rig.engine._state.revoked_ids.by) == ["b", "d"]


def test_id_of_a_task_that_is_forgotten_is_final_and_not_remembered(rig, worker):
    rig.publish("a")
    rig.succeed(worker, *rig.lease())
    rig.engine.forget(rig.publisher, 1, ["a"])
    assert revoke(rig, "a") == 0
    assert len(rig.engine._state.revoked_ids) == 0


def test_revoked_task_that_waits_for_its_retry_loses_its_timer(rig, worker):
    rig.publish("a")
    (task,) = rig.lease()
    rig.complete(worker, rig.outcome(task, Outcome.RETRY, {RetryOption.DELAY_MS.value: 10}))
    revoke(rig, "a")
    rig.advance(20 * MS)
    rig.pump()
    assert rig.stage("a") == Stage.REVOKED
