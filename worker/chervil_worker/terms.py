"""On what terms a task runs, as far as the worker decides it: time limits, and when it counts as done."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from chervil.times import relative_ms
from chervil_worker import log
from chervil_worker.options import WorkerOptions

if TYPE_CHECKING:
    from chervil.conf import Settings
    from chervil.task import Task


class Terms(NamedTuple):
    """What holds for a task unless the call says otherwise; limits in milliseconds, None for none."""

    hard_ms: int | None = None
    soft_ms: int | None = None
    #: At most once: claimed before it begins (`acks_late=False`).
    early: bool = False
    #: A FAILURE when its process dies (`reject_on_worker_lost=False`).
    fail_on_lost: bool = False


#: The terms of a task of which nothing was said.
PLAIN = Terms()


def terms_of(task: "Task[..., Any]", settings: "Settings", options: WorkerOptions) -> Terms:
    """The task's own word, else the worker's flag, else the app's setting.

    Raises TypeError or ValueError for an attribute that somebody has set to what is no limit.
    """
    late, again = task.acks_late, task.reject_on_worker_lost
    return Terms(
        _limit(task, "time_limit", options.time_limit, settings.task_time_limit),
        _limit(task, "soft_time_limit", options.soft_time_limit, settings.task_soft_time_limit),
        not (settings.task_acks_late if late is None else late),
        (settings.task_reject_on_worker_lost if again is None else again) is False,
    )


def special_terms(
    tasks: "Mapping[str, Task[..., Any]]", settings: "Settings", options: WorkerOptions
) -> dict[str, Terms]:
    """The terms of all tasks of an app that are not plain; warns of soft limits that come too late."""
    found = {name: terms_of(task, settings, options) for name, task in tasks.items()}
    special = {name: terms for name, terms in found.items() if terms != PLAIN}
    useless = [
        name for name, terms in special.items() if terms.hard_ms and (terms.soft_ms or 0) >= terms.hard_ms
    ]
    if useless:
        log.worker.warning(
            "the soft time limit never comes before the hard one, which kills the process (%s): "
            "make soft_time_limit shorter than time_limit",
            ", ".join(sorted(useless)),
        )
    return special


def _limit(task: "Task[..., Any]", name: str, flag: float | None, setting: Any) -> int | None:
    """The first limit that is said, in milliseconds; None and 0 say nothing, as in Celery."""
    for value in (getattr(task, name), flag, setting):
        if value:
            return max(1, relative_ms(value, f"{name} of {task.name}"))
    return None
