"""An engine that begins with what another one knew: everything into its place, nothing decided anew."""

from collections.abc import Iterable, Mapping
from heapq import heappush
from itertools import groupby
from typing import NamedTuple

from chervil.protocol import WireId
from chervil_broker.engine import returning
from chervil_broker.engine.consumers import Session
from chervil_broker.engine.state import State
from chervil_broker.engine.task import (
    DEAD,
    EVICTED,
    EXPIRED,
    FAILURE,
    LEASED,
    QUEUED,
    RETRY,
    REVOKED,
    SCHEDULED,
    STARTED,
    SUCCESS,
    Task,
)

#: Final stages but DEAD.
_KEPT = (SUCCESS, FAILURE, REVOKED, EXPIRED, EVICTED)


class Known(NamedTuple):
    """What one engine knew."""

    #: Tasks with all their fields, times without timers, and past events weighed. They are taken over.
    tasks: dict[WireId, Task]
    #: Ids that were forgotten, and when, in broker time.
    forgotten: Mapping[WireId, int]
    #: Ids that were revoked before they were published, oldest first, and by whom.
    revoked: Mapping[WireId, str]
    #: The highest place that any task had.
    sequence: int


class RestoredSession(NamedTuple):
    """What outlives the broker of a session."""

    number: int
    name: str
    #: The highest sequence of its COMPLETEs.
    sequence: int


def restore(state: State, known: Known, sessions: Iterable[RestoredSession], grace: int) -> None:
    """Fills an empty engine whose clocks are set; the sessions are suspended for `grace` ns."""
    for number, name, sequence in sessions:
        session = Session(number, name, state.now, state.config.inventory, state.config.grant_bytes)
        session.sequence = sequence
        session.suspended = True
        session.grace = state.now + grace
        state.sessions[number] = session
        heappush(state.graces, (session.grace, number))
    state.sequence = known.sequence
    state.tasks = known.tasks
    by_stage: list[list[Task]] = [[] for _ in state.stages]
    for task in known.tasks.values():
        by_stage[task.stage].append(task)
    for stage, tasks in enumerate(by_stage):
        state.stages[stage] = len(tasks)
        if stage < SUCCESS or stage == DEAD:
            state.memory += sum([task.weight() for task in tasks])
    _queue(state, by_stage[QUEUED])
    _hold(state, by_stage[SCHEDULED] + by_stage[RETRY])
    _park(state, by_stage[DEAD])
    _keep(state, [task for stage in _KEPT for task in by_stage[stage]])
    _set_timers(state, [task for tasks in by_stage[:SUCCESS] for task in tasks if task.times is not None])
    _remember(state, known)
    for lost in _lease(state, by_stage[LEASED] + by_stage[STARTED]):
        returning.give_back(state, lost)
    state.mark()


def _queue(state: State, tasks: list[Task]) -> None:
    """Puts ready tasks into their queues, in their order."""
    tasks.sort(key=_place)
    classes: dict[tuple[str, str, int], list[Task]] = {}
    for task in tasks:
        classes.setdefault((task.queue, task.name, task.priority), []).append(task)
    for (queue_name, name, priority), members in classes.items():
        queue = state.queue_for(queue_name)
        class_ = queue.class_for(name, priority)
        class_.ready.extend(members)
        queue.added(class_, priority, len(members))
        state.arrived(queue)


def _hold(state: State, tasks: list[Task]) -> None:
    for task in tasks:
        state.queue_for(task.queue).scheduled += 1


def _set_timers(state: State, tasks: list[Task]) -> None:
    """Sets what is due; of tasks that are due at the same time those that were held first are first."""
    tasks.sort(key=_since)
    for task in tasks:
        state.deadlines.restore(task, held=task.stage in (SCHEDULED, RETRY))


def _park(state: State, tasks: list[Task]) -> None:
    tasks.sort(key=_place)
    for task in tasks:
        state.parked.add(task, task.sequence)


def _keep(state: State, tasks: list[Task]) -> None:
    tasks.sort(key=_since)
    for task in tasks:
        state.results.restore(task)


def _lease(state: State, tasks: list[Task]) -> list[Session]:
    """Gives tasks to the sessions that had them; returns those that are no more, with what they had."""
    lost: dict[int, Session] = {}
    for task in tasks:
        session = state.sessions.get(task.owner) or lost.get(task.owner)
        if session is None:
            session = lost[task.owner] = Session(task.owner, task.worker or "", state.now, 0, 0)
        session.leases[task.id] = task
        state.queue_for(task.queue).leased += 1
    return list(lost.values())


def _remember(state: State, known: Known) -> None:
    """Remembers ids. What memory was made shorter for meanwhile goes by itself, the oldest first."""
    times = sorted(known.forgotten.items(), key=lambda entry: entry[1])
    for time, entries in groupby(times, key=lambda entry: entry[1]):
        state.forgotten.add([id_ for id_, _ in entries], time)
    for id_, by in known.revoked.items():
        state.revoked_ids.add(id_, by)


def _place(task: Task) -> int:
    return task.sequence


def _since(task: Task) -> int:
    return task.since
