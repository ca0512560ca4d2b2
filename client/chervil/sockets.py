"""Blocking sockets with deadlines: TCP, TLS and Unix.

A deadline is a `time.monotonic()` value, or None for none; where it passes, the builtin TimeoutError is
raised. Any OSError means that the connection is of no further use.
"""

import os
import select
import socket
from contextlib import suppress
from time import monotonic
from typing import Any, Protocol
from weakref import finalize

from chervil.address import BrokerURL
from chervil.tls_files import TLSFiles

#: What one read takes at most. Below the size from which the C library gets memory from the system for
#: each buffer anew (measured: 2.2 us a read; 16.9 us with 256 KiB).
RECEIVE_SIZE = 65_536


class Stream(Protocol):
    """What is connected and does not block: a socket, or TLS on one.

    `recv` and `send` may raise BlockingIOError even where the descriptor is ready: TLS has its own traffic.
    """

    def fileno(self) -> int: ...
    def recv(self, size: int, /) -> bytes: ...
    def send(self, data: bytes | bytearray | memoryview, /) -> int: ...
    def close(self) -> None: ...


class Socket:
    """A connected socket."""

    def __init__(self, sock: Stream, peer: Any = None) -> None:
        """`peer` is the name of the other end of a TCP connection."""
        self.peer = peer
        self._sock = sock
        self._readable = select.poll()
        self._readable.register(sock, select.POLLIN)
        self._either = select.poll()
        self._either.register(sock, select.POLLIN | select.POLLOUT)
        # A client that nobody closed is no reason for a ResourceWarning in the user's tests. Not `__del__`:
        # where both are found in a cycle, the socket's own may come first.
        self.close = finalize(self, sock.close)

    def send(self, data: bytes, end: float | None) -> bytes:
        """Sends everything; returns what came in the meantime.

        It reads while it cannot write: a peer that waits for us to read would else wait for ever.
        """
        try:
            sent = self._sock.send(data)
        except BlockingIOError:
            sent = 0
        if sent == len(data):
            return b""
        view = memoryview(data)[sent:]
        received = bytearray()
        while view:
            readable, writable = _wait(self._either, end)
            if readable:
                with suppress(BlockingIOError):
                    received += self._receive_now()
            if writable:
                with suppress(BlockingIOError):
                    sent = self._sock.send(view)
                    view = view[sent:]
        return bytes(received)

    def receive(self, end: float | None) -> bytes:
        """What comes next, at least a byte; raises ConnectionError at the end of the stream."""
        while True:
            _wait(self._readable, end)
            try:
                return self._receive_now()
            except BlockingIOError:
                pass

    def pending(self) -> bytes:
        """What came unasked; raises ConnectionError at the end of the stream."""
        if not self._readable.poll(0):
            return b""
        try:
            return self._receive_now()
        except BlockingIOError:
            return b""

    def _receive_now(self) -> bytes:
        data = self._sock.recv(RECEIVE_SIZE)
        if not data:
            raise ConnectionResetError("the broker closed the connection")
        return data


def connect(url: BrokerURL, files: TLSFiles, end: float) -> Socket:
    """A socket to a broker. Raises OSError, TimeoutError at the deadline; TLSFailed where that is why."""
    if url.path is not None:
        sock = socket.socket(socket.AF_UNIX)
        try:
            sock.settimeout(_remaining(end))
            sock.connect(os.fspath(url.path))
        except BaseException:
            sock.close()
            raise
        sock.setblocking(False)
        return Socket(sock)
    assert url.host is not None
    assert url.port is not None
    sock = socket.create_connection((url.host, url.port), timeout=_remaining(end))
    # A request is one small frame and waits for its answer: nothing to be gained by holding it back.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setblocking(False)
    peer = sock.getpeername()
    return Socket(_encrypted(sock, files, url.host, end) if url.scheme == "chervils" else sock, peer)


def _encrypted(sock: socket.socket, files: TLSFiles, host: str, end: float) -> Stream:
    from chervil.tls import TLSSocket

    try:
        stream = TLSSocket(sock, files, host)
    except BaseException:
        sock.close()
        raise
    try:
        poll = select.poll()
        while (writes := stream.shake_hands()) is not None:
            poll.register(stream, select.POLLOUT if writes else select.POLLIN)
            _wait(poll, end)
    except BaseException:
        stream.close()
        raise
    return stream


def _remaining(end: float) -> float:
    left = end - monotonic()
    if left <= 0:
        raise TimeoutError("the deadline has passed")
    return left


def _wait(poll: select.poll, end: float | None) -> tuple[bool, bool]:
    """(readable, writable) once either is so; errors count as readable. Raises TimeoutError."""
    while True:
        timeout = None if end is None else max(0.0, (end - monotonic()) * 1000)
        ready = poll.poll(timeout)
        if ready:
            events = ready[0][1]
            return bool(events & ~select.POLLOUT), bool(events & select.POLLOUT)
        if end is not None and monotonic() >= end:
            raise TimeoutError("the deadline has passed")
