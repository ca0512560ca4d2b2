"""On what terms a task runs, as far as the worker decides it: time limits, and when it counts as done."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from chervil.protocol import TaskOption
from chervil.times import relative_ms
from chervil_worker import log
from chervil_worker.options import WorkerOptions

if TYPE_CHECKING:
    from chervil.conf import Settings
    from chervil.task import Task


class Terms(NamedTuple):
    """What holds for a task by its app's word, or after `called` by the call's; limits in milliseconds."""

    #: None: for ever.
    hard_ms: int | None = None
    soft_ms: int | None = None
    #: At most once: claimed before it begins (`acks_late=False`).
    early: bool = False
    #: A FAILURE when its process dies (`reject_on_worker_lost=False`).
    fail_on_lost: bool = False

    def called(self, options: Mapping[int, Any]) -> "Terms":
        """The terms of one call with these options: what they say comes first; a limit of 0 is none."""
        return Terms(
            options.get(TaskOption.TIME_LIMIT_MS, self.hard_ms) or None,
            options.get(TaskOption.SOFT_TIME_LIMIT_MS, self.soft_ms) or None,
            options.get(TaskOption.EARLY_ACK, self.early),
            options.get(TaskOption.FAIL_ON_LOST, self.fail_on_lost),
        )


#: The terms of a task of which nothing was said.
PLAIN = Terms()


def terms_of(task: "Task[..., Any]", settings: "Settings", options: WorkerOptions) -> Terms:
    """The task's own word, else the worker's flag, else the app's setting.

    Raises TypeError or ValueError for an attribute that somebody has set to what is no limit.
    """
    late, again = task.acks_late, task.reject_on_worker_lost
    hard = (task.time_limit, options.time_limit, settings.task_time_limit)
    soft = (task.soft_time_limit, options.soft_time_limit, settings.task_soft_time_limit)
    return Terms(
        _first(hard, f"time_limit of {task.name}"),
        _first(soft, f"soft_time_limit of {task.name}"),
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


def _first(limits: tuple[Any, ...], what: str) -> int | None:
    """The first limit that is said, in milliseconds; None and 0 say nothing, as in Celery."""
    for limit in limits:
        if limit:
            return max(1, relative_ms(limit, what))
    return None
