"""WATCH, UNWATCH and QUERY: what has become of a task."""

from typing import Any

from chervil.protocol import Info, WireId
from chervil_broker.engine.queues import Queue
from chervil_broker.engine.state import State
from chervil_broker.engine.task import MS, QUEUED, RETRY, SCHEDULED, SUCCESS, UNKNOWN, Task, View

# As plain integers: looking an enum's value up five times a row took half of a WATCH (measured).
_NAME, _QUEUE, _WORKER = Info.NAME.value, Info.QUEUE.value, Info.WORKER.value
_ATTEMPTS, _RETRIES = Info.ATTEMPTS.value, Info.RETRIES.value
_WAITING_FOR, _DUE_IN_MS, _IN_STAGE_MS = Info.WAITING_FOR.value, Info.DUE_IN_MS.value, Info.IN_STAGE_MS.value
#: Stages from here on are final.
_DONE_FROM = SUCCESS


def watch(state: State, session: int, request: int, ids: list[WireId]) -> None:
    """Answers with the present state; ids that are neither final nor UNKNOWN are pushed when they are."""
    watching = state.sessions[session].watching
    for id_ in ids:
        task = state.tasks.get(id_)
        if task is not None and task.stage < _DONE_FROM and id_ not in watching:
            watching[id_] = None
            state.watchers.setdefault(id_, []).append(session)
    query(state, session, request, ids)


def unwatch(state: State, session: int, ids: list[WireId]) -> None:
    """Pushes these ids no more to this session."""
    watching = state.sessions[session].watching
    for id_ in ids:
        if id_ in watching:
            del watching[id_]
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
            rows.append(View(id_, UNKNOWN, None, None, None, None))
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
    if task.stage == QUEUED:
        queue = state.queues[task.queue]
        reason = _waits_for(queue, queue.class_for(task.name, task.priority).known)
        if reason is not None:
            info[_WAITING_FOR] = reason
    elif task.stage in (SCHEDULED, RETRY):
        assert task.times is not None
        assert task.times.due is not None, "what is held is held until a time"
        time = state.wall if task.times.due_wall else state.now
        info[_DUE_IN_MS] = max(0, (task.times.due - time) // MS)
    return info


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
