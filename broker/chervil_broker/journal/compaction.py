"""Which segment is given up, and what of it is written once more before. No clock here."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import NamedTuple, TypeVar

from chervil.protocol import WireId
from chervil_broker.bodies import Bodies
from chervil_broker.engine.engine import Engine
from chervil_broker.journal.files import Files
from chervil_broker.journal.layout import (
    FRAME_HEADER_SIZE,
    SEGMENT_HEADER_SIZE,
    Frame,
    SegmentHeader,
    frame_length,
    frame_size,
    unpack_frame,
    unpack_records,
)
from chervil_broker.journal.recording import Recorder
from chervil_broker.journal.records import (
    Changed,
    Forgotten,
    Published,
    Revoked,
    SessionOpened,
    decode,
    pack,
)
from chervil_broker.journal.segments import Segment

V = TypeVar("V", int, str)

#: Segments are compacted while all files together take more than DISK_MIN and more than LIVE_FACTOR times
#: what is alive: so that the disk stays under max(256 MB, three times what is alive), with what is written
#: meanwhile.
DISK_MIN = 160 * 1024 * 1024
LIVE_FACTOR = 2
#: `live` is an estimate. Where once round the whole journal more than this part of what was removed had to
#: be written again, the next round waits until half of what the disk holds has been written anew: else it
#: would go round for ever, to no use.
USELESS = 0.75
#: Ids that are looked at in one go: half a millisecond where all are remembered ones.
IDS_AT_A_TIME = 1000


class Need:
    """Says when the oldest segment is to go."""

    def __init__(self, disk_min: int = DISK_MIN) -> None:
        self._disk_min = disk_min
        #: Number of the segment that was the newest when this round began; 0 outside of one.
        self._last = 0
        #: Bytes that were removed in this round, and those that were written again.
        self._removed = self._copied = 0
        #: No round begins before so many bytes have been written.
        self._not_before = 0

    def is_due(self, disk: int, live: int, segments: Sequence[Segment], written: int) -> bool:
        """`disk` bytes are taken by all files, `live` would be by what is held; `written` so far."""
        if len(segments) < 2 or disk <= max(self._disk_min, LIVE_FACTOR * live):
            self._last = 0
            return False
        if self._last and segments[0].number > self._last:
            if self._copied > USELESS * self._removed:
                self._not_before = written + disk // 2
            self._last = 0
        if written < self._not_before:
            return False
        if not self._last:
            self._last = segments[-1].number
            self._removed = self._copied = 0
        return True

    def removed(self, size: int, copied: int) -> None:
        """A segment of that size is gone, and so many bytes of it were written again."""
        self._removed += size
        self._copied += copied


class Whole(NamedTuple):
    """Tasks of which a record tells all."""

    vhost: str
    ids: Sequence[WireId]


#: What a segment tells that may have to be written again.
Mention = Whole | Forgotten | Revoked | SessionOpened


def mentions(files: Files, segment: Segment, following: Segment) -> Iterator[list[Mention]]:
    """Those of a segment and of the one that follows it, a frame at a time.

    Raises LayoutError, RecordError and OSError.
    """
    for frame in _frames(files, segment, following.first):
        found: list[Mention] = []
        for record in map(decode, unpack_records(frame)):
            match record:
                case Published():
                    found.append(Whole(record.vhost, [row[0] for group in record.groups for row in group[3]]))
                case Changed():
                    found.append(Whole(record.vhost, (record.task.id,)))
                case Forgotten() | Revoked():
                    found += [record._replace(ids=ids) for ids in _parts(record.ids)]
                case SessionOpened():
                    found.append(record)
        yield found


def _parts(ids: list[WireId]) -> Iterator[list[WireId]]:
    for start in range(0, len(ids), IDS_AT_A_TIME):
        yield ids[start : start + IDS_AT_A_TIME]


def _frames(files: Files, segment: Segment, end: int) -> Iterator[Frame]:
    """Those with records, up to the record before `end`."""
    file = files.open(segment.name)
    try:
        salt = SegmentHeader.unpack(file.read(SEGMENT_HEADER_SIZE, 0)).salt
        offset, sequence = SEGMENT_HEADER_SIZE, segment.first
        while sequence < end:
            head = file.read(FRAME_HEADER_SIZE, offset)
            data = file.read(frame_size(frame_length(head)), offset)
            frame = unpack_frame(data, 0, salt)
            offset += frame.end
            if frame.record_count:
                sequence += frame.record_count
                yield frame
    finally:
        file.close()


class Compaction:
    """Writes again what the oldest segment tells and no newer one does."""

    def __init__(
        self,
        bodies: Bodies,
        engine_of: Callable[[str], Engine | None],
        session_of: Callable[[int], SessionOpened | None],
        newest: Callable[[], int],
    ) -> None:
        """`engine_of`: that of a vhost; `session_of`: what a session's record says now. None: it is gone.

        `newest` gives the number of the newest segment.
        """
        self._bodies = bodies
        self._engine_of = engine_of
        self._session_of = session_of
        self._newest = newest
        self._recorder = Recorder()

    def copies(self, found: Iterable[Mention], oldest: int) -> Iterator[bytes | None]:
        """What is to be written for what the segment of that number tells, one thing at a time.

        None stands for what needs nothing. The engines must be at rest whenever the next one is asked for:
        all that they decided has been pumped.
        """
        for mention in found:
            if isinstance(mention, Whole):
                yield from self._whole(mention, oldest)
            elif isinstance(mention, SessionOpened):
                now = self._session_of(mention.number)
                yield now and pack(now)
            else:
                yield self._remembered(mention)

    def needed(self, found: Iterable[Mention], oldest: int) -> list[Mention]:
        """What may have to be written again, of all that the segment of that number tells.

        May be called in another thread: what is of no use any more will never be again, as what comes to be
        meanwhile is told in a newer segment.
        """
        needed: list[Mention] = []
        for mention in found:
            if isinstance(mention, SessionOpened):
                needed.append(mention)
            elif (engine := self._engine_of(mention.vhost)) is not None:
                ids = _still(engine, mention, oldest)
                if ids:
                    needed.append(mention._replace(ids=ids))
        return needed

    def everything(self, vhosts: Iterable[str], sessions: Iterable[int]) -> Iterator[Mention]:
        """All that there is, for a segment that can not be read any more: what it tells is in memory too."""
        for session in sessions:
            now = self._session_of(session)
            if now is not None:
                yield now
        for vhost in list(vhosts):
            engine = self._engine_of(vhost)
            if engine is not None:
                yield Whole(vhost, list(engine.tasks))
                for since, ids in _by_value(engine.forgotten):
                    yield Forgotten(vhost, since, ids)
                for by, ids in _by_value(engine.revoked_ids):
                    yield Revoked(vhost, by, ids)

    def _whole(self, mention: Whole, oldest: int) -> Iterator[bytes | None]:
        engine = self._engine_of(mention.vhost)
        if engine is None:
            return
        for id_ in mention.ids:
            task = engine.tasks.get(id_)
            if task is None or task.home > oldest:
                yield None
            else:
                yield self._recorder.whole(mention.vhost, task, self._bodies, self._newest())

    def _remembered(self, mention: Forgotten | Revoked) -> bytes | None:
        engine = self._engine_of(mention.vhost)
        ids = [] if engine is None else _still(engine, mention, 0)
        return pack(mention._replace(ids=ids)) if ids else None


def _still(engine: Engine, mention: Whole | Forgotten | Revoked, oldest: int) -> list[WireId]:
    """Its ids of which the engine knows what it tells; of tasks those that no newer segment tells all of."""
    match mention:
        case Whole():
            tasks = engine.tasks
            return [
                id_ for id_ in mention.ids if (task := tasks.get(id_)) is not None and task.home <= oldest
            ]
        case Forgotten():
            times, since = engine.forgotten, mention.since
            return [id_ for id_ in mention.ids if times.get(id_) == since]
        case Revoked():
            revoked_by, by = engine.revoked_ids, mention.by
            return [id_ for id_ in mention.ids if revoked_by.get(id_) == by]


def _by_value(table: Mapping[WireId, V]) -> Iterator[tuple[V, list[WireId]]]:
    """The ids that have the same value and stand together, at most IDS_AT_A_TIME at once."""
    for value, entries in groupby(list(table.items()), key=lambda entry: entry[1]):
        for ids in _parts([id_ for id_, _ in entries]):
            yield value, ids
