"""What is told of a task that did not answer itself: called off, over its limit, lost with its process.

No I/O. The link imports no user code, so it writes failure records by the names of their classes.
"""

import logging
import os
import signal
from enum import Enum
from typing import NamedTuple

from chervil.protocol import FAILURE_CODEC, FailureRecord, Outcome, ReleaseOption, TaskOption, to_text
from chervil_worker.log import Line
from chervil_worker.tasks import Task

#: [outcome, codec?, body?, options?]: a completion row without id and lease.
Parts = tuple[int, str | None, bytes | None, dict[int, object] | None]


class Why(Enum):
    """Why the link has sent a child a signal."""

    REVOKED = "revoked"
    TIME_LIMIT = "time limit"
    STOPPED = "stopped"
    NO_ANSWER = "it had sent what is no answer"
    NO_END = "its answer did not end"


class Mark(NamedTuple):
    """A signal that the link has sent to a slot's child."""

    why: Why
    signal: int
    #: The task that it was meant for.
    number: int


#: Signals for which the child itself has given the reason.
_ITS_OWN_FAULT = (Why.NO_ANSWER, Why.NO_END)


def revoked(task: Task, message: str = "called off before it began") -> Parts:
    """Called off: before a child began it, or while it ran, as the message says then."""
    return Outcome.REVOKED, FAILURE_CODEC, _record(task, "revoked", "TaskRevokedError", message), None


def after_death(task: Task, mark: Mark | None, how: str, ended_by: int | None) -> tuple[Parts, Line]:
    """What becomes of a task that its child had begun and not answered when it died, and the line to log.

    `mark` is the signal that the link had sent to that child, if any; `how` says how the child ended,
    `ended_by` of which signal (None: of none, or nobody knows). A child that died of a signal that was meant
    for another task (that one answered before it was hit) is not this one's fault: it is released uncharged.
    So is what ran when the worker was stopped.
    """
    if mark is None:
        return _lost(task, how)
    if mark.why is Why.STOPPED:
        return _cut_off(task, "worker stopped")
    if mark.number != task.number:
        if ended_by != mark.signal:  # it had survived that one
            return _lost(task, how)
        return _cut_off(task, f"cut off by a {name_of(mark.signal)} that was meant for another task")
    if mark.why is Why.TIME_LIMIT:
        return _over_limit(task)
    if mark.why in _ITS_OWN_FAULT:
        return _lost(task, how)
    message = f"terminated by {name_of(mark.signal if ended_by is None else ended_by)}"
    if ended_by is None:
        message += f": {how}"
    return revoked(task, message), _line(logging.WARNING, task, f"revoked while it ran: {message}")


def signal_of(status: int | None) -> int | None:
    """Which signal ended a process, from what waitpid says; None if it exited, or nobody knows."""
    code = 0 if status is None else os.waitstatus_to_exitcode(status)
    return -code if code < 0 else None


def describe(status: int, pid: int, mark: Mark | None) -> str:
    """How a process ended, from what waitpid says: "SIGKILL (pid 7)" or "exit code 3 (pid 7)".

    `mark` is the signal that the link had sent it, if any. Where it has sent no SIGKILL, nobody else uses
    that as often as a kernel short of memory.
    """
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return f"exit code {code} (pid {pid})"
    said = f"{name_of(-code)} (pid {pid})"
    if -code == signal.SIGKILL:
        if mark is None or mark.signal != signal.SIGKILL:
            said += ", perhaps by the system for want of memory"
        elif mark.why in _ITS_OWN_FAULT:
            said += f", from the worker: {mark.why.value}"
    return said


def name_of(number: int) -> str:
    """A signal's name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def in_vain(task: Task, how: str, *, forgotten: bool) -> Line:
    """The line about a task whose end (its outcome, or how its process ended) came when its session was over.

    `forgotten`: the broker has forgotten it too.
    """
    follows = (
        "the broker was started anew and has forgotten the task; publish it again if it is wanted"
        if forgotten
        else "the broker has it run again or has ended it (chervil why)"
    )
    text = f"came to its end ({how}), and that is dropped: its session was over; {follows}"
    return _line(logging.WARNING, task, text)


def _lost(task: Task, how: str) -> tuple[Parts, Line]:
    """Its process died and nobody knows of a reason outside of it."""
    if task.terms.early:
        follows = "it ends as FAILURE, as it runs at most once (acks_late=False)"
    elif task.terms.fail_on_lost:
        follows = "it ends as FAILURE (reject_on_worker_lost=False)"
    elif task.attempt >= task.delivery_limit:
        follows = f"it is parked as DEAD, as its delivery limit is {task.delivery_limit}"
    else:
        follows = "it runs again"
    line = _line(logging.ERROR, task, f"lost on attempt {task.attempt}: its process died: {how}; {follows}")
    told = f"{how}, on attempt {task.attempt}"
    if task.terms.fail_on_lost and TaskOption.FAIL_ON_LOST not in task.options:
        # Only the app says so, and the broker does not know.
        record = _record(task, "lost", "WorkerLostError", f"its process died: {told}")
        return (Outcome.FAILURE, FAILURE_CODEC, record, None), line
    return (Outcome.LOST, None, told.encode(), None), line


def _over_limit(task: Task) -> tuple[Parts, Line]:
    assert task.terms.hard_ms is not None
    seconds = task.terms.hard_ms / 1000
    message = f"{task.name} ran longer than its time limit of {seconds:g} s, on attempt {task.attempt}"
    line = _line(
        logging.ERROR, task,
        f"ran longer than its time limit of {seconds:g} s, on attempt {task.attempt}: its process was killed",
    )  # fmt: skip
    record = _record(task, "time_limit", "TimeLimitExceeded", message)
    return (Outcome.FAILURE, FAILURE_CODEC, record, None), line


def _cut_off(task: Task, why: str) -> tuple[Parts, Line]:
    """It had begun, and was cut off for no fault of its own."""
    parts: Parts = (Outcome.RELEASE, None, why.encode(), {int(ReleaseOption.CLAIMED): True})
    if task.terms.early:
        follows = "ends as FAILURE, as it had begun and runs at most once (acks_late=False)"
    else:
        follows = "runs again, uncharged"
    return parts, _line(logging.WARNING, task, f"was cut off and {follows}: {why}")


def _line(level: int, task: Task, text: str) -> Line:
    return Line(level, f"{task.name}[{to_text(task.id)}] {text}", task.name, to_text(task.id))


def _record(task: Task, kind: str, error: str, message: str) -> bytes:
    return FailureRecord(kind, f"chervil.exceptions.{error}", message, None, task.id, task.name).pack()
