import re
from datetime import UTC, datetime, timedelta

import pytest

from chervil import Chervil
from chervil.exceptions import MaxRetriesExceededError, Retry
from chervil.execution import execute
from chervil.protocol import Outcome, RetryOption
from chervil.retry import retry_options
from chervil.serialization import decode
from tests.client.deliveries import request_for, run


@pytest.fixture
def app():
    return Chervil("tests")


@pytest.fixture
def again(app):
    @app.task(bind=True, default_retry_delay=7)
    def again(self, *args, **how):
        raise self.retry(**how)

    return again


def asked(task, **how):
    request = request_for(task, **how)
    finished = execute(task, request)
    assert finished.outcome is Outcome.RETRY, finished
    return retry_options(finished.retry, task, request)


def test_retry_waits_the_tasks_own_delay(again):
    assert asked(again) == {RetryOption.DELAY_MS: 7000}


def test_retry_says_when_and_what_changes(again):
    assert asked(again, countdown=1.5, queue="q2", priority=9, expires=5) == {
        RetryOption.DELAY_MS: 1500, RetryOption.QUEUE: "q2", RetryOption.PRIORITY: 9, RetryOption.EXPIRES_MS: 5000,
    }  # fmt: skip
    at = datetime(1970, 1, 2, tzinfo=UTC)
    assert asked(again, eta=at, expires=at + timedelta(1)) == {
        RetryOption.DUE_AT: 86_400_000,
        RetryOption.EXPIRES_AT: 2 * 86_400_000,
    }


def body(options):
    headers, codec, content = options[RetryOption.BODY]
    return headers and decode(codec, headers), codec, decode(codec, content)


def test_new_arguments_or_headers_make_a_new_body(app):
    @app.task(bind=True)
    def task(self, how):
        raise self.retry(**how)

    for how, expected in (
        ({"args": [1]}, ({"h": 1}, "json", [[1], {}])),
        ({"kwargs": {"x": 2}}, ({"h": 1}, "json", [["how"], {"x": 2}])),
        ({"headers": {"n": 3}}, ({"n": 3}, "json", [["how"], {}])),
        ({"headers": None}, (None, "json", [["how"], {}])),
        ({"serializer": "msgpack"}, ({"h": 1}, "msgpack", [["how"], {}])),
    ):
        request = request_for(task, how, headers={"h": 1})
        finished = execute(task, request)
        request.args = ["how"]
        assert body(retry_options(finished.retry, task, request)) == expected


def test_the_cause_travels_with_the_retry(app):
    @app.task(bind=True)
    def task(self):
        try:
            raise ValueError("x")
        except ValueError as error:
            raise self.retry(exc=error) from error

    finished = run(task)
    assert (finished.outcome, str(finished.exception)) == (Outcome.RETRY, "x")
    assert "ValueError: x" in finished.traceback


def test_retry_without_throw_takes_effect_when_the_task_returns(app):
    @app.task(bind=True)
    def task(self):
        assert isinstance(self.retry(throw=False, countdown=1), Retry)
        return 5

    assert run(task).outcome is Outcome.RETRY


def test_exhausted_retries_raise_the_cause_or_say_so(again):
    finished = run(again, retries=3)
    assert isinstance(finished.exception, MaxRetriesExceededError)
    assert f"Can't retry {again.name}[id]" in str(finished.exception)
    finished = run(again, retries=3, exc=ValueError("x"))
    assert isinstance(finished.exception, ValueError)
    assert run(again, retries=3, max_retries=4).outcome is Outcome.RETRY
    again.max_retries = None
    assert run(again, retries=999).outcome is Outcome.RETRY


@pytest.mark.parametrize(
    "how",
    [
        {"countdown": -1},
        {"priority": 10},
        {"nonsense": 1},
        {"args": [{1}]},
        {"serializer": "x"},
        {"queue": ""},
    ],
)
def test_a_retry_that_cannot_travel_fails_at_the_users_line(app, how):
    @app.task(bind=True)
    def task(self):
        raise self.retry(**how)

    finished = run(task)
    assert finished.outcome is Outcome.FAILURE
    assert "self.retry(**how)" in finished.traceback


