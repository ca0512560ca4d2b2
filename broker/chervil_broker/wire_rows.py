"""What the engine decided, as messages: handles become bodies, broker-written failures become records."""

from collections.abc import Iterator
from typing import Any

from chervil.protocol import FAILURE_CODEC, FailureRecord, Message, TaskOption
from chervil.protocol.limits import FRAME_BATCH, ID_MAX
from chervil.protocol.messages import Cancel, Deliver, Result, Status
from chervil.protocol.rows import DeliveryRow, StatusRow, batches, weight
from chervil_broker.bodies import Bodies
from chervil_broker.engine.effects import Effects
from chervil_broker.engine.task import Task, View

#: What a row takes on the wire besides its body, at most, where options are absent and names are
#: checked: see rows.weight. Batches that stay below the frame's limit by this need no weighing.
_ROW_MAX = 1024

#: And what a row of CANCEL takes: an id and two numbers.
_CANCEL_MAX = ID_MAX + 24

#: The exception that a broker-written failure is to its caller, by kind.
FAILURE_TYPES = {
    "lost": "chervil.exceptions.WorkerLostError",
    "expired": "chervil.exceptions.TaskRevokedError",
    "revoked": "chervil.exceptions.TaskRevokedError",
    "rejected": "chervil.exceptions.Reject",
}


def outgoing(effects: Effects, bodies: Bodies, now: int, wall: int) -> Iterator[tuple[int, Message]]:
    """(session, message) for everything that a pump sends, what somebody waits for most first.

    So deliveries leave before the confirms: a worker begins while the publisher reads. Cancels leave before
    the answers that say what is in force. `now` and
    `wall` are the engine's clocks, for expiries that are counted down.
    """
    for session, tasks in effects.grants:
        rows = [
            _delivery_row(task, bodies)
            if task.times is None
            else _delivery_row(task, bodies, task.remaining_ms(now, wall))
            for task in tasks
        ]
        for part in _split(rows, headers_at=9, body_at=11):
            yield session, Deliver(part)
    for session, rows in effects.cancels:
        for cancelled in batches(rows, [_CANCEL_MAX] * len(rows)):
            yield session, Cancel(cancelled)
    for session, request, views in effects.statuses:
        parts = list(_split([status_row(view, bodies) for view in views], headers_at=None, body_at=3)) or [[]]
        if request is None:
            for rows in parts:
                yield session, Result(rows)
        else:
            for number, rows in enumerate(parts, 1):
                yield session, Status(request, rows, True if number < len(parts) else None)
    yield from effects.replies


def _delivery_row(task: Task, bodies: Bodies, expires_ms: int | None = None) -> DeliveryRow:
    headers, codec, body = bodies.task(task.handle)
    options = task.options
    if expires_ms is not None:
        options = {key: value for key, value in (options or {}).items() if key != TaskOption.EXPIRES_AT}
        options[TaskOption.EXPIRES_MS] = expires_ms
    return [
        task.id,
        task.lease,
        task.redelivered,
        task.attempts,
        task.retries,
        task.name,
        task.queue,
        task.priority,
        options,
        headers,
        codec,
        body,
    ]


def status_row(view: View, bodies: Bodies) -> StatusRow:
    """A row of STATUS or RESULT."""
    if view.failure is not None and view.name is not None:
        kind, message = view.failure
        if message is None and view.handle is not None:
            message = bodies.result(view.handle).body.decode("utf-8", "replace")
        record = FailureRecord(kind, FAILURE_TYPES[kind], message, None, view.id, view.name)
        return [view.id, view.stage, FAILURE_CODEC, record.pack(), view.info]
    if view.handle is None:
        return [view.id, view.stage, None, None, view.info]
    codec, body = bodies.result(view.handle)
    return [view.id, view.stage, codec, body, view.info]


def _split(rows: list[list[Any]], *, headers_at: int | None, body_at: int) -> Iterator[list[list[Any]]]:
    """The rows in parts that each fit a frame."""
    if headers_at is None:
        room = sum([len(row[body_at]) for row in rows if row[body_at] is not None])
    else:
        room = sum([len(row[body_at]) + len(row[headers_at] or b"") for row in rows])
        if any(row[8] is not None for row in rows):
            room = FRAME_BATCH
    if room + _ROW_MAX * len(rows) <= FRAME_BATCH:
        if rows:
            yield rows
        return
    options_at = 8 if headers_at is not None else 4
    weights = [
        weight(row[body_at], None if headers_at is None else row[headers_at], row[options_at]) for row in rows
    ]
    yield from batches(rows, weights)
