"""COMPLETE: one outcome a row, applied whole or not at all; and leases that end without one."""

from typing import Any

from chervil.protocol import Outcome, RetryOption, TaskOption, Verdict, WireId
from chervil.protocol.limits import UINT_MAX
from chervil.protocol.messages import Completed
from chervil_broker.engine.consumers import Session
from chervil_broker.engine.publishing import moments
from chervil_broker.engine.state import State
from chervil_broker.engine.task import (
    COMPLETED,
    DEAD,
    FAILURE,
    NO_HANDLE,
    RETRY,
    STARTED,
    SUCCESS,
    Task,
)

#: (id, lease, outcome, result's handle?, its size in bytes, options?)
CompletionRow = tuple[WireId, int, int, int | None, int, dict[int, Any] | None]

_SUCCESS, _FAILURE = Outcome.SUCCESS.value, Outcome.FAILURE.value
_RETRY, _RELEASE, _LOST = Outcome.RETRY.value, Outcome.RELEASE.value, Outcome.LOST.value
_IMPLEMENTED = (_SUCCESS, _FAILURE, _RETRY, _RELEASE, _LOST)
_BODY, _QUEUE, _PRIORITY = RetryOption.BODY.value, RetryOption.QUEUE.value, RetryOption.PRIORITY.value
_EXPIRIES = (TaskOption.EXPIRES_MS.value, TaskOption.EXPIRES_AT.value)


def complete(state: State, session: int, sequence: int, rows: list[CompletionRow]) -> None:
    """Applies what is in force; COMPLETED names each row that is not."""
    leases = state.sessions[session].leases
    exceptions: list[list[int]] = []
    succeeded = 0
    for index, (id_, lease, outcome, handle, size, options) in enumerate(rows):
        task = leases.get(id_)
        if task is None or task.lease != lease:
            exceptions.append([index, _verdict(state, id_, lease)])
            _free_unapplied(state, handle, options)
            continue
        del leases[id_]
        result = NO_HANDLE if handle is None else handle
        state.leave(task)
        if outcome == _SUCCESS:
            succeeded += 1
            state.finish(task, SUCCESS, result, size)
            task.owner = COMPLETED
        elif outcome == _FAILURE:
            state.counters["failed"] += 1
            state.finish(task, FAILURE, result, size)
            task.owner = COMPLETED
        elif outcome == _RETRY:
            _retry(state, task, result, size, options or {})
        elif outcome == _RELEASE:
            state.counters["released"] += 1
            state.put_back(task)
            _free_unapplied(state, handle, None)
        else:
            assert outcome == _LOST, f"outcome {outcome} is refused before it comes here"
            _lose(state, task, result, size)
            if task.stage == DEAD:
                task.owner = COMPLETED
        queue = state.queues[task.queue]
        if not queue.consumers:
            state.retire(queue)
    state.counters["succeeded"] += succeeded
    _answer(state, session, sequence, rows, exceptions)


def _verdict(state: State, id_: WireId, lease: int) -> int:
    task = state.tasks.get(id_)
    if task is not None and task.owner == COMPLETED and task.lease == lease:
        return Verdict.DUPLICATE.value
    return Verdict.STALE.value


def _free_unapplied(state: State, handle: int | None, options: dict[int, Any] | None) -> None:
    if handle is not None:
        state.effects.freed.append(handle)
    if options is not None and _BODY in options:
        state.effects.freed.append(options[_BODY][0])


def _answer(
    state: State, session: int, sequence: int, rows: list[CompletionRow], exceptions: list[list[int]]
) -> None:
    applied = rows
    if exceptions:
        excepted = {exception[0]: None for exception in exceptions}
        applied = [row for index, row in enumerate(rows) if index not in excepted]
        stale = sum(exception[1] == Verdict.STALE for exception in exceptions)
        state.counters["stale_completions"] += stale
        state.counters["duplicate_completions"] += len(exceptions) - stale
        if stale:
            worker = state.sessions[session].name
            state.effects.events.append(("stale_completions", {"worker": worker, "count": stale}))
    state.effects.replies.append((session, Completed(sequence, exceptions or None)))
    if applied:
        state.record("complete", session, applied)


def _retry(state: State, task: Task, result: int, size: int, options: dict[int, Any]) -> None:
    """Holds a task to run again, or puts it at the end of its queue."""
    state.counters["retried"] += 1
    task.retries = min(task.retries + 1, UINT_MAX)
    _replace_result(state, task, result, size)
    if _BODY in options:
        state.effects.freed.append(task.handle)
        state.memory -= task.size
        task.handle, task.size = options[_BODY]
        state.memory += task.size
    if _QUEUE in options and options[_QUEUE] != task.queue:
        left = state.queues[task.queue]
        task.queue = state.queue_for(options[_QUEUE]).name
        state.retire(left)
    task.priority = options.get(_PRIORITY, task.priority)
    when = moments(state, options)
    if when.expires is not None:
        # DELIVER repeats the options, so they must say the expiry that is in force.
        kept = {key: value for key, value in (task.options or {}).items() if key not in _EXPIRIES}
        task.options = kept | {key: options[key] for key in _EXPIRIES if key in options}
        state.deadlines.expire(task, when.expires, when.expires_wall)
    if when.due is not None:
        state.deadlines.rearm(task)
        state.hold(task, RETRY, when.due, when.due_wall)
    else:
        state.deadlines.rearm(task)
        state.enqueue(task)


def _replace_result(state: State, task: Task, result: int, size: int) -> None:
    if task.result != NO_HANDLE:
        state.effects.freed.append(task.result)
    state.memory += size - task.result_size
    task.result = result
    task.result_size = size


def _lose(state: State, task: Task, result: int = NO_HANDLE, size: int = 0) -> None:
    """Charges an attempt: QUEUED again and flagged, or DEAD at the limit. `result` is the reason's text."""
    state.counters["lost"] += 1
    task.attempts += 1
    limit = task.delivery_limit()
    if task.attempts < limit:
        task.redelivered = True
        state.put_back(task)
        if result != NO_HANDLE:
            state.effects.freed.append(result)
        return
    state.counters["dead"] += 1
    state.finish(task, DEAD, result, size)
    told = {"id": task.id, "name": task.name, "queue": task.queue, "worker": task.worker, "attempts": limit}
    state.effects.events.append(("task_dead", told))


def give_back(state: State, session: Session) -> None:
    """Returns all leases of a session that is gone; those that were STARTED are charged an attempt."""
    for task in session.leases.values():
        was_started = task.stage == STARTED
        state.leave(task)
        if was_started:
            _lose(state, task)
        else:
            task.redelivered = True
            state.put_back(task)
        state.retire(state.queues[task.queue])
    session.leases.clear()
