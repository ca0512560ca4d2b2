"""What ends tasks that no worker has: PURGE, and expiry."""

from chervil.protocol.messages import Ok
from chervil_broker.engine.queues import Queue
from chervil_broker.engine.state import State
from chervil_broker.engine.task import EXPIRED, QUEUED, RETRY, REVOKED, SCHEDULED, Ending, Task

_EXPIRED = Ending(EXPIRED, "expired", "it expired before a worker started it")
_WAITING = (SCHEDULED, QUEUED, RETRY)


def purge(state: State, session: int, request: int, queues: list[str]) -> None:
    """Revokes what is ready or held in these queues, in all where none is named; OK counts it."""
    named = queues or list(state.queues)
    chosen = {name: state.queues[name] for name in named if name in state.queues}
    tasks: list[Task] = []
    for queue in chosen.values():
        tasks += _drain(state, queue)
    if any(queue.scheduled for queue in chosen.values()):
        held = [task for task in state.deadlines.held() if task.queue in chosen]
        for task in held:
            state.leave(task)
        tasks += held
    ending = Ending(REVOKED, "revoked", "its queue was purged")
    for task in tasks:
        state.finish(task, REVOKED, ending=ending)
    for queue in chosen.values():
        state.retire(queue)
    state.counters["revoked"] += len(tasks)
    state.effects.replies.append((session, Ok(request, len(tasks))))


def _drain(state: State, queue: Queue) -> list[Task]:
    for class_ in queue.classes():
        state.patience.forget(class_)
    tasks = queue.empty()
    state.stages[QUEUED] -= len(tasks)
    state.served(queue)
    return tasks


def fire(state: State) -> None:
    """Expires and enqueues the tasks whose time has come."""
    due, expired = state.deadlines.fire(state.now, state.wall, state.config.timers_per_pump)
    # Expiry first: what is both due and expired is never ready.
    gone = [task for task in expired if task.stage in _WAITING]
    for task in gone:
        state.vacate(task)
        state.finish(task, EXPIRED, ending=_EXPIRED)
    state.counters["expired"] += len(gone)
    for task in due:
        if task.stage in (SCHEDULED, RETRY):
            state.note(task, "due")
            state.leave(task)
            state.enqueue(task)
