"""One client's connection, as the loop sees it: feed, take messages, dispatch; and write what is due."""

import asyncio
import logging
import os
import socket
import struct
from typing import TYPE_CHECKING, cast

from chervil.protocol import Code, Connection, Message, RemoteProtocolError, Side, State
from chervil.protocol.limits import FRAME_BATCH, PREAUTH_SECONDS
from chervil.protocol.messages import Error, Goodbye, Heartbeat
from chervil_broker.commands import HANDLERS

if TYPE_CHECKING:
    from chervil_broker.broker import Broker

log = logging.getLogger("chervil.broker")

#: Bytes that may wait to be written to one peer before nothing more is read from it: it can't ask for
#: more while it does not take what it asked for. The largest frame fits.
UNSENT_MAX = 32 << 20
#: Seconds in which a peer takes nothing of what waits for it before it is cut off.
SLOW_SECONDS = 10.0


class Peer(asyncio.Protocol):
    """A connection and the session on it. `session` is the engine's number, unique in this process."""

    def __init__(self, broker: "Broker", session: int, *, needs_token: bool) -> None:
        self.broker = broker
        self.session = session
        self.needs_token = needs_token
        self.connection = Connection(Side.BROKER)
        self.name = "a stranger"
        #: The engine has a session for it: from HELLO to GOODBYE, or to the end of the connection.
        self.in_session = False
        #: Has subscribed: heartbeats are owed both ways.
        self.consumes = False
        #: Requests of WATCHes that are not answered yet.
        self.watches: set[int] = set()
        #: Has said GOODBYE; closed once what it was promised has been written.
        self.leaving = False
        self.heard = broker.seconds()
        self.spoke = self.heard
        self._transport: asyncio.Transport | None = None
        #: Nothing is read from it at present, see UNSENT_MAX.
        self.held_up = False
        #: Bytes written to it, how many of them were taken, and when that last grew.
        self._written = 0
        self._taken = 0
        self._taken_at = self.heard
        #: Bytes of a frame that has not come whole.
        self._partial = 0
        self._deadline: asyncio.TimerHandle | None = None
        self._open = False

    # What the loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        if not self.needs_token and not _same_user(transport):
            log.warning("a connection of another user to the Unix socket was refused")
            self._transport.abort()
            return
        if not self.broker.admit(self):
            self._transport.abort()
            return
        self._open = True
        self._transport.set_write_buffer_limits(high=UNSENT_MAX)
        self._deadline = asyncio.get_running_loop().call_later(PREAUTH_SECONDS, self._too_slow)

    def data_received(self, data: bytes) -> None:
        broker = self.broker
        self.heard = broker.tick()
        try:
            for message in self.connection.receive(data):
                HANDLERS[type(message)](broker, self, message)
        except RemoteProtocolError as error:
            self.refuse(error.code, error.message)
        self._count_partial()
        broker.wake()

    def pause_writing(self) -> None:
        self.held_up = True
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        self.held_up = False
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self.stop_deadline()
        self.broker.partial_bytes -= self._partial
        self._partial = 0
        if self._open:
            self._open = False
            self.broker.forget(self)

    # What the broker and its commands call.

    @property
    def ready(self) -> bool:
        return self.connection.state is State.READY

    def stop_deadline(self) -> None:
        """HELLO came in time, or there is nobody left to wait for."""
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def say(self, message: Message) -> None:
        """Writes a message that rests on nothing in the engine, past the gate."""
        self.write(self.connection.send(message))

    def write(self, frames: bytes) -> None:
        """Writes frames that have passed the gate."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        self.spoke = self.heard if self.heard > self.spoke else self.broker.seconds()
        self._written += len(frames)
        transport.write(frames)

    def check_that_it_reads(self, now: float) -> None:
        """Cuts the peer off when nothing of what waits for it was taken for SLOW_SECONDS."""
        if self._transport is None:
            return
        unsent = self._transport.get_write_buffer_size()
        taken = self._written - unsent
        if unsent == 0 or taken > self._taken:
            self._taken, self._taken_at = taken, now
        elif now - self._taken_at > SLOW_SECONDS:
            self.broker.count_refusal(Code.SLOW)
            log.warning("%s does not read: %d bytes wait for it; cut off (%s)", self.name, unsent, Code.SLOW)
            self._transport.abort()

    def _count_partial(self) -> None:
        """Keeps the broker's account of unfinished frames, and ends a peer that goes over the limit."""
        partial = self.connection.buffered
        if partial == self._partial:
            return
        self.broker.partial_bytes += partial - self._partial
        self._partial = partial
        if partial > FRAME_BATCH and self.broker.partial_bytes > self.broker.partial_limit:
            self.refuse(Code.TOO_MANY, "too many unfinished frames; send large ones one after the other")

    def refuse(self, code: Code, message: str) -> None:
        """Tells the peer the code that ends the connection, and ends it."""
        self.broker.count_refusal(code)
        log.warning("%s refused: %s: %s", self.name, code, message)
        if self.connection.state is not State.CLOSED:
            self.say(Error(None, code, message))
        self.close()

    def beat(self) -> None:
        self.spoke = self.broker.seconds()
        self.say(Heartbeat())

    def farewell(self) -> bytes:
        """The frame that ends an orderly connection; empty where it has ended already."""
        if self.connection.state in (State.READY, State.CLOSING):
            return self.connection.send(Goodbye("DONE" if self.leaving else Code.SHUTDOWN))
        return b""

    def close(self) -> None:
        """Closes when everything written has left."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Closes now: the peer is lost."""
        if self._transport is not None:
            self._transport.abort()

    def _too_slow(self) -> None:
        self._deadline = None
        self.refuse(Code.SLOW, f"no HELLO within {PREAUTH_SECONDS} s")


_CREDENTIALS = struct.Struct("3i")


def _same_user(transport: asyncio.BaseTransport) -> bool:
    """Whether the other end of a Unix socket belongs to this user, or to root."""
    peer = transport.get_extra_info("socket")
    if not hasattr(socket, "SO_PEERCRED"):
        return True  # the socket's mode, 0600, is what guards it there
    packed = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    uid: int = _CREDENTIALS.unpack(packed)[1]
    return uid in (0, os.getuid())
