import pytest

from chervil.protocol import Outcome, RejectOption, ReleaseOption, Stage, TaskOption
from chervil_broker.engine.completing import SENT_BACK_NS
from tests.broker.engine.rig import MS, SECOND, Rig

CLAIMED = {ReleaseOption.CLAIMED.value: True}
REQUEUE = {RejectOption.REQUEUE.value: True}


@pytest.fixture
def rig():
    return Rig()


@pytest.fixture
def worker(rig):
    return rig.worker("q", credit=2**63)


def lease_one(rig, options=None):
    rig.publish(rig.row("a", options=options))
    (task,) = rig.lease()
    return task


def test_cut_off_task_comes_again_flagged_and_uncharged(rig, worker):
    task = lease_one(rig)
    rig.complete(worker, rig.outcome(task, Outcome.RELEASE, CLAIMED, body=False))
    (task,) = rig.lease()
    assert (task.lease, task.redelivered, task.attempts) == (2, True, 0)


def test_cut_off_task_that_was_claimed_early_has_failed(rig, worker):
    task = lease_one(rig)
    rig.engine.started(worker, [["a", 1, True]], None)
    rig.complete(worker, rig.outcome(task, Outcome.RELEASE, CLAIMED, body=False))
    view = rig.view("a")
    assert (view.stage, view.failure) == (Stage.FAILURE, ("lost", "worker worker stopped while it ran"))


def test_task_of_a_worker_that_was_thrown_out_comes_again_flagged_and_uncharged(rig, worker):
    task = lease_one(rig)
    rig.engine.started(worker, [["a", task.lease, False]], None)
    assert rig.engine.close(worker, thrown_out=True) == 1
    events = rig.engine.history("a")[0]["events"]
    assert events[-1]["event"] == "released"
    assert events[-1]["reason"] == "its user was removed or changed"
    rig.worker("q", credit=2**63, name="other")
    (task,) = rig.lease()
    assert (task.redelivered, task.attempts, task.stage) == (True, 0, Stage.LEASED)


def test_early_claim_that_was_not_begun_may_be_given_back_and_ends_with_its_lease(rig, worker):
    task = lease_one(rig)
    rig.engine.started(worker, [["a", 1, True]], None)
    rig.complete(worker, rig.outcome(task, Outcome.RELEASE, body=False))
    (task,) = rig.lease()
    assert not task.redelivered
    rig.complete(worker, rig.outcome(task, Outcome.LOST, body=False))
    assert rig.stage("a") != Stage.FAILURE


@pytest.mark.parametrize(
    "options", [{TaskOption.FAIL_ON_LOST.value: True}, {TaskOption.EARLY_ACK.value: True}]
)
def test_task_that_may_not_run_again_has_failed_when_its_process_died(rig, worker, options):
    task = lease_one(rig, options)
    rig.engine.started(worker, [["a", 1, True]], None)
    row = rig.outcome(task, Outcome.LOST, reason="signal 9")
    rig.complete(worker, row)
    view = rig.view("a")
    assert (view.stage, view.handle, view.failure) == (Stage.FAILURE, row[3], ("lost", None))
    counters = rig.engine.stats()["counters"]
    assert (counters["lost"], counters["failed"]) == (1, 1)
    assert rig.complete(worker, (*row[:3], None, 0, None, None)).exceptions == [[0, 1]]


def test_lost_task_without_a_text_says_who_lost_it(rig, worker):
    task = lease_one(rig, {TaskOption.FAIL_ON_LOST.value: True})
    rig.complete(worker, rig.outcome(task, Outcome.LOST, body=False))
    assert rig.view("a").failure == ("lost", "worker worker was lost while it ran this task, attempt 1")


def test_task_sent_back_is_held_flagged_and_uncharged_and_comes_at_the_end(rig):
    worker = rig.worker("q", credit=9)
    task = lease_one(rig)
    rig.complete(worker, rig.outcome(task, Outcome.REJECT, REQUEUE, reason="Reject: busy"))
    rig.publish("b")
    assert (rig.ids(), rig.stage("a")) == (["b"], Stage.RETRY)
    story, _ = rig.engine.history("a")
    until = (rig.wall + SENT_BACK_NS) // MS
    assert story["events"][-1] == {
        "at_ms": rig.wall // MS,
        "event": "retry",
        "worker": "worker",
        "until_ms": until,
        "reason": "Reject: busy",
    }
    rig.advance(SENT_BACK_NS)
    (again,) = rig.lease()
    assert (again.id, again.redelivered, again.attempts, again.retries) == ("a", True, 0, 0)
    rig.pump()
    assert len(rig.live) == 2, "what it brought is freed"


def test_task_sent_back_again_and_again_is_held_for_longer_and_never_lost(rig):
    worker = rig.worker("q", credit=99)
    task = lease_one(rig)
    held = []
    for _ in range(70):
        rig.complete(worker, rig.outcome(task, Outcome.REJECT, REQUEUE, body=False))
        rig.pump()
        due, _ = rig.engine.next_timer()
        held.append((due - rig.now) // SECOND)
        rig.advance(due - rig.now)
        (task,) = rig.lease()
    assert held == [1, 2, 4, 8, 16, 32] + [60] * 64
    rig.complete(worker, rig.outcome(task, Outcome.FAILURE))
    rig.engine.rerun(rig.publisher, 1, ["a"])
    rig.complete(worker, rig.outcome(*rig.lease(), Outcome.REJECT, REQUEUE, body=False))
    rig.pump()
    assert rig.engine.next_timer()[0] == rig.now + SENT_BACK_NS, "run anew, it begins anew"


def test_task_sent_back_still_expires(rig):
    worker = rig.worker("q", credit=1)
    task = lease_one(rig, {TaskOption.EXPIRES_MS.value: 1000})
    rig.advance(2 * SECOND)
    rig.complete(worker, rig.outcome(task, Outcome.REJECT, REQUEUE))
    rig.advance(MS)
    rig.pump()
    assert rig.stage("a") == Stage.EXPIRED, "its expiry passed meanwhile"


def test_rejected_task_without_a_record_has_the_brokers_own(rig, worker):
    task = lease_one(rig)
    rig.complete(worker, rig.outcome(task, Outcome.REJECT, body=False))
    assert rig.view("a")[1:4] == (Stage.DEAD, None, ("rejected", "worker worker rejected it"))


def test_retry_takes_the_flag_and_the_early_claim_away(rig, worker):
    task = lease_one(rig)
    rig.complete(worker, rig.outcome(task, Outcome.LOST, body=False))
    (task,) = rig.lease()
    rig.engine.started(worker, [["a", 2, True]], None)
    rig.complete(worker, rig.outcome(task, Outcome.RETRY))
    (task,) = rig.lease()
    assert not task.redelivered
    rig.engine.close(worker)
    assert rig.stage("a") == Stage.QUEUED


def test_release_that_is_answered_twice_is_stale_the_second_time(rig):
    worker = rig.worker("q", credit=1)
    task = lease_one(rig)
    row = rig.outcome(task, Outcome.RELEASE, body=False)
    rig.complete(worker, row)
    assert rig.complete(worker, row).exceptions == [[0, 2]]
    assert rig.complete(worker, row, sequence=1).exceptions == [[0, 1]]


def test_lease_before_is_stale_after_the_task_was_delivered_again(rig, worker):
    task = lease_one(rig)
    old = rig.outcome(task, Outcome.SUCCESS)
    rig.engine.close(worker)
    second = rig.worker("q", credit=1)
    rig.pump()
    assert rig.complete(second, old).exceptions == [[0, 2]]
    assert rig.stage("a") == Stage.LEASED
