"""The soft limit: in the task's code, nowhere else, and not twice."""

import asyncio
import contextlib
import functools
import gc
import signal
import sys
import threading
import time
import weakref

import pytest

from chervil import Chervil, softlimit
from chervil.exceptions import SoftTimeLimitExceeded
from chervil.execution import execute
from chervil.protocol import Outcome
from tests.client.deliveries import request_for
from tests.client.limited import LONG, SOON, limited, no_trace, spin, untraced  # noqa: F401  # fixtures

#: Instead of the millisecond after which an alarm is tried again: long enough to look at its timer before.
A_MOMENT = 0.5


@pytest.fixture
def app():
    return Chervil("tests")


@pytest.mark.parametrize("work", [time.sleep, spin], ids=["waits", "computes"])
def test_task_over_its_limit_fails_with_the_frame_that_it_was_in(app, work):
    @app.task
    def slow():
        work(LONG)

    finished = limited(slow)
    assert finished.outcome is Outcome.FAILURE
    assert isinstance(finished.exception, SoftTimeLimitExceeded)
    assert str(finished.exception) == "the task has run for its soft time limit of 0.03 s"
    assert "in slow" in finished.traceback


def test_task_may_catch_it_clean_up_and_take_its_time(app):
    @app.task
    def slow():
        try:
            time.sleep(LONG)
        except SoftTimeLimitExceeded:
            time.sleep(3 * SOON)
            return "cleaned up"

    assert limited(slow).value == "cleaned up"


class Tidy:
    def __init__(self, tidy_up):
        self.tidy_up = tidy_up

    def __del__(self):
        self.tidy_up()


def in_finalizer(work):
    Tidy(work)


def in_weak_reference(work):
    target = Tidy(int)
    reference = weakref.ref(target, lambda _: work())
    del target
    return reference


def in_garbage_collector(work):
    def collecting(phase, info):
        if phase == "start":
            work()

    gc.callbacks.append(collecting)
    try:
        gc.collect()
    finally:
        gc.callbacks.remove(collecting)


def in_coroutine(work):
    async def run():
        Tidy(work)
        await asyncio.sleep(LONG)

    return run()


DROPPED_IN = [
    in_finalizer,
    in_weak_reference,
    in_garbage_collector,
    in_coroutine,
]


@pytest.mark.parametrize("place", DROPPED_IN)
def test_limit_that_python_drops_is_raised_again(app, place):
    """Where nothing can be raised, such as in a finalizer, it is used up no more than elsewhere."""
    hook = sys.unraisablehook

    def slow():
        place(lambda: time.sleep(LONG))
        time.sleep(LONG)

    async def slow_coroutine():
        await place(lambda: time.sleep(LONG))

    finished = limited(app.task(slow_coroutine if place is in_coroutine else slow))
    assert isinstance(finished.exception, SoftTimeLimitExceeded)
    assert sys.unraisablehook is hook


@pytest.mark.parametrize("again", ["context", "cause", "twice"])
def test_limit_that_another_error_stands_for_is_raised_again_when_python_drops_that(app, monkeypatch, again):
    told = []
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: told.append(unraisable.exc_type))

    def work():
        try:
            time.sleep(LONG)
        except SoftTimeLimitExceeded as error:
            if again != "twice":
                raise KeyError(1) from (error if again == "cause" else None)
            try:
                raise ValueError(1)
            except ValueError as other:
                raise KeyError(1) from other

    @app.task
    def slow():
        in_finalizer(work)
        time.sleep(LONG)

    assert isinstance(limited(slow).exception, SoftTimeLimitExceeded)
    assert told == [KeyError], "it is an error of the task's all the same"


def test_what_else_python_drops_is_told_as_always(app, monkeypatch):
    told = []
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: told.append(unraisable.exc_type))

    @app.task
    def slow():
        try:
            time.sleep(LONG)
        except SoftTimeLimitExceeded:
            in_finalizer(lambda: {}["missing"])
            time.sleep(3 * SOON)
        in_finalizer(lambda: {}["missing"])
        return "cleaned up"

    assert limited(slow).value == "cleaned up"
    assert told == [KeyError, KeyError]


def test_errors_that_are_each_others_cause_are_told_too(app, monkeypatch):
    told = []
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: told.append(unraisable.exc_type))

    def circle():
        try:
            raise ValueError(1)
        except ValueError as one:
            try:
                raise KeyError(1)
            except KeyError as other:
                one.__cause__ = other
            raise TypeError(1)  # noqa: B904  # its context is one of the two

    @app.task
    def slow():
        try:
            time.sleep(LONG)
        except SoftTimeLimitExceeded:
            in_finalizer(circle)
        return "cleaned up"

    assert limited(slow).value == "cleaned up"
    assert told == [TypeError]


