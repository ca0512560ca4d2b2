"""The journal's other thread: it makes spare segments and removes old ones: no commit waits for it."""

import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue

from chervil_broker.journal.spares import NoRoom, Spares

#: While the disk is full, making a spare is tried again after so many seconds: soon enough for publishers
#: that wait, and a log or another program on the disk notices nothing of it.
RETRY_SECONDS = 1.0


class Housekeeper:
    """A thread around Spares. The callbacks are called in it."""

    def __init__(
        self, spares: Spares, on_short: Callable[[bool], None], on_failed: Callable[[Exception], None]
    ) -> None:
        """`on_short` says that a spare can not be made for want of room, and that all are there again.

        `on_failed` gets any other failure, with which the thread ends.
        """
        self._spares = spares
        self._on_short = on_short
        self._on_failed = on_failed
        self._short = False
        #: What is to be done before spares are looked at again; None ends the thread.
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="journal-housekeeping", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        """A spare was taken."""
        self._jobs.put(_nothing)

    def do(self, job: Callable[[], None]) -> None:
        """Has the thread call this; what it raises is a failure."""
        self._jobs.put(job)

    def stop(self) -> None:
        """Ends the thread after what it was given, and waits for it."""
        self._jobs.put(None)
        self._thread.join()

    def _run(self) -> None:
        try:
            self._make_spares()
            while (job := self._next()) is not None:
                job()
                self._make_spares()
        except Exception as error:  # whatever it is, the journal can not go on without it being known
            self._on_failed(error)

    def _next(self) -> Callable[[], None] | None:
        try:
            return self._jobs.get(timeout=RETRY_SECONDS if self._short else None)
        except Empty:
            return _nothing

    def _make_spares(self) -> None:
        try:
            while self._spares.make():
                pass
            short = False
        except NoRoom:
            short = True
        if short != self._short:
            self._short = short
            self._on_short(short)


def _nothing() -> None:
    """A job: only the spares are to be looked at."""
