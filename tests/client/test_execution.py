import asyncio
import os

import pytest

from chervil import Chervil, current_task
from chervil.exceptions import Reject
from chervil.execution import execute
from chervil.protocol import Outcome, TaskOption
from tests.client.deliveries import request_for, run


@pytest.fixture
def app():
    return Chervil("tests")


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


def test_keyboard_interrupt_of_a_worker_is_the_tasks_own_and_a_failure(app):
    @app.task
    def leave():
        raise KeyboardInterrupt

    assert run(leave).outcome is Outcome.FAILURE
    assert not current_task


def test_keyboard_interrupt_of_an_eager_run_is_the_callers(app):
    @app.task
    def leave():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        leave.apply()
    assert not current_task


@pytest.mark.parametrize("requeue", [True, False])
def test_reject_is_an_outcome_of_its_own(app, requeue):
    @app.task
    def refuse():
        raise Reject("bad order", requeue=requeue)

    finished = run(refuse)
    assert (finished.outcome, finished.exception.requeue) == (Outcome.REJECT, requeue)
    assert "in refuse" in finished.traceback


def test_stop_iteration_cannot_look_like_a_return(app):
    @app.task
    def stop():
        raise StopIteration(3)

    @app.task
    async def stop_later():
        raise StopIteration(3)

    assert isinstance(run(stop).exception, StopIteration)
    assert isinstance(run(stop_later).exception, RuntimeError)


def test_traceback_that_cannot_be_written_is_left_out(app):
    class Sly(Exception):
        @property
        def __notes__(self):
            raise SystemExit(3)

    @app.task
    def fail():
        raise Sly

    assert run(fail).traceback == "Sly (its traceback could not be written: SystemExit)\n"


def test_exceptions_without_end_in_each_other_are_a_failure_all_the_same(app):
    @app.task
    def fail():
        error = ValueError(0)
        for number in range(50_000):
            after = ValueError(number)
            after.__cause__ = error
            error = after
        raise error

    finished = run(fail)
    assert finished.outcome is Outcome.FAILURE
    assert "ValueError" in finished.traceback


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
