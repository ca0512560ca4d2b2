from chervil.protocol import Outcome, RetryOption, Stage, TaskOption
from chervil.protocol.messages import Ok
from chervil_broker.engine.charges import options_bytes
from chervil_broker.engine.task import EVENT_BYTES, TASK_OVERHEAD
from tests.broker.engine.rig import HOUR, MS, SECOND, Rig, changed

DELAY = {TaskOption.DELAY_MS.value: 10_000}
EXPIRES = {TaskOption.EXPIRES_MS.value: 1000}


def test_purge_revokes_what_is_ready_or_held_and_counts_it():
    rig = Rig()
    worker = rig.worker("q", credit=2)
    rig.publish("leased", "retried")
    _, retried = rig.lease()
    cause = {RetryOption.DELAY_MS.value: 10_000}
    rig.complete(worker, rig.outcome(retried, Outcome.RETRY, cause))
    rig.publish("ready", rig.row("held", options=DELAY), rig.row("elsewhere", queue="other", options=DELAY))
    rig.engine.watch(rig.publisher, 9, ["ready"])
    rig.pump()
    rig.engine.purge(rig.publisher, 7, ["q", "nowhere"])
    effects = rig.pump()
    assert (rig.publisher, Ok(7, 3)) in effects.replies
    assert {"ready", "retried", "held"} <= {*changed(effects)}
    ((session, request, (view,)),) = effects.statuses
    assert (session, request, view.id, view.stage) == (rig.publisher, None, "ready", Stage.REVOKED)
    assert view.failure == ("revoked", "its queue was purged")
    assert rig.stage("leased") == Stage.LEASED
    assert rig.stage("elsewhere") == Stage.SCHEDULED
    assert len(rig.live) == 5, "what was revoked may be run again"
    rig.advance(20 * SECOND)
    assert rig.ids() == []


def test_purge_of_everything():
    rig = Rig()
    rig.publish("a", rig.row("b", queue="other"), rig.row("c", queue="held", options=DELAY))
    rig.engine.purge(rig.publisher, 1, [])
    assert (rig.publisher, Ok(1, 3)) in rig.pump().replies
    assert rig.engine._state.queues == {}
    memory = rig.engine.stats()["memory"]
    assert (memory["bytes"], memory["results"]) == (
        0,
        3 * (TASK_OVERHEAD + 100) + EVENT_BYTES + options_bytes(DELAY),
    )
    rig.advance(25 * HOUR)
    rig.pump()
    assert rig.live == {}


def test_purge_of_nothing_changes_nothing():
    rig = Rig()
    rig.worker("q")
    rig.engine.purge(rig.publisher, 1, ["q"])
    effects = rig.pump()
    assert (rig.publisher, Ok(1, 0)) in effects.replies
    assert changed(effects) == []


def test_purged_queue_is_not_warned_of():
    rig = Rig()
    rig.publish("a")
    rig.engine.purge(rig.publisher, 1, [])
    rig.advance(20 * SECOND)
    assert rig.pump().events == []


def test_unstarted_task_expires_and_watchers_are_told():
    rig = Rig()
    rig.publish(
        rig.row("a", options=EXPIRES),
        rig.row("wall", options={TaskOption.EXPIRES_AT.value: rig.wall // MS + 1000}),
        rig.row("held", options=EXPIRES | DELAY),
    )
    rig.engine.watch(rig.publisher, 1, ["a"])
    rig.pump()
    rig.advance(SECOND, wall=0)
    effects = rig.pump()
    assert changed(effects) == ["a", "held"]
    ((_, _, (view,)),) = effects.statuses
    assert (view.stage, view.handle) == (Stage.EXPIRED, None)
    assert view.failure == ("expired", "it expired before a worker started it")
    rig.advance(0, wall=SECOND)
    rig.pump()
    assert rig.stage("wall") == Stage.EXPIRED
    assert len(rig.live) == 3, "what expired may be run again"
    assert rig.engine._state.queues == {}


def test_task_due_and_expired_at_once_never_runs():
    rig = Rig()
    rig.worker("q", credit=9)
    rig.publish(rig.row("a", options={TaskOption.DELAY_MS.value: 1000} | EXPIRES))
    rig.advance(2 * SECOND)
    assert rig.ids() == []
    assert rig.stage("a") == Stage.EXPIRED


def test_leased_task_is_left_alone_and_expires_when_it_comes_back():
    rig = Rig()
    worker = rig.worker("q", credit=1)
    rig.publish(rig.row("a", options=EXPIRES))
    (task,) = rig.lease()
    assert rig.engine.remaining_ms(task) == 1000
    rig.advance(3 * SECOND)
    rig.pump()
    assert rig.stage("a") == Stage.LEASED
    assert rig.engine.remaining_ms(task) == 0
    rig.engine.close(worker)
    rig.worker("q", credit=1)
    assert rig.ids() == []
    assert rig.stage("a") == Stage.EXPIRED


def test_released_before_its_expiry_it_still_expires():
    rig = Rig()
    worker = rig.worker("q", credit=1)
    rig.publish(rig.row("a", options=EXPIRES), "other")
    (task,) = rig.lease()
    rig.complete(worker, rig.outcome(task, Outcome.RELEASE))
    rig.advance(SECOND)
    rig.pump()
    assert rig.stage("a") == Stage.EXPIRED


def test_expired_queue_is_not_warned_of():
    rig = Rig()
    rig.publish(rig.row("a", options=EXPIRES), rig.row("b", options=DELAY))
    rig.advance(SECOND)
    rig.pump()
    rig.advance(8 * SECOND)
    rig.publish("c")
    rig.advance(SECOND)
    assert rig.pump().events == []
    rig.advance(9 * SECOND)
    assert [name for name, _ in rig.pump().events] == ["queue_without_consumer"]


def test_many_timers_take_several_pumps():
    rig = Rig(timers_per_pump=10)
    rig.publish(*[rig.row(f"t{n}", options=EXPIRES) for n in range(25)])
    rig.advance(SECOND)
    for left in (15, 5, 0):
        rig.pump()
        assert rig.engine.stats()["tasks"].get("QUEUED", 0) == left
    assert rig.engine.next_timer()[0] > rig.now
