"""Running a task's function: the same in a worker's child and for an eager call."""

import os
import threading
import traceback
from collections.abc import Coroutine
from types import CoroutineType
from typing import TYPE_CHECKING, Any, NamedTuple

from chervil.current import Running, parent, running
from chervil.exceptions import Retry
from chervil.protocol.vocabulary import Outcome
from chervil.request import Request

if TYPE_CHECKING:
    import asyncio

    from chervil.task import Task


class Finished(NamedTuple):
    """What came of one run."""

    #: SUCCESS, FAILURE or RETRY.
    outcome: Outcome
    #: What the function returned; None unless SUCCESS.
    value: Any
    #: With FAILURE what was raised, with RETRY the cause if there is one.
    exception: BaseException | None
    #: Its traceback as text, from the task's own frame on.
    traceback: str | None
    #: With RETRY what was asked for; `chervil.retry.retry_options` makes a completion's options of it.
    retry: Retry | None


def execute(task: "Task[..., Any]", request: Request) -> Finished:
    """Runs `task.run` with the request's arguments, `self.request` being that request, which has an id.

    Whatever the function raises ends up in the answer, SystemExit included; only KeyboardInterrupt
    propagates. A coroutine is run to its end on this thread's own event loop, which is kept from one task
    to the next.
    """
    outer = running.set(Running(task, request))
    outer_parent = parent.set(request)
    try:
        value = task.run(*request.args, **request.kwargs)
        if type(value) is CoroutineType:
            value = _run_coroutine(value)
        if request.pending_retry is not None:
            return _retry(request.pending_retry)
    except Retry as retry:
        return _retry(retry)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return Finished(Outcome.FAILURE, None, error, _format(error), None)
    finally:
        parent.reset(outer_parent)
        running.reset(outer)
    return Finished(Outcome.SUCCESS, value, None, None, None)


def _retry(retry: Retry) -> Finished:
    return Finished(Outcome.RETRY, None, retry.exc, _format(retry.exc or retry), retry)


def _format(error: BaseException) -> str:
    """The traceback as text, without the frame of `execute`, which tells the user nothing."""
    frames = error.__traceback__
    if frames is not None and frames.tb_frame.f_code is execute.__code__:
        frames = frames.tb_next
    return "".join(traceback.format_exception(type(error), error, frames))


class _Loop(threading.local):
    """One event loop a thread, made at its first coroutine and made anew after a fork."""

    runner: "asyncio.Runner | None" = None
    pid = 0


_loop = _Loop()


def _run_coroutine(coroutine: Coroutine[Any, Any, Any]) -> Any:
    import asyncio
    from contextvars import copy_context

    if _loop.runner is None or _loop.pid != os.getpid():
        _loop.runner = asyncio.Runner()
        _loop.pid = os.getpid()
    try:
        # The runner would keep the context of its first run; this one knows the task that runs.
        return _loop.runner.run(coroutine, context=copy_context())
    finally:
        coroutine.close()
