"""Leases that end without a verdict of the task's own: whether it runs again, and who is charged."""

from chervil.protocol import TaskOption
from chervil_broker.engine.consumers import Session
from chervil_broker.engine.state import State
from chervil_broker.engine.task import (
    DEAD,
    FAILURE,
    NO_HANDLE,
    REASON_MAX,
    REVOKED,
    STARTED,
    Ending,
    Task,
    called_off,
)

_EARLY_ACK = TaskOption.EARLY_ACK.value


def is_early(task: Task) -> bool:
    """Whether its present lease was claimed at most once."""
    return task.unusual is not None and task.unusual.early


def revoke_instead(state: State, task: Task) -> bool:
    """Ends a task that left its lease to run again, if somebody called it off; says whether."""
    unusual = task.unusual
    assert unusual is not None, "why it goes back was noted"
    # What was claimed early is over with the lease.
    unusual.early = False
    if unusual.called_off is None:
        return False
    state.finish(task, REVOKED, ending=called_off(unusual.called_off.by))
    state.counters["revoked"] += 1
    return True


def put_back(state: State, task: Task) -> None:
    """Returns a task that left its lease to its old place, unless it was called off."""
    if not revoke_instead(state, task):
        state.put_back(task)


def fail(state: State, task: Task, reason: str | None, result: int = NO_HANDLE, size: int = 0) -> None:
    """Ends a task that must not run again. `result` is the reason's text, whole."""
    state.counters["failed"] += 1
    state.finish(task, FAILURE, result, size, Ending(FAILURE, "lost", (reason or _lost(task))[:REASON_MAX]))


def charge(state: State, task: Task, reason: str | None, result: int = NO_HANDLE, size: int = 0) -> None:
    """Ends a task whose attempt, noted and counted, was its last, or returns it flagged."""
    limit = task.delivery_limit()
    if task.attempts < limit:
        task.redelivered = True
        put_back(state, task)
        if result != NO_HANDLE:
            state.effects.freed.append(result)
        return
    state.counters["dead"] += 1
    state.finish(task, DEAD, result, size, Ending(DEAD, "lost", (reason or _lost(task))[:REASON_MAX]))
    told = {"id": task.id, "name": task.name, "queue": task.queue, "worker": task.worker, "attempts": limit}
    state.effects.events.append(("task_dead", told))


def _lost(task: Task) -> str:
    return f"worker {task.worker} was lost while it ran this task, attempt {task.attempts}"


def give_back(state: State, session: Session, *, thrown_out: bool = False) -> None:
    """Returns all leases of a session that is gone; one that was thrown out could not help it.

    Else those that were STARTED are charged an attempt, or are over where they were claimed early. A child
    may have claimed any of the others, so they are flagged, but for those that it must claim early first.
    """
    for task in session.leases.values():
        charged = task.stage == STARTED and not thrown_out
        if charged:
            state.counters["lost"] += 1
            task.attempts += 1
        if thrown_out:
            state.note(task, "released", task.worker, "its user was removed or changed")
        else:
            state.note(task, "session_lost", task.worker, task.attempts)
        state.leave(task)
        if is_early(task):
            fail(state, task, f"its worker {task.worker} was lost")
        elif charged:
            charge(state, task, None)
        else:
            if not (task.options or {}).get(_EARLY_ACK):
                task.redelivered = True
            put_back(state, task)
        state.retire(state.queues[task.queue])
    session.leases.clear()
