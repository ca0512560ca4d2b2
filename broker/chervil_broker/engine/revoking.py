"""REVOKE: what waits is over at once, what a worker has is called off, what is not known is remembered."""

from chervil.protocol import WireId
from chervil.protocol.messages import Ok
from chervil_broker.engine.history import unusual
from chervil_broker.engine.state import State
from chervil_broker.engine.task import LEASED, REVOKED, STARTED, SUCCESS, CalledOff, Task, called_off


def revoke(state: State, session: int, request: int, ids: list[WireId], signal: int | None) -> None:
    """Calls tasks off; OK counts those that were not final. `signal` is for those that run."""
    by = state.sessions[session].name
    over: list[Task] = []
    leased: list[Task] = []
    unknown: list[WireId] = []
    for id_ in dict.fromkeys(ids):
        task = state.tasks.get(id_)
        if task is None:
            if id_ not in state.forgotten:
                unknown.append(id_)
        elif task.stage in (LEASED, STARTED):
            leased.append(task)
        elif task.stage < SUCCESS:
            over.append(task)
    if over:
        _end(state, over, by)
    if leased:
        _ask(state, leased, CalledOff(by, signal))
    if unknown:
        for id_ in unknown:
            state.revoked_ids.add(id_, by)
        state.effects.revoked_ids.append((by, unknown))
    state.effects.replies.append((session, Ok(request, len(over) + len(leased) + len(unknown))))


def _end(state: State, tasks: list[Task], by: str) -> None:
    ending = called_off(by)
    for task in tasks:
        state.vacate(task)
        state.finish(task, REVOKED, ending=ending)
    state.counters["revoked"] += len(tasks)


def _ask(state: State, tasks: list[Task], wish: CalledOff) -> None:
    cancels: dict[int, list[Task]] = {}
    for task in tasks:
        state.note(task, "revoke_asked", wish.by)
        unusual(task).called_off = wish
        cancels.setdefault(task.owner, []).append(task)
    for number, asked in cancels.items():
        # A session without a connection is told when it has said what it holds.
        if not state.sessions[number].suspended:
            cancel(state, number, asked)


def cancel(state: State, session: int, tasks: list[Task]) -> None:
    """Has CANCEL name those of a session's tasks that somebody called off."""
    rows = [
        [task.id, task.lease, task.unusual.called_off.signal]
        for task in tasks
        if task.unusual is not None and task.unusual.called_off is not None
    ]
    if rows:
        state.effects.cancels.append((session, rows))
