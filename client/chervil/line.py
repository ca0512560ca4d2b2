"""A blocking line to the broker: one socket and one exchange, greeted and ready for requests."""

from collections.abc import Hashable
from time import monotonic

from chervil import opening
from chervil.address import Addresses, BrokerURL
from chervil.conversation import breached, check_open, lost, run
from chervil.exchange import Exchange, Reply
from chervil.protocol import RemoteProtocolError
from chervil.sockets import Socket, connect
from chervil.tls_files import TLSFiles


class Line:
    """A `conversation.Line` whose coroutines never suspend; deadlines are on the monotonic clock."""

    #: Nobody but the one who waits uses the line meanwhile.
    heard_at = 0.0

    def __init__(self, socket: Socket, url: BrokerURL) -> None:
        """`url` is where the socket leads."""
        self.socket = socket
        self.url = url
        self.peer = socket.peer
        self.exchange = Exchange()
        #: Reads since something was sent.
        self._reads = 0

    async def send(self, data: bytes, end: float | None) -> None:
        self.send_now(data, end)

    async def news(self, about: Hashable, end: float | None) -> None:
        """Waits for whatever comes next and takes it in."""
        self._receive(end)

    def reply_now(self, request: int, end: float | None) -> Reply:
        exchange = self.exchange
        while (reply := exchange.take(request)) is None:
            check_open(exchange)
            self._receive(end)
        return reply

    def send_now(self, data: bytes, end: float | None) -> None:
        self._reads = 0
        try:
            received = self.socket.send(data, end)
        except TimeoutError:
            raise
        except OSError as error:
            raise lost(error) from error
        if received:
            self._feed(received)

    def _receive(self, end: float | None) -> None:
        # A broker that never stops talking is not to keep us. One read is allowed whatever the time is, and
        # for most calls it is the only one.
        if self._reads and end is not None and monotonic() >= end:
            raise TimeoutError("the deadline has passed")
        self._reads += 1
        try:
            data = self.socket.receive(end)
        except TimeoutError:
            raise
        except OSError as error:
            raise lost(error) from error
        self._feed(data)

    def post(self, data: bytes) -> None:
        try:
            self.socket.send(data, monotonic())
        except OSError:
            # What is left of the frame is never sent: nothing may follow it.
            self.socket.close()

    def fresh(self) -> bool:
        """Whether it can still be used: the broker has not closed it since. Takes in what came unasked."""
        try:
            data = self.socket.pending()
            if data:
                self._feed(data)
        except OSError:
            return False
        return self.exchange.usable

    def close(self) -> None:
        """Says goodbye where that is possible without waiting, and closes."""
        try:
            if self.exchange.usable:
                self.socket.send(self.exchange.goodbye(), monotonic())
        except OSError:
            pass
        finally:
            self.socket.close()

    def _feed(self, data: bytes) -> None:
        try:
            self.exchange.receive(data)
        except RemoteProtocolError as error:
            raise breached(error, data) from error


async def _connect(url: BrokerURL, files: TLSFiles, limit: float) -> Line:
    return Line(connect(url, files, limit), url)


def open_line(addresses: Addresses, name: str, timeout: float, end: float | None = None) -> Line:
    """A line to a broker, connected and greeted within `timeout` seconds and before `end`; see `opening`."""
    limit = monotonic() + timeout
    if end is not None:
        limit = min(limit, end)
    return run(
        opening.open_line(
            addresses,
            name,
            timeout,
            limit=limit,
            now=monotonic,
            connect=_connect,
            close=lambda line: line.socket.close(),
        )
    )
