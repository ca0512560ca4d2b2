"""The moves of a task, and the books that are kept of them: memory, stages, queues."""

import pytest

from chervil.protocol import Outcome, RetryOption, Stage, TaskOption
from chervil_broker.engine.charges import options_bytes
from chervil_broker.engine.task import EVENT_BYTES, LEASED, QUEUED, SCHEDULED, STARTED, SUCCESS, TASK_OVERHEAD
from tests.broker.engine.rig import HOUR, MS, SECOND, Rig

DELAYED = {TaskOption.DELAY_MS.value: 1000}


@pytest.fixture
def rig():
    return Rig()


def books(rig, name="q"):
    """(ready, leased, scheduled) of a queue."""
    queue = rig.engine._state.queues[name]
    return queue.ready, queue.leased, queue.scheduled


def staged(rig):
    """How many tasks are in which stage, where there are any."""
    return {stage: count for stage, count in enumerate(rig.engine._state.stages) if count}


def test_memory_counts_bodies_and_overhead_until_a_task_is_final(rig):
    state = rig.engine._state
    worker = rig.worker("q", credit=9)
    rig.publish(rig.row("a", size=100), rig.row("b", size=50), rig.row("c", size=0, options=DELAYED))
    held = EVENT_BYTES + options_bytes(DELAYED)
    assert state.memory == 150 + 3 * TASK_OVERHEAD + held
    first, second = rig.lease()
    assert state.memory == 150 + 3 * TASK_OVERHEAD + held, "a lease frees nothing"
    rig.complete(worker, rig.outcome(first, Outcome.SUCCESS, size=70))
    assert state.memory == 50 + 2 * TASK_OVERHEAD + held
    assert state.results.bytes == 70 + TASK_OVERHEAD
    rig.complete(worker, rig.outcome(second, Outcome.RELEASE, body=False))
    assert state.memory == 50 + 2 * TASK_OVERHEAD + held + 2 * EVENT_BYTES, "delivered and released are told"
    rig.engine.purge(rig.publisher, 1, [])
    assert state.memory == 0


def test_memory_counts_the_newest_body_and_failure_of_a_retry(rig):
    state = rig.engine._state
    worker = rig.worker("q", credit=9)
    rig.publish(rig.row("a", size=100))
    (task,) = rig.lease()
    options = {RetryOption.DELAY_MS.value: 1, RetryOption.BODY.value: (rig.body(300), 300)}
    rig.complete(worker, rig.outcome(task, Outcome.RETRY, options, size=20))
    assert state.memory == 300 + 20 + TASK_OVERHEAD + 2 * EVENT_BYTES
    rig.advance(MS)
    (task,) = rig.lease()
    rig.complete(worker, rig.outcome(task, Outcome.RETRY, {RetryOption.DELAY_MS.value: 1}, size=30))
    assert state.memory == 300 + 30 + TASK_OVERHEAD + 5 * EVENT_BYTES, "in place of the first failure"
    rig.advance(MS)
    rig.succeed(worker, *rig.lease())
    assert state.memory == 0
    rig.pump()
    assert list(rig.live.values()) == [10], "only the result is left"


def test_stages_and_queues_follow_each_move(rig):
    worker = rig.worker("q", credit=1)
    rig.publish("a", rig.row("b", options=DELAYED))
    assert (staged(rig), books(rig)) == ({QUEUED: 1, SCHEDULED: 1}, (1, 0, 1))
    (task,) = rig.lease()
    assert (staged(rig), books(rig)) == ({LEASED: 1, SCHEDULED: 1}, (0, 1, 1))
    rig.engine.started(worker, [["a", task.lease]], None)
    assert (staged(rig), books(rig)) == ({STARTED: 1, SCHEDULED: 1}, (0, 1, 1))
    rig.advance(SECOND)
    rig.pump()
    assert (staged(rig), books(rig)) == ({STARTED: 1, QUEUED: 1}, (1, 1, 0))
    rig.succeed(worker, task)
    assert (staged(rig), books(rig)) == ({SUCCESS: 1, QUEUED: 1}, (1, 0, 0))


