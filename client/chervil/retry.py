"""`self.retry`: asking to run again, and what a completion says of it."""

import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, NoReturn

from chervil import absent
from chervil.exceptions import MaxRetriesExceededError, Retry
from chervil.options import check_options
from chervil.protocol.rows import RETRY_OPTIONS
from chervil.protocol.vocabulary import RetryOption
from chervil.serialization import encode
from chervil.times import absolute_ms, relative_ms

if TYPE_CHECKING:
    from chervil.request import Request
    from chervil.task import Task

_KNOWN = frozenset({"queue", "priority", "expires", "headers", "serializer"})
#: A retry keeps the time limits of its call.
_ABSENT = absent.CALL_OPTIONS | {"time_limit", "soft_time_limit"}


def ask_again(
    task: "Task[..., Any]",
    args: Sequence[Any] | None,
    kwargs: Mapping[str, Any] | None,
    *,
    exc: BaseException | None,
    throw: bool,
    eta: datetime | None,
    countdown: float | None,
    max_retries: int | None,
    options: Mapping[str, Any],
) -> Retry:
    """What `Task.retry` does; see there."""
    check_options(f"retry() of {task.name}", options, _KNOWN, _ABSENT)
    request = task.request
    if request.called_directly:
        _raise_with_context(exc or Retry("Task can be retried", None))
    limit = task.max_retries if max_retries is None else max_retries
    if limit is not None and request.retries + 1 > limit:
        if exc is not None:
            _raise_with_context(exc)
        now = request.args if args is None else args
        named = request.kwargs if kwargs is None else kwargs
        raise MaxRetriesExceededError(
            f"Can't retry {task.name}[{request.id}] args:{now!r} kwargs:{named!r}",
            task_args=now,
            task_kwargs=named,
        )
    when: datetime | float = task.default_retry_delay
    if eta is not None:
        when = eta
    elif countdown is not None:
        when = countdown
    retry = Retry(exc=exc, when=when, is_eager=request.is_eager)
    retry.task_args, retry.task_kwargs, retry.options = args, kwargs, options
    # Told now, where the user's line stands in the traceback, not when the completion is made.
    retry_options(retry, task, request)
    if throw:
        raise retry
    request.pending_retry = retry
    return retry


def retry_options(retry: Retry, task: "Task[..., Any]", request: "Request") -> dict[int, Any]:
    """The options of a RETRY completion (protocol.md, COMPLETE) that a Retry asks for.

    DELAY_MS or DUE_AT always; EXPIRES_MS or EXPIRES_AT, QUEUE and PRIORITY where the retry changes them;
    BODY `[headers or None, codec, body]` where it changes arguments, headers or serializer, the unchanged
    ones taken from `request`. Raises ValueError or TypeError for a value that cannot travel, EncodeError.
    """
    timezone = task.app.conf.timezone
    out: dict[int, Any] = {}
    when = task.default_retry_delay if retry.when is None else retry.when
    if isinstance(when, datetime):
        out[RetryOption.DUE_AT] = absolute_ms(when, "eta", timezone)
    else:
        out[RetryOption.DELAY_MS] = relative_ms(when, "countdown")
    options = retry.options
    expires = options.get("expires")
    if isinstance(expires, datetime):
        out[RetryOption.EXPIRES_AT] = absolute_ms(expires, "expires", timezone)
    elif expires is not None:
        out[RetryOption.EXPIRES_MS] = relative_ms(expires, "expires")
    if (queue := options.get("queue")) is not None:
        out[RetryOption.QUEUE] = queue
    if (priority := options.get("priority")) is not None:
        out[RetryOption.PRIORITY] = priority
    if (
        retry.task_args is not None
        or retry.task_kwargs is not None
        or "headers" in options
        or "serializer" in options
    ):
        out[RetryOption.BODY] = _body(retry, request)
    for key, value in out.items():
        try:
            RETRY_OPTIONS[key](value)
        except ValueError as error:
            raise ValueError(f"{RetryOption(key).name.lower()} {error}") from None
    return {int(key): value for key, value in out.items()}


def _body(retry: Retry, request: "Request") -> list[Any]:
    codec = retry.options.get("serializer") or request.codec
    args = request.args if retry.task_args is None else retry.task_args
    kwargs = request.kwargs if retry.task_kwargs is None else retry.task_kwargs
    headers = retry.options.get("headers", request.headers)
    return [
        encode(codec, dict(headers)) if headers else None,
        codec,
        encode(codec, [list(args), dict(kwargs)]),
    ]


def _raise_with_context(exc: BaseException) -> NoReturn:
    """Raises `exc`; another exception that is being handled becomes its cause."""
    handled = sys.exc_info()[1]
    if handled is None or handled is exc:
        raise exc
    raise exc from handled
