"""What a child answers: a run turned into the parts of a completion row (protocol.md, COMPLETE)."""

import time
from typing import TYPE_CHECKING, Any

from chervil.exceptions import EncodeError, Reject, TaskRevokedError
from chervil.execution import Finished
from chervil.failure import failure_body
from chervil.protocol import (
    FAILURE_CODEC,
    Outcome,
    RejectOption,
    RetryOption,
    RevokedOption,
    TaskOption,
    to_text,
)
from chervil.protocol.rows import DeliveryRow
from chervil.request import Request
from chervil.retry import retry_options
from chervil.serialization import encode
from chervil_worker import packets

if TYPE_CHECKING:
    from chervil.task import Task

#: [outcome, codec?, body?, options?]: a completion row without id and lease, which the link knows.
Parts = list[Any]

_OUTCOMES = frozenset(int(outcome) for outcome in Outcome)


def read(payload: bytes) -> Parts | None:
    """The parts in a child's answer; None where it is none.

    User code that writes to a descriptor that it has closed before may write here.
    """
    try:
        parts = packets.unpack(payload)
        outcome, codec, body, options = parts
    except Exception:  # msgpack has many, and what is no list has others
        return None
    if (
        type(parts) is list
        and type(outcome) is int
        and outcome in _OUTCOMES
        and (codec is None or type(codec) is str)
        and (body is None or type(body) is bytes)
        and (options is None or type(options) is dict)
    ):
        return parts
    return None


def not_sent(row: DeliveryRow, error: BaseException) -> Parts:
    """A FAILURE for a task that ran, but whose outcome cannot be sent."""
    return [Outcome.FAILURE, FAILURE_CODEC, failure_body(error, to_text(row[0]), row[5]), None]


def unstarted(why: str) -> Parts:
    """A RELEASE for a packet whose row could not be read: it goes back as if nobody had begun it."""
    return [Outcome.RELEASE, None, why.encode(), None]


def refusal(row: DeliveryRow, error: Exception) -> Parts:
    """A REJECT for a delivery row that nobody here can run: it is parked."""
    record = failure_body(error, to_text(row[0]), row[5], "rejected")
    return [Outcome.REJECT, FAILURE_CODEC, record, None]


def rejection(request: Request, row: DeliveryRow, finished: Finished) -> Parts:
    """The REJECT that a task asked for."""
    error = finished.exception
    assert isinstance(error, Reject)
    record = failure_body(error, str(request.id), row[5], "rejected", finished.traceback)
    return [Outcome.REJECT, FAILURE_CODEC, record, {RejectOption.REQUEUE: True} if error.requeue else None]


def expiry(row: DeliveryRow) -> Parts:
    """A REVOKED for a delivery row whose expiry passed before it began."""
    error = TaskRevokedError("expired before a process began it")
    record = failure_body(error, to_text(row[0]), row[5], "expired")
    return [Outcome.REVOKED, FAILURE_CODEC, record, {RevokedOption.EXPIRED: True}]


def success(row: DeliveryRow, value: Any, codec: str, body_limit: int) -> Parts:
    """A SUCCESS with its result.

    Raises EncodeError when the codec has no form for the value, or it is larger than the broker takes.
    """
    body = encode(codec, value)
    _check_size(row, "result", body, body_limit)
    return [Outcome.SUCCESS, codec, body, None]


def success_without_result() -> Parts:
    return [Outcome.SUCCESS, None, None, None]


def failure(request: Request, row: DeliveryRow, finished: Finished) -> Parts:
    """A FAILURE with the record of what the task raised."""
    assert finished.exception is not None
    record = failure_body(finished.exception, str(request.id), row[5], traceback=finished.traceback)
    return [Outcome.FAILURE, FAILURE_CODEC, record, None]


def retry(
    task: "Task[..., Any]", request: Request, row: DeliveryRow, finished: Finished, body_limit: int
) -> Parts:
    """A RETRY with its delay and what changes.

    Raises EncodeError as `success` does, ValueError or TypeError for a Retry that asks for what cannot be.
    """
    assert finished.retry is not None
    options = retry_options(finished.retry, task, request)
    changed = options.get(RetryOption.BODY)
    if changed is not None:
        _check_size(row, "new arguments", changed[2], body_limit)
    cause = finished.exception or finished.retry
    record = failure_body(cause, str(request.id), row[5], "retry", finished.traceback)
    return [Outcome.RETRY, FAILURE_CODEC, record, options]


def expired(options: dict[int, Any] | None, deadline: int | None) -> bool:
    """Whether a task's expiry passed before it was begun.

    `deadline` is when its `expires_ms` runs out, in nanoseconds of this machine's monotonic clock.
    """
    if deadline is not None and time.monotonic_ns() >= deadline:
        return True
    expires_at = options.get(TaskOption.EXPIRES_AT) if options else None
    return expires_at is not None and time.time() * 1000 >= expires_at


def _check_size(row: DeliveryRow, what: str, body: bytes, limit: int) -> None:
    if len(body) > limit:
        raise EncodeError(
            f"the {what} of {row[5]} takes {len(body)} bytes, and the broker takes {limit}; "
            "store it elsewhere and pass on where, or raise the broker's --body-limit"
        )
