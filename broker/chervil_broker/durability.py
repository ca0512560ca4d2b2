"""The data folder under a running broker: opened and read first, cared for, closed in order."""

import asyncio
import logging
from typing import TYPE_CHECKING

from chervil.protocol.limits import FRAME_BATCH
from chervil.statedir import NotPrivate
from chervil_broker.clock import Clock
from chervil_broker.journal.commit import Committer
from chervil_broker.journal.records import Close, pack
from chervil_broker.journal.store import JournalStore
from chervil_broker.journal_care import JournalCare
from chervil_broker.options import BrokerOptions
from chervil_broker.recovery import recover

if TYPE_CHECKING:
    from chervil_broker.broker import Broker

log = logging.getLogger("chervil.broker")


class JournalFailed(Exception):
    """The journal could not be written; the text says what to do."""


def _record_max(options: BrokerOptions) -> int:
    """Bytes of the largest record: a task with its body, its headers and a result."""
    return 2 * options.body_limit + FRAME_BATCH


class Durability:
    """Of one broker; made in its event loop."""

    def __init__(self, options: BrokerOptions, clock: Clock) -> None:
        """Raises as `open_folder` does; it takes as long as reading the journal does."""
        self.folder = options.folder
        self._clock = clock
        try:
            self._opened, self.recovered = recover(self.folder, options.fsync, clock, _record_max(options))
        except NotPrivate:
            raise
        except OSError as error:
            raise JournalFailed(f"the data folder {self.folder} can not be used: {error}") from error
        self.files = self._opened.files
        writer, spares = self._opened.writer, self._opened.spares
        committer = Committer(writer, spares, asyncio.get_running_loop().call_soon_threadsafe)
        self.store = JournalStore(committer, lambda: writer.segments, options.fsync)
        self._failure: OSError | None = None

    def start(self, stop: asyncio.Event) -> None:
        """Begins to write; sets `stop` when the journal can not be written any more."""

        def failed(error: OSError) -> None:
            self._failure = error
            stop.set()

        self.store.on_failed = failed
        self.store.start()

    async def care_for(self, broker: "Broker") -> None:
        """Runs for ever."""
        await JournalCare(broker, self.store, self.files).run()

    def raise_if_failed(self) -> None:
        """Raises JournalFailed."""
        if self._failure is not None:
            raise JournalFailed(
                f"the journal in {self.folder} can not be written: {self._failure}. What was confirmed is in "
                "it, and whoever waited for a confirm was told nothing. Look after the disk, then start the "
                "broker again"
            )

    async def close(self) -> None:
        """Writes that the end was in order, when all that was appended is durable. Raises JournalFailed."""
        end = [pack(Close(self._clock.now(), self._clock.wall()))]
        try:
            if not await asyncio.to_thread(self.store.stop, end):
                await asyncio.sleep(0)  # the callback that says why
                self.raise_if_failed()
        finally:
            self._opened.lock.release()
