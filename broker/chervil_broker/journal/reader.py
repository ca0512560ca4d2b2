"""Reading a journal, oldest record first, and judging what is not as it should be.

docs/journal-format.md, "What a reader does with damage", is the rule. Nothing is changed here: tail.py cuts
what a crash tore, repair.py mends what is damaged.
"""

import contextlib
import itertools
import shlex
from collections.abc import Iterator
from os import PathLike, fspath
from typing import NamedTuple

from chervil_broker.journal.files import Files
from chervil_broker.journal.layout import (
    ALIGNMENT,
    SEGMENT_HEADER_SIZE,
    Frame,
    LayoutError,
    SegmentHeader,
    VersionError,
    first_of,
    unpack_frame,
    unpack_records,
)
from chervil_broker.journal.records import Kind
from chervil_broker.journal.segments import Position, Segment

#: Where a frame's header holds the segment's salt, counted from the frame's begin.
SALT_AT = 32

_CLOSE = Kind.CLOSE.value


class Damage(Exception):
    """A journal that must not be opened as it is: something durable is missing or is not the same."""

    def __init__(
        self, file: str, offset: int, what: str, at_risk: int | None = None, *, repairable: bool = True
    ) -> None:
        super().__init__(file, offset, what, at_risk)
        self.file = file
        self.offset = offset
        self.what = what
        #: Records that can not be read; None: nobody knows.
        self.at_risk = at_risk
        self.repairable = repairable

    def __str__(self) -> str:
        if not self.repairable:
            return f"{self.file}: {self.what}"
        return f"{self.file}, offset {self.offset}: {self.what}; records at risk: {counted(self.at_risk)}"

    def advice(self, folder: str | PathLike[str]) -> str:
        """The whole message for people: what is wrong with the journal in this folder, and what to type."""
        if not self.repairable:
            return f"the journal in {fspath(folder)} can not be opened: {self}"
        return (
            f"the journal in {fspath(folder)} is damaged: {self}. Nothing was changed. "
            f"To see what can be saved, and to save it: chervil broker repair {shlex.quote(fspath(folder))}"
        )


class Found(NamedTuple):
    """A frame and the segment that it stands in."""

    segment: Segment
    header: SegmentHeader
    frame: Frame
    #: Without their lengths.
    records: list[bytes]


class Tail(NamedTuple):
    """Where a journal ends."""

    position: Position
    #: Bytes from there to the last one that is not zero: 0 unless a crash tore the end.
    torn: int
    #: The highest sequence that some frame says was durable.
    durable: int