def test_called_directly_retry_raises_the_cause(again):
    with pytest.raises(ValueError, match="x"):
        again(exc=ValueError("x"))
    with pytest.raises(Retry, match="can be retried"):
        again()


def test_called_directly_the_error_in_hand_is_the_cause(app):
    @app.task(bind=True)
    def task(self, exc):
        try:
            raise KeyError("first")
        except KeyError as error:
            raise self.retry(exc=exc or error)  # noqa: B904

    with pytest.raises(KeyError, match="first"):
        task(None)
    with pytest.raises(ValueError) as caught:
        task(ValueError("x"))
    assert isinstance(caught.value.__cause__, KeyError)


def test_raising_retry_oneself_runs_again(app):
    @app.task
    def task():
        raise Retry("later", when=5)

    request = request_for(task)
    assert retry_options(execute(task, request).retry, task, request) == {RetryOption.DELAY_MS: 5000}


def test_exhausted_retries_tell_the_arguments_they_were_for(app):
    @app.task(bind=True, max_retries=0, name="t")
    def task(self, x, how=None):
        raise self.retry(**(how or {}))

    error = run(task, 1).exception
    assert str(error) == "Can't retry t[id] args:(1,) kwargs:{}"
    assert (error.task_args, error.task_kwargs) == ((1,), {})
    error = run(task, 1, how={"args": [2], "kwargs": {"x": 3}}).exception
    assert (error.task_args, error.task_kwargs) == ([2], {"x": 3})


def test_a_limit_of_one_retry_overrules_the_tasks_own(again):
    assert isinstance(run(again, retries=1, max_retries=1).exception, MaxRetriesExceededError)
    assert run(again, retries=0, max_retries=1).outcome is Outcome.RETRY


def test_eta_wins_over_countdown_and_a_naive_one_is_in_the_apps_zone(app, again):
    app.conf.timezone = "Europe/Berlin"
    naive = datetime(1970, 1, 2)  # noqa: DTZ001  # naive is the point
    assert asked(again, eta=naive, countdown=5, expires=naive) == {
        RetryOption.DUE_AT: 82_800_000,
        RetryOption.EXPIRES_AT: 82_800_000,
    }


def test_a_countdown_of_zero_is_now_and_not_the_default(again):
    assert asked(again, countdown=0) == {RetryOption.DELAY_MS: 0}


def test_a_retry_that_changes_nothing_has_no_body(again):
    options = asked(again, countdown=1)
    assert RetryOption.BODY not in options
    assert {type(key) for key in options} == {int}


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"countdown": -1}, "countdown wants seconds from 0"),
        ({"priority": 10}, "priority "),
        ({"queue": ""}, "queue "),
        ({"nonsense": 1}, r"retry\(\) of .* has no option 'nonsense'"),
        ({"queu": "q"}, "did you mean 'queue'"),
        ({"expires": "soon"}, "expires wants seconds or a timedelta"),
    ],
)
def test_a_wrong_value_is_named(again, how, said):
    assert re.search(said, str(run(again, **how).exception))


def test_retry_while_an_error_is_handled_raises_exc_with_that_as_its_cause(app):
    @app.task(bind=True, max_retries=0)
    def task(self):
        try:
            raise KeyError("first")
        except KeyError:
            self.retry(exc=ValueError("x"))

    error = run(task).exception
    assert isinstance(error, ValueError)
    assert isinstance(error.__cause__, KeyError)


def test_a_retry_returned_says_when_and_why(app):
    @app.task(bind=True)
    def task(self):
        kept.append(self.retry(throw=False, countdown=4, exc=ValueError("x")))

    kept = []
    assert run(task).retry is kept[0]
    assert (kept[0].when, str(kept[0].exc), kept[0].is_eager) == (4, "x", False)
