"""Doors: each accepts connections on one listening socket, and has TLS done before their peers hear of them.

It accepts by itself rather than through the loop's servers, because these do not say who is there before
TLS is done: a stranger counts from the first byte on, and has one deadline for TLS and HELLO together.
"""

import asyncio
import errno
import logging
import socket
import ssl
import traceback
from collections.abc import Callable

from chervil.protocol.limits import PREAUTH_SECONDS
from chervil.tcp import retry_often
from chervil_broker.peer import Peer
from chervil_broker.tls import say_why_on, why_it_failed

log = logging.getLogger("chervil.broker")

#: Connections that are accepted in one turn of the loop: a storm of them is not to hold up who is served.
ACCEPTS_PER_TURN = 32
#: Seconds in which the end of TLS is to be answered; the loops' own 30 s would keep who is sent away so long.
SHUTDOWN_SECONDS = 1.0
#: Seconds without accepting where the system has no descriptor or memory left.
PAUSE_SECONDS = 1.0
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class Door:
    """A listening socket; it is open until `close`."""

    def __init__(
        self,
        sock: socket.socket,
        new_peer: Callable[[], Peer],
        context: Callable[[], ssl.SSLContext | None],
    ) -> None:
        """`new_peer` makes the peer of a connection, `context` tells what TLS is to be now, or None."""
        sock.setblocking(False)
        self._sock = sock
        self._new_peer = new_peer
        self._context = context
        self._loop = asyncio.get_running_loop()
        self._entering: set[asyncio.Task[None]] = set()
        self._paused: asyncio.TimerHandle | None = None
        self._open()

    def _open(self) -> None:
        self._paused = None
        self._loop.add_reader(self._sock, self._accept)

    def close(self) -> None:
        """Nobody comes in any more; those who are in TLS yet are sent away."""
        if self._sock.fileno() < 0:
            return
        if self._paused is not None:
            self._paused.cancel()
        self._loop.remove_reader(self._sock)
        self._sock.close()
        for task in self._entering:
            task.cancel()

    def _accept(self) -> None:
        for _ in range(ACCEPTS_PER_TURN):
            try:
                sock, address = self._sock.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _EXHAUSTED:
                    self._pause(error)
                    return
                continue  # whoever it was has gone already
            retry_often(sock)
            self._let_in(sock, address[0] if isinstance(address, tuple) else None)

    def _pause(self, error: OSError) -> None:
        log.error("cannot accept connections: %s; trying again in %g s", error.strerror, PAUSE_SECONDS)
        self._loop.remove_reader(self._sock)
        self._paused = self._loop.call_later(PAUSE_SECONDS, self._open)

    def _let_in(self, sock: socket.socket, address: str | None) -> None:
        peer = self._new_peer()
        context = self._context()
        if context is not None and not peer.arrive(address):
            sock.close()
            return
        task = self._loop.create_task(self._enter(sock, peer, context))
        self._entering.add(task)
        task.add_done_callback(self._entering.discard)
        # Not at once, for a task that is cancelled before it began closes nothing.
        loop = self._loop
        peer.give_up = lambda: loop.call_soon(task.cancel)

    async def _enter(self, sock: socket.socket, peer: Peer, context: ssl.SSLContext | None) -> None:
        say_why_on(sock)
        try:
            await self._loop.connect_accepted_socket(
                lambda: peer,
                sock,
                ssl=context,
                ssl_handshake_timeout=None if context is None else PREAUTH_SECONDS,
                ssl_shutdown_timeout=None if context is None else SHUTDOWN_SECONDS,
            )
        except asyncio.CancelledError:
            peer.connection_lost(None)
            raise
        except (OSError, EOFError) as error:
            peer.fail(f"TLS: {why_it_failed(error)}" if context else str(error))
            # They hold the connection's buffers in a cycle, and the collector is off: 0.3 MB each (measured).
            traceback.clear_frames(error.__traceback__)
