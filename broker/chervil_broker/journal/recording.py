"""What an engine decided in a pump, as records for a frame."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgpack

from chervil.protocol.limits import ROWS_MAX
from chervil_broker.bodies import Bodies
from chervil_broker.engine.effects import Effects
from chervil_broker.engine.engine import Engine
from chervil_broker.engine.task import MS, NO_HANDLE, NOT_KEPT, SUCCESS, Task
from chervil_broker.journal.layout import pack_record
from chervil_broker.journal.records import Evicted, Forgotten, Kind, Revoked, pack

_PUBLISH, _LEASE = Kind.PUBLISH.value, Kind.LEASE.value
_COMPLETE, _TASK = Kind.COMPLETE.value, Kind.TASK.value
#: In place of a body or a result that the records before have.
_AS_BEFORE = 0


class Recorder:
    """Makes records of effects, before the bodies are freed that these are done with."""

    __slots__ = ("_pack",)

    def __init__(self) -> None:
        self._pack: Callable[[Any], bytes] = msgpack.Packer(autoreset=True, buf_size=65_536).pack

    def encode(
        self,
        vhost: str,
        effects: Effects,
        engine: Engine,
        bodies: Bodies,
        *,
        mark: int,
        now: int,
        wall: int,
        segment: int,
    ) -> list[bytes]:
        """The records of one pump of a vhost's engine.

        `mark`: the first handle that is newer than its last pump; bodies with others are in the journal.
        `now`, `wall`: the engine's clocks. `segment`: the number of the newest segment.
        """
        records: list[bytes] = []
        changed, tasks = effects.changed, engine.tasks
        # First what is over: an id whose memory was too short for it may have been published again since.
        for since, ids in effects.forgotten:
            records += [pack(Forgotten(vhost, since, part)) for part in _parts(ids)]
        for by, ids in effects.revoked_ids:
            still = [id_ for id_ in ids if id_ in engine.revoked_ids]
            records += [pack(Revoked(vhost, by, part)) for part in _parts(still)]
        for since, origin, published in effects.published:
            # What changed since is told as it is now.
            rows = [task for task in published if task not in changed] if changed else published
            if rows:
                records.append(self._published(vhost, since, origin, rows, bodies, segment))
        # Before the COMPLETEs that brought about some of it: where a crash takes the end of what has no room
        # in one frame, a worker that repeats one is to find that it never came.
        for task in changed:
            if tasks.get(task.id) is task:
                records.append(self._task(vhost, task, bodies, mark, segment))
        for session, sequence, succeeded in effects.completed:
            rows = [task for task in succeeded if tasks.get(task.id) is task and task not in changed]
            records.append(self._completed(vhost, session, sequence, rows, bodies, now, wall))
        for part in _parts([id_ for id_ in effects.evicted if id_ in tasks]):
            records.append(pack(Evicted(vhost, part)))
        for session, granted in effects.grants:
            rows = [task for task in granted if task not in changed] if changed else granted
            records += [self._leased(vhost, session, part) for part in _parts(rows)]
        return records

    def whole(self, vhost: str, task: Task, bodies: Bodies, segment: int) -> bytes:
        """All of a task, its body and its result too: older records of it are needed no more."""
        return self._task(vhost, task, bodies, 0, segment)

    def _published(  # noqa: PLR0917 -- the fields of the record, in their order
        self,
        vhost: str,
        since: int,
        origin: tuple[str, int],
        tasks: list[Task],
        bodies: Bodies,
        segment: int,
    ) -> bytes:
        groups: dict[tuple[str, str, int], list[Any]] = {}
        name = queue = None
        priority = -1
        rows: list[Any] = []
        body_of = bodies.task
        for task in tasks:
            # A task's name and queue are the strings of its class.
            if task.name is not name or task.queue is not queue or task.priority != priority:
                name, queue, priority = task.name, task.queue, task.priority
                group = groups.get((name, queue, priority))
                if group is None:
                    group = groups[name, queue, priority] = [name, queue, priority, []]
                rows = group[3]
            task.home = segment
            headers, codec, body = body_of(task.handle)
            if headers is not None:
                rows.append((task.id, task.sequence, task.options, body, codec, headers))
            elif codec != "json":
                rows.append((task.id, task.sequence, task.options, body, codec))
            else:
                rows.append((task.id, task.sequence, task.options, body))
        return pack_record(self._pack((_PUBLISH, vhost, since, *origin, list(groups.values()))))

    def _leased(self, vhost: str, session: int, tasks: Sequence[Task]) -> bytes:
        first = tasks[0]
        rows = [(task.id, task.lease) for task in tasks]
        return pack_record(
            self._pack((_LEASE, vhost, session, first.worker, first.since, first.delivered, rows))
        )

    def _completed(  # noqa: PLR0917 -- the fields of the record, in their order
        self,
        vhost: str,
        session: int,
        sequence: int,
        tasks: list[Task],
        bodies: Bodies,
        now: int,
        wall: int,
    ) -> bytes:
        since, ended = (tasks[0].since, tasks[0].ended) if tasks else (now, wall // MS)
        result_of = bodies.result
        rows = [
            (task.id, task.kept, None, None)
            if task.result == NO_HANDLE
            else (task.id, task.kept, *result_of(task.result))
            for task in tasks
        ]
        return pack_record(self._pack((_COMPLETE, vhost, session, sequence, since, ended, rows)))

    def _task(self, vhost: str, task: Task, bodies: Bodies, mark: int, segment: int) -> bytes:
        final = task.stage >= SUCCESS
        body: Any = None
        if task.handle != NO_HANDLE:
            body = bodies.task(task.handle) if task.handle >= mark else _AS_BEFORE
        result: Any = None
        if task.result != NO_HANDLE:
            result = bodies.result(task.result) if task.result >= mark else _AS_BEFORE
        if _AS_BEFORE not in (body, result):
            task.home = segment
        times, past = task.times, task.unusual
        state = (
            task.id,
            task.name,
            task.queue,
            task.priority,
            task.options,
            task.sequence,
            task.stage,
            task.since,
            task.lease,
            task.redelivered,
            task.attempts,
            task.retries,
            task.owner,
            task.worker,
            task.delivered,
            *task.origin,
            times and (times.due, times.due_wall, times.expires, times.expires_wall),
            past and (past.events, past.dropped, past.early, past.called_off, past.sent_back),
            task.ended if final else None,
            task.ending if final else None,
            task.kept if final and task.kept != NOT_KEPT else None,
            body,
            result,
        )
        return pack_record(self._pack((_TASK, vhost, state)))


def _parts(rows: Sequence[Any]) -> Iterator[Any]:
    """The rows in parts that each make a record of some hundred kilobytes."""
    if len(rows) <= ROWS_MAX:
        if rows:
            yield rows
        return
    for start in range(0, len(rows), ROWS_MAX):
        yield rows[start : start + ROWS_MAX]
