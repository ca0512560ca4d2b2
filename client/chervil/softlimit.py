"""The soft time limit: an exception that is raised in a task, and nowhere else, when its time is over.

The SIGALRM of the real timer (`setitimer(ITIMER_REAL)`) finds the main thread in one of four places:

    in the task's code                           SoftTimeLimitExceeded is raised right there
    in this module, before or after the task     tried again a millisecond later: the timer is
                                                 disarmed by then, or the task has begun
    in the event loop, while the task awaits     thrown into the coroutine at its `await`
    anywhere, and the limit is not armed         nothing

Where the task's code is a `__del__`, or a callback of a weak reference, of the garbage collector or of
ctypes, Python drops whatever is raised. It tells `sys.unraisablehook`, and then the limit is tried again.

So a task that has returned stands, and no alarm outlives its task. Two things to know: code that does not
come back to Python, such as one long call into a C library, is interrupted when it does (that is what the
hard limit is for); and what is thrown at an `await` is no cancellation, so a library that tidies up after
CancelledError only, such as `asyncio.wait_for` of Python 3.11, leaves what it waited for on the loop.
"""

import signal
import sys
from collections.abc import Callable, Coroutine, Generator, Mapping, Sequence
from traceback import walk_tb
from types import FrameType, coroutine
from typing import TYPE_CHECKING, Any, NoReturn

from chervil.exceptions import SoftTimeLimitExceeded

if TYPE_CHECKING:
    import asyncio

#: Seconds until an alarm is tried again that came while this module's own code ran, or was dropped.
_AGAIN = 0.001


def call(seconds: float, function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Calls a function; SoftTimeLimitExceeded is raised in it after `seconds`. In the main thread only.

    While it runs the signal SIGALRM and the real timer are not the function's own to use. They are disarmed
    afterwards, whoever armed them; the handler stays, and does nothing.
    """
    alarm = _Alarm(seconds)
    alarm.arm()
    try:
        return function(*args, **kwargs)
    finally:
        alarm.disarm()


async def drive(seconds: float, running: Coroutine[Any, Any, Any]) -> Any:
    """Awaits a coroutine as `call` calls a function; the asyncio task that awaits this has no other use."""
    import asyncio

    alarm = _Alarm(seconds, asyncio.current_task())
    alarm.arm()
    try:
        return await _steps(running, alarm)
    finally:
        alarm.disarm()


@coroutine
def _steps(running: Coroutine[Any, Any, Any], alarm: "_Alarm") -> Generator[Any, Any, Any]:
    """What `await running` does (PEP 380); what becomes of the alarm's cancellation is its exception."""
    resume: Callable[[Any], Any] = running.send
    value: Any = None
    while True:
        try:
            awaited = resume(value)
        except StopIteration as stop:
            return stop.value
        try:
            value = yield awaited
            resume = running.send
        except GeneratorExit:
            running.close()
            raise
        except BaseException as error:
            value = alarm.instead_of(error)
            resume = running.throw
        else:
            if alarm.owed:  # what it awaits took the cancellation, and came to its end all the same
                value = alarm.instead_of(None)
                resume = running.throw


class _Alarm:
    """One run's limit. Every frame of this file counts as ours: nothing is raised in it."""

    def __init__(self, seconds: float, task: "asyncio.Task[Any] | None" = None) -> None:
        self._seconds = seconds
        self._task = task
        self._armed = False
        #: The task was cancelled, and that has not come back yet as `instead_of`.
        self.owed = False
        #: What was raised in the task's code, and the hook that stood before it was: set together.
        self._raised: SoftTimeLimitExceeded | None = None
        self._hook: Callable[[sys.UnraisableHookArgs], Any] = sys.unraisablehook

    def arm(self) -> None:
        signal.signal(signal.SIGALRM, self._ring)
        self._armed = True
        signal.setitimer(signal.ITIMER_REAL, self._seconds)

    def disarm(self) -> None:
        self._armed = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        self._raised = None
        if sys.unraisablehook == self._dropped:
            sys.unraisablehook = self._hook

    def instead_of(self, error: BaseException | None) -> BaseException | None:
        """What to throw into the coroutine for what its `await` came to: an error, or None for an end.

        What it awaits may answer the cancellation with an error of its own, or with none.
        """
        if not self.owed:
            return error
        self.owed = False
        assert self._task is not None
        self._task.uncancel()
        said = self._exception()
        if isinstance(error, Exception):  # what is worth telling; a CancelledError is none
            said.__context__ = error
        return said

    def _ring(self, number: int, frame: FrameType | None) -> None:
        if not self._armed:
            return
        ours = _nearest_of_ours(frame)
        if frame is None or ours is frame or (ours is not None and ours.f_code not in _BELOW):
            signal.setitimer(signal.ITIMER_REAL, _AGAIN)
            return
        self._armed = False
        if ours is not None or self._task is None:
            self._raise()
        self.owed = True
        self._task.cancel()
        # As asyncio does at Ctrl-C: it may be waiting for sockets, and is to look at its tasks.
        self._task.get_loop().call_soon_threadsafe(_nothing)

    def _raise(self) -> NoReturn:
        if sys.unraisablehook != self._dropped:
            self._hook, sys.unraisablehook = sys.unraisablehook, self._dropped
        self._raised = self._exception()
        raise self._raised

    def _dropped(self, unraisable: "sys.UnraisableHookArgs") -> None:
        """Python has dropped an exception: ours is to be raised again, any other is told as ever."""
        dropped = unraisable.exc_value
        if self._raised is not None and _came_of(dropped, self._raised):
            self._armed = True
            signal.setitimer(signal.ITIMER_REAL, _AGAIN)
        if dropped is None or dropped is not self._raised:
            self._hook(unraisable)

    def _exception(self) -> SoftTimeLimitExceeded:
        return SoftTimeLimitExceeded(f"the task has run for its soft time limit of {self._seconds:g} s")


def _nearest_of_ours(frame: FrameType | None) -> FrameType | None:
    """The innermost frame of this module on the stack, `frame` itself included; None where there is none.

    Below `call` and `_steps` there is the task's code. Below another there is what runs in between, such as
    a weak reference's callback; there a coroutine's step is under way, and cannot be cancelled.
    """
    while frame is not None and frame.f_globals is not globals():
        frame = frame.f_back
    return frame


def _came_of(error: BaseException | None, ours: BaseException) -> bool:
    """Whether an error is ours, or was raised where ours, or what came of it, was being handled.

    To have it as a context is not enough: that has also what is raised in a finalizer while the task handles
    the limit. The frame that handles an exception is the outermost one that it has come through; it has to be
    one that the next exception has come through too.
    """
    seen: set[int] = set()
    left = [error]
    while left:
        error = left.pop()
        if error is ours:
            return True
        if error is None or id(error) in seen:
            continue
        seen.add(id(error))
        frames = [frame for frame, _ in walk_tb(error.__traceback__)]
        left += [cause for cause in (error.__cause__, error.__context__) if _handler(cause) in frames]
    return False


def _handler(error: BaseException | None) -> FrameType | None:
    """The frame that an exception has come to."""
    return None if error is None or error.__traceback__ is None else error.__traceback__.tb_frame


#: Where our frames lead into the task's code.
_BELOW = (call.__code__, _steps.__code__)


def _nothing() -> None:
    """Wakes the loop."""
