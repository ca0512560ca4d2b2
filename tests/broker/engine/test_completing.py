import pytest

from chervil.protocol import Outcome, RetryOption, Stage, TaskOption
from chervil_broker.engine.charges import options_bytes
from chervil_broker.engine.task import EVENT_BYTES, TASK_OVERHEAD
from tests.broker.engine.rig import MS, SECOND, Rig, changed


@pytest.fixture
def rig():
    return Rig()


@pytest.fixture
def worker(rig):
    return rig.worker("q", credit=2)


def lease_one(rig, options=None, **row):
    rig.publish(rig.row("a", options=options, **row))
    (task,) = rig.lease()
    return task


@pytest.mark.parametrize(
    ("outcome", "stage"), [(Outcome.SUCCESS, Stage.SUCCESS), (Outcome.FAILURE, Stage.FAILURE)]
)
def test_result_is_kept_and_the_body_only_of_what_may_run_again(rig, worker, outcome, stage):
    task = lease_one(rig)
    row = rig.outcome(task, outcome)
    completed = rig.complete(worker, row, sequence=7)
    assert completed == (7, None)
    effects = rig.pump()
    succeeded = [task] if stage == Stage.SUCCESS else []
    assert effects.completed == [(worker, 7, succeeded)]
    assert changed(effects) == ["a"] * (not succeeded)
    view = rig.view("a")
    assert (view.stage, view.handle, view.failure) == (stage, row[3], None)
    kept = [task.handle, row[3]] if stage == Stage.FAILURE else [row[3]]
    assert sorted(rig.live) == kept
    memory = rig.engine.stats()["memory"]
    assert (memory["bytes"], memory["results"]) == (0, TASK_OVERHEAD + sum(rig.live.values()))


def test_ignored_result_is_freed_and_the_outcome_kept(rig, worker):
    task = lease_one(rig, {TaskOption.IGNORE_RESULT.value: True})
    rig.succeed(worker, task)
    rig.pump()
    assert rig.view("a")[1:3] == (Stage.SUCCESS, None)
    assert rig.live == {}


def test_success_without_a_result(rig, worker):
    task = lease_one(rig)
    rig.complete(worker, rig.outcome(task, Outcome.SUCCESS, body=False))
    rig.pump()
    assert rig.view("a")[1:3] == (Stage.SUCCESS, None)


def test_result_is_forgotten_when_its_time_has_come(rig, worker):
    task = lease_one(rig, {TaskOption.RESULT_EXPIRES_MS.value: 5000})
    rig.succeed(worker, task)
    rig.advance(5 * SECOND)
    rig.pump()
    assert rig.stage("a") == Stage.SUCCESS
    rig.advance(SECOND)
    assert rig.pump().forgotten == [(rig.now, ["a"])]
    assert rig.view("a") == ("a", Stage.EVICTED, None, None, None, None)
    assert rig.live == {}
    assert rig.publish("a").exceptions[0][1] == "DUPLICATE"


def test_second_completion_is_a_duplicate_and_its_result_freed(rig, worker):
    task = lease_one(rig)
    rig.succeed(worker, task)
    other = rig.worker("q")
    assert rig.succeed(other, task).exceptions == [[0, 1]]
    rig.pump()
    assert len(rig.live) == 1
    assert rig.engine.stats()["counters"]["duplicate_completions"] == 1


def test_completion_of_an_earlier_lease_of_a_finished_task_is_stale(rig, worker):
    task = lease_one(rig)
    late = rig.outcome(task, Outcome.SUCCESS)
    rig.complete(worker, rig.outcome(task, Outcome.RELEASE, body=False))
    rig.succeed(worker, *rig.lease())
    assert rig.complete(worker, late).exceptions == [[0, 2]]


def test_stale_completions_are_answered_counted_and_freed(rig, worker):
    task = lease_one(rig)
    rig.publish("b")
    (held,) = rig.lease()
    body = (rig.body(), 100)
    rows = [
        (task.id, 9, Outcome.SUCCESS.value, rig.body(10), 10, None, None),
        ("nobody", 1, Outcome.RETRY.value, None, 0, {RetryOption.BODY.value: body}, None),
        rig.outcome(held, Outcome.SUCCESS),
    ]
    completed = rig.complete(worker, *rows)
    assert completed.exceptions == [[0, 2], [1, 2]]
    effects = rig.pump()
    assert ("stale_completions", {"worker": "worker", "count": 2}) in effects.events
    assert effects.completed == [(worker, 1, [held])]
    assert body[0] in effects.freed
    other = rig.worker("q")
    assert rig.succeed(other, task).exceptions == [[0, 2]]
    assert rig.pump().completed == [(other, 1, [])], "the sequence counts"
    assert rig.stage("a") == Stage.LEASED


