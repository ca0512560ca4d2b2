"""Dead letters: tasks that the system gave up on, kept until somebody runs them again or forgets them."""

from difflib import get_close_matches
from typing import Any

from chervil.protocol import to_text
from chervil_broker.engine.queues import Queue
from chervil_broker.engine.state import State
from chervil_broker.engine.task import DEAD, MS, REASON_MAX, Ending, Task

#: Known names that an unknown one is compared with, and near ones that a reason names: comparing takes
#: some microseconds each, and a worker may say that it knows 65,536.
NAMES_COMPARED = 500
NAMES_NAMED = 3


def dead(state: State, cursor: str | None, limit: int) -> tuple[list[dict[str, Any]], str | None]:
    """A page of LIST dead, and the cursor of the next one; ValueError for a cursor that is none."""
    after = 0
    if cursor is not None:
        if not (cursor.isascii() and cursor.isdecimal()):
            raise ValueError(f"{cursor!r} is no cursor of this list; begin without one")
        after = int(cursor)
    page = state.parked.page(after, limit + 1)
    rows = [
        {
            "id": to_text(task.id),
            "name": task.name,
            "queue": task.queue,
            "attempts": task.attempts,
            "worker": task.worker,
            "reason": None if task.ending is None else task.ending.reason,
            "since_ms": task.ended,
        }
        for task in page[:limit]
    ]
    return rows, str(page[limit - 1].sequence) if len(page) > limit else None


def park_unknown(state: State) -> None:
    """Parks tasks that no consumer of their queue has known for long, as many as one pump may."""
    patience = state.patience
    room = state.config.timers_per_pump
    while room > 0 and (due := patience.pop(state.now)) is not None:
        queue, class_ = due
        parked: list[Task] = []
        ending: Ending | None = None
        while room > 0 and (ends := patience.ends(class_)) is not None and ends <= state.now:
            task = class_.first()
            assert task is not None, "patience ends for a task"
            if ending is None:
                ending = Ending(DEAD, "rejected", _reason(state, queue, class_.name))
            state.leave(task)
            state.finish(task, DEAD, ending=ending)
            parked.append(task)
            room -= 1
        patience.watch(queue, class_)
        if parked:
            _tell(state, queue, parked, ending)
            state.retire(queue)


def _tell(state: State, queue: Queue, parked: list[Task], ending: Ending | None) -> None:
    state.counters["parked"] += len(parked)
    state.counters["dead"] += len(parked)
    first = parked[0]
    told = {"id": first.id, "name": first.name, "queue": queue.name, "count": len(parked)}
    state.effects.events.append(("task_parked", told | {"reason": ending and ending.reason}))


def _reason(state: State, queue: Queue, name: str) -> str:
    seconds = state.config.park_unknown_ns // (1000 * MS)
    near = get_close_matches(name, queue.names_known(NAMES_COMPARED), NAMES_NAMED)
    said = f"no worker of its queue knew {name} for {seconds} s"
    return (said + (f"; they know {', '.join(near)}" if near else ""))[:REASON_MAX]
