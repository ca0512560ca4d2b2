"""Publishes of many coroutines gathered into frames: what is handed in during one turn of the loop goes out
together.
"""

import asyncio
from typing import TYPE_CHECKING

from chervil.protocol.rows import TaskRow
from chervil.publication import Publication

if TYPE_CHECKING:
    from chervil.aio.client import SharedLine

#: What the rows of one publication have in common: seconds to their deadline, and whether to wait for room.
_Terms = tuple[float, bool]
_Entry = tuple["asyncio.Future[None]", list[TaskRow]]


class Gathering:
    """Publishes for many callers; each learns of its own rows.

    A publication runs in a task of its own, so that a caller that is cancelled takes no other's with it.
    What is under way is bounded by the callers that wait for it, and in time by their deadlines.
    """

    def __init__(self, lines: "SharedLine") -> None:
        self._lines = lines
        self._loop = asyncio.get_running_loop()
        #: What was handed in during this turn.
        self._entries: dict[_Terms, list[_Entry]] = {}
        self._running: set[asyncio.Task[None]] = set()

    async def publish(self, rows: list[TaskRow], deadline: float, wait: bool) -> None:
        """Returns when all rows are confirmed; raises what `Publication.error` says of them."""
        future = self._loop.create_future()
        terms = (deadline, wait)
        entries = self._entries.get(terms)
        if entries is None:
            entries = self._entries[terms] = []
            self._loop.call_soon(self._start, terms)
        entries.append((future, rows))
        await future

    async def finish(self) -> None:
        """Waits for all that is under way."""
        for terms in list(self._entries):
            self._start(terms)
        if self._running:
            await asyncio.wait(self._running)

    def _start(self, terms: _Terms) -> None:
        entries = self._entries.pop(terms, None)
        if entries:
            task = self._loop.create_task(self._run(entries, *terms))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def _run(self, entries: list[_Entry], deadline: float, wait: bool) -> None:
        rows = entries[0][1] if len(entries) == 1 else [row for _, mine in entries for row in mine]
        publication = Publication(rows, wait)
        try:
            await publication.run(self._lines, self._lines.now() + deadline)
        except BaseException as error:
            # The loop is ending, or this is a mistake of ours: nobody is left waiting.
            for future, _ in entries:
                if isinstance(error, Exception) and not future.done():
                    future.set_exception(error)
                else:
                    future.cancel()
            if not isinstance(error, Exception):
                raise
            return
        for future, mine in entries:
            # A caller that was cancelled has left.
            if not future.done():
                _tell(future, publication.error(mine))


def _tell(future: "asyncio.Future[None]", error: Exception | None) -> None:
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)
