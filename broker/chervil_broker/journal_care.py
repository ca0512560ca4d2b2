"""What an open journal needs while the broker runs: compaction, the clocks, a word when the disk is full."""

import asyncio
import logging
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from chervil_broker.engine.engine import Engine
from chervil_broker.journal.compaction import DISK_MIN, Compaction, Mention, Need, mentions
from chervil_broker.journal.files import Files
from chervil_broker.journal.layout import LayoutError
from chervil_broker.journal.records import RecordError, Tick, pack
from chervil_broker.journal.store import JournalStore

if TYPE_CHECKING:
    from chervil_broker.broker import Broker

log = logging.getLogger("chervil.broker")

#: How often it is looked whether there is something to compact, in seconds.
LOOK_SECONDS = 1.0
#: How long compaction holds the loop at a time, and leaves it to others then, in seconds.
SLICE_SECONDS = 0.001
PAUSE_SECONDS = 0.002
#: How often the clocks are written where nothing else tells the time: a broker that is killed after idle days
#: has broker time go on from there.
TICK_SECONDS = 60.0


class JournalCare:
    """Looks after the journal of one broker."""

    def __init__(self, broker: "Broker", store: JournalStore, files: Files, disk_min: int = DISK_MIN) -> None:
        """`disk_min`: nothing is compacted while all files take no more bytes than that."""
        self._broker = broker
        self._store = store
        self._files = files
        self._need = Need(disk_min)
        self._compaction = Compaction(
            broker.bodies, self._engine_of, broker.sessions.record_of, lambda: store.segment
        )
        self._ticked_at = broker.seconds()
        #: The number of the last batch that was written again.
        self._last = 0
        store.on_short = self._disk_is_short
        if store.short:
            self._disk_is_short(True)

    async def run(self) -> None:
        """Runs for ever."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            await self.look()

    async def look(self) -> None:
        """Does what is due."""
        now = self._broker.seconds()
        if now - self._ticked_at >= TICK_SECONDS:
            self._ticked_at = now
            clock = self._broker.clock
            self._store.append([pack(Tick(clock.now(), clock.wall()))])
        while self._is_due():
            await self._compact_oldest()

    def _is_due(self) -> bool:
        stats = self._store.committed
        return self._need.is_due(stats.disk, self._broker.live_bytes(), self._store.segments(), stats.written)

    async def _compact_oldest(self) -> None:
        """Writes again what the oldest segment alone tells, and removes it when that is durable."""
        oldest, following, *_ = self._store.segments()
        frames = mentions(self._files, oldest, following)
        copied = 0
        try:
            while (found := await asyncio.to_thread(self._next_needed, frames, oldest.number)) is not None:
                copied += await self._write_again(found, oldest.number)
        except (LayoutError, RecordError, OSError) as error:
            log.error(  # noqa: TRY400 -- the message says it all
                "the oldest segment of the journal, %s, can not be read: %s. Nothing is lost, as all that it "
                "tells is in memory too: it is written once more. Look after the disk",
                oldest.name,
                error,
            )
            everything = self._compaction.everything(self._broker.vhosts, self._broker.sessions.numbers())
            copied += await self._write_again(everything, oldest.number)
        # What was of no use as the engines have it is of none once all that they decided is durable.
        self._broker.pump.settle()
        await self._broker.pump.when_durable(max(self._last, self._broker.pump.sequence))
        self._store.remove_oldest()
        while self._store.segments()[0] == oldest:  # noqa: ASYNC110 -- a thread removes it
            await asyncio.sleep(PAUSE_SECONDS)
        self._need.removed(oldest.size, copied)
        log.debug("the journal's oldest segment, %s, was compacted", oldest.name)

    def _next_needed(self, frames: Iterator[list[Mention]], oldest: int) -> list[Mention] | None:
        """What of some frames may have to be written again; None at their end."""
        for found in frames:
            needed = self._compaction.needed(found, oldest)
            if needed:
                return needed
        return None

    async def _write_again(self, found: Iterable[Mention], oldest: int) -> int:
        """Writes what is needed of it, and leaves the loop to others in between; how many bytes it took."""
        copies = self._compaction.copies(found, oldest)
        size = 0
        more = True
        while more:
            records, more = self._slice(copies)
            if records:
                size += sum(map(len, records))
                self._last = self._store.append(records)
            await asyncio.sleep(PAUSE_SECONDS)
        return size

    def _slice(self, copies: Iterator[bytes | None]) -> tuple[list[bytes], bool]:
        """As many as a slice of time takes, and whether there may be more."""
        self._broker.pump.settle()
        end = time.monotonic() + SLICE_SECONDS
        records = []
        for copy in copies:
            if copy is not None:
                records.append(copy)
            if time.monotonic() >= end:
                return records, True
        return records, False

    def _engine_of(self, vhost: str) -> Engine | None:
        found = self._broker.vhosts.get(vhost)
        return None if found is None else found.engine

    def _disk_is_short(self, short: bool) -> None:
        if short:
            log.error(
                "the disk is full: publishes are refused until there is room for the journal; "
                "what runs can still be completed"
            )
            self._broker.refuse_publishes(
                "the broker's disk is full; make room there, and it goes on by itself"
            )
        else:
            log.info("there is room on the disk again: publishes are taken")
            self._broker.refuse_publishes(None)
