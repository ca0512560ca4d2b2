"""The blocking client: publish, query, wait and the rest over a pool of lines."""

import os
import socket
from collections.abc import Callable, Iterator
from functools import partial
from sys import modules
from time import monotonic
from typing import TYPE_CHECKING, Any

from chervil import asking
from chervil.address import Addresses, Found
from chervil.asking import REQUEST_SECONDS
from chervil.asking import Status as Status  # noqa: PLC0414  # what `query` and `wait` give
from chervil.conversation import LineBroken, run
from chervil.exceptions import OperationalError
from chervil.exchange import Exchange, Request, parts
from chervil.line import Line, open_line
from chervil.loop_hint import HINT_AFTER, hint
from chervil.pool import Pool
from chervil.protocol import WireId, to_wire
from chervil.protocol.rows import TaskRow
from chervil.publication import Publication

if TYPE_CHECKING:
    from chervil.aio import AsyncClient, Loops

#: Dead letters asked for at a time.
PAGE = 100


class Client:
    """Talks to one broker; may be used from several threads, and after a fork.

    Every method connects when it must. All raise OperationalError when the broker cannot be reached.
    """

    #: The clients of event loops, once there are any.
    _loops: "Loops | None" = None

    def __init__(
        self, found: Found, name: str | None = None, pool_limit: int = 10, connect_timeout: float = 4.0
    ) -> None:
        """`name` is what the broker's logs call this client; `pid@host` unless given."""
        self.found = found
        self._addresses = Addresses(found)
        self._where = f"the broker at {found.redacted}"
        self._name = name
        self._connect_timeout = connect_timeout
        self._lines = Pool(self._addresses, self._connect, pool_limit)

    def publish(
        self,
        rows: list[TaskRow],
        deadline: float = 10.0,
        wait: bool = True,
        on_full: Callable[[], None] | None = None,
    ) -> None:
        """Publishes tasks; returns when the broker has confirmed all of them.

        `deadline` in seconds. When the connection breaks the same rows are sent again, which makes no
        second task. A broker that is full is waited for until the deadline, and `on_full` called once when
        that begins; not so with `wait` False, which is for calls from inside of tasks, whose end may be what
        makes room. Raises PublishRefused for rows
        that were not stored (the others are confirmed), PublishUnconfirmed when rows were sent and not
        confirmed before the deadline, OperationalError when nothing was sent at all.
        """
        started = monotonic()
        publication = Publication(rows, wait, on_full)
        end = started + deadline
        try:
            self._publish(publication, end)
        finally:
            # Whoever runs an event loop has loaded asyncio.
            if "asyncio" in modules and monotonic() - started > HINT_AFTER:
                hint("delay", "adelay", monotonic() - started)
        if publication.failed:
            error = publication.error()
            if error is not None:
                raise error

    def query(self, ids: list[str], deadline: float = REQUEST_SECONDS) -> list[Status]:
        """What the broker knows of each task, in the order asked. Raises ValueError for what is no id.

        `deadline` is how many seconds the answer may take.
        """
        wires = [to_wire(id_) for id_ in ids]
        return run(asking.query(self._lines, self._where, wires, deadline))

    def history(self, id_: str) -> dict[str, Any]:
        """A task's life (protocol.md, HISTORY); its `stage` is UNKNOWN where the broker does not know it."""
        wire = to_wire(id_)
        return self._report(lambda exchange: exchange.history(wire))

    def reach(self) -> None:
        """Has the broker greet this client, unless a connection is kept that it has greeted before."""
        line = run(self._lines.take_beside(None))
        self._lines.give_beside(line)

    def stats(self) -> dict[str, Any]:
        """The broker's report on itself (protocol.md, REPORT)."""
        return self._report(lambda exchange: exchange.stats())

    def dead(self, limit: int = PAGE) -> Iterator[dict[str, Any]]:
        """All dead letters, oldest first (protocol.md, LIST), asked for `limit` at a time."""
        cursor: str | None = None
        while True:
            page = self._page("dead", cursor, limit)
            tasks, following = page.get("tasks"), page.get("cursor")
            if not isinstance(tasks, list) or not isinstance(following, str | None):
                raise OperationalError(f"{self._where} lists dead letters in a form that is none")
            yield from tasks
            if following is None:
                return
            if following == cursor or not tasks:
                raise OperationalError(f"{self._where} lists dead letters without an end")
            cursor = following

    def revoke(self, ids: list[str], terminate: bool = False, signal: int | None = None) -> int:
        """Calls tasks off; with `terminate` running ones too, by `signal` (SIGTERM unless given).

        Returns how many were not final. An id that is not known is remembered: it is called off when it
        is published.
        """
        return self._count(ids, lambda exchange, part: exchange.revoke(part, terminate, signal))

    def rerun(self, ids: list[str]) -> int:
        """Runs final tasks that did not succeed again, under their own ids; returns how many."""
        return self._count(ids, lambda exchange, part: exchange.rerun(part))

    def forget(self, ids: list[str]) -> int:
        """Drops final tasks, dead letters among them, with their results; returns how many."""
        return self._count(ids, lambda exchange, part: exchange.forget(part))

    def purge(self, queues: list[str]) -> int:
        """Revokes the ready and scheduled tasks of queues (none named: of all); returns how many."""
        return run(asking.count(self._lines, self._where, lambda exchange: iter([exchange.purge(queues)])))

    def wait(
        self,
        ids: list[str],
        timeout: float | None = None,
        on_wait: Callable[[list[Status]], None] | None = None,
        on_lost: Callable[[str], None] | None = None,
        patience: float | None = None,
    ) -> list[Status]:
        """Waits until all tasks are settled; returns their statuses in the order asked.

        After `timeout` seconds it returns what is known, unsettled ones included; with 0 it asks once, as
        `query` does. `on_wait` is called once, after `watching.ASK_WHY_AFTER` seconds in vain, with the
        statuses of those that are open. When the connection breaks, or nothing is heard of an answer for
        `asking.REQUEST_SECONDS`, it calls `on_lost` with a line that says so, once for each loss, then
        connects and watches again, for `patience` seconds where they are given. A broker that has been silent
        for `watching.QUIET_SECONDS` is asked for a word.

        Raises OperationalError when this client has never reached the broker, when that is not back within
        `patience`, or refuses, and for a timeout of 0 when the one question is not answered; chervil's
        TimeoutError when the timeout passes while the broker is away, or before it has said a word about some
        of the tasks.
        """
        from chervil.watching import Watching

        started = monotonic()
        watching = Watching(
            self._lines, self._where, ids, timeout, on_wait, on_lost=on_lost, patience=patience
        )
        try:
            return run(watching.run())
        finally:
            if "asyncio" in modules and monotonic() - started > HINT_AFTER:
                hint("get", "aget", monotonic() - started)

    def close(self) -> None:
        """Closes the idle connections, and those of event loops; the client may be used again.

        A coroutine that still waits on one is told so by an OperationalError.
        """
        self._lines.close()
        if self._loops is not None:
            self._loops.close()

    @property
    def aio(self) -> "AsyncClient":
        """The same for coroutines: the client of the event loop that runs."""
        loops = self._loops
        if loops is None:
            from chervil.aio import AsyncClient, Loops

            made = Loops(partial(AsyncClient, self._addresses, self._name, self._connect_timeout))
            # Two threads may both make one; this has them agree on the same without a lock.
            loops = vars(self).setdefault("_loops", made)
        return loops.client()

    async def aleave(self) -> None:
        """Ends an `async with` block of this loop; the last one closes the loop's connection.

        That waits for what is being published, and closes the idle connections of blocking calls too.
        """
        if self._loops is not None:
            await self._loops.leave()
        self._lines.close()

    def _publish(self, publication: Publication, end: float) -> None:
        failure: Exception | None = None
        line = self._lines.idle()
        if line is not None:
            try:
                done = publication.run_directly(line, end)
            except (LineBroken, TimeoutError) as error:
                self._lines.drop(line, error)
                failure = error
            except BaseException as error:
                self._lines.drop(line, error)
                raise
            else:
                self._lines.give(line)
                if done:
                    return
        run(publication.run(self._lines, end, failure))

    def _report(self, request: Callable[[Exchange], Request]) -> dict[str, Any]:
        return run(asking.report(self._lines, self._where, request))

    def _page(self, kind: str, cursor: str | None, limit: int) -> dict[str, Any]:
        return self._report(lambda exchange: exchange.page(kind, cursor, limit))

    def _count(self, ids: list[str], request: Callable[[Exchange, list[WireId]], Request]) -> int:
        wires = [to_wire(id_) for id_ in ids]

        def requests(exchange: Exchange) -> Iterator[Request]:
            return (request(exchange, part) for part in parts(wires))

        return run(asking.count(self._lines, self._where, requests))

    def _connect(self, end: float | None) -> Line:
        return open_line(self._addresses, client_name(self._name), self._connect_timeout, end)


def client_name(given: str | None) -> str:
    """What a client calls itself to the broker."""
    return given or f"{os.getpid()}@{socket.gethostname()}"
