"""The options that a call and a task may have: the one list for `apply_async` and for `@app.task`."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypedDict

from chervil import conf
from chervil.suggest import did_you_mean

if TYPE_CHECKING:
    from datetime import datetime, timedelta


class CallOptions(TypedDict, total=False):
    """Options of one call: `apply_async`, `delay_many` and `send_task`."""

    #: Run not before this many seconds later; a timedelta will do.
    countdown: "float | timedelta | None"
    #: Run not before this time; a naive one is in the `timezone` setting. Excludes `countdown`.
    eta: "datetime | None"
    #: Not to run unless started within this many seconds, or by this time.
    expires: "float | timedelta | datetime | None"
    queue: str | None
    #: 0 to 9, 9 first.
    priority: int | None
    #: 1 to 128 bytes; a random UUID unless given. Publishing a known id again makes no second task.
    task_id: str | None
    #: The application's own, to be found in `self.request.headers`.
    headers: Mapping[str, Any] | None
    ignore_result: bool | None
    #: json or msgpack.
    serializer: str | None
    #: Seconds after which the process that runs the task is killed, and the task is a FAILURE. None and 0 say
    #: nothing: the task's own limit holds, or the worker's, or the setting's.
    time_limit: "float | timedelta | None"
    #: Seconds after which SoftTimeLimitExceeded is raised in the task, which may catch it to clean up. While
    #: the task runs, SIGALRM and the process's real timer (`signal.alarm`) are not its own to use.
    soft_time_limit: "float | timedelta | None"


class TaskOptions(TypedDict, total=False):
    """Options of a task: `@app.task(...)` and `@shared_task(...)`; `bind` stands beside them."""

    #: `module.function` unless given.
    name: str | None
    #: How often `self.retry` may be called; None is for ever.
    max_retries: int | None
    #: Seconds until the next run, where `self.retry` does not say.
    default_retry_delay: float
    queue: str | None
    priority: int | None
    ignore_result: bool | None
    serializer: str | None
    expires: "float | timedelta | datetime | None"
    #: True (Chervil's default, not Celery's): done when it has run, so it runs again when its process dies.
    #: False: claimed before it begins, so it runs at most once.
    acks_late: bool | None
    #: False: a FAILURE when its process dies, instead of another attempt.
    reject_on_worker_lost: bool | None
    #: How often it may be begun before it is parked because its process died each time: 1 to 100.
    delivery_limit: int | None
    #: As in a call.
    time_limit: "float | timedelta | None"
    soft_time_limit: "float | timedelta | None"
    #: Check arguments against the signature at the call.
    typing: bool


CALL_OPTIONS = frozenset(CallOptions.__annotations__)
TASK_OPTIONS = frozenset(TaskOptions.__annotations__)


#: Checks of the options that travel as they are; times are checked where they become milliseconds.
_CHECKS: dict[str, Callable[[Any], Any]] = {
    "queue": conf.name,
    "priority": conf.priority,
    "ignore_result": conf.flag,
    "serializer": conf.serializer,
    "headers": conf.mapping,
    "acks_late": conf.flag,
    "reject_on_worker_lost": conf.flag,
    "delivery_limit": conf.delivery_limit,
    "time_limit": conf.time_limit,
    "soft_time_limit": conf.time_limit,
}


def check_options(
    what: str, options: Mapping[str, Any], known: frozenset[str], absent: frozenset[str] = frozenset()
) -> None:
    """Raises for the first option that cannot be taken; the message names it and `what` was asked.

    TypeError for a name that is not in `known` (those in `absent` are Celery's) or a value of a wrong type,
    ValueError for a wrong value. None stands for an option that is not given.
    """
    for name, value in options.items():
        if name not in known:
            if name in absent:
                raise TypeError(f"{what}: the option {name!r} is not in this release of Chervil")
            raise TypeError(f"{what} has no option {name!r}{did_you_mean(name, known)}")
        check = _CHECKS.get(name)
        if check is not None and value is not None:
            try:
                check(value)
            except (TypeError, ValueError) as error:
                raise type(error)(f"{what}: {name} {error}") from None
    check_limits(what, options.get("time_limit"), options.get("soft_time_limit"))


def check_limits(what: str, hard: "float | timedelta | None", soft: "float | timedelta | None") -> None:
    """Raises ValueError where both limits are said and the soft one is of no use; None and 0 say nothing."""
    if hard and soft and _seconds(soft) >= _seconds(hard):
        raise ValueError(
            f"{what}: soft_time_limit ({_seconds(soft):g} s) must be shorter than time_limit "
            f"({_seconds(hard):g} s), at which the process is killed: leave the task some time to clean up"
        )


def _seconds(limit: "float | timedelta") -> float:
    return limit if isinstance(limit, int | float) else limit.total_seconds()
