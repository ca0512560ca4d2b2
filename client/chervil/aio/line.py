"""A line on an event loop: one connection, on which any number of operations talk at once."""

import asyncio
import contextlib
import os
import socket
from collections.abc import Hashable
from typing import Any
from weakref import finalize

from chervil.address import BrokerURL
from chervil.conversation import LineBroken, breached, lost
from chervil.exchange import Exchange
from chervil.protocol import RemoteProtocolError
from chervil.sockets import RECEIVE_SIZE, Stream
from chervil.tls_files import TLSFiles

#: Bytes on their way to the kernel beyond which senders wait; what is there already is 4 frames at least.
UNSENT_MAX = 1 << 20
#: Seconds between attempts to connect to a Unix socket whose queue is full.
ACCEPT_PAUSE = 0.01
#: What senders wait for news of.
_ROOM = "room"


class AsyncLine:
    """A `conversation.Line` that many operations share; deadlines are on the loop's clock.

    Frames of one turn of the loop leave in one write. News wakes those alone whom it is about. It stands on
    a socket and the loop's readiness calls rather than on a transport, so that a loop that ends without
    a word leaves nothing behind that complains.
    """

    def __init__(self, sock: Stream, url: BrokerURL, peer: Any = None) -> None:
        """`sock` is connected and does not block; the loop is the running one.

        `url` is where it leads, `peer` the name of the other end of a TCP connection.
        """
        self.url = url
        self.peer = peer
        self._loop = asyncio.get_running_loop()
        self._sock = sock
        self._fd = sock.fileno()
        # A client that nobody closed is no reason for a ResourceWarning in the user's tests.
        self._close = finalize(self, sock.close)
        self.exchange = Exchange(self._tell)
        self.heard_at = self._loop.time()
        #: When something was sent that nothing has followed yet; None where the broker spoke last.
        self._owed_since: float | None = None
        self._waiting: dict[Hashable, list[asyncio.Future[bool]]] = {}
        self._unsent = bytearray()
        #: Whether a flush is to come, by itself or when the socket can be written to.
        self._flush_due = False
        self._broken: LineBroken | None = None
        self._loop.add_reader(self._fd, self._read)

    @property
    def usable(self) -> bool:
        """Whether requests may be made."""
        return self._broken is None and self.exchange.usable

    @property
    def silence(self) -> float:
        """Seconds for which the broker has said nothing though it was sent something."""
        return 0.0 if self._owed_since is None else self._loop.time() - self._owed_since

    async def send(self, data: bytes, end: float | None) -> None:
        while len(self._unsent) > UNSENT_MAX:
            await self.news(_ROOM, end)
        if self._broken is not None:
            raise self._error(self._broken)
        self.post(data)

    def post(self, data: bytes) -> None:
        if self._broken is not None:
            return
        if self._owed_since is None:
            self._owed_since = self._loop.time()
        self._unsent += data
        if not self._flush_due:
            self._flush_due = True
            self._loop.call_soon(self._flush)

    async def news(self, about: Hashable, end: float | None) -> None:
        if self._broken is not None:
            raise self._error(self._broken)
        future = self._loop.create_future()
        waiting = self._waiting.setdefault(about, [])
        waiting.append(future)
        timer = None if end is None else self._loop.call_at(end, _wake, future, False)
        try:
            # What came before the line broke, or just before the deadline, is worth looking at.
            if await future:
                return
        finally:
            if timer is not None:
                timer.cancel()
            # Those that were told are in no list any more; this one is late, or cancelled.
            if future in waiting:
                waiting.remove(future)
                if not waiting:
                    self._waiting.pop(about, None)
        if self._broken is not None:
            raise self._error(self._broken)
        raise TimeoutError("the deadline has passed")

    def fail(self, reason: LineBroken) -> None:
        """Ends the line without a word; whoever waits on it is told the reason."""
        if self._broken is not None:
            return
        self._broken = reason
        self._loop.remove_reader(self._fd)
        self._loop.remove_writer(self._fd)
        self._close()
        self._unsent.clear()
        for about in list(self._waiting):
            self._wake_all(about, False)

    def close(self) -> None:
        """Says goodbye where that is possible without waiting, and ends the line."""
        if self.usable:
            self._unsent += self.exchange.goodbye()
            with contextlib.suppress(OSError):
                self._sock.send(self._unsent)
        self.fail(LineBroken("the connection was closed here"))

    def forget(self) -> None:
        """Lets go of the socket and of nothing else: the loop is closed, or is the parent process's."""
        self._broken = LineBroken("the connection was another process's, or another loop's")
        self._close()

    def _read(self) -> None:
        try:
            data = self._sock.recv(RECEIVE_SIZE)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self.fail(lost(error))
            return
        if not data:
            self.fail(LineBroken("the broker closed the connection"))
            return
        self.heard_at = self._loop.time()
        self._owed_since = None
        try:
            self.exchange.receive(data)
        except RemoteProtocolError as error:
            self.fail(breached(error, data))
            return
        ended = self.exchange.ended
        if ended is not None:
            # Whoever waits looks for himself what was answered and why the rest will not be.
            for about in list(self._waiting):
                self._tell(about)
            self.fail(LineBroken(str(ended), ended.code))

    def _flush(self) -> None:
        if self._broken is not None:
            return
        try:
            sent = self._sock.send(self._unsent)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError as error:
            self.fail(lost(error))
            return
        del self._unsent[:sent]
        if self._unsent:
            self._loop.add_writer(self._fd, self._flush)
        else:
            self._loop.remove_writer(self._fd)
            self._flush_due = False
        if len(self._unsent) <= UNSENT_MAX:
            self._tell(_ROOM)

    def _tell(self, about: Hashable) -> None:
        self._wake_all(about, True)

    def _wake_all(self, about: Hashable, news: bool) -> None:
        waiting = self._waiting.pop(about, [])
        for future in waiting:
            _wake(future, news)
        waiting.clear()

    def _error(self, reason: LineBroken) -> LineBroken:
        """A copy: each of those who wait raises one with a traceback of its own."""
        return LineBroken(str(reason), reason.code, explained=reason.explained)


