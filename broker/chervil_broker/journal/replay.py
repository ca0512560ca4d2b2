"""What the records of a journal add up to: no decision is made here, only what was decided is done again."""

from collections.abc import Callable
from typing import Any

from chervil.protocol import WireId
from chervil_broker.bodies import Bodies
from chervil_broker.engine.charges import id_bytes, options_bytes, overhead_of
from chervil_broker.engine.history import weigh
from chervil_broker.engine.restoring import Known
from chervil_broker.engine.task import (
    COMPLETED,
    DEAD,
    EVICTED,
    FAILURE,
    LEASED,
    MS,
    NO_HANDLE,
    NOT_KEPT,
    SUCCESS,
    CalledOff,
    Ending,
    Task,
    Times,
    Unusual,
)
from chervil_broker.journal.records import (
    Changed,
    Close,
    Completed,
    Evicted,
    Forgotten,
    Leased,
    Open,
    Published,
    Record,
    Revoked,
    SessionEnded,
    SessionOpened,
    TaskState,
    Tick,
)

#: `always` is the only way to write that loses nothing when the machine stops.
_ALWAYS = "always"
_AS_BEFORE = 0
#: Texts, origins and endings that are looked up so that tasks share them: those that came together stand
#: together, and all at once would be as much again as the tasks.
_SHARED_MAX = 10_000
_OWN_ENDING = (FAILURE, DEAD)


class _VHost:
    """What one vhost's records add up to."""

    __slots__ = ("forgotten", "revoked", "sequence", "tasks")

    def __init__(self) -> None:
        self.tasks: dict[WireId, Task] = {}
        self.forgotten: dict[WireId, int] = {}
        self.revoked: dict[WireId, str] = {}
        self.sequence = 0


