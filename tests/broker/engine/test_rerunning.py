import pytest

from chervil.protocol import Outcome, Stage, TaskOption
from chervil.protocol.messages import Ok
from chervil_broker.engine.task import EVENT_BYTES, TASK_OVERHEAD
from tests.broker.engine.rig import HOUR, SECOND, Rig


@pytest.fixture
def rig():
    return Rig()


@pytest.fixture
def worker(rig):
    return rig.worker("q", credit=2**63)


def rerun(rig, *ids):
    rig.engine.rerun(rig.publisher, 1, list(ids))
    return rig.engine._state.effects.replies[-1][1].value


def forget(rig, *ids):
    rig.engine.forget(rig.publisher, 2, list(ids))
    return rig.engine._state.effects.replies[-1][1].value


def end(rig, worker, outcome, options=None, **more):
    rig.publish(rig.row("a", options=options))
    (task,) = rig.lease()
    rig.complete(worker, rig.outcome(task, outcome, **more))
    rig.pump()
    return task


@pytest.mark.parametrize("outcome", [Outcome.FAILURE, Outcome.REJECT, Outcome.REVOKED])
def test_final_task_runs_again_as_if_it_were_new_but_for_its_lease(rig, worker, outcome):
    task = end(rig, worker, outcome, {TaskOption.EXPIRES_MS.value: 9000, TaskOption.ORIGIN.value: "me"})
    before = task.result
    rig.publish("b")
    rig.complete(worker, *[rig.outcome(one, Outcome.RELEASE, body=False) for one in rig.lease()])
    assert rerun(rig, "a", "nobody") == 1
    effects = rig.pump()
    assert effects.changed.keys() >= {rig.engine._state.tasks["a"]}
    assert before in effects.freed
    again = [one for _, tasks in effects.grants for one in tasks]
    assert [one.id for one in again] == ["b", "a"], "at the end of the queue"
    assert (again[1].lease, again[1].redelivered, again[1].attempts, again[1].retries) == (2, False, 0, 0)
    assert again[1].options == {TaskOption.ORIGIN.value: "me"}
    rig.advance(20 * SECOND)
    rig.pump()
    assert rig.stage("a") == Stage.LEASED
    rig.succeed(worker, again[1])
    assert rig.stage("a") == Stage.SUCCESS
    memory = rig.engine.stats()["memory"]
    assert (memory["bytes"], memory["dead"]) == (TASK_OVERHEAD + 100 + 2 * EVENT_BYTES, 0)


def test_completion_of_the_lease_before_is_stale(rig, worker):
    task = end(rig, worker, Outcome.FAILURE)
    old = rig.outcome(task, Outcome.SUCCESS)
    rerun(rig, "a")
    assert rig.complete(worker, old).exceptions == [[0, 2]]
    rig.pump()
    assert rig.complete(
        worker, (*rig.outcome(task, Outcome.SUCCESS)[:1], 1, 1, None, 0, None, None)
    ).exceptions == [[0, 2]]


def test_what_succeeded_runs_waits_or_lost_its_body_is_passed_over(rig, worker):
    end(rig, worker, Outcome.SUCCESS)
    rig.publish("leased")
    rig.pump()
    assert rerun(rig, "a", "leased", "nobody") == 0


def test_expired_task_runs_again_at_once(rig):
    rig.publish(rig.row("a", options={TaskOption.EXPIRES_MS.value: 1000}))
    rig.advance(SECOND)
    rig.pump()
    assert rerun(rig, "a") == 1
    rig.worker("q", credit=1)
    rig.advance(HOUR)
    assert rig.ids() == ["a"]


def test_rerun_over_the_memory_limit_leaves_the_task_as_it_is():
    rig = Rig(memory_limit=4 * TASK_OVERHEAD)
    worker = rig.worker("q", credit=1)
    end(rig, worker, Outcome.FAILURE)
    rig.publish("b", "c", "d")
    assert rerun(rig, "a") == 0
    assert rig.stage("a") == Stage.FAILURE


def test_rerun_over_the_limit_of_tasks_leaves_the_dead_letter_where_it_is():
    rig = Rig(tasks_limit=2)
    worker = rig.worker("q", credit=2)
    rig.publish("a", "b")
    rig.complete(worker, *[rig.outcome(task, Outcome.REJECT) for task in rig.lease()])
    rig.publish("c")
    assert rerun(rig, "b", "a") == 1
    assert (rig.stage("b"), rig.stage("a")) == (Stage.QUEUED, Stage.DEAD)
    assert [row["id"] for row in rig.engine.dead(None, 9)[0]] == ["a"]
    rig.engine.purge(rig.publisher, 1, [])
    assert rerun(rig, "a") == 1


def test_task_that_fails_again_and_again_leaves_nothing_behind(rig, worker):
    end(rig, worker, Outcome.FAILURE)
    for _ in range(500):
        rerun(rig, "a")
        (task,) = rig.lease()
        rig.view("a")
        rig.complete(worker, rig.outcome(task, Outcome.FAILURE))
        rig.view("a")
    results = rig.engine._state.results
    assert len(results._read) + len(results._unread) < 300
    assert sum(len(bucket) for bucket in results._buckets.values()) < 150
    assert len(rig.engine.history("a")[0]["events"]) == 64
    rig.advance(25 * HOUR)
    rig.pump()
    assert (results.bytes, results._bare, rig.live) == (0, 0, {})


@pytest.mark.parametrize("outcome", [Outcome.SUCCESS, Outcome.FAILURE, Outcome.REJECT])
def test_forgotten_task_is_gone_with_all_it_had_and_its_id_remembered(rig, worker, outcome):
    end(rig, worker, outcome)
    assert forget(rig, "a", "a", "nobody") == 1
    effects = rig.pump()
    assert (rig.publisher, Ok(2, 1)) in effects.replies
    assert effects.forgotten == [(rig.now, ["a"])]
    assert rig.live == {}
    memory = rig.engine.stats()["memory"]
    assert (memory["bytes"], memory["results"], memory["dead"]) == (0, 0, 0)
    assert rig.view("a") == ("a", Stage.EVICTED, None, None, None, None)
    assert rig.publish("a").exceptions[0][1] == "DUPLICATE"
    assert rerun(rig, "a") == 0


def test_unfinished_task_is_not_forgotten(rig):
    rig.publish("a")
    assert forget(rig, "a") == 0
    assert rig.stage("a") == Stage.QUEUED


def test_a_task_that_was_revoked_while_it_waited_runs_again_once_and_at_the_end(rig):
    rig.publish("a", "b")
    rig.engine.revoke(rig.publisher, 1, ["a"], terminate=False, signal=15)
    rig.engine.rerun(rig.publisher, 2, ["a"])
    rig.publish("c")
    worker = rig.worker("q", credit=100)
    assert rig.ids(worker) == ["b", "a", "c"]
    assert rig.engine.stats()["queues"][0]["ready"] == 0


def test_what_was_purged_and_runs_again_is_not_parked_by_the_timer_of_before(rig):
    knows_little = rig.worker("q", tasks=["other"])
    rig.publish("a")
    rig.pump()
    rig.engine.purge(rig.publisher, 1, ["q"])
    rig.engine.close(knows_little)
    rig.worker("q")
    rig.engine.rerun(rig.publisher, 2, ["a"])
    rig.advance(601 * SECOND)
    rig.pump()
    assert rig.stage("a") == Stage.QUEUED
    assert rig.engine.stats()["queues"][0]["ready"] == 1
