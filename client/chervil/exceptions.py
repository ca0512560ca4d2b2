"""What this library raises.

    ChervilError
      OperationalError         the broker cannot be reached, or does not do what it is asked
        AccessRefused          it does not let us in, or not do this
      PublishRefused           the broker said no: not stored
      PublishUnconfirmed       the connection broke and stayed away: stored or not, nobody knows
      UnknownTask              the broker knows no such task id, or keeps its result no more
      TimeoutError             a result did not come in time (a builtin TimeoutError too)
      ImproperlyConfigured     a setting that is wrong
      AppNotFound              no app where one was looked for
      EncodeError, DecodeError a value that a serializer cannot write, bytes that it cannot read
      RemoteError              a task's exception, of a class that this process does not have
      TaskError
        NotRegistered          no task of that name in this app (a KeyError too)
        MaxRetriesExceededError
        TaskRevokedError       called off, or its expiry passed before it started
        TaskRejectedError      parked as a dead letter by its own `raise Reject(...)`
        WorkerLostError        the process that ran it died, too often
        Terminated             its process was ended on request
      SoftTimeLimitExceeded    raised in a task that runs longer than its soft time limit
      TimeLimitExceeded        it ran longer than its hard time limit; its process was killed
    Reject                     raised by a task: park this task (or, on request, run it again later)
    Retry                      raised by `Task.retry`: run again later (no error)

The arguments of each exception are what its class takes, so all can be pickled and rebuilt.
"""

import builtins
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from chervil import absent

if TYPE_CHECKING:
    from datetime import datetime


class ChervilError(Exception):
    """The root of this library's errors."""


class OperationalError(ChervilError):
    """The broker cannot be reached, or refused what it was asked; nothing was published."""


class AccessRefused(OperationalError):
    """The broker wants a token, or another one, or the user lacks a role or a vhost.

    Trying again does not help: the message says what is missing.
    """


class PublishRefused(ChervilError):
    """The broker did not store these tasks.

    `task_ids` are the refused ones (others of the same call are stored), `code` is a code of
    protocol.md, section 6, such as FULL or BODY_TOO_LARGE, `message` what the broker said of the first.
    """

    def __init__(self, task_ids: Sequence[str], code: str, message: str) -> None:
        super().__init__(task_ids, code, message)
        self.task_ids = task_ids
        self.code = code
        self.message = message

    def __str__(self) -> str:
        return f"{_named(self.task_ids)} not stored: {self.code}: {self.message}"


class PublishUnconfirmed(ChervilError):
    """The broker may or may not hold these tasks.

    The connection broke after they were sent and did not come back before the deadline. Publishing them
    again under the same ids is safe: the broker makes no second task of a known id. `task_ids` are these,
    `refused_ids` those of the same call that the broker had refused before, which it does not hold; all
    others are confirmed.
    """

    def __init__(self, task_ids: Sequence[str], reason: str = "", refused_ids: Sequence[str] = ()) -> None:
        super().__init__(task_ids, reason, refused_ids)
        self.task_ids = task_ids
        self.reason = reason
        self.refused_ids = refused_ids

    def __str__(self) -> str:
        because = f" ({self.reason})" if self.reason else ""
        refused = f"; {_named(self.refused_ids)} refused and not stored" if self.refused_ids else ""
        return (
            f"{_named(self.task_ids)} sent but not confirmed in time{because}; "
            f"publish again with the same task_id: a task that arrived is not doubled{refused}"
        )


class UnknownTask(ChervilError):
    """No task of this id at the broker, or its result is gone."""


class TimeoutError(ChervilError, builtins.TimeoutError):  # noqa: A001  # Celery's name
    """A result did not come in time; the message says where the task is and what it waits for."""


class ImproperlyConfigured(ChervilError):
    """A setting has a value that cannot be used."""


class AppNotFound(ChervilError):
    """No app where one was looked for; the message says what to type."""


class EncodeError(ChervilError):
    """A value that the serializer has no form for."""


class DecodeError(ChervilError):
    """Bytes that the serializer cannot read, or a serializer that `accept_content` does not name."""


class RemoteError(ChervilError):
    """A task raised an exception whose class this process has not imported.

    `type_name` is the qualified name of that class, `remote_args` its arguments.
    """

    def __init__(self, type_name: str, message: str = "", remote_args: Sequence[Any] = ()) -> None:
        super().__init__(type_name, message, remote_args)
        self.type_name = type_name
        self.message = message
        self.remote_args = tuple(remote_args)

    def __str__(self) -> str:
        return f"{self.type_name}: {self.message}" if self.message else self.type_name