class Replay:
    """Applies records, in their order. `bodies` comes to hold what the tasks have of bodies and results.

    A record that tells of a task whose newest whole record is yet to come is passed over.
    """

    def __init__(self, bodies: Bodies) -> None:
        self._bodies = bodies
        self._vhosts: dict[str, _VHost] = {}
        self._sessions: dict[int, SessionOpened] = {}
        #: The number of the segment that the records come from: for `Task.home`.
        self.segment = 0
        #: The newest OPEN; None before the first.
        self.opened: Open | None = None
        #: Broker time and the wall clock, as of the newest that tells them; in nanoseconds.
        self.now = 0
        self.wall = 0
        #: Whether the last record is a CLOSE.
        self.clean = False
        self._texts: dict[str, str] = {}
        self._overheads: dict[tuple[str, str], tuple[str, str, int]] = {}
        self._origins: dict[tuple[str, int], tuple[str, int]] = {}
        self._endings: dict[Ending, Ending] = {}
        self._appliers: dict[type[Any], Callable[[Any], None]] = {
            Open: self._open,
            Close: self._clocks,
            Tick: self._clocks,
            Published: self._publish,
            Leased: self._lease,
            Completed: self._complete,
            Changed: self._change,
            Evicted: self._evict,
            Forgotten: self._forget,
            Revoked: self._revoke,
            SessionOpened: self._session,
            SessionEnded: self._end,
        }

    @property
    def vhosts(self) -> dict[str, Known]:
        """What each vhost knows, by name."""
        return {
            name: Known(vhost.tasks, vhost.forgotten, vhost.revoked, vhost.sequence)
            for name, vhost in self._vhosts.items()
        }

    @property
    def sessions(self) -> dict[int, SessionOpened]:
        """Sessions that are not over, by number, each with the highest sequence of its COMPLETEs."""
        return self._sessions

    def apply(self, record: Record) -> None:
        """Does again what a record says."""
        self.clean = type(record) is Close
        self._appliers[type(record)](record)

    def flag(self) -> None:
        """Tasks that are not final may have been claimed, and nobody can tell: they say so from now on."""
        for vhost in self._vhosts.values():
            for task in vhost.tasks.values():
                if task.stage < SUCCESS:
                    task.redelivered = True

    def begin(self, boot: str) -> None:
        """A broker begins now, in this boot of the machine; to be called before the tasks are taken.

        What a machine that stopped had not written is lost where it was not told to write always: a lease,
        it may be. Its tasks are flagged then, as they are when the OPEN of that broker is read again.
        """
        same = boot and self.opened is not None and self.opened.boot == boot
        if self.opened is not None and self.opened.fsync != _ALWAYS and not same:
            self.flag()

    def _open(self, record: Open) -> None:
        self.begin(record.boot)
        if record.flagged:
            self.flag()
        self.opened = record
        self._clocks(record)

    def _clocks(self, record: Open | Close | Tick) -> None:
        if record.now >= self.now:
            self.now, self.wall = record.now, record.wall

    def _saw(self, since: int, at_ms: int | None = None) -> None:
        """A record is of that broker time, and of that of the wall clock if it says so."""
        if since > self.now:
            self.wall = self.wall + since - self.now if at_ms is None else at_ms * MS
            self.now = since

    def _vhost(self, name: str) -> _VHost:
        vhost = self._vhosts.get(name)
        if vhost is None:
            vhost = self._vhosts[name] = _VHost()
        return vhost

    def _publish(self, record: Published) -> None:
        self._saw(record.since, record.at_ms)
        vhost = self._vhost(record.vhost)
        origin = self._text(record.by), record.at_ms
        for group in record.groups:
            self._publish_group(vhost, group, record.since, origin)

    def _publish_group(self, vhost: _VHost, group: list[Any], since: int, origin: tuple[str, int]) -> None:
        name, queue, priority, rows = group[:4]
        name, queue, plain = self._names(name, queue)
        tasks, forgotten, revoked = vhost.tasks, vhost.forgotten, vhost.revoked
        put = self._bodies.put_task
        segment = self.segment
        for row in rows:
            id_, place, options, body = row[:4]
            codec = self._text(row[4]) if len(row) > 4 else "json"
            headers = row[5] if len(row) > 5 else None
            size = len(body) if headers is None else len(body) + len(headers)
            if options is not None:
                size += options_bytes(options)
            if id_ in tasks or id_ in forgotten or id_ in revoked:
                self._make_room(vhost, id_)
            handle = put(headers, codec, body)
            overhead = plain if type(id_) is bytes else plain + id_bytes(id_)
            tasks[id_] = task = Task(
                id_, name, queue, priority, options, handle, size, place, since, origin, overhead
            )
            task.home = segment
            vhost.sequence = max(vhost.sequence, place)

    def _make_room(self, vhost: _VHost, id_: WireId) -> None:
        """A task comes under an id that meant something else before."""
        vhost.forgotten.pop(id_, None)
        vhost.revoked.pop(id_, None)
        before = vhost.tasks.get(id_)
        if before is not None:
            self._free(before.handle)
            self._free(before.result)

    def _free(self, handle: int) -> None:
        if handle != NO_HANDLE:
            self._bodies.free((handle,))

    def _lease(self, record: Leased) -> None:
        name, session, worker, since, at_ms, rows = record
        self._saw(since, at_ms)
        tasks = self._vhost(name).tasks
        worker = self._text(worker)
        for row in rows:
            task = tasks.get(row[0])
            if task is not None:
                task.stage = LEASED
                task.lease = row[1]
                task.owner = session
                task.worker = worker
                task.since = since
                task.delivered = at_ms

    def _complete(self, record: Completed) -> None:
        name, session, sequence, since, ended_ms, rows = record
        self._saw(since, ended_ms)
        known = self._sessions.get(session)
        if known is not None and sequence > known.sequence:
            self._sessions[session] = known._replace(sequence=sequence)
        tasks = self._vhost(name).tasks
        for row in rows:
            task = tasks.get(row[0])
            if task is None:
                continue
            self._drop_content(task)
            _, task.kept, codec, body = row[:4]
            if body is not None:
                task.result = self._bodies.put_result(codec and self._text(codec), body)
                task.result_size = len(body)
            task.stage = SUCCESS
            task.since = since
            task.ended = ended_ms
            task.ending = None
            task.owner = COMPLETED
            task.times = None
            if task.unusual is not None:
                task.unusual.early = False
                task.unusual.called_off = None

    def _drop_content(self, task: Task) -> None:
        """Frees the body and the result; of the options only what is told of a finished task is kept."""
        self._free(task.handle)
        self._free(task.result)
        task.handle = task.result = NO_HANDLE
        task.size = task.result_size = 0
        task.shed_options()

    def _change(self, record: Changed) -> None:
        vhost = self._vhost(record.vhost)
        state = record.task
        self._saw(state.since)
        before = vhost.tasks.get(state.id)
        if before is None and _AS_BEFORE in (state.body, state.result):
            return
        vhost.forgotten.pop(state.id, None)
        vhost.revoked.pop(state.id, None)
        vhost.sequence = max(vhost.sequence, state.place)
        task = vhost.tasks[state.id] = self._task(state)
        self._take_contents(task, before, state)

    def _task(self, state: TaskState) -> Task:
        """A task with all but its body and its result."""
        name, queue, overhead = self._names(state.name, state.queue)
        task = Task(
            state.id,
            name,
            queue,
            state.priority,
            state.options,
            NO_HANDLE,
            0,
            state.place,
            state.since,
            self._origin(state.by, state.published_ms),
            overhead + id_bytes(state.id),
        )
        task.stage = state.stage
        task.lease = state.lease
        task.redelivered = state.redelivered
        task.attempts = state.attempts
        task.retries = state.retries
        task.owner = state.session
        task.worker = state.worker and self._text(state.worker)
        task.delivered = state.delivered_ms
        if state.times is not None:
            task.times = _times(state.times)
        if state.past is not None:
            task.unusual = self._past(state.past)
        if state.ended_ms is not None:
            task.ended = state.ended_ms
            task.ending = None if state.ending is None else self._ending(state.ending)
            task.kept = NOT_KEPT if state.kept is None else state.kept
        return task

    def _past(self, fields: list[Any]) -> Unusual:
        events, dropped, early, called_off, sent_back = fields[:5]
        past = Unusual()
        past.events = [
            tuple([self._text(field) if type(field) is str else field for field in event]) for event in events
        ]
        past.dropped = dropped
        past.early = early
        past.called_off = None if called_off is None else CalledOff(*called_off[:2])
        past.sent_back = sent_back
        weigh(past)
        return past

    def _take_contents(self, task: Task, before: Task | None, state: TaskState) -> None:
        """Gives a task its body and its result, from its record or from how it was before."""
        handle = result = NO_HANDLE
        size = result_size = 0
        if before is not None:
            handle, result, result_size = before.handle, before.result, before.result_size
            size = before.size - options_bytes(before.options)
            task.home = before.home
        if state.body != _AS_BEFORE:
            self._free(handle)
            handle, size = NO_HANDLE, 0
            if state.body is not None:
                headers, codec, body = state.body[:3]  # type: ignore[index]  # 0 and nil are seen to
                handle = self._bodies.put_task(headers, self._text(codec), body)
                size = len(body) + len(headers or b"")
        if state.result != _AS_BEFORE:
            self._free(result)
            result, result_size = NO_HANDLE, 0
            if state.result is not None:
                codec, body = state.result[:2]  # type: ignore[index]  # 0 and nil are seen to
                result = self._bodies.put_result(codec and self._text(codec), body)
                result_size = len(body)
        task.handle, task.result, task.result_size = handle, result, result_size
        if handle != NO_HANDLE:
            task.size = size + options_bytes(task.options)
        else:
            # It will not run again.
            task.shed_options()
        if _AS_BEFORE not in (state.body, state.result):
            task.home = self.segment

    def _text(self, text: str) -> str:
        """A text that tasks share. Not the interpreter's own table: it may keep them for ever."""
        texts = self._texts
        if len(texts) > _SHARED_MAX:
            texts.clear()
        return texts.setdefault(text, text)

    def _names(self, name: str, queue: str) -> tuple[str, str, int]:
        """A task's name and its queue's as tasks share them, and what the two are charged."""
        known = self._overheads.get((name, queue))
        if known is None:
            if len(self._overheads) > _SHARED_MAX:
                self._overheads.clear()
            name, queue = self._text(name), self._text(queue)
            known = self._overheads[name, queue] = name, queue, overhead_of(name, queue)
        return known

    def _origin(self, by: str, at_ms: int) -> tuple[str, int]:
        origins = self._origins
        if len(origins) > _SHARED_MAX:
            origins.clear()
        key = self._text(by), at_ms
        return origins.setdefault(key, key)

    def _ending(self, fields: list[Any]) -> Ending:
        stage, kind, reason = fields[:3]
        ending = Ending(stage, kind and self._text(kind), reason)
        if stage in _OWN_ENDING and kind != "rejected":
            return ending
        if len(self._endings) > _SHARED_MAX:
            self._endings.clear()
        return self._endings.setdefault(ending, ending)

    def _evict(self, record: Evicted) -> None:
        tasks = self._vhost(record.vhost).tasks
        for id_ in record.ids:
            task = tasks.get(id_)
            if task is not None:
                self._drop_content(task)
                task.stage = EVICTED

    def _forget(self, record: Forgotten) -> None:
        vhost = self._vhost(record.vhost)
        self._saw(record.since)
        for id_ in record.ids:
            task = vhost.tasks.pop(id_, None)
            if task is not None:
                self._free(task.handle)
                self._free(task.result)
            vhost.forgotten[id_] = record.since
            # It may have been published, over and forgotten between two frames.
            vhost.revoked.pop(id_, None)

    def _revoke(self, record: Revoked) -> None:
        vhost = self._vhost(record.vhost)
        for id_ in record.ids:
            # Who is revoked again is the newest.
            vhost.revoked.pop(id_, None)
            vhost.revoked[id_] = self._text(record.by)

    def _session(self, record: SessionOpened) -> None:
        self._vhost(record.vhost)
        self._sessions[record.number] = record

    def _end(self, record: SessionEnded) -> None:
        self._sessions.pop(record.number, None)


def _times(fields: list[Any]) -> Times:
    times = Times()
    times.due, times.due_wall, times.expires, times.expires_wall = fields[:4]
    return times
