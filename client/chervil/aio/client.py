"""The asyncio client of one event loop: the same operations as the blocking one, over one shared line."""

import asyncio
from collections.abc import Callable

from chervil import opening
from chervil.address import Addresses
from chervil.aio.gathering import Gathering
from chervil.aio.line import AsyncLine, connect
from chervil.asking import REQUEST_SECONDS, Status
from chervil.client import client_name
from chervil.conversation import ClientClosed, LineBroken, jittered
from chervil.exceptions import OperationalError
from chervil.protocol.rows import TaskRow
from chervil.watching import Watching

#: Seconds by which a request's deadline may be set before the request is sent: a busy loop takes its time.
DEADLINE_LEAD = 0.5


class AsyncClient:
    """Talks to one broker from one event loop, over one connection.

    A coroutine that is cancelled leaves the connection, and all others, as they are. What it was publishing
    may be stored nevertheless.
    """

    def __init__(self, addresses: Addresses, name: str | None, connect_timeout: float) -> None:
        """Belongs to the running loop. `name` and `connect_timeout` are as in `chervil.client.Client`."""
        self._where = f"the broker at {addresses.found.redacted}"
        self.lines = SharedLine(addresses, name, connect_timeout)
        self._gathering = Gathering(self.lines)
        #: How many `async with app` blocks run; the end of the last one closes it.
        self.entered = 0
        #: Which connection's loss was told last: 0 where there was none on this loop, None before any.
        self._told_of: int | None = None

    async def publish(self, rows: list[TaskRow], deadline: float = 10.0, wait: bool = True) -> None:
        """Publishes tasks, together with others of this turn of the loop; see `Client.publish`."""
        await self._gathering.publish(rows, deadline, wait)

    async def wait(
        self,
        ids: list[str],
        timeout: float | None = None,  # noqa: ASYNC109  # Celery's name, and it holds over reconnections
        on_wait: Callable[[list[Status]], None] | None = None,
        on_lost: Callable[[str], None] | None = None,
    ) -> list[Status]:
        """Waits until all tasks are settled; see `Client.wait`.

        Of all that wait when the connection breaks, only the first one's `on_lost` is called.
        """

        def tell(text: str) -> None:
            if on_lost is not None and self._told_of != self.lines.connections:
                self._told_of = self.lines.connections
                on_lost(text)

        watching = Watching(self.lines, self._where, ids, timeout, on_wait, on_lost=tell, patience=None)
        return await watching.run()

    async def aclose(self) -> None:
        """Waits for what is being published, then closes the connection; not to be used again.

        Whoever still waits for a result is told so by an OperationalError.
        """
        await self._gathering.finish()
        self.lines.close()

    def forget(self) -> None:
        """Drops the connection without a word: its loop is closed, or this is a forked child."""
        self.lines.forget()


class SharedLine:
    """`conversation.Lines` of an event loop: everybody gets the same line, and a new one once it broke."""

    def __init__(self, addresses: Addresses, name: str | None, connect_timeout: float) -> None:
        self._addresses = addresses
        self._where = addresses.found.redacted
        self._name = name
        self._connect_timeout = connect_timeout
        self._loop = asyncio.get_running_loop()
        self._line: AsyncLine | None = None
        self._connecting: asyncio.Task[AsyncLine] | None = None
        #: What to say once it is closed.
        self._closed = ""
        #: How many were made.
        self.connections = 0
        self.now = self._loop.time

    @property
    def reached(self) -> bool:
        return self._addresses.reached

    async def take(self, end: float | None) -> AsyncLine:
        if self._closed:
            raise ClientClosed(self._closed)
        line = self._line
        if line is not None:
            if line.usable:
                return line
            if line.exchange.overdue:
                line.fail(LineBroken("the broker owes too many answers"))
            self._addresses.broke(line.url)
            self._line = None
        if self._connecting is None:
            self._connecting = self._loop.create_task(self._connect())
            self._connecting.add_done_callback(self._connected)
        connecting = self._connecting
        # One that gives up waiting takes nothing from the others: the attempt goes on.
        left = None if end is None else max(0.0, end - self.now())
        done, _ = await asyncio.wait((connecting,), timeout=left)
        if self._closed:
            raise ClientClosed(self._closed)
        if not done:
            raise OperationalError(f"no connection to the broker at {self._where} in time")
        if connecting.cancelled():
            raise OperationalError("the event loop gave up connecting")
        error = connecting.exception()
        if error is not None:
            # A copy: each of those who wait raises one with a traceback of its own.
            raise type(error)(*error.args) from None
        return connecting.result()

    take_beside = take

    def give(self, line: AsyncLine) -> None:
        """Nothing to do: it is everybody's."""

    give_beside = give

    def drop(self, line: AsyncLine, error: BaseException) -> None:
        # A request that went wrong says little about a line on which others are answered.
        if isinstance(error, TimeoutError) and line.silence >= REQUEST_SECONDS - DEADLINE_LEAD:
            line.fail(LineBroken(f"no word from the broker for {line.silence:.0f} s"))

    drop_beside = drop

    def renew(self) -> None:
        """Nothing to do: `drop` has ended a line that is silent."""

    async def pause(self, seconds: float) -> None:
        await asyncio.sleep(jittered(seconds))

    def close(self) -> None:
        """Says goodbye. Operations that are under way end with ClientClosed."""
        self._closed = f"the connection to {self._where} was closed by its owner"
        if self._connecting is not None:
            self._connecting.cancel()
        if self._line is not None:
            self._line.close()

    def forget(self) -> None:
        self._closed = f"the connection to {self._where} belongs to another loop or process"
        if self._line is not None:
            self._line.forget()

    async def _connect(self) -> AsyncLine:
        return await opening.open_line(
            self._addresses,
            client_name(self._name),
            self._connect_timeout,
            limit=self.now() + self._connect_timeout,
            now=self.now,
            connect=connect,
            close=lambda line: line.fail(LineBroken("it was not greeted")),
        )

    def _connected(self, connecting: "asyncio.Task[AsyncLine]") -> None:
        self._connecting = None
        # `exception()` also marks it as seen: those who waited may have gone.
        if not connecting.cancelled() and connecting.exception() is None:
            self._line = connecting.result()
            self.connections += 1