def test_queue_is_kept_while_anything_is_in_it_or_anybody_at_it(rig):
    queues = rig.engine._state.queues
    worker = rig.worker("q", credit=1)
    rig.publish("a", rig.row("b", options=DELAYED))
    rig.lease()
    rig.subscribe(worker, "other")
    assert books(rig) == (0, 1, 1), "one is leased, one is held, nobody is there"
    rig.complete(worker, ("a", 1, Outcome.SUCCESS.value, None, 0, None, None))
    assert books(rig) == (0, 0, 1)
    rig.advance(SECOND)
    rig.pump()
    assert books(rig) == (1, 0, 0)
    rig.engine.purge(rig.publisher, 1, ["q"])
    assert list(queues) == ["other"]
    rig.engine.close(worker)
    assert queues == {}


def test_queue_that_is_made_anew_starts_its_wait_for_a_consumer_anew(rig):
    rig.publish("a")
    rig.advance(6 * SECOND)
    rig.engine.purge(rig.publisher, 1, ["q"])
    rig.publish("b")
    rig.advance(6 * SECOND)
    assert rig.pump().events == [], "12 s after the first queue of that name, 6 s after this one"
    rig.advance(4 * SECOND)
    assert rig.pump().events == [("queue_without_consumer", {"queue": "q", "ready": 1})]


def test_queue_without_ready_tasks_is_not_warned_of(rig):
    rig.publish(
        rig.row("a", options={TaskOption.EXPIRES_MS.value: 5000}),
        rig.row("b", options={TaskOption.DELAY_MS.value: 60_000}),
    )
    rig.advance(5 * SECOND)
    rig.pump()
    rig.advance(20 * SECOND)
    assert rig.pump().events == []
    assert books(rig) == (0, 0, 1)


def test_one_timer_a_queue_watches_for_a_consumer(rig):
    unserved = rig.engine._state.unserved
    for number in range(20):
        rig.publish(str(number))
        worker = rig.worker("q")
        rig.engine.close(worker)
    assert list(unserved) == ["q"]


def test_queues_that_are_gone_are_not_watched_for_a_consumer(rig):
    for number in range(100):
        rig.publish(rig.row(b"%016d" % number, queue=f"q{number}"))
        rig.engine.purge(rig.publisher, 1, [])
    assert (rig.engine._state.unserved, rig.engine._state.queues) == ({}, {})


def test_queue_that_was_warned_of_and_filled_again_is_not_warned_of_again(rig):
    worker = rig.worker("q", credit=1)
    rig.publish("leased")
    rig.lease()
    rig.engine.subscribe(worker, 1, [], None, 1, 1)
    rig.publish("a")
    rig.advance(10 * SECOND)
    assert len(rig.pump().events) == 1
    rig.engine.revoke(rig.publisher, 1, ["a"], terminate=False, signal=15)
    rig.publish("b")
    rig.advance(10 * SECOND)
    assert rig.pump().events == []


def test_released_task_goes_before_those_that_came_later_and_a_due_one_behind(rig):
    worker = rig.worker("q", credit=1)
    rig.publish("a", rig.row("held", options=DELAYED), "b")
    (task,) = rig.lease()
    rig.advance(SECOND)
    rig.complete(worker, rig.outcome(task, Outcome.RELEASE, body=False))
    rig.engine.credit(worker, 9)
    assert rig.ids() == ["a", "b", "held"]


def test_final_task_is_kept_for_as_long_as_it_asked_and_for_a_day_otherwise(rig):
    worker = rig.worker("q", credit=9)
    rig.publish("day", rig.row("brief", options={TaskOption.RESULT_EXPIRES_MS.value: 60_000}))
    rig.succeed(worker, *rig.lease())
    rig.advance(62 * SECOND)
    assert rig.pump().forgotten == [(rig.now, ["brief"])]
    assert (rig.stage("day"), rig.stage("brief")) == (Stage.SUCCESS, Stage.EVICTED)
    rig.advance(23 * HOUR)
    rig.pump()
    assert rig.stage("day") == Stage.SUCCESS
    rig.advance(HOUR)
    rig.pump()
    assert rig.stage("day") == Stage.EVICTED, "its id is remembered"
    assert rig.engine._state.counters["forgotten"] == 2
    assert staged(rig) == {}