class Reader:
    """Reads a journal once: iterate over it, then ask for its tail. Holds one segment at a time in memory."""

    def __init__(self, files: Files) -> None:
        self._files = files
        #: After the last frame; None in a folder without segments.
        self.tail: Tail | None = None
        #: That of the broker, as the oldest segment names it.
        self.instance = b""

    def __iter__(self) -> Iterator[Found]:
        """Raises Damage where the journal must not be opened, OSError where it can not be read."""
        names = segment_names(self._files)
        for name, following in itertools.zip_longest(names, names[1:]):
            yield from self._frames(name, following)

    def _frames(self, name: str, following: str | None) -> Iterator[Found]:
        """The frames of one segment; `following` is the name of the next one."""
        data = read_all(self._files, name)
        header = self._header(name, data)
        segment = Segment(name, header.number, header.first, len(data))
        offset, sequence = SEGMENT_HEADER_SIZE, header.first
        durable = self.tail.durable if self.tail else 0
        closed = False
        while not closed:
            try:
                frame = unpack_frame(data, offset, header.salt)
                if frame.first != sequence:
                    raise LayoutError(f"a frame begins with record {frame.first}, not with {sequence}")
                records = unpack_records(frame)
            except LayoutError as error:
                problem = str(error)
                break
            yield Found(segment, header, frame, records)
            offset, sequence, durable = frame.end, sequence + frame.record_count, max(durable, frame.durable)
            closed = bool(records) and is_close(records[-1])
        else:
            problem = "something follows the record of a clean end"
        torn = max(len(data.rstrip(b"\0")) - offset, 0)
        if torn:
            after = _witness(data, offset, header.salt, sequence)
            if after or closed or following:
                at_risk = _between(sequence, after.first if after else None)
                raise Damage(name, offset, problem, at_risk or _between(sequence, first_of(following or "")))
        segments = (*(self.tail.position.segments if self.tail else ()), segment)
        self.tail = Tail(Position(segments, offset, sequence - 1, closed), torn, durable)

    def _header(self, name: str, data: bytes) -> SegmentHeader:
        """The header of the segment that comes next; `tail` is still that of the one before."""
        try:
            header = SegmentHeader.unpack(data)
        except VersionError as error:
            raise newer_version(name, error) from None
        except LayoutError as error:
            raise Damage(name, 0, str(error)) from None
        if header.first != first_of(name):
            raise Damage(name, 0, f"it begins with record {header.first}, which is not what its name says")
        if self.tail is None:
            self.instance = header.instance
            return header
        before, sequence = self.tail.position.segments[-1], self.tail.position.sequence + 1
        if header.instance != self.instance:
            raise Damage(name, 0, f"it is of another broker than {before.name}")
        if header.number <= before.number or header.first < sequence:
            raise Damage(
                name, 0, f"it does not go on from {before.name}, which ends before record {sequence}"
            )
        at_risk = _between(sequence, header.first)
        if header.number > before.number + 1:
            missing = header.number - before.number - 1
            raise Damage(name, 0, f"segments that are missing before it: {missing}", at_risk)
        if header.first > sequence:
            raise Damage(before.name, self.tail.position.offset, "its last records are missing", at_risk)
        return header


def newer_version(name: str, error: VersionError) -> Damage:
    """What is no damage at all, but not for this program."""
    return Damage(name, 0, f"{error}: open it with the newer program", repairable=False)


def segment_names(files: Files) -> list[str]:
    """The segments of a folder, oldest first."""
    return [name for name in files.names() if first_of(name) is not None]


def read_all(files: Files, name: str) -> bytes:
    file = files.open(name)
    try:
        return file.read(file.size(), 0)
    finally:
        file.close()


def next_frame(data: bytes, offset: int, salt: bytes) -> Frame | None:
    """The first valid frame at `offset` or a later multiple of 8; whether its sequence is right is not asked.

    The salt is looked for, and not the magic: no task's body can hold it, as nobody is told of it.
    """
    at = data.find(salt, offset + SALT_AT)
    while at >= 0:
        if (at - SALT_AT) % ALIGNMENT == 0:
            with contextlib.suppress(LayoutError):
                return unpack_frame(data, at - SALT_AT, salt)
        at = data.find(salt, at + 1)
    return None


def _witness(data: bytes, offset: int, salt: bytes, sequence: int) -> Frame | None:
    """The first valid frame from there on that shows that what should stand at `offset` was durable once.

    Without it the frames behind `offset` came to the disk before it did: not each one is synced with every
    `--fsync`.
    """
    while frame := next_frame(data, offset, salt):
        # Of the same sequence: what is damaged is a MARK, and those are durable before anything follows.
        if frame.first <= sequence or frame.durable >= sequence:
            return frame
        offset = frame.end
    return None


def is_close(record: bytes) -> bool:
    """Whether it is the record of a clean end, by its kind alone: a msgpack array, then a small number."""
    return len(record) > 1 and record[0] & 0xF0 == 0x90 and record[1] == _CLOSE


def counted(records: int | None) -> str:
    return "not known how many" if records is None else f"{records:,}"


def _between(sequence: int, first: int | None) -> int | None:
    """Records from `sequence` to before `first`; None where that says nothing."""
    return None if first is None or first <= sequence else first - sequence
