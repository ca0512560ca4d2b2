"""Too long, too late, called off, given up: what ends a task besides its own code."""

import signal

import pytest

from chervil.exceptions import (
    SoftTimeLimitExceeded,
    TaskRevokedError,
    TimeLimitExceeded,
)
from chervil.protocol.rows import task_row
from tests.e2e import tasks
from tests.e2e.stage import Stage, alive, until, wait_until_gone

pytestmark = pytest.mark.e2e


@pytest.fixture
def road(stage: Stage) -> Stage:
    """A broker, a worker with one slot, and the app in this process."""
    stage.broker()
    stage.worker("-c", "1")
    stage.app()
    return stage


def limited(result) -> None:
    """It ended by its hard limit."""
    with pytest.raises(TimeLimitExceeded):
        result.get(timeout=10)
    assert result.stage == result.state == "FAILURE"


def revoked(result) -> None:
    with pytest.raises(TaskRevokedError):
        result.get(timeout=10)
    assert result.stage == result.state == "REVOKED"


# Time limits


def test_hard_limit_of_a_task_kills_its_process_and_nothing_else(road):
    road.fifo("pid")
    hanging = tasks.hang_limited.delay("pid")
    child = road.read_pid("pid")
    more = tasks.add.delay_many([(n, 1) for n in range(50)])
    limited(hanging)
    assert [result.get(timeout=10) for result in more] == [n + 1 for n in range(50)]
    assert wait_until_gone([child], 5) == []


def test_hard_limit_is_a_failure_and_no_lost_attempt(road):
    limited(tasks.run_for.apply_async(("runs", 30), time_limit=1.5))
    assert tasks.add.delay(1, 2).get(timeout=10) == 3
    assert len(road.lines("runs")) == 1


def test_hard_limit_of_a_task_that_is_acked_early_is_the_same_failure(road):
    road.fifo("pid")
    hanging = tasks.stuck_acked_early.apply_async(("pid",), time_limit=1.5)
    child = road.read_pid("pid")
    limited(hanging)
    assert wait_until_gone([child], 5) == []
    assert tasks.add.delay(1, 2).get(timeout=10) == 3
    assert len(road.lines("runs")) == 1


def test_calls_limit_counts_before_the_tasks(road):
    with pytest.raises(SoftTimeLimitExceeded):
        tasks.run_for.apply_async(("runs", 30), soft_time_limit=0.3).get(timeout=10)
    assert tasks.clean_up_at_soft_limit.apply_async(("x",), soft_time_limit=0.1).get(timeout=10)


def test_limits_of_a_worker_hold_for_tasks_that_have_none(stage):
    stage.broker()
    stage.worker("-c", "1", "--time-limit", "1", "--soft-time-limit", "0.3")
    stage.app()
    with pytest.raises(SoftTimeLimitExceeded):
        tasks.nap.delay(30).get(timeout=10)
    limited(tasks.ignore_soft_limit.delay("runs"))
    assert stage.lines("runs") == ["still here"]


def test_limits_of_the_app_hold_for_tasks_that_have_none(stage):
    stage.broker()
    stage.worker("-c", "1", settings={"task_time_limit": 0.5})
    stage.app()
    limited(tasks.nap.delay(30))
    assert tasks.add.delay(1, 2).get(timeout=10) == 3


def test_task_may_clean_up_at_its_soft_limit(road):
    assert tasks.clean_up_at_soft_limit.delay("notes").get(timeout=10) == "cleaned up"
    assert road.lines("notes") == ["cleaned up"]


def test_soft_limit_that_is_not_caught_is_a_failure(road):
    result = tasks.fail_at_soft_limit.delay()
    with pytest.raises(SoftTimeLimitExceeded):
        result.get(timeout=10)
    assert result.stage == "FAILURE"


def test_soft_limit_that_is_ignored_is_followed_by_the_hard_one(road):
    limited(tasks.ignore_soft_limit.delay("notes"))
    assert road.lines("notes") == ["still here"]


def test_soft_limit_of_one_task_does_not_meet_the_next(road):
    results = []
    for _ in range(20):
        results += [tasks.nap.apply_async((0.02,), soft_time_limit=0.03), tasks.nap.delay(0.04)]
    outcomes = [result.get(timeout=20, propagate=False) for result in results]
    assert outcomes[1::2] == [0.04] * 20
    assert all(outcome == 0.02 or isinstance(outcome, SoftTimeLimitExceeded) for outcome in outcomes[::2])


def test_hard_limit_that_meets_the_end_of_a_task_harms_no_other(road):
    results = []
    for _ in range(15):
        results += [tasks.nap.apply_async((0.1,), time_limit=0.1), tasks.nap.delay(0.01)]
    outcomes = [result.get(timeout=30, propagate=False) for result in results]
    assert outcomes[1::2] == [0.01] * 15
    assert all(outcome == 0.1 or isinstance(outcome, TimeLimitExceeded) for outcome in outcomes[::2])


# Expiry


def test_expiry_that_passes_while_its_worker_is_busy_ends_it_unrun(road):
    road.fifo("held", "held.go")
    holding = tasks.hold.delay("held")
    road.read_pid("held")
    late = [tasks.note.apply_async(("notes", "late"), expires=0.2) for _ in range(5)]
    for result in late:
        with pytest.raises(TaskRevokedError):
            result.get(timeout=10)
        assert result.stage == "EXPIRED"
    (road.folder / "held.go").write_text("go")
    assert holding.get(timeout=10) == "let go"
    assert tasks.add.delay(1, 2).get(timeout=10) == 3
    assert road.lines("notes") == []


def test_expiry_does_not_end_what_has_started(road):
    result = tasks.run_for.apply_async(("runs", 3), expires=2)
    assert result.get(timeout=10) == "runs"


