"""Why a task waits, in words: what a `get()` in vain tells its user."""

import logging
from typing import TYPE_CHECKING

from chervil.protocol.vocabulary import Info, Stage

if TYPE_CHECKING:
    from chervil.app import Chervil
    from chervil.client import Status

logger = logging.getLogger("chervil")


def warn_of_waiting(app: "Chervil", statuses: "list[Status]") -> None:
    """Logs a warning for each task that is queued with nobody to run it; silent about all others."""
    for status in statuses:
        if status.stage is Stage.QUEUED and status.info.get(Info.WAITING_FOR):
            queue = status.info.get(Info.QUEUE)
            start = f"chervil -A {app.main or 'MODULE'} worker"
            if queue and queue != "default":
                start += f" -Q {queue}"
            hint = "" if status.info[Info.WAITING_FOR] == "no_credit" else f"; start one: {start}"
            logger.warning("task %s: %s%s", status.id, describe(status), hint)


def describe(status: "Status") -> str:
    """Where a task is and what it waits for, as a half sentence."""
    info = status.info
    words = status.stage.name.lower()
    since = info.get(Info.IN_STAGE_MS)
    if since is not None:
        words += f" for {since / 1000:.0f} s"
    queue = info.get(Info.QUEUE)
    match info.get(Info.WAITING_FOR):
        case "no_consumer":
            return f"{words}; no worker consumes {queue!r}"
        case "unknown_task":
            return f"{words}; no worker of {queue!r} knows the task {info.get(Info.NAME)!r}"
        case "no_credit":
            return f"{words}; all workers of {queue!r} are busy"
    if (due := info.get(Info.DUE_IN_MS)) is not None:
        return f"{words}; due in {due / 1000:.1f} s"
    if worker := info.get(Info.WORKER):
        return f"{words}; {worker} has it"
    return words
