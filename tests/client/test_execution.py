import asyncio
import os
from datetime import UTC, datetime, timedelta

import pytest

from chervil import Chervil, current_task
from chervil.exceptions import MaxRetriesExceededError, Retry
from chervil.execution import execute
from chervil.protocol import Outcome, RetryOption, TaskOption
from chervil.request import Request
from chervil.retry import retry_options
from chervil.serialization import decode


@pytest.fixture
def app():
    return Chervil("tests")


def request_for(task, *args, retries=0, options=None, headers=None, **kwargs):
    row = ["id", 1, True, 2, retries, task.name, "q", 3, options, None, "json", b"", None]
    return Request.from_delivery(row, args, kwargs, headers, "w@h")


def run(task, *args, **kwargs):
    return execute(task, request_for(task, *args, **kwargs))


def test_what_a_task_returns_is_its_value(app):
    task = app.task(lambda x, y: x + y)
    assert run(task, 1, y=2) == (Outcome.SUCCESS, 3, None, None, None)


def test_what_a_task_raises_is_its_failure(app):
    @app.task
    def fail():
        raise ValueError("x")

    finished = run(fail)
    assert finished.outcome is Outcome.FAILURE
    assert isinstance(finished.exception, ValueError)
    assert "in fail" in finished.traceback
    assert "in execute" not in finished.traceback


@pytest.mark.parametrize("error", [SystemExit(1), GeneratorExit(), asyncio.CancelledError()])
def test_a_task_cannot_end_its_worker(app, error):
    @app.task
    def leave():
        raise error

    assert run(leave).exception is error


def test_keyboard_interrupt_goes_through(app):
    @app.task
    def leave():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(leave)
    assert not current_task


def test_the_request_is_seen_and_gone_afterwards(app):
    @app.task(bind=True)
    def see(self):
        return self.request, current_task == self

    options = {int(TaskOption.PARENT_ID): "p", int(TaskOption.ROOT_ID): "r", int(TaskOption.DUE_AT): 1000}
    request = request_for(see, options=options, headers={"a": 1}, retries=4)
    seen, is_current = execute(see, request).value
    assert seen is request
    assert is_current
    assert not current_task
    assert see.request.called_directly


def test_a_request_has_celerys_names(app):
    task = app.task(lambda: None, name="t") if False else app.task(name="t")(lambda: None)
    options = {
        TaskOption.PARENT_ID: "p", TaskOption.GROUP_ID: bytes(16), TaskOption.GROUP_INDEX: 2, TaskOption.DUE_AT: 1000,
        TaskOption.EXPIRES_AT: 2000, TaskOption.ORIGIN: "o", TaskOption.SHADOW: "s", TaskOption.STAMPS: {"a": 1},
        TaskOption.IGNORE_RESULT: True,
    }  # fmt: skip
    request = request_for(
        task, 1, options={int(k): v for k, v in options.items()}, retries=4, headers={"a": 1}, x=2
    )
    assert (request.id, request.correlation_id, request.task, request.args, request.kwargs) == (
        "id",
        "id",
        "t",
        (1,),
        {"x": 2},
    )
    assert (request.retries, request.attempts, request.redelivered, request.hostname) == (4, 2, True, "w@h")
    assert (request.root_id, request.parent_id) == ("id", "p")
    assert (request.group, request.group_index) == ("00000000-0000-0000-0000-000000000000", 2)
    assert (request.eta, request.expires) == ("1970-01-01T00:00:01+00:00", "1970-01-01T00:00:02+00:00")
    assert (request.origin, request.shadow, request.stamps, request.ignore_result) == (
        "o",
        "s",
        {"a": 1},
        True,
    )
    assert request.headers == {"a": 1}
    assert request.delivery_info == {
        "exchange": "",
        "routing_key": "q",
        "priority": 3,
        "redelivered": True,
        "is_eager": False,
    }
    assert (request.get("chord"), request.get("nothing", 5)) == (None, 5)
    assert (request.called_directly, request.is_eager, request.utc) == (False, False, True)
    assert repr(request) == "<Request t[id] retries=4>"
    assert (Request().root_id, Request().eta, Request().ignore_result) == (None, None, False)


def test_coroutines_run_on_one_loop_and_know_their_task(app):
    @app.task(bind=True)
    async def where(self):
        await asyncio.sleep(0)
        return id(asyncio.get_running_loop()), self.request.id, current_task.name

    first, second = run(where), run(where)
    assert first.value == second.value
    assert first.value[1:] == ("id", where.name)


def test_a_coroutine_that_fails_is_a_failure(app):
    @app.task
    async def fail():
        await asyncio.sleep(0)
        raise ValueError("x")

    assert "in fail" in run(fail).traceback


def test_a_coroutine_within_a_running_loop_is_a_failure_and_leaves_nothing(app):
    @app.task
    async def never(): ...

    async def main():
        return run(never)

    assert isinstance(asyncio.run(main()).exception, RuntimeError)


def test_a_forked_process_has_a_loop_of_its_own(app):
    @app.task
    async def loop():
        return id(asyncio.get_running_loop()) and os.getpid()

    run(loop)
    pid = os.fork()
    if pid == 0:
        os._exit(0 if run(loop).value == os.getpid() else 1)
    assert os.waitpid(pid, 0)[1] == 0


# retry


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


# eager


def test_eager_runs_retries_at_once(app):
    @app.task(bind=True)
    def task(self, n=0):
        if self.request.retries < 2:
            raise self.retry(args=[n + 1], countdown=1000, headers={"h": n})
        return n, self.request.retries, self.request.is_eager, self.request.headers

    assert task.apply().get() == (2, 2, True, {"h": 1})


def test_eager_failures_are_kept_or_thrown(app):
    @app.task
    def fail():
        raise ValueError("x")

    result = fail.apply(task_id="mine")
    assert (result.id, result.state) == ("mine", "FAILURE")
    assert "ValueError: x" in result.traceback
    with pytest.raises(ValueError, match="x"):
        fail.apply(throw=True)
    app.conf.task_eager_propagates = True
    with pytest.raises(ValueError, match="x"):
        fail.apply()


def test_an_eager_app_needs_no_broker(app):
    app.conf.task_always_eager = True

    @app.task
    def add(x, y):
        return x + y

    assert add.delay(1, 2).get() == 3
    assert add.apply_async([1, 2], task_id="mine").id == "mine"
    assert [r.get() for r in add.delay_many([(1, 2), (3, 4)])] == [3, 7]
    with pytest.raises(TypeError):
        add.delay(1)
