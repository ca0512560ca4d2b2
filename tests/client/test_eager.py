import socket
import uuid

import pytest

from chervil import Chervil
from chervil.exceptions import MaxRetriesExceededError, Reject


@pytest.fixture
def app():
    return Chervil("tests")


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


def test_eager_says_so_to_the_task(app):
    @app.task(bind=True, serializer="msgpack")
    def look(self, *args, **kwargs):
        return self.request

    request = look.apply([1], {"x": 2}, task_id="mine", headers={"h": 3}).get()
    assert (request.id, request.wire_id, request.task) == ("mine", "mine", look.name)
    assert (request.args, request.kwargs, request.headers) == ([1], {"x": 2}, {"h": 3})
    assert (request.is_eager, request.called_directly, request.retries) == (True, False, 0)
    assert (request.codec, request.hostname) == ("msgpack", socket.gethostname())
    assert request.delivery_info["is_eager"] is True


def test_eager_ids_are_new_each_time(app):
    task = app.task(lambda: None)
    first, second = task.apply(), task.apply()
    assert first.id != second.id
    assert uuid.UUID(first.id).version == 4


def test_eager_retries_end_where_real_ones_do(app):
    runs = []

    @app.task(bind=True, max_retries=2)
    def task(self):
        runs.append(self.request.retries)
        raise self.retry()

    result = task.apply(task_id="mine")
    assert runs == [0, 1, 2]
    assert (result.id, result.state) == ("mine", "FAILURE")
    assert isinstance(result.result, MaxRetriesExceededError)


def test_eager_retries_keep_what_they_do_not_change(app):
    @app.task(bind=True)
    def task(self, n, x=0):
        if self.request.retries == 0:
            self.retry(kwargs={"x": 5}, throw=False)
        return n, x, self.request.headers

    assert task.apply([1], {"x": 2}, headers={"h": 1}).get() == (1, 5, {"h": 1})


def test_throw_false_keeps_the_failure_whatever_the_setting(app):
    app.conf.task_eager_propagates = True

    @app.task
    def fail():
        raise ValueError("x")

    assert isinstance(fail.apply(throw=False).result, ValueError)


def test_an_eager_delay_many_hands_its_headers_on(app):
    app.conf.task_always_eager = True

    @app.task(bind=True)
    def task(self, n):
        return n, self.request.headers

    assert [r.get() for r in task.delay_many([(1,), (2,)], headers={"h": 1})] == [
        (1, {"h": 1}),
        (2, {"h": 1}),
    ]


def test_a_rejection_is_a_failure_whatever_it_asks_for(app):
    @app.task
    def refuse():
        raise Reject("bad order", requeue=True)

    result = refuse.apply()
    assert result.failed()
    with pytest.raises(Reject, match="bad order"):
        result.get()
