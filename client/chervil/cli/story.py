"""A task's life in plain words: the report of HISTORY (protocol.md) as `chervil why` tells it."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from chervil.cli.clock import clock, distance
from chervil.cli.terminal import command
from chervil.client import Status
from chervil.protocol import Info, Stage
from chervil.protocol.limits import GRACE_CLOSED_MS, GRACE_SILENT_MS
from chervil.waiting import advice, describe

Event = Mapping[str, Any]

#: How long a broker keeps the tasks of a worker that has lost its connection.
KEPT_FOR = (
    f"for up to {GRACE_CLOSED_MS // 1000} s after a connection that closed, "
    f"{GRACE_SILENT_MS // 1000} s after silence"
)

#: How many of a task's first events a broker keeps; what is dropped comes after them.
FIRST_KEPT = 8


class Told(NamedTuple):
    """One line of the story."""

    #: Local wall time; empty where the line is no event.
    time: str
    #: How long after the event before; empty for the first.
    after: str
    text: str


def headline(report: Mapping[str, Any]) -> str:
    """Which task it is, and where it is now."""
    name, task_id, stage = report.get("name"), report.get("id"), report.get("stage")
    if name is None:
        return f"Task {task_id}: {stage}"
    return f"Task {name}[{task_id}] in queue {report.get('queue')}: {stage}"


def tell(report: Mapping[str, Any]) -> Iterator[Told]:
    """The events in order, one line each."""
    limit = report.get("delivery_limit")
    dropped = report.get("dropped_events") or 0
    before: int | float | None = None
    #: Attempts lost so far; None where that is not known, as events are missing.
    lost: int | None = 0
    events = report.get("events") or ()
    for index, event in enumerate(events):
        if dropped and index == FIRST_KEPT:
            yield Told("", "", f"({dropped} events in between were not kept)")
            lost = None
        at = event.get("at_ms")
        known = isinstance(at, int | float)
        after = distance(at - before) if known and before is not None else ""
        following = events[index + 1] if index + 1 < len(events) else {}
        cost = "; it is not run again" if _is_failure(following) else _charged(event, limit, lost)
        yield Told(clock(at), after, _in_words(event, cost))
        before = at if known else before
        if event.get("event") == "rerun":
            lost = 0
        elif "attempts" in event:
            lost = event["attempts"]


def prospect(
    report: Mapping[str, Any], app: str | None, *, away: bool = False, pids: Sequence[int] = ()
) -> str:
    """What the task waits for now, and what its owner can do; `app` is what -A takes.

    `away`: the worker that has it has lost the connection. `pids`: the workers that it may be, where one is
    connected.
    """
    task_id = str(report.get("id"))
    match report.get("stage"):
        case "SUCCESS":
            return f"It is done. Its result: {command('result', task_id)}"
        case "FAILURE":
            again = f"un it again: {command('retry', task_id)}"
            raised = (report.get("error") or {}).get("kind") == "exception"
            return f"What it raised: {command('result', task_id)}; r{again}" if raised else f"R{again}"
        case "DEAD":
            return (
                "It stays parked until somebody runs it again or drops it: "
                f"{command('retry', task_id)}, or {command('forget', task_id)}"
            )
        case "REVOKED" | "EXPIRED":
            return f"It will not run, unless somebody has it run after all: {command('retry', task_id)}"
        case "EVICTED":
            return f"{_dropped(report)} To run it again, publish it anew under another id."
        case other:
            return _waiting(report, str(other), app, away, pids)


def _dropped(report: Mapping[str, Any]) -> str:
    """What is still known of a task that has ended and was evicted, or forgotten with all that it had."""
    if report.get("name") is not None:
        return "Its result and its arguments were dropped, for room or because their time was over."
    return (
        "It ended, and nothing else is kept of it: somebody forgot it, or it was dropped for room or because "
        "its time was over."
    )


def _waiting(report: Mapping[str, Any], stage: str, app: str | None, away: bool, pids: Sequence[int]) -> str:
    """For a task that will move by itself."""
    if stage not in Stage.__members__:
        return ""
    task_id, worker = str(report.get("id")), report.get("worker")
    if worker and pids:
        worker += f" (pid {' or '.join(map(str, pids))})"
    info = {
        Info.NAME: report.get("name"),
        Info.QUEUE: report.get("queue"),
        Info.WAITING_FOR: report.get("waiting_for"),
        Info.DUE_IN_MS: report.get("due_in_ms"),
        Info.WORKER: worker,
    }
    known = {int(key): value for key, value in info.items() if value is not None}
    status = Status(task_id, Stage[stage], None, None, known)
    if away:
        what_to_do = f"; that worker has lost the connection, and the task is kept for it {KEPT_FOR}"
    elif status.stage is Stage.STARTED:
        what_to_do = f"; end it: {command('revoke --terminate', task_id)}"
    elif status.stage in (Stage.SCHEDULED, Stage.RETRY):
        what_to_do = f"; call it off: {command('revoke', task_id)}"
    else:
        what_to_do = advice(app, status)
    return f"Now: {describe(status)}{what_to_do}"


def _in_words(event: Event, cost: str) -> str:
    """One event, and what it cost; one that this release does not know is shown as it came."""
    worker = event.get("worker") or "a worker"
    match event.get("event"):
        case "published":
            return f"published by {event.get('by')} (queue {event.get('queue')})"
        case "scheduled":
            return f"held until {clock(event.get('until_ms'))}"
        case "due":
            return "its time came: queued"
        case "delivered":
            return f"delivered to {worker}{' (redelivered)' if event.get('redelivered') else ''}"
        case "started":
            return f"started on {worker}"
        case "lost":
            return f"its process died: {_how_it_died(event)}{cost}"
        case "session_lost":
            return f"its worker was lost: {worker}{cost}"
        case "released":
            return f"given back by {worker}{_because(event)}"
        case "retry":
            until = event.get("until_ms")
            held = "" if until is None else f"; held until {clock(until)}"
            return f"asked to run again{_because(event)}{held}"
        case "revoke_asked":
            return f"called off by {event.get('by')} while a worker had it"
        case "rerun":
            return f"queued anew by {event.get('by')}"
        case "ended":
            return _ending(event)
    return _as_it_came(event)


def _ending(event: Event) -> str:
    on = f" on {event['worker']}" if event.get("worker") else ""
    match event.get("stage"):
        case "SUCCESS":
            return f"succeeded{on}"
        case "FAILURE":
            return f"failed{on}{_because(event)}"
        case "DEAD":
            return f"parked{_because(event)}"
        case "REVOKED":
            return f"revoked{_because(event)}"
        case "EXPIRED":
            return f"expired{_because(event)}"
    return _as_it_came(event)


def _how_it_died(event: Event) -> str:
    # The count that a worker's words may end with stands in the line anyway.
    return _in_short(str(event.get("reason")).removesuffix(f", on attempt {event.get('attempts')}"))


def _in_short(reason: str) -> str:
    """A worker's words for its log, made shorter for one line of many."""
    return reason.replace("perhaps by the system for want of memory", "perhaps out of memory")


def _because(event: Event) -> str:
    return f": {_in_short(str(event['reason']))}" if event.get("reason") else ""


def _is_failure(event: Event) -> bool:
    """Whether the task has failed; after a loss that means that it had one attempt only."""
    return event.get("event") == "ended" and event.get("stage") == "FAILURE"


def _charged(event: Event, limit: object, lost: int | None) -> str:
    """What the loss of a process or a worker cost; `lost` are the attempts lost before it, where known."""
    attempts = event.get("attempts")
    if attempts is None:
        return ""
    if lost is None:
        return f"; attempts lost so far: {attempts} of {limit}"
    if attempts > lost:
        return f"; attempt {attempts} of {limit} lost"
    return "; it cost no attempt"


def _as_it_came(event: Event) -> str:
    more = ", ".join(f"{key}={value}" for key, value in event.items() if key not in ("at_ms", "event"))
    return f"{event.get('event')}{': ' if more else ''}{more}"