def _wake(future: "asyncio.Future[bool]", news: bool) -> None:
    if not future.done():
        future.set_result(news)


async def connect(url: BrokerURL, files: TLSFiles, limit: float) -> AsyncLine:
    """A line to a broker that has not been greeted.

    Raises OSError, TimeoutError at the deadline, TLSFailed where that is why.
    """
    async with asyncio.timeout_at(limit):
        if url.path is not None:
            return AsyncLine(await _connected(socket.AF_UNIX, os.fspath(url.path)), url)
        assert url.host is not None
        assert url.port is not None
        failure: OSError | None = None
        for family, address in await _addresses(url.host, url.port):
            try:
                sock = await _connected(family, address)
            except OSError as error:
                failure = failure or error
                continue
            # A request is one small frame and waits for its answer: nothing to be gained by holding it back.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            encrypted = url.scheme == "chervils"
            return AsyncLine(await _encrypted(sock, files, url.host) if encrypted else sock, url, address)
        raise failure or OSError(f"{url.host} has no address")


async def _encrypted(sock: socket.socket, files: TLSFiles, host: str) -> Stream:
    from chervil.tls import TLSSocket

    try:
        stream = TLSSocket(sock, files, host)
    except BaseException:
        sock.close()
        raise
    try:
        while (writes := stream.shake_hands()) is not None:
            await _ready(stream.fileno(), writes)
    except BaseException:
        stream.close()
        raise
    return stream


async def _ready(descriptor: int, writes: bool) -> None:
    """Waits until a descriptor can be read from, or written to."""
    loop = asyncio.get_running_loop()
    ready = loop.create_future()
    if writes:
        loop.add_writer(descriptor, _wake, ready, True)
    else:
        loop.add_reader(descriptor, _wake, ready, True)
    try:
        await ready
    finally:
        loop.remove_writer(descriptor)
        loop.remove_reader(descriptor)


async def _addresses(host: str, port: int) -> list[tuple[int, Any]]:
    try:
        # A number needs no look-up, and no thread for one.
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except socket.gaierror:
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [(family, address) for family, _, _, _, address in found]


async def _connected(family: int, address: Any) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        if family == socket.AF_UNIX:
            await _connect_unix(sock, address)
        else:
            await asyncio.get_running_loop().sock_connect(sock, address)
    except BaseException:
        sock.close()
        raise
    return sock


async def _connect_unix(sock: socket.socket, path: str) -> None:
    """Connects at once, or when there is room among those that wait to be accepted.

    Nothing tells when there is, and asyncio takes such a socket for a connected one.
    """
    while True:
        try:
            sock.connect(path)
        except BlockingIOError:
            await asyncio.sleep(ACCEPT_PAUSE)
        else:
            return
