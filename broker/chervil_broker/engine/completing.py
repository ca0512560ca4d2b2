"""COMPLETE: one outcome a row, applied whole or not at all."""

from collections.abc import Callable
from typing import Any

from chervil.protocol import (
    Outcome,
    RejectOption,
    ReleaseOption,
    RetryOption,
    RevokedOption,
    TaskOption,
    Verdict,
    WireId,
)
from chervil.protocol.limits import UINT_MAX
from chervil.protocol.messages import Completed
from chervil_broker.engine import returning
from chervil_broker.engine.charges import id_bytes, options_bytes, overhead_of
from chervil_broker.engine.history import unusual
from chervil_broker.engine.leasing import wake
from chervil_broker.engine.publishing import moments
from chervil_broker.engine.state import State
from chervil_broker.engine.task import (
    COMPLETED,
    DEAD,
    EXPIRED,
    FAILURE,
    NO_HANDLE,
    RETRY,
    REVOKED,
    SUCCESS,
    Ending,
    Task,
)

#: (id, lease, outcome, result's handle?, its size in bytes, options?, reason: text for people?)
CompletionRow = tuple[WireId, int, int, int | None, int, dict[int, Any] | None, str | None]

#: How long a task is held that its worker rejects to have it queued again: twice as long each time, so that
#: one that nobody takes does not keep its workers from all other work.
SENT_BACK_NS = 1_000_000_000
SENT_BACK_MAX_NS = 60 * SENT_BACK_NS
#: From so many on it is as long as it gets.
_DOUBLINGS = 6

_SUCCESS = Outcome.SUCCESS.value
_BODY, _QUEUE, _PRIORITY = RetryOption.BODY.value, RetryOption.QUEUE.value, RetryOption.PRIORITY.value
_FAIL_ON_LOST = TaskOption.FAIL_ON_LOST.value
_EXPIRIES = (TaskOption.EXPIRES_MS.value, TaskOption.EXPIRES_AT.value)


def complete(state: State, session: int, sequence: int, rows: list[CompletionRow]) -> None:
    """Applies what is in force; COMPLETED names each row that is not."""
    worker = state.sessions[session]
    if sequence <= worker.sequence:
        _answer_repetition(state, session, sequence, rows)
        return
    worker.sequence = sequence
    leases = worker.leases
    was_full = len(leases) >= worker.inventory
    exceptions: list[list[int]] = []
    succeeded: list[Task] = []
    for index, (id_, lease, outcome, handle, size, options, _) in enumerate(rows):
        task = leases.get(id_)
        if task is None or task.lease != lease:
            exceptions.append([index, _verdict(state, id_, lease)])
            _free_unapplied(state, handle, options)
            continue
        del leases[id_]
        result = NO_HANDLE if handle is None else handle
        if outcome == _SUCCESS:
            succeeded.append(task)
            state.leave(task)
            state.finish(task, SUCCESS, result, size)
            task.owner = COMPLETED
        else:
            assert outcome in _OUTCOMES, f"outcome {outcome} is refused before it comes here"
            _OUTCOMES[outcome](state, task, result, rows[index])
            if task.stage >= SUCCESS:
                task.owner = COMPLETED
        queue = state.queues[task.queue]
        if not queue.consumers:
            state.retire(queue)
    state.counters["succeeded"] += len(succeeded)
    state.effects.completed.append((session, sequence, succeeded))
    if was_full:
        wake(state, worker)
    _answer(state, session, sequence, exceptions)


def _answer_repetition(state: State, session: int, sequence: int, rows: list[CompletionRow]) -> None:
    """This COMPLETE came before and its answer was lost: nothing is applied."""
    for _, _, _, handle, _, options, _ in rows:
        _free_unapplied(state, handle, options)
    state.counters["duplicate_completions"] += len(rows)
    exceptions = [[index, Verdict.DUPLICATE.value] for index in range(len(rows))]
    state.effects.replies.append((session, Completed(sequence, exceptions or None)))


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


def _answer(state: State, session: int, sequence: int, exceptions: list[list[int]]) -> None:
    if exceptions:
        stale = sum(exception[1] == Verdict.STALE for exception in exceptions)
        state.counters["stale_completions"] += stale
        state.counters["duplicate_completions"] += len(exceptions) - stale
        if stale:
            worker = state.sessions[session].name
            state.effects.events.append(("stale_completions", {"worker": worker, "count": stale}))
    state.effects.replies.append((session, Completed(sequence, exceptions or None)))


def _fail(state: State, task: Task, result: int, row: CompletionRow) -> None:
    state.counters["failed"] += 1
    state.leave(task)
    state.finish(task, FAILURE, result, row[4], Ending(FAILURE, None, row[6]))


