"""PUBLISH: which rows are taken, which are refused and why."""

from typing import Any, NamedTuple

from chervil.protocol import Code, Confirm, TaskOption, WireId
from chervil_broker.engine.queues import Queue, TaskClass
from chervil_broker.engine.state import State
from chervil_broker.engine.task import MS, QUEUED, SCHEDULED, TASK_OVERHEAD, Task

#: (id, name, queue, priority, options, body's handle, body's size in bytes)
PublishRow = tuple[WireId, str, str, int, dict[int, Any] | None, int, int]

#: Specified and not built yet. Never ignored: who asked for one would be promised what is not done.
LATER = {
    option.value: option.name.lower()
    for option in (
        TaskOption.EARLY_ACK,
        TaskOption.FAIL_ON_LOST,
        TaskOption.TIME_LIMIT_MS,
        TaskOption.SOFT_TIME_LIMIT_MS,
        TaskOption.INPUTS,
        TaskOption.ON_SUCCESS,
        TaskOption.ON_FAILURE,
        TaskOption.UNIQUE_KEY,
        TaskOption.LIMIT_KEY,
    )
}
_DELAY_MS, _DUE_AT = TaskOption.DELAY_MS.value, TaskOption.DUE_AT.value
_EXPIRES_MS, _EXPIRES_AT = TaskOption.EXPIRES_MS.value, TaskOption.EXPIRES_AT.value
_RETRIES = TaskOption.RETRIES.value
#: Options that change what happens here; a row with none of them takes the short way.
_DECISIVE = frozenset({*LATER, _DELAY_MS, _DUE_AT, _EXPIRES_MS, _EXPIRES_AT, _RETRIES})
#: Values of a later option that ask for nothing.
_NOTHING = (None, False, 0, [])


class Moments(NamedTuple):
    """When a task is due and expires, in nanoseconds; `..._wall`: of the wall clock."""

    due: int | None
    due_wall: bool
    expires: int | None
    expires_wall: bool


def moments(state: State, options: dict[int, Any]) -> Moments:
    """The times in task or retry options; the relative one where both came, None for a due time gone by."""
    due, due_wall = _moment(state.now, options, _DELAY_MS, _DUE_AT)
    if due is not None and due <= (state.wall if due_wall else state.now):
        due = None
    return Moments(due, due_wall, *_moment(state.now, options, _EXPIRES_MS, _EXPIRES_AT))


def _moment(now: int, options: dict[int, Any], relative: int, absolute: int) -> tuple[int | None, bool]:
    if relative in options:
        return now + options[relative] * MS, False
    if absolute in options:
        return options[absolute] * MS, True
    return None, False


def publish(state: State, session: int, request: int, rows: list[PublishRow]) -> None:
    """Takes what can be taken; CONFIRM names each row that is a duplicate or refused.

    Measured: 0.9 us a task in batches of 100 of one class. So a run of rows of one class looks its
    class up once and counts once.
    """
    tasks = state.tasks
    room = state.config.memory_limit - TASK_OVERHEAD
    now = state.now
    exceptions: list[list[Any]] = []
    queue: Queue | None = None
    class_: TaskClass | None = None
    run_name = run_queue = ""
    run_priority = -1
    count = 0
    for index, row in enumerate(rows):
        id_, name, queue_name, priority, options, handle, size = row
        objection = None
        if id_ in tasks:
            objection = Code.DUPLICATE, "this id is known; nothing was made"
        elif state.memory + size > room:
            objection = Code.FULL, _full(state)
        elif options is not None and not _DECISIVE.isdisjoint(options):
            objection = _objection(options)
            if objection is None and _publish_timed(state, row, options):
                continue
        if objection is not None:
            exceptions.append([index, str(objection[0]), objection[1]])
            state.effects.freed.append(handle)
            continue
        if queue is None or class_ is None or name != run_name or queue_name != run_queue or priority != run_priority:
            if queue is not None and class_ is not None:
                _arrived(state, queue, class_, run_priority, count)
            queue = state.queue_for(queue_name)
            class_ = queue.class_for(name, priority)
            run_name, run_queue, run_priority = class_.name, queue.name, priority
            append = class_.ready.append
            count = 0
        state.sequence += 1
        tasks[id_] = task = Task(id_, run_name, run_queue, priority, options, handle, size, state.sequence, now)
        append(task)
        state.memory += size + TASK_OVERHEAD
        count += 1
    if queue is not None and class_ is not None:
        _arrived(state, queue, class_, run_priority, count)
    _confirm(state, session, request, rows, exceptions)