def test_hook_that_the_task_sets_stays(app, monkeypatch):
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)

    def mine(unraisable):
        pytest.fail("nothing was dropped")

    @app.task
    def slow():
        with contextlib.suppress(SoftTimeLimitExceeded):
            time.sleep(LONG)
        sys.unraisablehook = mine

    assert limited(slow).outcome is Outcome.SUCCESS
    assert sys.unraisablehook is mine


def test_task_within_its_limit_knows_nothing_of_it(app):
    add = app.task(lambda x, y: x + y)
    assert limited(add, 1, 2, limit=LONG).value == 3
    assert limited(add, 1, 2, limit=1e9).value == 3


def test_waiting_for_a_lock_ends_too(app):
    held = threading.Lock()
    held.acquire()

    @app.task
    def wait():
        held.acquire()

    assert isinstance(limited(wait).exception, SoftTimeLimitExceeded)


def test_no_alarm_is_left_for_a_later_task(app):
    quick = app.task(lambda: 1, name="quick")
    slow = app.task(lambda: spin(3 * SOON), name="slow")
    for _ in range(20):
        assert limited(quick).outcome is Outcome.SUCCESS
    assert execute(slow, request_for(slow)).outcome is Outcome.SUCCESS


def test_every_instant_of_the_alarm_ends_the_task_or_leaves_it_whole(app):
    """Limits about as long as the task: whatever they meet, there is an outcome, and no exception escapes."""
    noted = []

    @app.task
    def about():
        spin(0.0003)
        noted.append(1)
        return "whole"

    outcomes = set()
    for step in range(600):
        noted.clear()
        finished = limited(about, limit=0.0002 + step * 5e-7)
        if finished.outcome is Outcome.SUCCESS:
            assert finished.value == "whole"
        else:
            assert isinstance(finished.exception, SoftTimeLimitExceeded)
        outcomes.add(finished.outcome)
        # Here an alarm that came late would be raised.
        spin(0.00005)
    assert outcomes == {Outcome.SUCCESS, Outcome.FAILURE}


@pytest.mark.parametrize("moment", ["before", "after"])
def test_alarm_in_our_own_code_is_put_off(app, monkeypatch, moment):
    """The alarm comes just before the task begins, or just after it has returned."""
    rung = []

    class Alarm(softlimit._Alarm):
        def arm(self):
            super().arm()
            if moment == "before":
                self._ring(signal.SIGALRM, own_frame())
                rung.append(signal.getitimer(signal.ITIMER_REAL)[0])

        def disarm(self):
            if moment == "after":
                self._ring(signal.SIGALRM, own_frame())
                rung.append(signal.getitimer(signal.ITIMER_REAL)[0])
            super().disarm()
            # One that was on its way when it was disarmed.
            self._ring(signal.SIGALRM, None)

    def own_frame():
        """A frame whose code is the module's."""
        with contextlib.suppress(StopIteration):
            generator = softlimit._steps(pending(), softlimit._Alarm(LONG))
            next(generator)
            frame = generator.gi_frame
            generator.close()
        return frame

    monkeypatch.setattr(softlimit, "_Alarm", Alarm)
    monkeypatch.setattr(softlimit, "_AGAIN", A_MOMENT)
    work = (
        app.task(lambda: spin(LONG) or "whole", name="work")
        if moment == "before"
        else app.task(lambda: "whole", name="work")
    )
    finished = limited(work, limit=LONG)
    assert len(rung) == 1
    assert 0 < rung[0] <= A_MOMENT
    if moment == "before":
        assert isinstance(finished.exception, SoftTimeLimitExceeded), "a moment later the task ran"
    else:
        assert finished.value == "whole"


class pending:  # noqa: N801  # stands for a coroutine
    """Awaits for ever."""

    def send(self, value):
        return None

    def close(self):
        pass


def test_partial_functions_are_limited_too(app):
    task = app.task(functools.wraps(spin)(functools.partial(spin, LONG)), name="partial")
    assert isinstance(limited(task).exception, SoftTimeLimitExceeded)


def test_alarm_in_what_runs_between_our_own_steps_cancels_nothing(app, monkeypatch):
    """Such as a weak reference's callback, called while a limited coroutine has just returned."""
    rung = []
    uncover = softlimit._Alarm.disarm

    def callback(alarm):
        alarm._ring(signal.SIGALRM, sys._getframe())
        rung.append(signal.getitimer(signal.ITIMER_REAL)[0])

    def disarm(alarm):
        if alarm._task is not None:
            callback(alarm)
        uncover(alarm)

    monkeypatch.setattr(softlimit._Alarm, "disarm", disarm)
    monkeypatch.setattr(softlimit, "_AGAIN", A_MOMENT)

    @app.task
    async def quick():
        return "whole"

    assert limited(quick, limit=LONG).value == "whole"
    assert 0 < rung[0] <= A_MOMENT, "tried again a moment later"