def _retry(state: State, task: Task, result: int, row: CompletionRow) -> None:
    """Holds a task to run again, or puts it at the end of its queue."""
    options = row[5] or {}
    when = moments(state, options)
    until_ms = state.wall_ms if when.due is None else state.wall_time(when.due, wall=when.due_wall)
    state.note(task, "retry", task.worker, until_ms, row[6])
    state.leave(task)
    state.counters["retried"] += 1
    if returning.revoke_instead(state, task):
        _free_unapplied(state, row[3], options)
        return
    task.redelivered = False
    task.retries = min(task.retries + 1, UINT_MAX)
    _replace_result(state, task, result, row[4])
    size = task.size - options_bytes(task.options)
    if _BODY in options:
        state.effects.freed.append(task.handle)
        task.handle, size = options[_BODY]
    if _QUEUE in options and options[_QUEUE] != task.queue:
        left = state.queues[task.queue]
        task.queue = state.queue_for(options[_QUEUE]).name
        state.retire(left)
        overhead = overhead_of(task.name, task.queue) + id_bytes(task.id)
        state.memory += overhead - task.overhead
        task.overhead = overhead
    task.priority = options.get(_PRIORITY, task.priority)
    if when.expires is not None:
        # DELIVER repeats the options, so they must say the expiry that is in force.
        kept = {key: value for key, value in (task.options or {}).items() if key not in _EXPIRIES}
        task.options = kept | {key: options[key] for key in _EXPIRIES if key in options}
        state.deadlines.expire(task, when.expires, when.expires_wall)
    size += options_bytes(task.options)
    state.memory += size - task.size
    task.size = size
    state.deadlines.rearm(task)
    if when.due is not None:
        state.hold(task, RETRY, when.due, when.due_wall)
    else:
        state.enqueue(task)


def _replace_result(state: State, task: Task, result: int, size: int) -> None:
    if task.result != NO_HANDLE:
        state.effects.freed.append(task.result)
    state.memory += size - task.result_size
    task.result = result
    task.result_size = size


def _reject(state: State, task: Task, result: int, row: CompletionRow) -> None:
    """Parks a task that its worker will not have, or holds it for a while, flagged, and queues it again."""
    state.counters["rejected"] += 1
    if not (row[5] or {}).get(RejectOption.REQUEUE.value):
        state.leave(task)
        reason = row[6] or f"worker {task.worker} rejected it"
        kind = "rejected" if result == NO_HANDLE else None
        state.counters["dead"] += 1
        state.finish(task, DEAD, result, row[4], Ending(DEAD, kind, reason))
        told = {"id": task.id, "name": task.name, "queue": task.queue, "worker": task.worker}
        state.effects.events.append(("task_rejected", told | {"reason": reason}))
        return
    record = unusual(task)
    due = state.now + min(SENT_BACK_NS << record.sent_back, SENT_BACK_MAX_NS)
    record.sent_back = min(record.sent_back + 1, _DOUBLINGS)
    state.note(task, "retry", task.worker, state.wall_time(due, wall=False), row[6])
    state.leave(task)
    _free_unapplied(state, row[3], None)
    if not returning.revoke_instead(state, task):
        task.redelivered = True
        state.deadlines.rearm(task)
        state.hold(task, RETRY, due, wall=False)


def _release(state: State, task: Task, result: int, row: CompletionRow) -> None:
    """Returns a task that was not begun, or was cut off for no fault of its own."""
    state.counters["released"] += 1
    claimed = (row[5] or {}).get(ReleaseOption.CLAIMED.value)
    state.note(task, "released", task.worker, row[6])
    state.leave(task)
    if claimed and returning.is_early(task):
        returning.fail(state, task, row[6] or f"worker {task.worker} stopped while it ran", result, row[4])
        return
    _free_unapplied(state, row[3], None)
    if claimed:
        task.redelivered = True
    returning.put_back(state, task)


def _revoked(state: State, task: Task, result: int, row: CompletionRow) -> None:
    expired = (row[5] or {}).get(RevokedOption.EXPIRED.value)
    stage = EXPIRED if expired else REVOKED
    called_off = None if task.unusual is None else task.unusual.called_off
    reason = row[6]
    if reason is None:
        reason = "it expired before it began" if expired else "its worker called it off"
        if called_off is not None and not expired:
            reason = f"called off by {called_off.by}"
    kind = ("expired" if expired else "revoked") if result == NO_HANDLE else None
    state.counters["expired" if expired else "revoked"] += 1
    state.leave(task)
    state.finish(task, stage, result, row[4], Ending(stage, kind, reason))


def _lose(state: State, task: Task, result: int, row: CompletionRow) -> None:
    """Its process died: charges an attempt. The result is a text that says how."""
    state.counters["lost"] += 1
    task.attempts += 1
    state.note(task, "lost", task.worker, task.attempts, row[6])
    state.leave(task)
    if returning.is_early(task) or (task.options or {}).get(_FAIL_ON_LOST):
        returning.fail(state, task, row[6], result, row[4])
    else:
        returning.charge(state, task, row[6], result, row[4])


_Apply = Callable[[State, Task, int, CompletionRow], None]
_OUTCOMES: dict[int, _Apply] = {
    Outcome.FAILURE.value: _fail,
    Outcome.RETRY.value: _retry,
    Outcome.REJECT.value: _reject,
    Outcome.RELEASE.value: _release,
    Outcome.REVOKED.value: _revoked,
    Outcome.LOST.value: _lose,
}
