"""PUBLISH: which rows are taken, which are refused and why."""

from typing import Any, NamedTuple

from chervil.protocol import Code, TaskOption, WireId
from chervil.protocol.messages import Confirm
from chervil_broker.engine.charges import ID_FREE, id_bytes, options_bytes, overhead_of
from chervil_broker.engine.state import CLOSED_PERCENT, State
from chervil_broker.engine.task import MS, QUEUED, REVOKED, SCHEDULED, TASK_OVERHEAD, Task, called_off

#: (id, name, queue, priority, options, body's handle, its size in bytes with its headers)
PublishRow = tuple[WireId, str, str, int, dict[int, Any] | None, int, int]

#: Specified and not built yet. Never ignored: who asked for one would be promised what is not done.
LATER = {
    option.value: option.name.lower()
    for option in (
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
_NOTHING: tuple[object, ...] = (None, False, 0, [])
#: The last moment that there is, in ns, in the year 2262 of the wall clock: a journal holds 64 bits.
MOMENT_MAX = 2**63 - 1
#: In place of the room for tasks: each row is looked at twice.
_NO_ROOM = -1


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
        return min(now + options[relative] * MS, MOMENT_MAX), False
    if absolute in options:
        return min(options[absolute] * MS, MOMENT_MAX), True
    return None, False


def publish(state: State, session: int, request: int, rows: list[PublishRow]) -> None:
    """Takes what can be taken; CONFIRM names each row that is a duplicate or refused.

    Measured: 0.9 us a task in batches of 100, 0.3 us more with two options. What needs a second look leaves
    this loop.
    """
    tasks = state.tasks
    forgotten, revoked = state.forgotten.times, state.revoked_ids.by
    # Whether the rows reach the limit of tasks is asked once: most batches are far from it.
    crowded = state.crowded_by(len(rows))
    apart = crowded or state.refusal is not None
    room = _NO_ROOM if apart else state.task_room
    body_limit = state.config.body_limit
    now = state.now
    origin = state.sessions[session].origin_at(state.wall_ms)
    made: list[Task] = []
    unwanted: list[Task] = []
    exceptions: list[list[Any]] = []
    runs: dict[tuple[str, str, int], _Run] = {}
    run: _Run | None = None
    for index, row in enumerate(rows):
        id_, name, queue_name, priority, options, handle, size = row
        weight = size if options is None else size + options_bytes(options)
        if (
            id_ in tasks
            or id_ in forgotten
            or id_ in revoked
            or state.memory + weight > room
            or size > body_limit
            or (options is not None and not _DECISIVE.isdisjoint(options))
        ):
            objection = _objection(state, row)
            if objection is None:
                task = _publish_apart(state, row, origin)
                if id_ in revoked:
                    unwanted.append(task)
            else:
                exceptions.append([index, str(objection[0]), objection[1]])
                state.effects.freed.append(handle)
            if not apart:
                room = state.task_room
            continue
        if run is None or name != run.name or queue_name != run.queue_name or priority != run.priority:
            run = runs.get((name, queue_name, priority))
            if run is None:
                run = runs[name, queue_name, priority] = _Run(state, name, queue_name, priority)
                room = state.task_room
        overhead = run.overhead
        if not (type(id_) is bytes or (len(id_) <= ID_FREE and id_.isascii())):
            overhead += id_bytes(id_)
        state.sequence = sequence = state.sequence + 1
        state.memory += weight + overhead
        tasks[id_] = task = Task(
            id_, run.name, run.queue_name, priority, options, handle, weight, sequence, now, origin, overhead
        )
        run.append(task)
        run.count += 1
        made.append(task)
    for run in runs.values():
        run.end(state)
    if made:
        state.effects.published.append((now, origin, made))
    _confirm(state, session, request, len(rows), exceptions)
    if unwanted:
        _call_off(state, unwanted)
    state.mark()


def publishing_state(state: State) -> str:
    """`open`, `closed` while publishers that can wait are to, or `full`: nothing more is taken."""
    if _memory_full(state) or state.crowded_by(1):
        return "full"
    return "closed" if state.closed else "open"


def memory_short(state: State) -> bool:
    """Whether publishers that can wait are to. The limit of tasks does not count: windows are bytes."""
    return state.closed or _memory_full(state)


def _memory_full(state: State) -> bool:
    return state.refusal is not None or state.refused > 0 or state.memory > state.task_room


def room(state: State) -> int:
    """Bytes that may still be published before the windows close."""
    if state.closed:
        return 0
    return max(0, state.config.memory_limit * CLOSED_PERCENT // 100 - state.taken)


class _Run:
    """The rows of one class in a batch: it is looked up once, and what came is counted once."""

    __slots__ = ("append", "class_", "count", "name", "overhead", "priority", "queue", "queue_name")

    def __init__(self, state: State, name: str, queue: str, priority: int) -> None:
        self.queue = state.queue_for(queue)
        self.class_ = self.queue.class_for(name, priority)
        self.append = self.class_.ready.append
        #: The class's own string and the queue's, so that a task holds no copy.
        self.name = self.class_.name
        self.queue_name = self.queue.name
        self.priority = priority
        self.overhead = overhead_of(name, queue)
        self.count = 0

    def end(self, state: State) -> None:
        """Lets the queue know of the rows."""
        state.stages[QUEUED] += self.count
        self.queue.added(self.class_, self.priority, self.count)
        state.arrived(self.queue)
        if not self.class_.known:
            state.report_unknown(self.queue, self.class_)


def _objection(state: State, row: PublishRow) -> tuple[Code, str] | None:
    """Why a row is not taken: (code, message)."""
    options = row[4] or {}
    if row[0] in state.tasks or row[0] in state.forgotten:
        return Code.DUPLICATE, "this id is known already; nothing was made"
    if row[6] > state.config.body_limit:
        return Code.BODY_TOO_LARGE, (
            f"a body of {row[6]} bytes with its headers, and this broker takes {state.config.body_limit}; "
            "pass a reference to the data instead, or raise its --body-limit"
        )
    if state.refusal is not None:
        return Code.FULL, state.refusal
    weight = row[6] + options_bytes(row[4])
    if state.memory + weight > state.task_room:
        state.refused = weight + TASK_OVERHEAD
        return Code.FULL, (
            f"tasks take {state.taken} of their {state.config.memory_limit} bytes, and this one was not "
            f"stored; start more workers, purge what is not needed, or {state.config.more_memory}"
        )
    if state.crowded_by(1):
        return Code.FULL, (
            f"this vhost holds its {state.config.tasks_limit} tasks (max_tasks) and did not store this one; "
            "start more workers, purge what is not needed, or raise it: chervil broker vhost set"
        )
    for option, name in LATER.items():
        if options.get(option) not in _NOTHING:
            return Code.NOT_IMPLEMENTED, f"option {option} ({name}) is not built yet; publish without it"
    if _DELAY_MS in options and _DUE_AT in options:
        return Code.BAD_TASK, "delay_ms and due_at exclude each other; give one"
    if _EXPIRES_MS in options and _EXPIRES_AT in options:
        return Code.BAD_TASK, "expires_ms and expires_at exclude each other; give one"
    return None


def _publish_apart(state: State, row: PublishRow, origin: tuple[str, int]) -> Task:
    """Takes a row whose options change when it runs or how often it ran, or that was revoked before."""
    id_, name, queue, priority, given, handle, size = row
    overhead = overhead_of(name, queue) + id_bytes(id_)
    weight = size + options_bytes(given)
    task = Task(id_, name, queue, priority, given, handle, weight, 0, state.now, origin, overhead)
    options = given or {}
    task.retries = options.get(_RETRIES, 0)
    state.tasks[id_] = task
    state.memory += weight + overhead
    when = moments(state, options)
    if when.expires is not None:
        state.deadlines.expire(task, when.expires, when.expires_wall)
    if when.due is not None:
        state.note(task, "scheduled", state.wall_time(when.due, wall=when.due_wall))
        state.hold(task, SCHEDULED, when.due, when.due_wall)
    else:
        state.enqueue(task)
    return task


def _call_off(state: State, tasks: list[Task]) -> None:
    """Ends tasks that were revoked before they were published."""
    for task in tasks:
        by = state.revoked_ids.take(task.id)
        state.vacate(task)
        state.finish(task, REVOKED, ending=called_off(by))
    state.counters["revoked"] += len(tasks)


def _confirm(state: State, session: int, request: int, rows: int, exceptions: list[list[Any]]) -> None:
    if exceptions:
        duplicates = sum(exception[1] == Code.DUPLICATE for exception in exceptions)
        refused = len(exceptions) - duplicates
        state.counters["duplicates"] += duplicates
        state.counters["refused"] += refused
        state.counters["published"] += rows - len(exceptions)
        confirm = Confirm(request, rows - refused, exceptions)
    else:
        state.counters["published"] += rows
        confirm = Confirm(request, rows)
    state.effects.replies.append((session, confirm))
