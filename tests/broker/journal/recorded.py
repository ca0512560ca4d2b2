"""An engine whose pumps are recorded, and pictures of engines: what a recovered one must have alike."""

from dataclasses import dataclass

from chervil_broker.bodies import Bodies, ResultBody
from chervil_broker.engine import Engine
from chervil_broker.engine.restoring import RestoredSession
from chervil_broker.engine.task import LEASED, NO_HANDLE, QUEUED, STARTED, SUCCESS
from chervil_broker.journal.layout import pack_frame, unpack_frame, unpack_records
from chervil_broker.journal.recording import Recorder
from chervil_broker.journal.records import (
    Forgotten,
    Open,
    Revoked,
    SessionEnded,
    SessionOpened,
    Tick,
    decode,
    pack,
)
from chervil_broker.journal.replay import Replay
from tests.broker.engine.model import everything
from tests.broker.engine.rig import MS, Rig

INSTANCE = bytes(16)
SALT = bytes(8)
VHOST = "shop"


class Contents:
    """What stands behind the handles of a rig: made up of handle and size, and of one kind each."""

    def __init__(self):
        self.sizes: dict[int, int] = {}
        self.kinds: dict[int, str] = {}

    def _bytes(self, handle, kind):
        assert self.kinds.setdefault(handle, kind) == kind
        return (b"%d " % handle * self.sizes[handle])[: self.sizes[handle]]

    def task(self, handle):
        body = self._bytes(handle, "task")
        if handle % 3 == 0 and len(body) > 4:
            return body[:4], "json", body[4:]
        return None, "msgpack" if handle % 4 == 0 else "json", body

    def result(self, handle):
        codec = (None, "json", "failure")[handle % 3]
        return ResultBody(codec, self._bytes(handle, "result"))


@dataclass
class Frame:
    """What one pump, or a compaction, has written."""

    segment: int
    data: bytes
    #: The engine at that moment; None where it is checked.
    picture: dict | None

    def records(self):
        return [decode(record) for record in unpack_records(unpack_frame(self.data, 0, SALT))]


class RecordedRig(Rig):
    """A rig that keeps a journal. Time goes on by itself, so that no two commands are of one moment."""

    def __init__(self, *args, **config):
        self.contents = Contents()
        self.frames: list[Frame] = []
        self.segment = 1
        self.mark = 1
        self.recorder = Recorder()
        self.pending: list[bytes] = []
        self.known: dict[int, SessionOpened] = {}
        self.boot = "first"
        #: Whether a segment was given up.
        self.copied = False
        super().__init__(*args, **config)
        self.pending.insert(0, self.opening())
        self.pump()

    def opening(self):
        return pack(Open(INSTANCE, self.boot, "interval", self.now, self.wall, "1"))

    def open(self, name="session"):
        number = super().open(name)
        self.known[number] = SessionOpened(number, bytes(16), bytes(32), name, "me", "token", False, VHOST, 0)
        self.pending.append(pack(self.known[number]))
        return number

    def body(self, size=100):
        handle = super().body(size)
        self.contents.sizes[handle] = size
        return handle

    def pump(self):
        effects = super().pump()
        self.pending.append(pack(Tick(self.now, self.wall)))
        self.pending += self.recorder.encode(
            VHOST,
            effects,
            self.engine,
            self.contents,
            mark=self.mark,
            now=self.now,
            wall=self.wall,
            segment=self.segment,
        )
        self.mark = self.handle + 1
        for number in [number for number in self.known if number not in self.engine._state.sessions]:
            del self.known[number]
            self.pending.append(pack(SessionEnded(number)))
        records, self.pending = self.pending, []
        self.write(records)
        return effects

    def write(self, records):
        self.frames.append(Frame(self.segment, pack_frame(records, 1, 0, SALT), self.picture()))

    def picture(self):
        return picture(self.engine, self.contents, self.known)

    def rotate(self):
        self.segment += 1
        self.write([self.opening()])

    def wholes(self, ids):
        tasks = self.engine.tasks
        return [self.recorder.whole(VHOST, tasks[id_], self.contents, self.segment) for id_ in ids]

    def copy(self, ids):
        """Writes whole records of tasks, as compaction does."""
        self.write(self.wholes(ids))

    def drop_oldest(self):
        """Writes again what is known by the oldest segment alone, and gives it up."""
        self.copied = True
        oldest = self.frames[0].segment
        if oldest == self.segment:
            self.rotate()
        copies = []
        for record in [
            record for frame in self.frames if frame.segment == oldest for record in frame.records()
        ]:
            if type(record) is SessionOpened and record.number in self.known:
                sequence = self.engine._state.sessions[record.number].sequence
                copies.append(pack(record._replace(sequence=sequence)))
            elif type(record) is Forgotten:
                ids = [id_ for id_ in record.ids if self.engine.forgotten.get(id_) == record.since]
                copies.append(pack(record._replace(ids=ids)))
            elif type(record) is Revoked:
                ids = [id_ for id_ in record.ids if id_ in self.engine.revoked_ids]
                copies.append(pack(record._replace(ids=ids)))
        ids = [id_ for id_, task in self.engine.tasks.items() if task.home <= oldest]
        self.write([*copies, *self.wholes(ids), pack(Tick(self.now, self.wall))])
        self.frames = [frame for frame in self.frames if frame.segment != oldest]
        for frame in self.frames[:-1]:
            frame.picture = None

    def check(self):
        """Every prefix of the journal that was not looked at yet adds up to what was known then."""
        for index, frame in enumerate(self.frames):
            if frame.picture is not None:
                bodies, replay = self.replayed(index + 1)
                assert (replay.now, replay.wall) == frame.picture["now"]
                revoked = list(replay.vhosts[VHOST].revoked.items())
                engine = self.restored(replay, config=frame.picture["config"])
                assert_alike(frame.picture, picture(engine, bodies, replay.sessions), copied=self.copied)
                assert {*frame.picture["revoked"]} <= {*revoked}
                assert len(bodies) == frame.picture["contents"], "nothing is left lying"
                frame.picture = None

    def replayed(self, frames=None):
        bodies = Bodies()
        replay = Replay(bodies)
        for frame in self.frames[:frames]:
            replay.segment = frame.segment
            for record in frame.records():
                replay.apply(record)
        return bodies, replay

    def restored(self, replay, grace=MS, sessions=None, config=None):
        """An engine that begins with what a replay came to."""
        engine = Engine(config or self.engine._state.config)
        engine.tick(replay.now, replay.wall)
        chosen = replay.sessions.values() if sessions is None else sessions
        named = [RestoredSession(session.number, session.name, session.sequence) for session in chosen]
        engine.restore(replay.vhosts[VHOST], named, grace)
        return engine


