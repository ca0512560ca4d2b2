"""What can still be read of one damaged segment, and the segment written anew from it."""

import contextlib
from collections import Counter
from dataclasses import dataclass, field

from chervil.address import DEFAULT_VHOST
from chervil_broker.journal.check import undecodable
from chervil_broker.journal.layout import (
    ALIGNMENT,
    FRAME_MAGIC,
    SEGMENT_HEADER_SIZE,
    Frame,
    LayoutError,
    SegmentHeader,
    pack_frame,
    pack_record,
    unpack_frame,
    unpack_records,
)
from chervil_broker.journal.reader import SALT_AT, Damage, is_close, next_frame
from chervil_broker.journal.records import Evicted, Open, RecordError, decode, pack
from chervil_broker.journal.spares import PAGE

#: More lost records than this in one place are no damage of a disk, but files that do not belong together.
LOST_MAX = 10_000_000
#: Records in a frame that takes the place of lost ones.
_FRAME_RECORDS = 10_000
#: A record that says nothing, without its length: the results of no task are dropped.
NOTHING = pack(Evicted(DEFAULT_VHOST, []))[4:]


@dataclass
class Salvage:
    """The records of a segment, frame by frame; where some are lost, as many that say nothing."""

    #: Without their lengths; there are no MARKs.
    frames: list[list[bytes]]
    #: The sequence that comes next.
    sequence: int
    lost: int = 0
    saved: int = 0
    #: What is wrong, for people; none: the segment can stay as it is.
    problems: list[str] = field(default_factory=list)
    #: Something is behind the last frame.
    torn: bool = False

    @property
    def closed(self) -> bool:
        """The last record is that of a clean end: nothing may stand behind it."""
        return bool(self.frames) and is_close(self.frames[-1][-1])

    def add(self, records: list[bytes]) -> None:
        if self.closed:
            self.frames[-1][-1] = NOTHING
            self.saved -= 1
        self.frames.append(records)
        self.sequence += len(records)

    def lose(self, count: int, name: str) -> None:
        """Goes on behind so many lost records. Raises Damage for more of them than can be true."""
        if count > LOST_MAX:
            what = f"{count:,} records are missing: files are here that are not of one journal"
            raise Damage(name, 0, what, repairable=False)
        for begin in range(0, count, _FRAME_RECORDS):
            self.add([NOTHING] * min(_FRAME_RECORDS, count - begin))
        self.lost += count


def salvage(name: str, data: bytes, header: SegmentHeader, until: int | None) -> Salvage:
    """Reads a segment, damaged or not; `until` is the sequence with which the next one begins.

    Raises Damage for what only a newer program reads.
    """
    found = Salvage([], header.first)
    offset = SEGMENT_HEADER_SIZE
    while frame := next_frame(data, offset, header.salt):
        if found.closed:
            found.problems.append(f"offset {offset}: something follows the record of a clean end")
        elif frame.offset > offset:
            found.problems.append(f"offset {offset}: {_why(data, offset, header.salt)}")
        elif frame.first > found.sequence:
            found.problems.append(f"offset {offset}: the records before it are missing")
        if frame.first < found.sequence or (until is not None and frame.first + frame.record_count > until):
            found.problems.append(f"offset {frame.offset}: a frame of records that are elsewhere too")
        else:
            found.lose(frame.first - found.sequence, name)
            if frame.record_count:
                _take(found, name, frame)
        offset = frame.end
    found.torn = bool(data[offset:].strip(b"\0"))
    if found.torn and found.closed:
        found.problems.append(f"offset {offset}: something follows the record of a clean end")
    return found


def segment_of(header: SegmentHeader, saved: Salvage, size: int) -> bytes:
    """The segment's bytes: whole pages, and at least `size`."""
    parts = [header.pack()]
    sequence = header.first
    # All of it is durable before it gets its name: a MARK at the end says so.
    for records in saved.frames if saved.closed else [*saved.frames, []]:
        parts.append(
            pack_frame([pack_record(record) for record in records], sequence, sequence - 1, header.salt)
        )
        sequence += len(records)
    used = sum(map(len, parts))
    size = max(size, used)
    return b"".join([*parts, bytes(size + -size % PAGE - used)])


def guessed_header(first: int, data: bytes) -> SegmentHeader | None:
    """What the header must have been, from the frames behind it; None where there are none.

    Its number is 0, for only its neighbours tell that; its instance is empty where no record tells it. A body
    may hold what looks like frames: these are inside of a frame, so those with the most bytes are right.
    """
    salts: Counter[bytes] = Counter()
    instance = b""
    at = data.find(FRAME_MAGIC)
    while at >= 0:
        salt = data[at + SALT_AT : at + SALT_AT + 8]
        try:
            frame = unpack_frame(data, at, salt) if at % ALIGNMENT == 0 else None
        except LayoutError:
            frame = None
        if frame:
            salts[salt] += frame.end - frame.offset
        at = data.find(FRAME_MAGIC, frame.end if frame else at + 1)
    if not salts:
        return None
    ((salt, _),) = salts.most_common(1)
    frame = next_frame(data, SEGMENT_HEADER_SIZE, salt)
    if frame and frame.record_count:
        with contextlib.suppress(LayoutError, RecordError):
            opening = decode(unpack_records(frame)[0])
            instance = opening.instance if isinstance(opening, Open) else b""
    return SegmentHeader(instance, 0, first, salt)


def _take(found: Salvage, name: str, frame: Frame) -> None:
    """A frame's records; those that can not be read are lost."""
    try:
        records = unpack_records(frame)
    except LayoutError as error:
        found.problems.append(f"offset {frame.offset}: {error}")
        found.lose(frame.record_count, name)
        return
    sound = []
    for record in records:
        try:
            decode(record)
        except RecordError as error:
            damage = undecodable(name, frame.offset, error)
            if not damage.repairable:
                raise damage from None
            found.problems.append(f"offset {frame.offset}: {error}")
            found.lost += 1
            sound.append(NOTHING)
        else:
            # What an earlier repair put there is nothing that this one saves.
            found.saved += record != NOTHING
            sound.append(record)
    found.add(sound)


def _why(data: bytes, offset: int, salt: bytes) -> str:
    """Why there is no valid frame at `offset`."""
    try:
        unpack_frame(data, offset, salt)
    except LayoutError as error:
        return str(error)
    return "no frame begins here"
