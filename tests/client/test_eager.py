import pytest

from chervil import Chervil


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