def content(task, bodies):
    """What a task has of a body and a result."""
    body = None if task.handle == NO_HANDLE else tuple(bodies.task(task.handle))
    return body, None if task.result == NO_HANDLE else tuple(bodies.result(task.result))


def picture(engine, bodies, sessions):
    """All that a recovered engine must have alike; times in nanoseconds, orders as lists of ids."""
    state = engine._state
    results = state.results
    return {
        "now": (state.now, state.wall),
        "config": state.config,
        "tasks": {id_: full(task, bodies) for id_, task in state.tasks.items()},
        "contents": sum((t.handle != NO_HANDLE) + (t.result != NO_HANDLE) for t in state.tasks.values()),
        "queues": {
            name: (queue.ready, queue.scheduled, queue.leased, lines(queue))
            for name, queue in state.queues.items()
            if queue.ready or queue.scheduled or queue.leased
        },
        "books": (state.memory, list(state.stages), results.bytes, results._bare, state.parked.bytes),
        "parked": [(task.id, number) for number, task in state.parked._tasks.items()],
        "timers": timers(state),
        "buckets": {
            second: sorted(task.id for task in shelf._tasks if task.kept == second)
            for second, shelf in results._buckets.items()
            if not shelf.empty
        },
        "unread": shelved(results._unread) + shelved(results._read),
        "sequence": state.sequence,
        "forgotten": list(state.forgotten.times.items()),
        "revoked": list(state.revoked_ids.by.items()),
        "sessions": {
            number: (session.name, session.sequence, sorted(session.leases))
            for number, session in state.sessions.items()
            if number in sessions
        },
    }


def full(task, bodies):
    told = everything(task)
    told["contents"] = content(task, bodies)
    told["home"] = task.home
    for field in ("handle", "result"):
        del told[field]
    if task.stage < SUCCESS:
        # Of an end that was before; nobody looks.
        for field in ("ended", "ending", "kept"):
            told.pop(field)
    return told


def lines(queue):
    """Ready tasks of each priority and name, in their order."""
    found = {}
    for priority, level in queue.levels.items():
        for name, class_ in level.classes.items():
            entries = [(task.sequence, task.id) for task in class_.ready if task.stage == QUEUED]
            entries += [(place, task.id) for place, task in class_.returned if task.stage == QUEUED]
            if entries:
                found[priority, name] = sorted(entries)
                first = class_.first()
                assert first is not None
                assert first.id == found[priority, name][0][1]
    return found


def timers(state):
    """Deadlines that somebody waits for, those at the same time in the order of their timers."""
    found = []
    for clock in (state.deadlines._broker, state.deadlines._wall):
        for deadline, timer, task in sorted(clock._heap, key=lambda entry: entry[:2]):
            times = task.times
            if times is None or timer not in (times.due_timer, times.expires_timer):
                continue
            due = timer == times.due_timer
            # While a worker has a task its expiry may have fired or not: it is set when the task comes back.
            if due or task.stage not in (LEASED, STARTED):
                found.append((clock is state.deadlines._wall, deadline, not due, task.id))
    return [entry for entry in found if not entry[2]] + sorted(entry for entry in found if entry[2])


def shelved(shelf):
    return [(task.since, task.id) for task in shelf._tasks if shelf._holds(task)]


def assert_alike(live, recovered, *, copied=False):
    """Fails where a recovered engine is another than the live one was.

    `copied`: ids that were revoked may have been written again, and which of them are too many is decided by
    which was written last.
    """
    live, recovered = dict(live), dict(recovered)
    assert recovered["tasks"] == live["tasks"]
    for told, found in ((live.pop("unread"), recovered.pop("unread")),):
        assert sorted(found) == sorted(told)
        assert [since for since, _ in found] == sorted(since for since, _ in told)
    for name in ("forgotten", "revoked"):
        # Limits may have been narrower for a while: then more is remembered than was.
        told, found = live.pop(name), recovered.pop(name)
        if name == "forgotten" or not copied:
            newest = dict(found[len(found) - len(told) :])
            assert newest == dict(told), f"{name}: {found} is not {told}"
    assert live.pop("sequence") >= recovered.pop("sequence")
    for name, told in live.items():
        assert recovered[name] == told, f"{name}: {recovered[name]} is not {told}"
