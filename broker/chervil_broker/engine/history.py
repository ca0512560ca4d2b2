"""What happened to a task, for `why`: protocol.md, HISTORY.

A task that is published, delivered once and completed has no list of events: its times tell them. Only
what is unusual is noted, and the delivery that it befell before it.
"""

from collections.abc import Iterator
from typing import Any

from chervil.protocol import Stage
from chervil_broker.engine.task import EVENT_BYTES, EVICTED, REASON_BYTES, SUCCESS, Task, Unusual

#: Events that are told of one task, so that a task that comes back for ever takes no more and more room.
HISTORY_EVENTS_MAX = 64
#: How many of them are the first ones; the others are the newest.
FIRST_EVENTS = 8
#: Of the events told: published, delivered and ended, which need no note.
_UNNOTED = 3
#: What belongs to a noted event, in its order there; a reason is the last.
_FIELDS = {
    "scheduled": ("until_ms",),
    "due": (),
    "delivered": ("worker", "lease", "redelivered"),
    "started": ("worker",),
    "lost": ("worker", "attempts", "reason"),
    "session_lost": ("worker", "attempts"),
    "released": ("worker", "reason"),
    "retry": ("worker", "until_ms", "reason"),
    "revoke_asked": ("by",),
    "rerun": ("by",),
    "ended": ("stage", "worker", "reason"),
}


def unusual(task: Task) -> Unusual:
    """The record of what few tasks have, made on first use."""
    if task.unusual is None:
        task.unusual = Unusual()
    return task.unusual


def note(task: Task, at_ms: int, event: str, *belongs: object) -> int:
    """Notes an event, and before it the delivery that it follows; returns bytes more that this takes."""
    record = unusual(task)
    before = record.bytes
    for entry in (*_newest_delivery(task), (at_ms, event, *belongs)):
        record.events.append(entry)
        record.bytes += _weight(entry)
        if len(record.events) > HISTORY_EVENTS_MAX - _UNNOTED:
            # The publish is the first of the first ones and not in the list.
            record.bytes -= _weight(record.events.pop(FIRST_EVENTS - 1))
            record.dropped += 1
    task.delivered = None
    return record.bytes - before


def weigh(record: Unusual) -> None:
    """Says what the events of a record take that was made from what was kept of it."""
    record.bytes = sum([_weight(entry) for entry in record.events])


def _weight(entry: tuple[Any, ...]) -> int:
    has_reason = _FIELDS[entry[1]][-1:] == ("reason",) and entry[-1] is not None
    return EVENT_BYTES + (REASON_BYTES if has_reason else 0)


def note_end(task: Task) -> None:
    """Notes how a task ended that is to run again; its weight is counted anew by whoever has it run."""
    note(task, *_end(task))


def events(task: Task) -> list[dict[str, Any]]:
    """What HISTORY lists, in order."""
    told = [{"at_ms": task.origin[1], "event": "published", "by": task.origin[0], "queue": task.queue}]
    entries = [] if task.unusual is None else list(task.unusual.events)
    entries += _newest_delivery(task)
    if task.stage >= SUCCESS:
        entries.append(_end(task))
    for at_ms, event, *belongs in entries:
        told.append({"at_ms": at_ms, "event": event, **dict(zip(_FIELDS[event], belongs, strict=True))})
    return told


def _newest_delivery(task: Task) -> Iterator[tuple[Any, ...]]:
    if task.delivered is not None:
        yield task.delivered, "delivered", task.worker, task.lease, task.redelivered


def _end(task: Task) -> tuple[Any, ...]:
    ending = task.ending
    if ending is None:
        assert task.stage in (SUCCESS, EVICTED), "whatever else a task ends as, it has an ending"
        return task.ended, "ended", Stage.SUCCESS.name, task.worker, None
    return task.ended, "ended", Stage(ending.stage).name, task.worker, ending.reason
