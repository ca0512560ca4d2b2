"""Group commit: one thread writes and syncs what the loop has appended meanwhile, as one frame."""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple

from chervil_broker.journal.housekeeping import Housekeeper
from chervil_broker.journal.spares import NoRoom, Spares
from chervil_broker.journal.writer import Writer

log = logging.getLogger("chervil.broker")

#: A frame takes no further append() once it has so many bytes: what a reader holds at once stays small, and
#: the first in it does not wait for long.
FRAME_BYTES = 8 * 1024 * 1024
#: Seconds after a frame that no other followed when a MARK is written (docs/journal-format.md).
MARK_SECONDS = 0.005
#: With fsync `interval`: seconds after the first unsynced frame when the sync begins.
INTERVAL_SECONDS = 1.0
#: While there is no room for the next segment, a commit is tried again after so many seconds.
RETRY_SECONDS = 1.0
#: How often it is looked whether what stands in for an old segment is synced, so that it can be removed.
SYNC_LOOK_SECONDS = 0.005
#: So many of the last commits' durations are kept for `stats`: 16 KiB, and p99 is the tenth slowest of them.
LATENCIES = 1000


class Stats(NamedTuple):
    """What a journal has done and holds."""

    #: Frames written since the start.
    commits: int
    #: How long the last `LATENCIES` frames took, to be written and, with fsync `always`, synced.
    p50_ms: float
    p99_ms: float
    #: Bytes of frames written since the start.
    written: int
    segments: int
    spares: int
    #: Bytes of the files of segments and spares.
    disk: int


class _Sync(NamedTuple):
    """What was appended before is to be synced."""


class _Stop(NamedTuple):
    """Behind the last append()."""

    records: list[bytes]