def test_released_task_is_at_its_old_place_unflagged_and_uncharged(rig, worker):
    rig.publish("a", "b", "c")
    first, _ = rig.lease()
    rig.complete(worker, rig.outcome(first, Outcome.RELEASE))
    rig.engine.credit(worker, 4)
    again = rig.lease()
    assert [task.id for task in again] == ["a", "c"]
    assert (again[0].lease, again[0].redelivered, again[0].attempts) == (2, False, 0)


def test_lost_task_comes_again_flagged_and_is_dead_at_its_limit(rig, worker):
    rig.engine.credit(worker, 9)
    task = lease_one(rig, {TaskOption.DELIVERY_LIMIT.value: 2})
    rig.complete(worker, rig.outcome(task, Outcome.LOST))
    (task,) = rig.lease()
    assert (task.lease, task.redelivered, task.attempts) == (2, True, 1)
    row = rig.outcome(task, Outcome.LOST)
    rig.complete(worker, row)
    effects = rig.pump()
    told = {"id": "a", "name": "add", "queue": "q", "worker": "worker", "attempts": 2}
    assert effects.events == [("task_dead", told)]
    view = rig.view("a")
    assert (view.stage, view.handle, view.failure) == (Stage.DEAD, row[3], ("lost", None))
    assert rig.complete(worker, row).exceptions == [[0, 1]]


def test_dead_without_a_reason_has_the_brokers_own(rig, worker):
    task = lease_one(rig, {TaskOption.DELIVERY_LIMIT.value: 1})
    rig.complete(worker, rig.outcome(task, Outcome.LOST, body=False))
    rig.pump()
    view = rig.view("a")
    assert (view.handle, view.failure) == (
        None,
        ("lost", "worker worker was lost while it ran this task, attempt 1"),
    )
    lost_again = (task.id, task.lease, Outcome.LOST.value, None, 0, None, None)
    assert rig.complete(worker, lost_again).exceptions == [[0, 1]]


def test_lost_by_default_three_times(rig, worker):
    rig.engine.credit(worker, 9)
    task = lease_one(rig)
    for _ in range(2):
        rig.complete(worker, rig.outcome(task, Outcome.LOST, body=False))
        (task,) = rig.lease()
    rig.complete(worker, rig.outcome(task, Outcome.LOST))
    assert rig.stage("a") == Stage.DEAD


def test_retry_at_once_goes_to_the_end(rig, worker):
    rig.engine.credit(worker, 1)
    rig.publish("a", "b")
    (task,) = rig.lease()
    rig.complete(worker, rig.outcome(task, Outcome.RETRY))
    rig.engine.credit(worker, 9)
    again = rig.lease()
    assert [task.id for task in again] == ["b", "a"]
    assert (again[1].lease, again[1].retries, again[1].attempts, again[1].redelivered) == (2, 1, 0, False)


