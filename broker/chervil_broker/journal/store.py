"""The journal as the broker's store."""

from collections.abc import Callable, Iterator
from typing import Any

from chervil_broker.journal.commit import Committer, Stats
from chervil_broker.journal.segments import Segment
from chervil_broker.journal.writer import Fsync
from chervil_broker.store import nobody


class JournalStore:
    """Batches go to the commit thread of an open data folder (opening.py); lives in one event loop."""

    keeps = True

    def __init__(
        self, committer: Committer, segments: Callable[[], tuple[Segment, ...]], fsync: Fsync
    ) -> None:
        """`segments` are those that the writer has, oldest first."""
        self.durability: str = fsync
        self.on_durable: Callable[[int], None] = nobody
        #: Called when the disk is too full for a spare segment, and when it is not any more.
        self.on_short: Callable[[bool], None] = _nobody
        #: Called once with what failed: nothing is durable from then on.
        self.on_failed: Callable[[OSError], None] = _nobody
        self.segments = segments
        self._committer = committer
        self._segment = segments()[-1].number
        #: Whether the disk is too full for a spare segment.
        self.short = False
        self._given_up = False
        committer.on_durable = self._durable
        committer.on_short = self._short
        committer.on_failed = self._failed
        committer.on_segment = self._began
        self.remove_oldest = committer.remove_oldest
        self.start = committer.start
        self.stop = committer.stop

    @property
    def segment(self) -> int:
        """The number of the newest segment that the loop knows of: the thread may be one ahead."""
        return self._segment

    def append(self, records: list[bytes]) -> int:
        """As every store does. What a frame has no room for goes into several, so that it fits in the end.

        A purge of a million tasks is such a batch. A crash may leave the first part of it: then each of its
        tasks is as it was, or as it was to be.
        """
        number = 0
        if self._given_up:
            return number
        for part in _parts(records, self._committer.frame_bytes()):
            number = self._committer.append(part)
        return number

    def give_up(self, error: Exception) -> None:
        """As every store does; `on_failed` hears of it. What was appended before is durable still."""
        if not self._given_up:
            self._given_up = True
            self.on_failed(OSError(f"an error of the broker's own, {type(error).__name__}: {error}"))

    # The thread calls these in the loop. Who listens is known later than the committer is.

    def _durable(self, number: int) -> None:
        self.on_durable(number)

    def _short(self, short: bool) -> None:
        self.short = short
        self.on_short(short)

    def _failed(self, error: OSError) -> None:
        self.on_failed(error)

    def _began(self, number: int) -> None:
        self._segment = number

    @property
    def committed(self) -> Stats:
        """What the journal has done and holds."""
        return self._committer.stats()

    def stats(self) -> dict[str, Any]:
        """The map `journal` of a REPORT for STATS."""
        stats = self._committer.stats()
        return {
            "commits": stats.commits,
            "commit_p50_ms": round(stats.p50_ms, 3),
            "commit_p99_ms": round(stats.p99_ms, 3),
            "written_bytes": stats.written,
            "segments": stats.segments,
            "disk_bytes": stats.disk,
        }


def _parts(records: list[bytes], most: int) -> Iterator[list[bytes]]:
    """The records in parts of so many bytes, or of one record."""
    if sum(map(len, records)) <= most:
        yield records
        return
    part: list[bytes] = []
    size = 0
    for record in records:
        if part and size + len(record) > most:
            yield part
            part, size = [], 0
        part.append(record)
        size += len(record)
    yield part


def _nobody(_: Any) -> None:
    """Stands in until somebody listens."""
