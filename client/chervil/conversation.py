"""What the client's operations stand on: lines to the broker, and a clock.

`publication`, `asking`, `watching` and `opening` are coroutines that know no socket, clock, thread or event
loop: they are handed `Lines` and await what those can do. There are three kinds of lines, and one text of
each operation for all of them:

- the blocking ones (`chervil.client`): their coroutines never suspend, so `run` goes through in one go;
- those of asyncio (`chervil.aio`), where many operations share one connection;
- those of the tests, which move a clock of their own and play the broker without a socket.

Deadlines are instants on the clock of the lines, in seconds, or None for none.
"""

from collections.abc import Coroutine, Hashable
from typing import Any, Protocol, TypeVar

from chervil.exceptions import OperationalError
from chervil.exchange import WINDOW, Exchange, Reply, Request
from chervil.protocol import Code, RemoteProtocolError, RequestRefused
from chervil.tls_files import SPEAKS_TLS, TLSFailed, is_alert

T = TypeVar("T")

#: Seconds between attempts to reach a broker that went away: the first, and the longest.
PAUSE_FIRST = 0.05
PAUSE_MOST = 0.5

#: Reasons of a broker to end a connection after which another one may do.
_TRY_AGAIN = (None, "DONE", Code.SHUTDOWN, Code.SLOW, Code.TOO_MANY)


class LineBroken(ConnectionError):
    """The line is of no further use; `code` is the broker's reason where it gave one.

    `explained`: the message says what to do about it.
    """

    def __init__(self, message: str, code: str | None = None, *, explained: bool = False) -> None:
        super().__init__(message)
        self.code = code
        self.explained = explained

    @property
    def again(self) -> bool:
        """Whether another connection may do better."""
        return self.code in _TRY_AGAIN


def lost(error: OSError) -> LineBroken:
    """A line that the system, or TLS, has ended."""
    return LineBroken(str(error), explained=isinstance(error, TLSFailed))


def breached(error: RemoteProtocolError, data: bytes) -> LineBroken:
    """A line on which the broker sent what may not come."""
    if is_alert(data):
        return LineBroken(SPEAKS_TLS, explained=True)
    return LineBroken(f"the broker broke the protocol: {error}", error.code)


class ClientClosed(OperationalError):
    """The client was closed by its owner while a call was under way."""


class Line(Protocol):
    """A greeted connection.

    Its coroutines raise LineBroken when the connection broke or the broker broke the rules, the builtin
    TimeoutError at a deadline.
    """

    @property
    def exchange(self) -> Exchange: ...
    @property
    def heard_at(self) -> float:
        """When something came last, for whomever; 0 where nobody else uses the line while one waits."""
        ...

    async def send(self, data: bytes, end: float | None) -> None:
        """Hands bytes over; where it raises, the broker has not got all of them."""
        ...

    async def news(self, about: Hashable, end: float | None) -> None:
        """Waits for news of a request, a Mailbox, WELCOME or WINDOW; may return for other news too."""
        ...

    def post(self, data: bytes) -> None:
        """Sends what is not answered, where that takes no waiting; what goes wrong is found out later."""
        ...


class DirectLine(Line, Protocol):
    """A line whose coroutines never suspend, and which can be used without them."""

    def send_now(self, data: bytes, end: float | None) -> None:
        """As `send`."""
        ...

    def reply_now(self, request: int, end: float | None) -> Reply:
        """As `reply` below."""
        ...


L = TypeVar("L", bound=Line)


class Lines(Protocol[L]):
    """Where lines come from, and the clock."""

    def now(self) -> float: ...
    @property
    def reached(self) -> bool:
        """Whether the broker was ever reached: what had been there may come back."""
        ...

    async def pause(self, seconds: float) -> None:
        """Waits between half of `seconds` and all of it, by chance: many clients shall not come in step."""
        ...

    async def take(self, end: float | None) -> L:
        """A line for a short call; raises OperationalError."""
        ...

    async def take_beside(self, end: float | None) -> L:
        """A line for a call that waits long; raises OperationalError."""
        ...

    def give(self, line: L) -> None:
        """Takes a line back after a short call that ended well, and `give_beside` after a long one."""
        ...

    def give_beside(self, line: L) -> None: ...
    def drop(self, line: L, error: BaseException) -> None:
        """Takes a line back after a short call that ended with `error`, `drop_beside` after a long one."""
        ...

    def drop_beside(self, line: L, error: BaseException) -> None: ...
    def renew(self) -> None:
        """Has what is taken next be new lines: those that are kept may be as dead as the last one."""
        ...


def jittered(seconds: float) -> float:
    """Between half of `seconds` and all of it, by chance."""
    import random

    return seconds * random.uniform(0.5, 1.0)


def run(operation: Coroutine[Any, Any, T]) -> T:
    """Runs an operation on lines that never suspend it."""
    try:
        operation.send(None)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]
    operation.close()
    raise AssertionError("an operation on blocking lines was suspended")


async def ask(line: Line, request: Request, end: float | None) -> Reply:
    """Sends a request and waits for its reply; raises RequestRefused."""
    number, data = request
    try:
        await line.send(data, end)
    except BaseException:
        line.exchange.abandon(number)
        raise
    return await reply(line, number, end)


async def reply(line: Line, request: int, end: float | None) -> Reply:
    """The reply to a request that was sent before; raises RequestRefused."""
    exchange = line.exchange
    try:
        while (found := exchange.take(request)) is None:
            if exchange.ended is not None:
                check_open(exchange)
            await line.news(request, end)
    except RequestRefused:
        raise
    except BaseException:
        exchange.abandon(request)
        raise
    return found


async def opening(line: Line, end: float | None) -> None:
    """Waits until the window for publishing is open."""
    while not line.exchange.window_open:
        check_open(line.exchange)
        await line.news(WINDOW, end)


def check_open(exchange: Exchange) -> None:
    """Raises LineBroken where the broker has said goodbye: it may be asked nothing more."""
    ended = exchange.ended
    if ended is not None:
        raise LineBroken(str(ended), ended.code)
