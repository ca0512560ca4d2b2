"""RERUN and FORGET: what people have done with tasks that are final."""

from chervil.protocol import TaskOption, WireId
from chervil.protocol.messages import Ok
from chervil_broker.engine.charges import options_bytes
from chervil_broker.engine.history import note, note_end, unusual
from chervil_broker.engine.results import empty
from chervil_broker.engine.state import State
from chervil_broker.engine.task import (
    DEAD,
    EXPIRED,
    FAILURE,
    NO_HANDLE,
    REVOKED,
    SUCCESS,
    Task,
)

#: Stages from which a task may run again.
_RERUN_FROM = (FAILURE, DEAD, REVOKED, EXPIRED)
_EXPIRIES = (TaskOption.EXPIRES_MS.value, TaskOption.EXPIRES_AT.value)


def rerun(state: State, session: int, request: int, ids: list[WireId]) -> None:
    """Queues tasks anew whose bodies are kept; OK counts them. What there is no room for stays as it is."""
    by = state.sessions[session].name
    again = 0
    for id_ in ids:
        task = state.tasks.get(id_)
        if task is None or task.stage not in _RERUN_FROM or task.handle == NO_HANDLE:
            continue
        if state.crowded_by(1):
            break
        if task.stage != DEAD and state.taken + task.weight() > state.full_mark:
            continue
        _rerun(state, task, by)
        again += 1
    state.counters["rerun"] += again
    state.effects.replies.append((session, Ok(request, again)))


def _rerun(state: State, task: Task, by: str) -> None:
    _take_out(state, task)
    state.stages[task.stage] -= 1
    task = state.tasks[task.id] = task.anew()
    if task.result != NO_HANDLE:
        state.effects.freed.append(task.result)
    task.result = NO_HANDLE
    task.result_size = 0
    note_end(task)
    note(task, state.wall_ms, "rerun", by)
    unusual(task).sent_back = 0
    task.ending = None
    task.attempts = task.retries = 0
    task.redelivered = False
    if task.options is not None and any(key in task.options for key in _EXPIRIES):
        task.size -= options_bytes(task.options)
        task.options = {key: value for key, value in task.options.items() if key not in _EXPIRIES}
        task.size += options_bytes(task.options)
    state.memory += task.weight()
    state.enqueue(task)


def forget(state: State, session: int, request: int, ids: list[WireId]) -> None:
    """Drops final tasks with their results; OK counts them."""
    gone: list[Task] = []
    for id_ in dict.fromkeys(ids):
        task = state.tasks.get(id_)
        if task is None or task.stage < SUCCESS:
            continue
        _take_out(state, task)
        empty(task, state.effects.freed)
        gone.append(task)
    state.forget(gone)
    state.effects.replies.append((session, Ok(request, len(gone))))


def _take_out(state: State, task: Task) -> None:
    """Takes a final task from where it is kept, with what it has."""
    if task.stage == DEAD:
        state.parked.remove(task)
        state.memory -= task.weight()
    else:
        state.results.remove(task)