class Committer:
    """The thread around a Writer that has begun, and the one around its Spares.

    `append` and `stop` are called in the loop. The callbacks reach it through `call_in_loop`.
    """

    def __init__(self, writer: Writer, spares: Spares, call_in_loop: Callable[..., object]) -> None:
        """`call_in_loop` is the loop's `call_soon_threadsafe`."""
        #: Called with the number of the last append() that is durable, or counts as such.
        self.on_durable: Callable[[int], None] = _nobody
        #: Called once, with what failed: nothing is durable from then on, and the broker is to end.
        self.on_failed: Callable[[OSError], None] = _nobody
        #: Called with True when the disk has no room for a spare segment, with False when it has again.
        self.on_short: Callable[[bool], None] = _nobody
        #: Called with the number of the segment that is written to from now on.
        self.on_segment: Callable[[int], None] = _nobody
        self._writer = writer
        self._spares = spares
        self._call_in_loop = call_in_loop
        self._housekeeper = Housekeeper(spares, self._say_short, self._fail)
        self._appended = 0
        #: The sequence that is to be durable before a segment is removed, whatever `fsync` says.
        self._needed = 0
        #: append() calls that are in a frame.
        self._committed = 0
        self._commits = 0
        self._seconds: deque[float] = deque(maxlen=LATENCIES)
        # Measured: put() takes 0.05 us, and 4 us where it wakes the thread; a condition takes 0.4 and 6.
        self._queue: SimpleQueue[list[bytes] | _Sync | _Stop | None] = SimpleQueue()
        #: Taken from the queue, and too much for the frame before.
        self._held: list[bytes] | _Sync | _Stop | None = None
        #: When, by time.monotonic, a sync or a MARK is due if nothing is appended before.
        self._due: float | None = None
        self._stopping = threading.Event()
        self._failing = threading.Lock()
        self._failed = False
        self._thread = threading.Thread(target=self._run, name="journal-commit", daemon=True)

    def start(self) -> None:
        if self._writer.fsync != "off":
            # The frame with the OPEN record.
            self._due = time.monotonic() + MARK_SECONDS
        self._thread.start()
        self._housekeeper.start()

    def append(self, records: list[bytes]) -> int:
        """Has these records be written, all in one frame; the list is the committer's then.

        Returns the number of this call, from 1, which `on_durable` will name or pass.
        """
        self._appended += 1
        self._queue.put(records)
        return self._appended

    def frame_bytes(self) -> int:
        """A frame takes no further append() once it has so many bytes: each spare has room for two of them.

        Else what is in the reserve would be of no use when the disk is full.
        """
        return min([FRAME_BYTES, *[size // 2 for size in self._spares.sizes]])

    def remove_oldest(self) -> None:
        """Removes the oldest segment soon: nothing in it may be needed. Not the last one.

        What is written by now is synced before, with any fsync: it may stand in for what is removed.
        """
        self._needed = self._writer.sequence
        self._queue.put(_Sync())
        self._housekeeper.do(self._remove_oldest)

    def _remove_oldest(self) -> None:
        """In the housekeeper's thread."""
        while self._writer.durable < self._needed:
            if not self._thread.is_alive():
                return  # it has failed
            time.sleep(SYNC_LOOK_SECONDS)
        self._writer.remove_oldest()

    def stop(self, clean: list[bytes]) -> bool:
        """Commits what was appended, then these records, of which the last is a CLOSE; ends both threads.

        Blocks for as long as that takes; callbacks of it come after. False where the journal has failed.
        """
        self._stopping.set()
        self._housekeeper.stop()
        self._queue.put(_Stop(clean))
        self._thread.join()
        return not self._failed

    def stats(self) -> Stats:
        """Called in the loop."""
        seconds = sorted(self._seconds) or [0.0]
        segments, spares = self._writer.segments, self._spares.sizes
        return Stats(
            commits=self._commits,
            p50_ms=seconds[len(seconds) // 2] * 1000,
            p99_ms=seconds[len(seconds) * 99 // 100] * 1000,
            written=self._writer.written,
            segments=len(segments),
            spares=len(spares),
            disk=sum(segment.size for segment in segments) + sum(spares),
        )

    def _run(self) -> None:
        try:
            while not self._failed:
                item = self._next()
                if isinstance(item, _Stop):
                    self._retried(self._writer.close_clean, item.records)
                    return
                if isinstance(item, _Sync):
                    self._writer.sync()
                elif item is not None:
                    self._commit(item)
                elif not self._failed:
                    self._rest()
        except Exception as error:  # whatever it is, nobody may wait for a commit that never comes
            self._fail(error)
        finally:
            self._writer.close()

    def _next(self) -> list[bytes] | _Sync | _Stop | None:
        """The next item; None when something else is due."""
        if self._held is not None:
            item, self._held = self._held, None
            return item
        try:
            pause = None if self._due is None else max(self._due - time.monotonic(), 0)
            return self._queue.get(timeout=pause)
        except Empty:
            return None

    def _commit(self, records: list[bytes]) -> None:
        """Writes a frame of these records and of what else waits."""
        began = time.monotonic()
        number = self._writer.segments[-1].number
        unsynced = self._writer.unsynced
        count = self._gather(records)
        if records:
            self._retried(self._writer.write, records)
        if self._failed:
            return
        now = time.monotonic()
        self._committed += count
        self._commits += 1
        self._seconds.append(now - began)
        self._call_in_loop(self.on_durable, self._committed)
        newest = self._writer.segments[-1].number
        if newest != number:
            self._housekeeper.wake()
            self._call_in_loop(self.on_segment, newest)
        if self._writer.fsync == "always":
            self._due = now + MARK_SECONDS
        elif self._writer.fsync == "interval":
            if not unsynced or self._due is None:
                self._due = now + INTERVAL_SECONDS
            elif now >= self._due:
                self._rest()

    def _gather(self, records: list[bytes]) -> int:
        """Adds what waits, as far as a frame takes it; how many append() calls the records are of then."""
        count = 1
        size = sum(map(len, records))
        most = self.frame_bytes()
        while True:
            try:
                item = self._queue.get_nowait()
            except Empty:
                return count
            if not isinstance(item, list) or size + (more := sum(map(len, item))) > most:
                self._held = item
                return count
            records += item
            size += more
            count += 1

    def _rest(self) -> None:
        """What is due when nothing was appended for a while: the sync of fsync `interval`, then a MARK."""
        if self._writer.unsynced:
            self._writer.sync()
            self._due = time.monotonic() + MARK_SECONDS
        else:
            self._writer.mark()
            self._due = None

    def _retried(self, write: Callable[[list[bytes]], None], records: list[bytes]) -> None:
        """Writes; while the disk has no room for the next segment it waits, unless the end was asked for."""
        while True:
            try:
                return write(records)
            except NoRoom:
                # What came before is not to wait for it.
                if self._writer.fsync != "off":
                    self._writer.mark()
                elif self._writer.durable < self._needed:
                    self._writer.sync()
                if self._stopping.wait(RETRY_SECONDS) or self._failed:
                    raise

    def _say_short(self, short: bool) -> None:
        self._call_in_loop(self.on_short, short)

    def _fail(self, error: Exception) -> None:
        """In either thread: ends both, and says what failed first."""
        with self._failing:
            if self._failed:
                return
            self._failed = True
        # Wakes the thread, if it is not the one that failed.
        self._queue.put(None)
        if not isinstance(error, OSError):
            log.error("a thread of the journal ended", exc_info=error)
            error = OSError(f"{type(error).__name__}: {error}")
        self._call_in_loop(self.on_failed, error)


def _nobody(_: Any) -> None:
    """Stands in until somebody listens."""
