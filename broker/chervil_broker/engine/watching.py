"""WATCH, UNWATCH, QUERY and HISTORY: what has become of a task."""

from typing import Any

from chervil.protocol import Code, Info, Stage, WireId, to_text
from chervil.protocol.messages import Error
from chervil_broker.engine.charges import watch_bytes
from chervil_broker.engine.history import events
from chervil_broker.engine.queues import Queue
from chervil_broker.engine.state import State
from chervil_broker.engine.task import (
    EVICTED,
    MS,
    NO_HANDLE,
    QUEUED,
    RETRY,
    SCHEDULED,
    SUCCESS,
    UNKNOWN,
    Task,
    View,
)

# As plain integers: looking an enum's value up five times a row took half of a WATCH (measured).
_NAME, _QUEUE, _WORKER = Info.NAME.value, Info.QUEUE.value, Info.WORKER.value
_ATTEMPTS, _RETRIES = Info.ATTEMPTS.value, Info.RETRIES.value
_WAITING_FOR, _DUE_IN_MS, _IN_STAGE_MS = Info.WAITING_FOR.value, Info.DUE_IN_MS.value, Info.IN_STAGE_MS.value
#: Stages from here on are final.
_DONE_FROM = SUCCESS


def watch(state: State, session: int, request: int, ids: list[WireId]) -> None:
    """Answers with the present state; ids that are neither final nor UNKNOWN are pushed when they are.

    Refused where there is no memory for waiting: none of these is watched then.
    """
    watching = state.sessions[session].watching
    new: dict[WireId, None] = {}
    weight = 0
    for id_ in ids:
        task = state.tasks.get(id_)
        if task is not None and task.stage < _DONE_FROM and id_ not in watching and id_ not in new:
            # The task's own id: it need not be held twice.
            new[task.id] = None
            weight += watch_bytes(id_)
    if not state.affords(weight):
        said = (
            f"tasks, and those who wait for them, take {state.taken} of their {state.config.memory_limit} "
            "bytes, and there is no room to wait for these; wait for fewer tasks at a time, or "
            f"{state.config.more_memory}"
        )
        state.effects.replies.append((session, Error(request, Code.FULL, said)))
        return
    state.charges.bytes += weight
    watching.update(new)
    for id_ in new:
        state.watchers.setdefault(id_, []).append(session)
    query(state, session, request, ids)


def unwatch(state: State, session: int, ids: list[WireId]) -> None:
    """Pushes these ids no more to this session."""
    watching = state.sessions[session].watching
    for id_ in ids:
        if id_ in watching:
            del watching[id_]
            state.charges.bytes -= watch_bytes(id_)
            sessions = state.watchers[id_]
            sessions.remove(session)
            if not sessions:
                del state.watchers[id_]


def query(state: State, session: int, request: int, ids: list[WireId]) -> None:
    """Answers with the present state of each id."""
    rows = []
    for id_ in ids:
        task = state.tasks.get(id_)
        if task is None:
            stage = EVICTED if id_ in state.forgotten else UNKNOWN
            rows.append(View(id_, stage, None, None, None, None))
            continue
        rows.append(state.view(task, _info(state, task)))
        if task.stage >= _DONE_FROM:
            state.results.mark_read(task)
    state.effects.statuses.append((session, request, rows))


def _info(state: State, task: Task) -> dict[int, Any]:
    info: dict[int, Any] = {
        _NAME: task.name,
        _QUEUE: task.queue,
        _ATTEMPTS: task.attempts,
        _RETRIES: task.retries,
        _IN_STAGE_MS: (state.now - task.since) // MS,
    }
    if task.worker is not None:
        info[_WORKER] = task.worker
    reason = waits_for(state, task)
    if reason is not None:
        info[_WAITING_FOR] = reason
    due_in_ms = _due_in_ms(state, task)
    if due_in_ms is not None:
        info[_DUE_IN_MS] = due_in_ms
    return info


def waits_for(state: State, task: Task) -> str | None:
    """Why a task waits in its queue; None when it does not, or is about to be leased."""
    if task.stage != QUEUED:
        return None
    queue = state.queues[task.queue]
    return _waits_for(queue, queue.class_for(task.name, task.priority).known)


def _due_in_ms(state: State, task: Task) -> int | None:
    if task.stage not in (SCHEDULED, RETRY):
        return None
    assert task.times is not None
    assert task.times.due is not None, "what is held is held until a time"
    time = state.wall if task.times.due_wall else state.now
    return max(0, (task.times.due - time) // MS)


def history(state: State, id_: WireId) -> tuple[dict[str, Any], int | None]:
    """The map of a REPORT for HISTORY, and the handle of the failure record, or of the text in its place.

    Without `error`; where there is no handle but the broker writes a failure itself: its kind and message.
    """
    task = state.tasks.get(id_)
    if task is None:
        stage = Stage.EVICTED if id_ in state.forgotten else Stage.UNKNOWN
        return {"id": to_text(id_), "stage": stage.name}, None
    view = state.view(task)
    story: dict[str, Any] = {
        "id": to_text(id_),
        "stage": Stage(task.stage).name,
        "name": task.name,
        "queue": task.queue,
        "priority": task.priority,
        "attempts": task.attempts,
        "retries": task.retries,
        "delivery_limit": task.delivery_limit(),
        "worker": task.worker,
        "waiting_for": waits_for(state, task),
        "due_in_ms": _due_in_ms(state, task),
        "events": events(task),
        "dropped_events": 0 if task.unusual is None else task.unusual.dropped,
    }
    if view.failure is not None and view.handle is None:
        story["error"] = {"kind": view.failure[0], "message": view.failure[1]}
    return story, None if task.stage == SUCCESS else view.handle


def body_handle(state: State, id_: WireId) -> int | None:
    """The handle of a task's arguments; None where they are dropped, or the id is not known."""
    task = state.tasks.get(id_)
    return None if task is None or task.handle == NO_HANDLE else task.handle


def _waits_for(queue: Queue, known: bool) -> str | None:
    """Why a ready task waits; None when it is about to be leased."""
    if not queue.lines:
        return "no_consumer"
    if not known:
        return "unknown_task"
    if any(line.next() is not None for line in queue.lines.values()):
        return None
    return "no_credit"


def queue_waits_for(queue: Queue) -> str | None:
    """Why ready tasks of a queue wait; an unknown name is told before a lack of credit."""
    if not queue.ready:
        return None
    # A queue that never had an unknown name to report is not searched for one.
    return _waits_for(queue, not (queue.reported and queue.unknown_names(1)))
