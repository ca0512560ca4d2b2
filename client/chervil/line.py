"""A line to the broker: one socket and one exchange, greeted and ready for requests."""

from pathlib import Path
from shlex import quote
from socket import gaierror
from time import monotonic

from chervil.address import DEFAULT_URL, DEV_SOCKET, BrokerURL, Found
from chervil.exceptions import AccessRefused, OperationalError
from chervil.exchange import Exchange, Reply, Request
from chervil.protocol import Code, RemoteProtocolError, RequestRefused
from chervil.sockets import Socket, connect
from chervil.statedir import read_token

_AUTH = (Code.AUTH_REQUIRED, Code.AUTH_FAILED)


class LineBroken(ConnectionError):
    """The line is of no further use; `code` is the broker's reason where it gave one."""

    def __init__(self, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.code = code


class Line:
    """Sends requests and waits for their replies, until deadlines on the monotonic clock.

    Raises LineBroken when the connection broke or the broker broke the rules, the builtin TimeoutError at a
    deadline; after either the line is to be closed. RequestRefused leaves it as it is.
    """

    def __init__(self, socket: Socket) -> None:
        self.socket = socket
        self.exchange = Exchange()

    @property
    def written(self) -> int:
        """Bytes that were handed to the kernel."""
        return self.socket.written

    def send(self, data: bytes, end: float | None) -> None:
        try:
            received = self.socket.send(data, end)
        except TimeoutError:
            raise
        except OSError as error:
            raise LineBroken(str(error)) from error
        if received:
            self._feed(received)

    def receive(self, end: float | None) -> None:
        """Waits for bytes and takes them in."""
        try:
            data = self.socket.receive(end)
        except TimeoutError:
            raise
        except OSError as error:
            raise LineBroken(str(error)) from error
        self._feed(data)

    def ask(self, request: Request, end: float | None) -> Reply:
        """Sends a request and waits for its reply."""
        number, data = request
        self.send(data, end)
        return self.reply(number, end)

    def reply(self, request: int, end: float | None) -> Reply:
        """The reply to a request that was sent before."""
        exchange = self.exchange
        while (reply := exchange.take(request)) is None:
            if exchange.ended is not None:
                raise LineBroken(str(exchange.ended), exchange.ended.code)
            self.receive(end)
        return reply

    def fresh(self) -> bool:
        """Whether it can still be used: the broker has not closed it since."""
        try:
            data = self.socket.pending()
            if data:
                self._feed(data)
                self.exchange.take_results()
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
            raise LineBroken(f"the broker broke the protocol: {error}", error.code) from error


def open_line(found: Found, name: str, timeout: float, end: float | None = None) -> Line:
    """A line to a broker, connected and greeted within `timeout` seconds and before `end`.

    Raises AccessRefused when the broker does not take the token, OperationalError for everything else; its
    message names the URL, where that came from, and what to do.
    """
    url = found.url
    limit = monotonic() + timeout
    if end is not None:
        limit = min(limit, end)
    where = f"the broker at {url.redacted} ({found.source})"
    if url.scheme == "chervils":
        raise OperationalError(f"cannot reach {where}: this version does not speak TLS; use chervil://")
    try:
        # On a Unix socket the kernel says who we are.
        token = url.token if url.path is not None else read_token(url)
        line = Line(connect(url, limit))
    except TimeoutError:
        raise OperationalError(f"cannot reach {where} within {timeout:g} s; is it there?") from None
    except OSError as error:
        reason = error.strerror or str(error)
        if error.filename is not None and url.path is None:
            raise OperationalError(
                f"cannot read the token for {where}: {error.filename}: {reason}; see CHERVIL_TOKEN_FILE"
            ) from None
        raise OperationalError(f"cannot reach {where}: {reason}; {_remedy(url, error)}") from None
    try:
        _greet(line, name, token, url.vhost, limit)
    except RequestRefused as error:
        line.socket.close()
        if error.code in _AUTH:
            # The broker's message says where its token is.
            raise AccessRefused(f"{where} does not let us in: {error.code}: {error.message}") from None
        raise OperationalError(f"{where} refused the connection: {error}") from None
    except TimeoutError:
        line.socket.close()
        raise OperationalError(
            f"{where} accepts connections and does not answer: is it a Chervil broker, and alive?"
        ) from None
    except LineBroken as error:
        line.socket.close()
        raise OperationalError(f"cannot talk to {where}: {error}; is it a Chervil broker?") from None
    return line


def _remedy(url: BrokerURL, error: OSError) -> str:
    """What to do about a connection that could not be made."""
    if isinstance(error, gaierror):
        return "check the host name"
    if not isinstance(error, ConnectionRefusedError | FileNotFoundError):
        return "check the URL"
    if url.path is None:
        if url.key == BrokerURL.parse(DEFAULT_URL).key:
            return "start one: chervil broker"
        address = str(BrokerURL("chervil", host=url.host, port=url.port)).removeprefix("chervil://")
        return f"start one: chervil broker --bind {address}"
    if Path(url.path).parts[-2:] == DEV_SOCKET.parts:
        return "start one in that folder: chervil -A MODULE dev"
    return f"start one: chervil broker --unix {quote(url.path)}"


def _greet(line: Line, name: str, token: str | None, vhost: str | None, end: float) -> None:
    line.send(line.exchange.hello(name, token, vhost), end)
    while line.exchange.welcome is None:
        if line.exchange.ended is not None:
            raise line.exchange.ended
        line.receive(end)
