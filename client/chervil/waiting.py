"""Why a task waits, in words: what a `get()` in vain tells its user."""

import logging
from typing import TYPE_CHECKING

from chervil.protocol.vocabulary import Info, Stage

if TYPE_CHECKING:
    from chervil.app import Chervil
    from chervil.client import Status

logger = logging.getLogger("chervil")


def warn_of_waiting(app: "Chervil", statuses: "list[Status]") -> None:
    """Logs a warning for each task that is ready and is not run, with the reason and what to do.

    The reasons are those of protocol.md (status row, info 9): no worker takes its queue, none of those that
    do knows the task, or all of them are busy. Silent about tasks that are held, leased or run.
    """
    for status in statuses:
        if status.stage is Stage.QUEUED and Info.WAITING_FOR in status.info:
            logger.warning("task %s: %s%s", status.id, describe(status), advice(app.main, status))


def describe(status: "Status") -> str:
    """Where a task is and what it waits for, as a half sentence."""
    info = status.info
    since = info.get(Info.IN_STAGE_MS)
    lasting = "" if since is None else f" for {since / 1000:.0f} s"
    worker = info.get(Info.WORKER)
    match status.stage:
        case Stage.QUEUED:
            return f"queued{lasting}{_reason(status)}"
        case Stage.SCHEDULED:
            return f"scheduled{_due(status)}"
        case Stage.RETRY:
            return f"waiting to be retried{_due(status)}"
        case Stage.LEASED:
            return f"handed to {worker or 'a worker'}, not started{lasting}"
        case Stage.STARTED:
            return f"running{lasting}" + (f" on {worker}" if worker else "")
    return f"{status.stage.name.lower()}{lasting}"


def last_known(statuses: "list[Status]") -> str:
    """Where tasks were when the broker was last heard of: the first in words, the others counted.

    How long something had lasted by then is left out: it would read as if it were so now.
    """
    first = statuses[0]
    stale = (Info.IN_STAGE_MS, Info.DUE_IN_MS)
    timeless = first._replace(info={key: value for key, value in first.info.items() if key not in stale})
    more = f", and {len(statuses) - 1} more that were open" if len(statuses) > 1 else ""
    return f"task {first.id}: {describe(timeless)}{more}"


def _reason(status: "Status") -> str:
    queue = status.info.get(Info.QUEUE)
    match status.info.get(Info.WAITING_FOR):
        case None:
            return ""
        case "no_consumer":
            return f"; no worker consumes {queue!r}"
        case "unknown_task":
            return f"; no worker of {queue!r} knows the task {status.info.get(Info.NAME)!r}"
        case "no_credit":
            return f"; all workers of {queue!r} are busy"
        case other:
            return f"; the broker's reason is {other!r}"


def _due(status: "Status") -> str:
    due = status.info.get(Info.DUE_IN_MS)
    if due is None:
        return ""
    return f"; due in {due / 1000:.1f} s" if due else "; due now"


def advice(app: str | None, status: "Status") -> str:
    """What its owner can do about a task that waits, as the other half; `app` is what -A takes."""
    queue = status.info.get(Info.QUEUE)
    start = f"chervil -A {app or 'MODULE'} worker"
    if queue and queue != "default":
        start += f" -Q {queue}"
    match status.info.get(Info.WAITING_FOR):
        case "no_consumer":
            return f"; start one: {start}"
        case "unknown_task":
            return f"; start one that does, or restart yours with the present code: {start}"
        case "no_credit":
            return "; it runs when its turn comes"
    return ""