def test_retry_waits_and_shows_the_cause_until_it_is_replaced(rig, worker):
    task = lease_one(rig)
    cause = rig.outcome(task, Outcome.RETRY, {RetryOption.DELAY_MS.value: 500})
    rig.complete(worker, cause)
    rig.pump()
    view = rig.view("a")
    assert (view.stage, view.handle, view.info[11]) == (Stage.RETRY, cause[3], 500)
    assert rig.engine.stats()["memory"]["bytes"] == 100 + 10 + TASK_OVERHEAD + 2 * EVENT_BYTES
    rig.advance(500 * MS)
    (task,) = rig.lease()
    assert rig.view("a").handle is None
    second = rig.outcome(task, Outcome.RETRY, {RetryOption.DUE_AT.value: rig.wall // MS + 10})
    rig.complete(worker, second)
    assert cause[3] in rig.pump().freed
    assert rig.view("a").handle == second[3]
    rig.advance(10 * MS)
    rig.engine.credit(worker, 9)
    rig.succeed(worker, *rig.lease())
    rig.pump()
    assert len(rig.live) == 1
    assert rig.engine.stats()["memory"]["bytes"] == 0


def test_retry_changes_queue_priority_body_and_expiry(rig, worker):
    rig.engine.close(worker)
    worker = rig.worker("first", credit=1)
    task = lease_one(
        rig, {TaskOption.EXPIRES_AT.value: rig.wall // MS + 10, TaskOption.ORIGIN.value: "me"}, queue="first"
    )
    body = (rig.body(50), 50)
    options = {
        RetryOption.QUEUE.value: "second",
        RetryOption.PRIORITY.value: 4,
        RetryOption.BODY.value: body,
        RetryOption.EXPIRES_MS.value: 9000,
    }
    rig.engine.close(rig.worker("x"))
    rig.complete(worker, rig.outcome(task, Outcome.RETRY, options, body=False))
    rig.engine.close(worker)
    assert list(rig.engine._state.queues) == ["second"]
    rig.worker("second", credit=1)
    rig.advance(SECOND)
    (task,) = rig.lease()
    assert (task.queue, task.priority, task.handle) == ("second", 4, body[0])
    assert task.options == {TaskOption.EXPIRES_MS.value: 9000, TaskOption.ORIGIN.value: "me"}
    assert task.size == 50 + options_bytes(task.options)
    assert rig.engine.remaining_ms(task) == 8000


def test_retry_into_its_own_queue_keeps_it(rig, worker):
    task = lease_one(rig)
    rig.complete(worker, rig.outcome(task, Outcome.RETRY, {RetryOption.QUEUE.value: "q"}))
    assert rig.ids() == ["a"]


def test_expiry_that_passed_during_the_run_ends_a_retry(rig, worker):
    task = lease_one(rig, {TaskOption.EXPIRES_MS.value: 1000})
    rig.advance(2 * SECOND)
    rig.pump()
    assert rig.stage("a") == Stage.LEASED
    rig.complete(worker, rig.outcome(task, Outcome.RETRY, {RetryOption.DELAY_MS.value: 50_000}))
    rig.pump()
    assert rig.stage("a") == Stage.EXPIRED
    assert list(rig.live) == [task.handle]


def test_unbuilt_outcome_is_a_bug_of_the_caller(rig, worker):
    task = lease_one(rig)
    with pytest.raises(AssertionError, match="outcome 6"):
        rig.complete(worker, rig.outcome(task, Outcome.IGNORE))


def test_lost_session_returns_its_leases_at_once_and_charges_what_ran(rig, worker):
    rig.publish("a", "b", "c")
    rig.pump()
    rig.engine.started(worker, [["b", 1]], None)
    rig.engine.close(worker)
    effects = rig.pump()
    assert {*changed(effects)} == {"a", "b"}
    rig.worker("q", credit=9)
    assert [(task.id, task.lease, task.redelivered, task.attempts) for task in rig.lease()] == [
        ("a", 2, True, 0),
        ("b", 2, True, 1),
        ("c", 1, False, 0),
    ]


def test_task_whose_sessions_die_is_dead_at_its_limit_and_its_queue_forgotten(rig):
    rig.publish("a")
    for _ in range(3):
        worker = rig.worker("q", credit=1, name="w")
        (task,) = rig.lease()
        rig.engine.started(worker, [["a", task.lease]], None)
        rig.engine.close(worker)
    view = rig.view("a")
    assert (view.stage, view.failure) == (
        Stage.DEAD,
        ("lost", "worker w was lost while it ran this task, attempt 3"),
    )
    assert rig.engine._state.queues == {}
    assert rig.succeed(rig.open(), task).exceptions == [[0, 2]]


def test_returned_task_that_nobody_knows_is_told_of(rig):
    rig.worker("q", tasks=["mail"])
    worker = rig.worker("q", tasks=["add"], credit=1)
    rig.publish("a")
    rig.pump()
    rig.engine.close(worker)
    assert rig.pump().events == [("unknown_task", {"queue": "q", "name": "add"})]


def test_queue_is_forgotten_with_its_last_task(rig, worker):
    task = lease_one(rig)
    rig.subscribe(worker, "elsewhere")
    assert list(rig.engine._state.queues) == ["q", "elsewhere"]
    rig.succeed(worker, task)
    assert list(rig.engine._state.queues) == ["elsewhere"]


def test_results_over_their_budget_are_evicted_and_say_so():
    rig = Rig(results_limit=20 * TASK_OVERHEAD)
    worker = rig.worker("q", credit=99)
    rig.publish("a", "b", "c")
    for task in rig.lease():
        rig.complete(worker, rig.outcome(task, Outcome.SUCCESS, size=7 * TASK_OVERHEAD))
    effects = rig.pump()
    assert effects.evicted == ["a"]
    assert [rig.stage(id_) for id_ in "abc"] == [Stage.EVICTED, Stage.SUCCESS, Stage.SUCCESS]
    assert rig.engine.stats()["tasks"] == {"SUCCESS": 2, "EVICTED": 1}


def test_finished_tasks_over_their_budget_are_forgotten():
    rig = Rig(results_limit=4 * TASK_OVERHEAD)
    worker = rig.worker("q", credit=99)
    rig.publish(*"abcdef")
    for task in rig.lease():
        rig.complete(worker, rig.outcome(task, Outcome.SUCCESS, body=False))
    assert rig.pump().forgotten == [(rig.now, ["a", "b"])]
    assert rig.stage("a") == Stage.EVICTED