# Revoke


def test_revoked_task_in_the_queue_is_never_run(stage):
    stage.broker()
    app = stage.app()
    waiting = tasks.note.delay("notes", "no")
    later = tasks.note.apply_async(("notes", "no"), countdown=60)
    assert app.client.revoke([waiting.id, later.id]) == 2
    revoked(waiting)
    revoked(later)
    stage.worker("-c", "1")
    tasks.add.delay(1, 1).get(timeout=10)
    assert stage.lines("notes") == []


def test_revoked_task_that_a_worker_has_not_begun_is_not_begun(road):
    road.fifo("held", "held.go")
    holding = tasks.hold.delay("held")
    behind = [tasks.note.delay("notes", "no") for _ in range(10)]
    road.read_pid("held")
    tasks.app.client.revoke([result.id for result in behind])
    for result in behind:
        revoked(result)
    (road.folder / "held.go").write_text("go")
    assert holding.get(timeout=10) == "let go"
    assert road.lines("notes") == []


def test_revoke_without_terminate_lets_a_running_task_finish(road):
    road.fifo("held", "held.go")
    holding = tasks.hold.delay("held")
    road.read_pid("held")
    assert tasks.app.client.revoke([holding.id]) == 1
    (road.folder / "held.go").write_text("go")
    assert holding.get(timeout=10) == "let go"


@pytest.mark.parametrize("number", [None, signal.SIGKILL, signal.SIGINT])
def test_terminate_ends_a_running_task_and_no_other(stage, number):
    stage.broker()
    stage.worker("-c", "2")
    stage.app()
    stage.fifo("pid", "held", "held.go")
    hanging = tasks.stuck_the_first_time.delay("pid")
    holding = tasks.hold.delay("held")
    child, other = stage.read_pid("pid"), stage.read_pid("held")
    tasks.app.client.revoke([hanging.id], terminate=True, signal=number)
    revoked(hanging)
    assert wait_until_gone([child], 5) == []
    assert alive(other)
    (stage.folder / "held.go").write_text("go")
    assert holding.get(timeout=10) == "let go"
    assert len(stage.lines("runs")) == 1


def test_terminate_that_comes_late_ends_no_other_task(stage):
    stage.broker()
    stage.worker("-c", "2")
    client = stage.app().client
    results = tasks.nap.delay_many([(0.01,)] * 200)
    for result in results[::5]:
        client.revoke([result.id], terminate=True, signal=signal.SIGKILL)
    outcomes = [result.get(timeout=30, propagate=False) for result in results]
    asked, others = outcomes[::5], [outcome for n, outcome in enumerate(outcomes) if n % 5]
    assert others == [0.01] * 160
    assert all(outcome == 0.01 or isinstance(outcome, TaskRevokedError) for outcome in asked)
    assert client.stats()["counters"]["lost"] == 0, "none of them is charged an attempt"


def test_result_revokes_its_task(stage):
    stage.broker()
    stage.app()
    result = tasks.add.delay(1, 1)
    result.revoke()
    revoked(result)


def test_id_revoked_before_it_is_published_is_never_run(road):
    road.app().client.revoke(["not-yet"])
    result = tasks.note.apply_async(("notes", "no"), task_id="not-yet")
    revoked(result)
    tasks.add.delay(1, 1).get(timeout=10)
    assert road.lines("notes") == []


def test_revoking_what_is_final_changes_nothing(road):
    result = tasks.add.delay(1, 1)
    assert result.get(timeout=10) == 2
    assert road.app().client.revoke([result.id], terminate=True) == 0
    assert result.stage == "SUCCESS"


# Dead letters


def dead_ids() -> list[str]:
    return [letter["id"] for letter in tasks.app.client.dead()]


def ended_again(id_: str) -> None:
    """A rerun has ended; asked anew each time, because a result keeps what was once final."""
    until(lambda: tasks.app.AsyncResult(id_).stage == "DEAD", "it ran and is parked again")


def test_rejected_task_is_parked_with_its_reason_and_runs_again_on_request(road):
    result = tasks.reject.delay("no such customer")
    with pytest.raises(Exception, match="no such customer"):
        result.get(timeout=10)
    assert result.stage == "DEAD"
    assert dead_ids() == [result.id]
    assert tasks.app.client.rerun([result.id]) == 1
    ended_again(result.id)
    assert tasks.app.client.forget([result.id]) == 1
    assert dead_ids() == []
    assert tasks.app.AsyncResult(result.id).stage == "EVICTED"


def test_rejected_task_with_requeue_runs_again_flagged(road):
    assert tasks.requeue_once.delay().get(timeout=10) is True


@pytest.mark.parametrize(
    ("codec", "body"), [("json", b"{nonsense"), ("pickle", b"\x80\x04."), ("msgpack", b"\x93\x01\x02\x03")]
)
def test_arguments_that_cannot_be_read_park_the_task(road, codec, body):
    id_ = f"unreadable-{codec}"
    row = task_row([id_, "tests.e2e.tasks.add", "default", 0, None, None, codec, body])
    road.app().client.publish([row])
    result = tasks.app.AsyncResult(id_)
    with pytest.raises(Exception, match=r"not json|accept_content|not msgpack|args"):
        result.get(timeout=10)
    assert result.stage == "DEAD"
    assert tasks.add.delay(1, 2).get(timeout=10) == 3


def test_dead_task_runs_anew_with_its_attempts_back(road):
    result = tasks.crash_twice.delay()
    result.get(timeout=20, propagate=False)
    assert result.stage == "DEAD"
    assert tasks.app.client.rerun([result.id]) == 1
    ended_again(result.id)
    history = tasks.app.client.history(result.id)
    assert [event["event"] for event in history["events"]].count("lost") == 4
    assert history["stage"] == "DEAD"
