"""Limits that change while the engine runs: nothing confirmed is lost, and what there is room for is taken."""

import pytest

from chervil.protocol import Code, Outcome, Stage
from chervil_broker.engine.charges import FREE_BYTES
from chervil_broker.engine.remembering import ID_BYTES, REVOKED_ID_BYTES, REVOKED_PART
from chervil_broker.engine.subscriptions import MEMORY_PART
from chervil_broker.engine.task import TASK_OVERHEAD
from tests.broker.engine.rig import HOUR, Rig, changed

#: A task of 1,000 bytes in all.
SIZE = 1000 - TASK_OVERHEAD
MUCH = 10**9


def fill(rig, count):
    assert rig.publish(*[rig.row(f"t{n}", size=SIZE) for n in range(count)]).exceptions is None


@pytest.mark.parametrize(("memory", "tasks"), [(5_000, None), (MUCH, 3), (MUCH, 0)])
def test_shrinking_below_what_is_held_keeps_each_task_and_refuses_publishes_until_there_is_room(
    memory, tasks
):
    rig = Rig(memory_limit=20_000)
    worker = rig.worker("q")
    fill(rig, 10)
    rig.engine.set_limits(memory, MUCH, tasks)
    assert rig.engine.publishing_state == "full"
    ((_, code, _),) = rig.publish("refused").exceptions
    assert code == Code.FULL
    rig.engine.credit(worker, 99)
    leased = rig.lease()
    assert [task.id for task in leased] == [f"t{n}" for n in range(10)]
    rig.succeed(worker, *leased[:5])
    assert rig.publish("refused").exceptions[0][1] == Code.FULL, "half of them are left"
    rig.succeed(worker, *leased[5:])
    rig.pump()
    assert rig.engine.publishing_state == ("full" if tasks == 0 else "open")
    assert (rig.publish("taken").exceptions is None) == (tasks != 0)
    assert {rig.stage(f"t{n}") for n in range(10)} == {Stage.SUCCESS}


def test_growing_takes_publishes_and_opens_windows_at_once():
    rig = Rig(memory_limit=10_000)
    fill(rig, 9)
    rig.publish("refused")
    assert (rig.engine.publishing_state, rig.engine.room()) == ("full", 0)
    rig.engine.set_limits(12_000, MUCH, None)
    assert rig.engine.publishing_state == "open", "75 % of what there is now"
    assert (rig.engine.memory_short, rig.engine.room()) == (False, 600)
    assert rig.publish("refused").exceptions is None


def test_growing_by_too_little_leaves_windows_closed():
    rig = Rig(memory_limit=10_000)
    fill(rig, 9)
    rig.engine.set_limits(11_000, MUCH, None)
    assert (rig.engine.publishing_state, rig.engine.memory_short) == ("closed", True)


def test_shrinking_closes_windows_at_once():
    rig = Rig(memory_limit=20_000)
    fill(rig, 8)
    rig.engine.set_limits(10_000, MUCH, None)
    assert (rig.engine.publishing_state, rig.engine.room()) == ("closed", 0)


def test_what_was_refused_for_want_of_room_is_forgotten_when_it_has_some():
    rig = Rig(memory_limit=100_000)
    rig.publish(rig.row("a", size=85_000))
    rig.publish(rig.row("b", size=10_000))
    assert rig.engine.publishing_state == "full"
    rig.engine.set_limits(101_000, MUCH, None)
    assert rig.engine.publishing_state == "full"
    rig.engine.set_limits(102_000, MUCH, None)
    assert rig.engine.publishing_state == "closed", "both fit into 95 %"


def test_limit_of_tasks_is_lifted_and_set_again():
    rig = Rig(tasks_limit=1)
    assert rig.publish("a", "b").accepted == 1
    rig.engine.set_limits(MUCH, MUCH, None)
    assert rig.publish("b", "c").exceptions is None
    rig.engine.set_limits(MUCH, MUCH, 4)
    assert rig.publish("d", "e").accepted == 1


def test_results_over_a_smaller_limit_are_evicted_with_the_next_pump():
    rig = Rig()
    worker = rig.worker("q", credit=99)
    fill(rig, 4)
    rig.complete(worker, *[rig.outcome(task, Outcome.SUCCESS, size=2000) for task in rig.lease()])
    rig.pump()
    results = rig.engine.stats()["memory"]["results"]
    rig.engine.set_limits(MUCH, results, None)
    assert rig.pump().evicted == []
    rig.engine.set_limits(MUCH, results - 2 * 2000, None)
    assert rig.pump().evicted == ["t0", "t1"]
    memory = rig.engine.stats()["memory"]
    assert memory["results"] == memory["results_limit"] == results - 2 * 2000


def test_dead_letters_over_a_quarter_of_a_smaller_limit_are_given_up_oldest_first():
    rig = Rig(memory_limit=40_000)
    worker = rig.worker("q", credit=99)
    fill(rig, 4)
    rig.complete(worker, *[rig.outcome(task, Outcome.REJECT, body=False) for task in rig.lease()])
    rig.pump()
    dead = rig.engine.stats()["memory"]["dead"]
    rig.engine.set_limits(2 * dead, MUCH, None)
    assert rig.engine.stats()["memory"]["dead_limit"] == dead // 2
    assert changed(rig.pump()) == ["t0", "t1"]
    assert [row["id"] for row in rig.engine.dead(None, 9)[0]] == ["t2", "t3"]


def test_ids_that_are_remembered_keep_to_a_quarter_of_the_new_limit():
    rig = Rig()
    worker = rig.worker("q", credit=99)
    rig.publish("a", "b", "c")
    rig.succeed(worker, *rig.lease())
    rig.advance(25 * HOUR)
    rig.pump()
    rig.engine.set_limits(MUCH, 4 * 2 * ID_BYTES, None)
    assert rig.engine.stats()["dedup"]["ids"] == rig.engine.stats()["dedup"]["limit"] == 2
    assert (rig.stage("a"), rig.stage("b")) == (Stage.UNKNOWN, Stage.EVICTED)
    rig.engine.set_limits(MUCH, MUCH, None)
    assert rig.engine.stats()["dedup"] == {"ids": 2, "limit": 1_000_000, "horizon_ms": 0}


def test_revoked_ids_and_subscriptions_take_their_parts_of_the_new_limit():
    rig = Rig(memory_limit=64 * FREE_BYTES)
    state = rig.engine._state
    worker = rig.worker("q")
    ids = [b"%016d" % n for n in range(3_000)]
    rig.engine.revoke(rig.publisher, 1, ids, terminate=False, signal=15)
    rig.engine.set_limits(FREE_BYTES, MUCH, None)
    assert len(state.revoked_ids) < len(ids)
    assert (
        state.revoked_ids.bytes <= FREE_BYTES // REVOKED_PART < state.revoked_ids.bytes + 2 * REVOKED_ID_BYTES
    )
    assert ids[-1] in state.revoked_ids, "the newest are remembered"
    assert state.subscriptions.limit == FREE_BYTES
    assert state.sessions[worker].queues == ["q"]
    rig.engine.set_limits(16 * FREE_BYTES, MUCH, None)
    assert state.subscriptions.limit == 16 * FREE_BYTES // MEMORY_PART
    rig.engine.revoke(rig.publisher, 2, ids, terminate=False, signal=15)
    assert len(state.revoked_ids) == len(ids)
