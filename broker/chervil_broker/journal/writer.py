"""Puts records into the journal: frames, segments, and when they are made durable. No threads here."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

from chervil_broker.journal.files import File, Files
from chervil_broker.journal.layout import (
    PAYLOAD_MAX,
    SEGMENT_HEADER_SIZE,
    SegmentHeader,
    frame_size,
    pack_frame,
    segment_name,
)
from chervil_broker.journal.segments import Position, Segment
from chervil_broker.journal.spares import NoRoom, Spares

#: When frames are made durable: each at once, all once a second, or when their segment ends.
Fsync = Literal["always", "interval", "off"]

#: What a MARK takes. Every frame leaves room for one behind it.
MARK_SIZE = frame_size(0)
#: What is written once more at a start goes in pieces of this many bytes.
_PIECE = 1024 * 1024


class JournalStopped(OSError):
    """The journal failed before, or is closed: nothing is written to it any more."""


class Writer:
    """The journal's end. One thread writes; another may use `segments` and `remove_oldest`.

    After any failed call of the file layer it is dead: a sync that failed is never tried again, for the
    kernel may then call pages clean that it has lost. Every later call raises JournalStopped. (NoRoom is
    no such failure.)
    """

    def __init__(
        self,
        files: Files,
        spares: Spares,
        instance: bytes,
        *,
        opening: Callable[[], bytes],
        new_salt: Callable[[], bytes],
        fsync: Fsync = "always",
    ) -> None:
        """`opening` makes the OPEN record that each segment begins with; it has a sequence as any record.

        `new_salt` makes 8 random bytes.
        """
        self.fsync = fsync
        #: Sequence of the last record written.
        self.sequence = 0
        #: Sequence of the last record that a sync has followed.
        self.durable = 0
        #: Bytes of all frames that this writer has written.
        self.written = 0
        self._files = files
        self._spares = spares
        self._instance = instance
        self._opening = opening
        self._new_salt = new_salt
        self._segments: tuple[Segment, ...] = ()
        #: Two threads put another tuple there.
        self._segments_lock = threading.Lock()
        self._file: File | None = None
        #: Of the last segment.
        self._salt = b""
        self._offset = 0
        #: A frame was written since the last sync.
        self._unsynced = False
        #: The last frame is a MARK.
        self._marked = False
        self._failure: BaseException | None = None

    @property
    def segments(self) -> tuple[Segment, ...]:
        """Oldest first; the last one is written to."""
        return self._segments

    @property
    def unsynced(self) -> bool:
        """Whether a frame is written that no sync has followed."""
        return self._unsynced

    def begin(self, position: Position | None) -> None:
        """Goes on where a recovery found the end, with a durable OPEN record; once, before all else.

        In the last segment, or in a new one behind a CLOSE record and in an empty folder (None).
        """
        with self._or_dead():
            if position is not None:
                self._segments = position.segments
                self.sequence = position.sequence
                self._take_over(position)
            self._spares.begin(self._segments[-1].size if self._segments else 0)
            opening = self._opening()
            if self._fits(len(opening)) and not (position and position.clean):
                self._put([opening])
            else:
                self._put_in_new_segment(())
            self._sync()

    def write(self, records: Sequence[bytes]) -> None:
        """Makes one frame of these records (`pack_record`); with fsync `always` it is durable then.

        Raises NoRoom where a new segment is needed and can not be made: nothing of the frame is written,
        and it may be tried again.
        """
        with self._or_dead():
            self._write(records)
            if self.fsync == "always":
                self._sync()

    def mark(self) -> None:
        """Writes a durable MARK where the last frame is none; what was not synced before it is, first.

        So a MARK is durable before anything follows it, with any fsync.
        """
        with self._or_dead():
            if not self._marked:
                self._sync()
                self._put(())
                self._marked = True
                self._sync()

    def sync(self) -> None:
        """Has all that is written be durable."""
        with self._or_dead():
            self._sync()

    def close_clean(self, records: Sequence[bytes]) -> None:
        """Writes the last frame, whose last record is a CLOSE, has it be durable, and closes the file."""
        with self._or_dead():
            self._write(records)
            self._sync()
        self.close()

    def close(self) -> None:
        """Closes the file and no more. Nothing is written after it."""
        if self._file is not None:
            self._file.close()
            self._file = None
        if self._failure is None:
            self._failure = JournalStopped("it is closed")

    def remove_oldest(self) -> None:
        """Removes the oldest segment, durably: so no loss of power takes a newer one and leaves this one.

        Not the one that is written to: ValueError.
        """
        if len(self._segments) < 2:
            raise ValueError("the last segment is not removed")
        with self._or_dead():
            self._files.remove(self._segments[0].name)
            self._files.sync_folder()
            with self._segments_lock:
                self._segments = self._segments[1:]

    def _take_over(self, position: Position) -> None:
        """Opens the segment that an earlier process wrote; what that one left unsynced is made durable.

        The file was read as the kernel remembers it. Where a sync failed, that is not what the disk holds,
        and another sync would say nothing of it: so what is there is written once more.
        """
        self._file = self._files.open(position.segments[-1].name)
        self._salt = SegmentHeader.unpack(self._file.read(SEGMENT_HEADER_SIZE, 0)).salt
        self._offset = position.offset
        for offset in range(0, self._offset, _PIECE):
            self._file.write(self._file.read(min(_PIECE, self._offset - offset), offset), offset)
        self._unsynced = True
        self._sync()
        self._files.sync_folder()

    def _write(self, records: Sequence[bytes]) -> None:
        if self._fits(sum(map(len, records))):
            self._put(records)
        else:
            self._put_in_new_segment(records)

    def _fits(self, payload: int) -> bool:
        return (
            self._file is not None
            and self._offset + frame_size(payload) + MARK_SIZE <= self._segments[-1].size
        )

    def _put_in_new_segment(self, records: Sequence[bytes]) -> None:
        records = [self._opening(), *records]
        payload = sum(map(len, records))
        if payload > PAYLOAD_MAX:
            raise ValueError(f"{payload:,} bytes of records; a frame holds {PAYLOAD_MAX:,}")
        self._begin_segment(SEGMENT_HEADER_SIZE + frame_size(payload) + MARK_SIZE)
        self._put(records)

    def _begin_segment(self, size: int) -> None:
        """Makes a segment of at least so many bytes, and writes there from now on."""
        spare, size = self._spares.take(size)
        # A segment that another one follows must be whole.
        self._sync()
        number = self._segments[-1].number + 1 if self._segments else 1
        header = SegmentHeader(self._instance, number, self.sequence + 1, self._new_salt())
        file = self._files.open(spare)
        try:
            file.write(header.pack(), 0)
            file.sync()
            name = segment_name(header.first)
            self._files.rename(spare, name)
            self._files.sync_folder()
        except BaseException:
            file.close()
            raise
        if self._file is not None:
            self._file.close()
        self._file = file
        self._salt = header.salt
        self._offset = SEGMENT_HEADER_SIZE
        with self._segments_lock:
            self._segments = (*self._segments, Segment(name, number, header.first, size))

    def _put(self, records: Sequence[bytes]) -> None:
        """Writes one frame, for which there is room."""
        assert self._file is not None
        frame = pack_frame(records, self.sequence + 1, self.durable, self._salt)
        self._file.write(frame, self._offset)
        self._offset += len(frame)
        self.written += len(frame)
        self.sequence += len(records)
        self._unsynced = True
        self._marked = False

    def _sync(self) -> None:
        if self._unsynced:
            assert self._file is not None
            self._file.sync()
            self._unsynced = False
            self.durable = self.sequence

    @contextmanager
    def _or_dead(self) -> Iterator[None]:
        """What fails in it was the last thing tried."""
        if self._failure is not None:
            reason = f"the journal is not written to any more: {self._failure}"
            raise JournalStopped(reason) from self._failure
        try:
            yield
        except NoRoom:
            raise
        except BaseException as error:
            self._failure = error
            raise
