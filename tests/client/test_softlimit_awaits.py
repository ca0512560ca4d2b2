"""The soft limit of coroutines, which meets most of them at an `await`; see test_softlimit."""

import asyncio
import contextlib
import time

import pytest

from chervil import Chervil
from chervil.exceptions import SoftTimeLimitExceeded
from chervil.protocol import Outcome
from tests.client.limited import LONG, SOON, limited, no_trace, spin, untraced  # noqa: F401  # fixtures


@pytest.fixture
def app():
    return Chervil("tests")


def test_coroutine_gets_it_at_its_await(app):
    @app.task
    async def slow():
        try:
            await asyncio.sleep(LONG)
        except SoftTimeLimitExceeded as error:
            await asyncio.sleep(3 * SOON)
            return str(error)

    assert limited(slow).value == "the task has run for its soft time limit of 0.03 s"


def test_coroutine_that_does_not_catch_it_fails_there(app):
    @app.task
    async def slow():
        await asyncio.sleep(LONG)

    finished = limited(slow)
    assert isinstance(finished.exception, SoftTimeLimitExceeded)
    assert "in slow" in finished.traceback


def test_coroutine_that_computes_is_interrupted_where_it_is(app):
    @app.task
    async def slow():
        await asyncio.sleep(0)
        try:
            spin(LONG)
        except SoftTimeLimitExceeded:
            await asyncio.sleep(0)
            return "caught"

    assert limited(slow).value == "caught"


@pytest.mark.parametrize("how", ["gather", "timeout", "thread"])
def test_coroutine_gets_it_whatever_it_awaits(app, how):
    ended = []

    async def nap():
        try:
            await asyncio.sleep(LONG)
        finally:
            ended.append(how)

    waits = {
        "gather": lambda: asyncio.gather(nap(), nap()),
        "timeout": lambda: under_timeout(nap()),
        "thread": lambda: asyncio.to_thread(time.sleep, 3 * SOON),
    }

    @app.task
    async def slow():
        try:
            await waits[how]()
        except SoftTimeLimitExceeded:
            assert asyncio.current_task().cancelling() == 0
            await asyncio.sleep(0)
            return "caught"

    async def under_timeout(work):
        async with asyncio.timeout(LONG):
            await work

    assert limited(slow).value == "caught"
    assert len(ended) == {"gather": 2, "thread": 0}.get(how, 1)


@pytest.mark.parametrize("answer", ["value", "error"])
def test_limit_stands_where_what_is_awaited_takes_the_cancellation(app, answer):
    async def stubborn():
        try:
            await asyncio.sleep(LONG)
        except asyncio.CancelledError:
            if answer == "error":
                raise KeyError("tidying up") from None
            return "came to its end"

    @app.task
    async def slow():
        with contextlib.suppress(KeyError):
            await asyncio.create_task(stubborn())
        await asyncio.sleep(LONG)

    error = limited(slow).exception
    assert isinstance(error, SoftTimeLimitExceeded)
    assert type(error.__context__) is (KeyError if answer == "error" else type(None))


def test_limit_that_was_taken_leaves_no_cancellation_behind(app):
    async def stubborn():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(LONG)

    @app.task
    async def slow():
        try:
            await asyncio.create_task(stubborn())
        except SoftTimeLimitExceeded:
            await asyncio.sleep(3 * SOON)
            return asyncio.current_task().cancelling()

    assert limited(slow).value == 0


def test_task_group_ends_what_it_holds_and_wraps_it_as_always(app):
    ended = []

    async def nap():
        try:
            await asyncio.sleep(LONG)
        finally:
            ended.append(True)

    @app.task
    async def slow():
        async with asyncio.TaskGroup() as group:
            await group.create_task(nap())

    error = limited(slow).exception
    assert isinstance(error, ExceptionGroup)
    assert error.subgroup(SoftTimeLimitExceeded) is not None
    assert ended == [True]


def test_coroutine_within_its_limit_is_as_without(app):
    async def numbers():
        for number in range(3):
            await asyncio.sleep(0)
            yield number

    @app.task
    async def quick():
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.sleep(LONG), 0.001)
        return [number async for number in numbers()]

    assert limited(quick, limit=LONG).value == [0, 1, 2]
    assert limited(quick, limit=LONG).value == [0, 1, 2], "the loop is of further use"


def test_cancellation_of_the_coroutines_own_stays_one(app):
    @app.task
    async def leave():
        asyncio.current_task().cancel()
        await asyncio.sleep(LONG)

    assert isinstance(limited(leave, limit=LONG).exception, asyncio.CancelledError)


def test_other_coroutines_code_is_not_where_it_is_raised(app):
    spun = []

    async def beside():
        spin(3 * SOON)
        spun.append(True)

    @app.task
    async def slow():
        other = asyncio.create_task(beside())
        try:
            await asyncio.sleep(LONG)
        except SoftTimeLimitExceeded:
            await other
            return "caught"

    assert limited(slow).value == "caught"
    assert spun == [True]


def test_every_instant_of_the_alarm_suits_a_coroutine(app):
    @app.task
    async def about():
        begun = time.perf_counter()
        while time.perf_counter() < begun + 0.0005:  # noqa: ASYNC110  # many awaits are the point
            await asyncio.sleep(0)
        return "whole"

    outcomes = set()
    for step in range(400):
        finished = limited(about, limit=0.0003 + step * 1e-6)
        if finished.outcome is Outcome.SUCCESS:
            assert finished.value == "whole"
        else:
            assert isinstance(finished.exception, SoftTimeLimitExceeded), finished.traceback
        outcomes.add(finished.outcome)
        spin(0.00005)
    assert outcomes == {Outcome.SUCCESS, Outcome.FAILURE}
