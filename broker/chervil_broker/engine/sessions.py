"""Sessions outlive connections: suspended, resumed with an inventory, or closed when their grace is over."""

from heapq import heappop, heappush
from typing import Any

from chervil.protocol.messages import Ok
from chervil_broker.engine import leasing, returning, watching
from chervil_broker.engine.consumers import Session
from chervil_broker.engine.revoking import cancel
from chervil_broker.engine.state import State
from chervil_broker.engine.task import LEASED, STARTED, Task


def suspend(state: State, number: int, grace: int) -> None:
    """The connection of a session is gone; its leases stay until it is resumed or `grace` ns are over."""
    session = state.sessions[number]
    _disconnect(state, session)
    session.suspended = True
    session.grace = state.now + grace
    heappush(state.graces, (session.grace, number))


def resume(state: State, number: int) -> None:
    """A session has a connection again, on which nothing was delivered yet."""
    session = state.sessions[number]
    session.suspended = False
    session.delivered = session.limit = 0


def reconcile(state: State, number: int, request: int, inventory: list[list[Any]]) -> None:
    """Makes the leases of a resumed session those that it says it holds; OK counts them."""
    session = state.sessions[number]
    claimed = {(id_, lease): bool(claims) for id_, lease, claims in inventory}
    held: dict[Any, Task] = {}
    missing: list[Task] = []
    for task in session.leases.values():
        claims = claimed.get((task.id, task.lease))
        if claims is None:
            missing.append(task)
        else:
            held[task.id] = task
            _set_claimed(state, task, claims=claims)
    session.leases = held
    for task in missing:
        state.note(task, "released", task.worker, "it never reached its worker")
        state.leave(task)
        returning.put_back(state, task)
        state.retire(state.queues[task.queue])
    cancel(state, number, list(held.values()))
    state.effects.replies.append((number, Ok(request, len(held))))


def _set_claimed(state: State, task: Task, *, claims: bool) -> None:
    """Has a kept lease be STARTED if a child has claimed it, else LEASED."""
    if not claims and task.unusual is not None:
        task.unusual.early = False
    stage = STARTED if claims else LEASED
    if task.stage == stage:
        return
    state.stages[task.stage] -= 1
    state.stages[stage] += 1
    task.stage = stage
    task.since = state.now
    state.touch(task)
    if claims:
        state.note(task, "started", task.worker)


def close(state: State, number: int, *, thrown_out: bool = False) -> int:
    """A session is over at once; returns how many leases go back, uncharged if somebody wanted that."""
    session = state.sessions[number]
    _disconnect(state, session)
    leases = len(session.leases)
    returning.give_back(state, session, thrown_out=thrown_out)
    del state.sessions[number]
    return leases


def hold(state: State, number: int, *, held: bool) -> None:
    """Delivers nothing to a session while its peer does not read."""
    session = state.sessions[number]
    session.held = held
    leasing.wake(state, session)


def _disconnect(state: State, session: Session) -> None:
    watching.unwatch(state, session.number, list(session.watching))
    state.pushes.pop(session.number, None)
    state.woken.pop(session.number, None)
    leasing.unsubscribe(state, session)
    session.held = False
    session.delivered = session.limit = 0


def next_grace(state: State) -> int | None:
    """When the next suspended session is closed."""
    graces = state.graces
    while graces and not _suspended(state, *graces[0]):
        heappop(graces)
    return graces[0][0] if graces else None


def _suspended(state: State, deadline: int, number: int) -> bool:
    session = state.sessions.get(number)
    return session is not None and session.suspended and session.grace == deadline


def end_graces(state: State) -> None:
    """Closes the sessions that were not resumed in time."""
    while (deadline := next_grace(state)) is not None and deadline <= state.now:
        _, number = heappop(state.graces)
        worker = state.sessions[number].name
        leases = close(state, number)
        state.counters["sessions_lost"] += 1
        state.effects.ended.append(number)
        state.effects.events.append(("session_lost", {"worker": worker, "leases": leases}))
