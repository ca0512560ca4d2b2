"""A program calls, the broker holds, a worker's child runs, the result comes back: with real processes."""

import datetime as dt
import decimal
import uuid

import pytest

from chervil.exceptions import PublishRefused, TaskRevokedError, UnknownTask
from chervil.exceptions import TimeoutError as ResultTimeout
from tests.e2e import tasks
from tests.e2e.stage import Stage

pytestmark = pytest.mark.e2e


@pytest.fixture
def road(stage: Stage) -> Stage:
    """A broker, a worker with two slots, and the app in this process."""
    stage.broker()
    stage.worker("-c", "2")
    stage.app()
    return stage


def test_a_result_comes_back(road):
    assert tasks.add.delay(2, 3).get(timeout=10) == 5


def test_many_in_one_call_all_come_back(road):
    results = tasks.add.delay_many([(n, n) for n in range(2500)])
    assert [result.get(timeout=30) for result in results] == [2 * n for n in range(2500)]


def test_the_exceptions_own_class_comes_back_with_the_remote_traceback(road):
    result = tasks.fail.delay("no money")
    with pytest.raises(tasks.Unpayable) as caught:
        result.get(timeout=10)
    assert caught.value.args == ("no money", 42)
    assert "in fail" in result.traceback
    assert result.state == result.stage == "FAILURE"
    assert result.failed()


def test_types_that_json_does_not_know_survive_both_ways(road):
    value = tasks.types.delay().get(timeout=10)
    assert value == {
        "moment": dt.datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=dt.UTC),
        "day": dt.date(2026, 1, 2),
        "id": uuid.UUID(int=7),
        "price": decimal.Decimal("1.10"),
        "raw": b"\x00\xff",
    }
    assert tasks.echo.delay(value).get(timeout=10) == value
    assert tasks.echo.apply_async((value,), serializer="msgpack").get(timeout=10) == value


def test_bodies_and_results_of_a_megabyte_pass(road):
    assert tasks.length.delay("y" * 1_000_000).get(timeout=10) == 1_000_000
    assert len(tasks.large.delay(1_000_000).get(timeout=10)) == 1_000_000


def test_a_body_over_the_limit_is_refused_at_the_call(road):
    with pytest.raises(PublishRefused, match="BODY_TOO_LARGE"):
        tasks.length.delay("y" * 1_100_000)


def test_a_result_over_the_limit_is_a_failure_and_not_a_loop(road):
    with pytest.raises(Exception, match=r"(?i)too large|limit"):
        tasks.large.delay(1_100_000).get(timeout=10)


def test_async_functions_are_tasks(road):
    assert tasks.asynchronous.delay(21).get(timeout=10) == 42


def test_a_bound_task_knows_its_request(road):
    result = tasks.about_me.apply_async(headers={"tenant": "blue"}, task_id="invoice-7")
    me = result.get(timeout=10)
    assert me["id"] == result.id == "invoice-7"
    assert me["headers"] == {"tenant": "blue"}
    assert me["queue"] == "default"
    assert me["name"] == "tests.e2e.tasks.about_me"


def test_a_task_publishes_from_inside(road):
    inner = tasks.parent.delay().get(timeout=10)
    assert tasks.app.AsyncResult(inner).get(timeout=10) == 42


def test_a_retry_keeps_its_id_and_counts(road):
    result = tasks.third_time_lucky.delay()
    assert result.get(timeout=10) == {"retries": 2, "id": result.id}


def test_retries_run_out_with_the_original_exception(road):
    with pytest.raises(KeyError, match="missing"):
        tasks.never_lucky.delay().get(timeout=10)


def test_a_countdown_is_held_by_the_broker_until_due(road):
    result = tasks.add.apply_async((1, 1), countdown=1.5)
    assert result.stage == "SCHEDULED"
    assert result.state == "PENDING"
    assert result.get(timeout=10) == 2


def test_an_eta_is_kept(road):
    eta = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=1.5)
    result = tasks.add.apply_async((1, 1), eta=eta)
    assert result.stage == "SCHEDULED"
    assert result.get(timeout=10) == 2
    assert dt.datetime.now(dt.UTC) >= eta


def test_an_ignored_result_has_an_outcome_and_no_value(road):
    result = tasks.add.apply_async((1, 1), ignore_result=True)
    assert result.get(timeout=10) is None
    assert result.successful()


def test_an_id_that_was_never_published_is_unknown_at_once(road):
    with pytest.raises(UnknownTask):
        tasks.app.AsyncResult("never-published").get(timeout=10)
    assert tasks.app.AsyncResult("never-published").state == "UNKNOWN"


def test_the_same_id_twice_is_one_task(road):
    first = tasks.note.apply_async(("notes", "once"), task_id="note-1")
    first.get(timeout=10)
    tasks.note.apply_async(("notes", "once"), task_id="note-1").get(timeout=10)
    assert (road.folder / "notes").read_text() == "once\n"


def test_wrong_arguments_fail_at_the_call(road):
    with pytest.raises(TypeError, match="add"):
        tasks.add.delay(1)


def test_tasks_are_called_by_name_without_their_code(road):
    assert tasks.app.send_task("tests.e2e.tasks.add", (4, 5)).get(timeout=10) == 9


def test_higher_priorities_run_first(stage):
    stage.broker()
    stage.app()
    for priority in (0, 9, 5, 9, 0):
        tasks.note.apply_async(("order", str(priority)), priority=priority)
    stage.worker("-c", "1")
    tasks.add.apply_async((1, 1), priority=0).get(timeout=10)
    assert (stage.folder / "order").read_text().split() == ["9", "9", "5", "0", "0"]


def test_a_task_whose_expiry_passes_in_the_queue_is_never_run(stage):
    stage.broker()
    stage.app()
    result = tasks.note.apply_async(("notes", "late"), expires=0.05)
    with pytest.raises(TaskRevokedError):
        result.get(timeout=10)
    assert result.stage == "EXPIRED"
    assert result.state == "REVOKED"
    stage.worker("-c", "1")
    tasks.add.delay(1, 1).get(timeout=10)
    assert not (stage.folder / "notes").exists()


def test_queues_are_served_by_the_workers_that_name_them(stage):
    stage.broker()
    stage.app()
    mail = tasks.about_me.apply_async(queue="mail")
    stage.worker("-c", "1", "-Q", "default,video", "-n", "general@here")
    assert tasks.about_me.delay().get(timeout=10)["hostname"] == "general@here"
    with pytest.raises(ResultTimeout, match="mail"):
        mail.get(timeout=1)
    stage.worker("-c", "1", "-Q", "mail", "-n", "mail@here")
    assert mail.get(timeout=10)["hostname"] == "mail@here"
