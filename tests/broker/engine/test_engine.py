"""The facade: what holds for the engine as a whole."""

import gc

import pytest

from chervil.protocol import Outcome, RetryOption, TaskOption
from tests.broker.engine.rig import HOUR, MS, SECOND, Rig


def live_through_everything(rig, round_):
    """Some thousand tasks through every path there is."""
    first, second = rig.worker("q", "other", credit=100), rig.worker("q", tasks=["add"], credit=100)
    options = [
        None,
        {TaskOption.DELAY_MS.value: 5},
        {TaskOption.EXPIRES_MS.value: 5},
        {TaskOption.EXPIRES_AT.value: rig.wall // MS + 3600_000, TaskOption.IGNORE_RESULT.value: True},
        {TaskOption.DELIVERY_LIMIT.value: 1},
        {TaskOption.DELAY_MS.value: 1, TaskOption.DUE_AT.value: 1},
    ]
    rig.publish(
        *[
            rig.row(
                f"{round_}-{n}",
                name=("add", "mail")[n % 2],
                queue=("q", "other")[n % 3 == 0],
                options=options[n % 6],
            )
            for n in range(300)
        ]
    )
    rig.engine.watch(rig.publisher, 1, [f"{round_}-{n}" for n in range(0, 300, 7)])
    outcomes = [Outcome.SUCCESS, Outcome.FAILURE, Outcome.RELEASE, Outcome.LOST, Outcome.RETRY]
    for session, tasks in rig.pump().grants:
        rig.engine.started(session, [[task.id, task.lease] for task in tasks[::3]], None)
        rows = [
            rig.outcome(task, outcomes[n % 5], {RetryOption.DELAY_MS.value: 10} if n % 5 == 4 else None)
            for n, task in enumerate(tasks[:-5])
        ]
        rig.complete(session, *rows, *rows[:0])
    rig.advance(10 * MS)
    rig.pump()
    rig.engine.close(first)
    rig.engine.stats()
    rig.pump()
    rig.engine.purge(rig.publisher, 2, ["other"])
    rig.engine.credit(second, 150)
    rig.pump()
    rig.engine.close(second)
    rig.engine.purge(rig.publisher, 3, [])
    rig.engine.rerun(rig.publisher, 4, [f"{round_}-{n}" for n in range(100)])
    rig.engine.revoke(rig.publisher, 5, [f"{round_}-{n}" for n in range(50)], terminate=False, signal=15)
    rig.engine.purge(rig.publisher, 6, [])
    rig.pump()


def test_no_reference_cycles_on_any_path():
    rig = Rig(results_limit=200_000)
    gc.collect()
    gc.disable()
    try:
        for round_ in range(10):
            live_through_everything(rig, round_)
        assert gc.collect() == 0
    finally:
        gc.enable()


def test_everything_returns_to_zero():
    rig = Rig()
    for round_ in range(3):
        live_through_everything(rig, round_)
    rig.engine.forget(rig.publisher, 1, list(rig.engine._state.tasks))
    rig.advance(25 * HOUR)
    rig.pump()
    while rig.engine.next_timer() != (None, None):
        rig.pump()
    state = rig.engine._state
    assert (state.tasks, state.queues, state.watchers, state.active) == ({}, {}, {}, {})
    assert (state.memory, state.results.bytes, state.results._bare, len(state.deadlines)) == (0, 0, 0, 0)
    assert (state.charges.bytes, len(state.patience)) == (state.revoked_ids.bytes, 0)
    assert (state.subscriptions.bytes, state.unserved) == (0, {})
    assert not any(state.stages)
    assert rig.live == {}
    assert list(state.sessions) == [rig.publisher]


def test_same_commands_have_the_same_effects():
    def story():
        rig = Rig()
        live_through_everything(rig, 0)
        rig.worker("q", credit=7)
        return repr(rig.engine.stats()), rig.ids(), rig.live

    assert story() == story()


def test_each_publish_is_told_with_its_own_time_and_publisher():
    rig = Rig()
    rig.publish("a")
    rig.publish("b")
    rig.advance(5 * MS)
    rig.publisher = rig.open("other")
    rig.publish("c", "d")
    told = [(since, origin, [task.id for task in tasks]) for since, origin, tasks in rig.pump().published]
    before = rig.now - 5 * MS, ("publisher", rig.wall // MS - 5)
    assert told == [(*before, ["a"]), (*before, ["b"]), (rig.now, ("other", rig.wall // MS), ["c", "d"])]
    assert rig.pump().published == []


def test_next_timer_tells_of_results_to_forget():
    rig = Rig()
    worker = rig.worker("q", credit=1)
    assert rig.engine.next_timer() == (rig.now, None), "somebody may be given something"
    rig.pump()
    assert rig.engine.next_timer() == (None, None)
    rig.publish(rig.row("a", options={TaskOption.RESULT_EXPIRES_MS.value: 1000}))
    rig.succeed(worker, *rig.lease())
    assert rig.engine.next_timer() == (3 * SECOND, None)


def test_task_without_expiry_has_no_remaining_time():
    rig = Rig()
    rig.worker("q", credit=9)
    rig.publish("a", rig.row("b", options={TaskOption.DELAY_MS.value: 1}))
    rig.advance(MS)
    assert [rig.engine.remaining_ms(task) for task in rig.lease()] == [None, None]


def test_expiry_by_the_wall_clock_counts_down_on_it():
    rig = Rig()
    rig.worker("q", credit=9)
    rig.publish(rig.row("a", options={TaskOption.EXPIRES_AT.value: rig.wall // MS + 1000}))
    (task,) = rig.lease()
    rig.advance(SECOND, wall=300 * MS)
    assert rig.engine.remaining_ms(task) == 700


@pytest.mark.parametrize("ready", [1_000, 50_000])
def test_leasing_touches_no_more_tasks_than_it_grants(ready):
    rig = Rig()
    rig.publish(*[rig.row(str(n), size=0) for n in range(ready)])
    worker = rig.worker("q", credit=10)
    assert len(rig.ids(worker)) == 10
    (level,) = rig.engine._state.queues["q"].order
    assert len(level.classes["add"].ready) == ready - 10
    assert len(level.heads) == 1


def test_same_time_twice_changes_nothing():
    rig = Rig()
    rig.engine.tick(rig.now, rig.wall)
    rig.publish("a")
    assert rig.pump().published[0][:2] == (rig.now, ("publisher", rig.wall // MS))


def test_newest_completion_of_a_session_is_told():
    rig = Rig()
    worker = rig.worker("q")
    assert rig.engine.completed_up_to(worker) == 0
    rig.complete(worker, sequence=7)
    rig.complete(worker, sequence=5)
    assert rig.engine.completed_up_to(worker) == 7


def test_publishes_are_refused_for_a_reason_that_is_not_memory_until_it_is_gone():
    rig = Rig()
    rig.publish("a")
    rig.engine.refuse_publishes("the disk is full")
    confirm = rig.publish("a", rig.row("b", options={TaskOption.DELAY_MS.value: 5}), "c")
    assert [row[1:] for row in confirm.exceptions] == [
        ["DUPLICATE", "this id is known already; nothing was made"],
        ["FULL", "the disk is full"],
        ["FULL", "the disk is full"],
    ]
    assert (rig.engine.publishing_state, rig.engine.memory_short) == ("full", True)
    rig.engine.refuse_publishes(None)
    assert rig.publish("b").exceptions is None
    assert (rig.engine.publishing_state, rig.engine.memory_short) == ("open", False)