@pytest.mark.parametrize(
    ("options", "size"),
    [({TaskOption.IGNORE_RESULT.value: True}, 0), ({TaskOption.IGNORE_RESULT.value: False}, 70)],
)
def test_ignored_result_takes_no_room(rig, options, size):
    worker = rig.worker("q", credit=9)
    rig.publish(rig.row("a", options=options))
    rig.complete(worker, rig.outcome(*rig.lease(), Outcome.SUCCESS, size=70))
    rig.pump()
    assert rig.engine._state.results.bytes == size + TASK_OVERHEAD
    assert list(rig.live.values()) == [size] * bool(size)


def test_view_of_what_the_broker_ended_says_so_in_its_own_words(rig):
    worker = rig.worker("q", credit=1, name="w@h")
    rig.publish(rig.row("dead", options={TaskOption.DELIVERY_LIMIT.value: 1}))
    rig.complete(worker, rig.outcome(*rig.lease(), Outcome.LOST, body=False))
    rig.publish("purged", rig.row("late", options={TaskOption.EXPIRES_MS.value: 1}))
    rig.advance(MS)
    rig.pump()
    rig.engine.purge(rig.publisher, 1, [])
    failures = {id_: rig.view(id_).failure for id_ in ("dead", "late", "purged")}
    assert failures == {
        "dead": ("lost", "worker w@h was lost while it ran this task, attempt 1"),
        "late": ("expired", "it expired before a worker started it"),
        "purged": ("revoked", "its queue was purged"),
    }


def test_reason_that_the_worker_gave_for_a_loss_is_shown_in_place_of_ours(rig):
    worker = rig.worker("q", credit=1)
    rig.publish(rig.row("dead", options={TaskOption.DELIVERY_LIMIT.value: 1}))
    rig.complete(worker, rig.outcome(*rig.lease(), Outcome.LOST))
    view = rig.view("dead")
    assert view.failure == ("lost", None)
    assert view.handle is not None


def test_result_evicted_for_room_is_booked_as_evicted():
    rig = Rig(results_limit=2 * TASK_OVERHEAD + 1000)
    worker = rig.worker("q", credit=9)
    rig.publish("a")
    rig.complete(worker, rig.outcome(*rig.lease(), Outcome.SUCCESS, size=3 * TASK_OVERHEAD))
    assert rig.pump().evicted == ["a"]
    assert rig.stage("a") == Stage.EVICTED
    assert staged(rig) == {Stage.EVICTED.value: 1}
    assert rig.engine._state.counters["evicted"] == 1
    assert rig.pump().evicted == []


def test_pump_fires_and_leases_for_each_reason_alone(rig):
    """A pump without a reason skips both for speed."""
    rig.publish(
        rig.row("soon", options=DELAYED),
        rig.row("wall", options={TaskOption.DUE_AT.value: rig.wall // MS + 5000}),
    )
    rig.advance(SECOND - 1)
    rig.pump()
    assert staged(rig) == {SCHEDULED: 2}
    rig.advance(1, wall=0)
    rig.pump()
    assert staged(rig) == {QUEUED: 1, SCHEDULED: 1}, "broker time alone has moved far enough"
    rig.advance(0, wall=5 * SECOND)
    rig.pump()
    assert staged(rig) == {QUEUED: 2}, "and now the wall clock alone"
    worker = rig.worker("q", credit=1)
    assert rig.ids(worker) == ["soon"], "a consumer woke, and no queue gained anything"
    rig.engine.credit(worker, 9)
    assert rig.ids(worker) == ["wall"]
    rig.publish("new")
    assert rig.ids(worker) == ["new"], "a queue gained a task, and no consumer woke"