class TaskError(ChervilError):
    """Something about a task."""


class NotRegistered(TaskError, KeyError):
    """No task of this name is registered."""

    def __str__(self) -> str:
        return " ".join(str(arg) for arg in self.args)


class MaxRetriesExceededError(TaskError):
    """`Task.retry` was called more often than `max_retries` allows."""

    def __init__(
        self, *args: Any, task_args: Sequence[Any] = (), task_kwargs: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(*args)
        self.task_args = task_args
        self.task_kwargs = dict(task_kwargs or {})


class TaskRevokedError(TaskError):
    """The task was called off, or expired, before it ran."""


class TaskRejectedError(TaskError):
    """The task raised Reject, and is kept as a dead letter until someone runs it again or forgets it.

    Not Reject itself: raised where one task waits for another, that would reject the one that waits.
    """


class WorkerLostError(TaskError):
    """The process that ran the task died; the system gave up after the last attempt allowed."""


class Terminated(TaskError):
    """The process that ran the task was ended because somebody called the task off."""


class SoftTimeLimitExceeded(ChervilError):
    """The task that runs here has reached its soft time limit; it may catch this, clean up and return."""


class TimeLimitExceeded(ChervilError):
    """The task ran longer than its hard time limit, and its process was killed."""


class Reject(Exception):
    """A task raises this to be parked as a dead letter, which `chervil list dead` shows.

    reason: text or an exception. requeue: put it at the end of its queue again instead, after 1 s,
    twice as long each time up to 60 s.
    """

    def __init__(self, reason: object = None, requeue: bool = False) -> None:
        super().__init__(reason, requeue)
        self.reason = reason
        self.requeue = requeue

    def __str__(self) -> str:
        if isinstance(self.reason, BaseException):
            return f"{type(self.reason).__name__}: {self.reason}"
        return "rejected by the task" if self.reason is None else str(self.reason)


class Retry(Exception):
    """Not an error: the task is to run again. `Task.retry` makes and raises it.

    message, exc, when, is_eager: as in Celery; `when` is a datetime, or a delay in seconds, or None for
    the task's own `default_retry_delay`.
    """

    #: New positional and keyword arguments for the next run; None leaves them as they were.
    task_args: Sequence[Any] | None = None
    task_kwargs: Mapping[str, Any] | None = None

    def __init__(
        self,
        message: str | None = None,
        exc: BaseException | None = None,
        when: "datetime | float | None" = None,
        is_eager: bool = False,
    ) -> None:
        super().__init__(message, exc, when, is_eager)
        self.message = message
        self.exc = exc
        self.when = when
        self.is_eager = is_eager
        #: `queue`, `priority`, `expires`, `headers`, `serializer` for the next run, where they change.
        self.options: Mapping[str, Any] = {}

    def humanize(self) -> str:
        """When it runs again, in Celery's words."""
        if self.when is None:
            return "later"
        if isinstance(self.when, int | float):
            return f"in {self.when}s"
        return f"at {self.when}"

    def __str__(self) -> str:
        if self.message:
            return self.message
        when = f"in {self.when:g} s" if isinstance(self.when, int | float) else self.humanize()
        if self.exc is None:
            return when
        text = str(self.exc)
        return f"{when}: {type(self.exc).__name__}" + (f": {text}" if text else "")


if not TYPE_CHECKING:  # type checkers are to flag what is not there

    def __getattr__(name: str) -> NoReturn:
        raise absent.no_such_name(__name__, name, absent.EXCEPTIONS)


def _named(task_ids: Sequence[str]) -> str:
    if len(task_ids) == 1:
        return f"task {task_ids[0]}"
    return f"{len(task_ids)} tasks ({task_ids[0]} ...)" if task_ids else "no task"


__all__ = [
    "AccessRefused",
    "AppNotFound",
    "ChervilError",
    "DecodeError",
    "EncodeError",
    "ImproperlyConfigured",
    "MaxRetriesExceededError",
    "NotRegistered",
    "OperationalError",
    "PublishRefused",
    "PublishUnconfirmed",
    "Reject",
    "RemoteError",
    "Retry",
    "SoftTimeLimitExceeded",
    "TaskError",
    "TaskRejectedError",
    "TaskRevokedError",
    "Terminated",
    "TimeLimitExceeded",
    "TimeoutError",
    "UnknownTask",
    "WorkerLostError",
]
