"""Running a task's function: the same in a worker's child and for an eager call."""

import os
import threading
import traceback
from collections.abc import Coroutine
from types import CoroutineType, TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple

from chervil.current import Running, parent, running
from chervil.exceptions import Reject, Retry
from chervil.protocol.vocabulary import Outcome
from chervil.request import Request

if TYPE_CHECKING:
    import asyncio

    from chervil.task import Task


#: Modules whose frames stand between the worker and the task.
_OURS = (__name__, "chervil.softlimit")


class Finished(NamedTuple):
    """What came of one run."""

    #: SUCCESS, FAILURE, RETRY or REJECT.
    outcome: Outcome
    #: What the function returned; None unless SUCCESS.
    value: Any
    #: With FAILURE and REJECT what was raised, with RETRY the cause if there is one.
    exception: BaseException | None
    #: Its traceback as text, from the task's own frame on.
    traceback: str | None
    #: With RETRY what was asked for; `chervil.retry.retry_options` makes a completion's options of it.
    retry: Retry | None


def execute(task: "Task[..., Any]", request: Request, soft_limit: float | None = None) -> Finished:
    """Runs `task.run` with the request's arguments, `self.request` being that request, which has an id.

    Whatever the function raises ends up in the answer, SystemExit included; only the KeyboardInterrupt of
    an eager run propagates, as that is the caller's Ctrl-C. A coroutine is run to its end on this thread's
    own event loop, which is kept from one task to the next. `soft_limit`, in seconds: see
    `chervil.softlimit`.
    """
    outer = running.set(Running(task, request))
    outer_parent = parent.set(request)
    try:
        if soft_limit is None:
            value = task.run(*request.args, **request.kwargs)
        else:
            from chervil.softlimit import call

            value = call(soft_limit, task.run, request.args, request.kwargs)
        if type(value) is CoroutineType:
            value = _run_coroutine(value, soft_limit)
        if request.pending_retry is not None:
            return _retry(request.pending_retry)
    except Retry as retry:
        return _retry(retry)
    except Reject as rejection:
        return Finished(Outcome.REJECT, None, rejection, _format(rejection), None)
    except BaseException as error:
        if request.is_eager and isinstance(error, KeyboardInterrupt):
            raise
        if isinstance(error, MemoryError):
            # What its frames hold is what there was no room beside; saying so takes some.
            traceback.clear_frames(error.__traceback__)
        return Finished(Outcome.FAILURE, None, error, _format(error), None)
    finally:
        parent.reset(outer_parent)
        running.reset(outer)
    return Finished(Outcome.SUCCESS, value, None, None, None)


def _retry(retry: Retry) -> Finished:
    return Finished(Outcome.RETRY, None, retry.exc, _format(retry.exc or retry), retry)


def own_frames(error: BaseException) -> TracebackType | None:
    """The frames of an exception's traceback without ours, which tell the user nothing."""
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_globals.get("__name__") in _OURS:
        frames = frames.tb_next
    return frames


def _format(error: BaseException) -> str:
    """The traceback as text. Never raises: an exception's parts are user code, or too many, or too large."""
    try:
        return "".join(traceback.format_exception(type(error), error, own_frames(error)))
    except BaseException as why:
        return f"{type(error).__name__} (its traceback could not be written: {type(why).__name__})\n"


class _Loop(threading.local):
    """One event loop a thread, made at its first coroutine and made anew after a fork."""

    runner: "asyncio.Runner | None" = None
    pid = 0


_loop = _Loop()


def _run_coroutine(coroutine: Coroutine[Any, Any, Any], soft_limit: float | None) -> Any:
    import asyncio
    from contextvars import copy_context

    if _loop.runner is None or _loop.pid != os.getpid():
        _loop.runner = asyncio.Runner()
        _loop.pid = os.getpid()
    whole = coroutine
    if soft_limit is not None:
        from chervil.softlimit import drive

        whole = drive(soft_limit, coroutine)
    try:
        # The runner would keep the context of its first run; this one knows the task that runs.
        return _loop.runner.run(whole, context=copy_context())
    finally:
        whole.close()
        coroutine.close()
