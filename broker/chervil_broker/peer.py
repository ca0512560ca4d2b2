"""One client's connection, as the loop sees it: feed, take messages, dispatch; and write what is due."""

import asyncio
import logging
import os
import socket
import struct
from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from typing import TYPE_CHECKING, Any, cast

from chervil.protocol import (
    Code,
    Connection,
    LocalProtocolError,
    Message,
    RemoteProtocolError,
    Side,
    State,
)
from chervil.protocol.limits import FRAME_BATCH, PREAUTH_OUT, PREAUTH_SECONDS
from chervil.protocol.messages import Error, Goodbye, Heartbeat, Resume
from chervil_broker.access import STRANGER, Identity
from chervil_broker.commands import HANDLERS, Handler, handlers_for
from chervil_broker.outbox import Outbox
from chervil_broker.silence import is_silence
from chervil_broker.tls import certificate_names
from chervil_broker.turns import MESSAGE_COST, TURN_ROWS, Answer
from chervil_broker.vhost import VHost
from chervil_broker.windows import Window

if TYPE_CHECKING:
    from chervil_broker.broker import Broker

log = logging.getLogger("chervil.broker")

#: Bytes that may wait to be written to one peer before nothing more is read from it, delivered to it or
#: made into frames for it: four of the longest batches, which is enough to keep a connection busy.
UNSENT_MAX = 4 * FRAME_BATCH
#: Bytes that are handed to TLS at once: what it has encrypted already is not told as waiting.
SLICE = 65_536
#: Seconds in which a peer takes nothing of what waits for it before it is cut off.
SLOW_SECONDS = 10.0
#: Where a request was not taken apart.
_NOTHING: Iterator[Message] = iter(())
#: A stranger's ERROR without its message, at most.
_ERROR_FRAME = 100
_FIRST_IN_A_RESUMED_SESSION = (Resume, Heartbeat, Goodbye)


class Peer(asyncio.Protocol):
    """A connection, and from HELLO on the session that is on it. `number` is unique in this process."""

    def __init__(self, broker: "Broker", number: int, *, needs_token: bool) -> None:
        self.broker = broker
        self.number = number
        self.needs_token = needs_token
        self.connection = Connection(Side.BROKER)
        self.name = "a stranger"
        #: Who speaks, from HELLO on; and what that lets it ask for.
        self.identity = STRANGER
        #: Where it is; the default one until it has said.
        self.vhost = broker.default
        self._handlers: Mapping[type[Message], Handler] = HANDLERS
        #: The engine's number of its session, and whether it has one: from HELLO to GOODBYE, or to the
        #: end of the connection.
        self.session = 0
        self.in_session = False
        #: Has subscribed, now or before it resumed: heartbeats are owed both ways; and on this connection.
        self.consumes = self.subscribed = False
        #: The inventory as far as it has come; None where none is to come.
        self.inventory: list[list[Any]] | None = None
        #: Requests of WATCHes that are not answered yet.
        self.watches: set[int] = set()
        #: Requests that were taken apart and are not answered yet.
        self.parts: dict[int, Answer] = {}
        self.window = Window()
        #: Has said GOODBYE; closed once what it was promised has been written.
        self.leaving = False
        #: Was not heard of for too long, or took nothing: its session is kept for longer.
        self.silent = False
        self.heard = broker.seconds()
        self.spoke = self.heard
        #: What its messages have cost since it last had to wait, see TURN_ROWS.
        self.spent = 0
        #: Nothing is read from it at present, see UNSENT_MAX.
        self.held_up = False
        #: The engine was told to deliver nothing to it.
        self.withheld = False
        self.outbox = Outbox()
        #: Bytes of frames for it that wait at the gate.
        self.at_gate = 0
        self._transport: asyncio.Transport | None = None
        #: Gives up TLS that is not done yet.
        self.give_up: Callable[[], object] | None = None
        self._encrypted = False
        self._address: str | None = None
        #: What it has sent and is not taken yet, while `spent` is used up; and the rest of a request that
        #: was taken apart, which comes first.
        self._incoming: Iterator[Message] | None = None
        self._parts = _NOTHING
        #: Nothing of what it sends matters any more; and it is closed once nothing waits for it.
        self._over = self._closing = False
        #: Bytes written to it, how many of them were taken, and when that last grew.
        self._written = 0
        self._taken = 0
        self._taken_at = self.heard
        #: Bytes of a frame that has not come whole.
        self._partial = 0
        self._deadline: asyncio.TimerHandle | None = None
        self._stranger = self._open = False

    # What the loop calls.

    def arrive(self, address: str | None) -> bool:
        """It is accepted and does TLS first, within the time for HELLO. False: it is to be sent away."""
        self._come_from(address)
        refusal = self.broker.admit(self, address)
        if refusal is not None:
            self.broker.refuse(self, Code.TOO_MANY, refusal)
            return False
        self._stranger = self._open = True
        self.expect_within(PREAUTH_SECONDS, "TLS and HELLO")
        return True

    def _come_from(self, address: str | None) -> None:
        self._address = address
        if address is not None:
            self.name = f"a stranger from {address}"

    def fail(self, why: str) -> None:
        """The connection came to nothing before it was made."""
        if not self._over:
            self.broker.refuse(self, Code.AUTH_FAILED, why)
        self.connection_lost(None)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.give_up = None
        self._transport = cast("asyncio.Transport", transport)
        if self._open or self._over:  # it arrived before TLS was done
            self._encrypted = True
            self._transport.set_write_buffer_limits(high=UNSENT_MAX)
            if self._over:
                self._transport.abort()
            return
        if not self.needs_token and not _same_user(transport):
            self.broker.refuse(self, Code.FORBIDDEN, "a connection of another user to the Unix socket")
            self._over = True
            self._transport.abort()
            return
        self._come_from(_address(transport))
        refusal = self.broker.admit(self, self._address)
        if refusal is not None:
            self.refuse(Code.TOO_MANY, refusal)
            return
        self._stranger = self._open = True
        self._transport.set_write_buffer_limits(high=UNSENT_MAX)
        self.expect_within(PREAUTH_SECONDS, "HELLO")

    def data_received(self, data: bytes) -> None:
        if self._over:
            return
        self.heard = self.vhost.tick()
        coming = self.connection.receive(data)
        if self._incoming is not None:
            self._incoming = chain(self._incoming, coming)
            return
        self._incoming = coming
        self._take_messages(coming)

    def _take_messages(self, incoming: Iterator[Message]) -> None:
        """Dispatches what has come, as far as this turn allows."""
        broker = self.broker
        try:
            for message in incoming:
                if self.inventory is not None:
                    self._check_that_it_resumes(message)
                self.spent += MESSAGE_COST
                self._handlers[type(message)](broker, self, message)
                if self.spent >= TURN_ROWS:
                    self._read_no_more()
                    broker.wake(self.vhost)  # first: what this has brought is to leave before more is taken
                    asyncio.get_running_loop().call_soon(self._next_turn)
                    return
        except RemoteProtocolError as error:
            self.refuse(error.code, error.message)
        self._incoming = None
        self._count_partial()
        broker.wake(self.vhost)

    def _next_turn(self) -> None:
        self.spent = 0
        if self._over or self._incoming is None or self.held_up:
            return
        # What it sent has come long since; that it had to wait for its turn is no silence of its own.
        self.heard = self.vhost.tick()
        self._take_messages(chain(self._parts, self._incoming))
        if self._incoming is None:
            self._read_again()

    def _check_that_it_resumes(self, message: Message) -> None:
        if type(message) not in _FIRST_IN_A_RESUMED_SESSION:
            raise RemoteProtocolError(
                Code.BAD_STATE,
                f"{type(message).__name__.upper()} in a session that was resumed; RESUME comes first",
            )

    def pause_writing(self) -> None:
        self.held_up = True
        self.withhold()
        self._read_no_more()

    def resume_writing(self) -> None:
        self.held_up = False
        self._write_waiting()
        if self.held_up:
            return
        self.deliver_again()
        self._next_turn()
        if self._incoming is None:
            self._read_again()

    def withhold(self) -> None:
        """Has the engine deliver nothing more to it."""
        if self.in_session and not self.withheld:
            self.withheld = True
            self.vhost.engine.hold(self.session, held=True)

    def deliver_again(self) -> None:
        """Lets the engine deliver to it again."""
        if self.in_session and self.withheld:
            self.withheld = False
            self.vhost.tick()
            self.vhost.engine.hold(self.session, held=False)
            self.broker.wake(self.vhost)

    def _read_no_more(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def _read_again(self) -> None:
        if self._transport is not None and not (self._transport.is_closing() or self.held_up):
            self._transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self.silent = self.silent or is_silence(exc)
        self.give_up = None
        self._over = True
        self._drop_all()
        self.stop_deadline()
        self.known_now()
        self.broker.partial_bytes -= self._partial
        self._partial = 0
        if self._open:
            self._open = False
            self.broker.forget(self)

    # What the broker and its commands call.

    @property
    def ready(self) -> bool:
        return self.connection.state is State.READY

    def end_turn(self) -> None:
        """What it asked for is long to answer: nothing more is taken from it in this turn."""
        self.spent = TURN_ROWS

    def take_next(self, parts: Iterator[Message]) -> None:
        """Lets the rest of a request that was taken apart wait, before all that came after it."""
        self._parts = parts
        self.end_turn()

    @property
    def key(self) -> str:
        """Tells it apart from others in what repeats itself: strangers by their address only."""
        return str(self.number) if self.session else f"stranger {self._address}"

    @property
    def unsent(self) -> int:
        """Bytes that wait for it to read, results that are no frames yet among them."""
        buffered = 0 if self._transport is None else self._transport.get_write_buffer_size()
        return buffered + self.at_gate + self.outbox.kept_bytes

    @property
    def must_wait(self) -> bool:
        """Whether what comes for it is to be kept as messages: it does not take what it has."""
        return self.held_up or self.at_gate > UNSENT_MAX or len(self.outbox) > 0

    @property
    def whence(self) -> str:
        """Where it connects from, for people."""
        return self._address or "Unix socket"

    @property
    def certificate(self) -> list[str]:
        """The names in the certificate that it has shown."""
        shown = None if self._transport is None else self._transport.get_extra_info("peercert")
        return list(certificate_names(shown or {}))

    def introduce(self, name: str, identity: Identity, vhost: VHost) -> None:
        """It has said who it is and where, and may be that."""
        self.vhost = vhost
        vhost.peers[self.number] = self
        self.name = name
        self.identity = identity
        self._handlers = handlers_for(identity.roles)

    def known_now(self) -> None:
        """It is no stranger any more: it has said HELLO, or is gone."""
        if self._stranger:
            self._stranger = False
            self.broker.strangers.left(self, self._address)

    def expect_within(self, seconds: float, what: str) -> None:
        """Ends the connection unless `stop_deadline` is called in time."""
        self.stop_deadline()
        self._deadline = asyncio.get_running_loop().call_later(seconds, self._too_slow, what, seconds)

    def stop_deadline(self) -> None:
        """What was expected came in time, or there is nobody left to wait for."""
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def encode(self, message: Message) -> bytes:
        """The message's frame; empty where it can't be sent any more, or no frame can hold it."""
        try:
            return self.connection.send(message)
        except LocalProtocolError as error:
            if self.ready:
                # An answer that no frame can hold is its peer's loss and nobody else's.
                self.refuse(Code.TOO_MANY, f"an answer to it cannot be sent: {error.message}")
            return b""  # else it left between asking and being answered

    def say(self, *messages: Message) -> None:
        """Writes messages that rest on nothing in the engine, past the gate, in one piece."""
        self.write(b"".join(map(self.connection.send, messages)))

    def write(self, frames: bytes) -> None:
        """Writes frames that have passed the gate, after what waits already."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        if self.outbox:
            self.outbox.put(frames)
            return
        self.spoke = self.heard if self.heard > self.spoke else self.broker.seconds()
        self._hand_over(transport, frames)

    def _hand_over(self, transport: asyncio.Transport, frames: bytes) -> None:
        if transport.get_write_buffer_size() == 0:  # it has taken all: from now on it may be slow
            self._taken, self._taken_at = self._written, self.broker.pump.ran_at
        self._written += len(frames)
        if not self._encrypted or len(frames) <= SLICE:
            transport.write(frames)
            return
        for at in range(0, len(frames), SLICE):
            transport.write(frames[at : at + SLICE])

    def write_later(self, messages: list[Message]) -> None:
        """Writes messages that have passed the gate as soon as the peer takes them."""
        if self._over:
            return
        unsent = self.broker.unsent
        kept = self.outbox.kept_bytes
        for message in messages:
            self.outbox.put(message)
        unsent.add(self.outbox.kept_bytes - kept)
        unsent.enforce(self.broker.seconds())
        if not self.held_up:
            self._write_waiting()

    def _write_waiting(self) -> None:
        outbox, transport = self.outbox, self._transport
        while outbox and transport is not None and not (self.held_up or transport.is_closing()):
            part = outbox.take()
            frame = part if isinstance(part, bytes) else self.encode(part)
            if frame:
                self._hand_over(transport, frame)
                self.broker.unsent.add(len(frame))
        if self._closing:
            self.close()

    def look(self, now: float) -> int:
        """Looks how much waits for it, and whether it has taken something; returns the bytes."""
        buffered = 0 if self._transport is None else self._transport.get_write_buffer_size()
        taken = self._written - buffered
        if buffered == 0 or taken > self._taken:
            self._taken, self._taken_at = taken, now
        return buffered + self.at_gate + self.outbox.kept_bytes

    def stalled(self, now: float) -> float:
        """Seconds since it was last seen (`look`) to take something, or to have nothing to take."""
        return now - self._taken_at

    def check_that_it_reads(self, now: float) -> None:
        """Cuts the peer off when nothing of what waits for it was taken for SLOW_SECONDS."""
        if self.look(now) and self.stalled(now) > SLOW_SECONDS:
            self.cut_off(f"it does not read: {self.unsent} bytes wait for it")

    def cut_off(self, why: str) -> None:
        """Ends a connection whose peer does not read or was not heard of; it is told where that can be."""
        self.silent = True
        if self._transport is None or self._transport.get_write_buffer_size():
            self.broker.refuse(self, Code.SLOW, why)
            self.abort()
        else:
            self.refuse(Code.SLOW, why)

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
        if self._over:
            return
        self.broker.refuse(self, code, message)
        self.end(code, message)

    def end(self, code: Code, message: str) -> None:
        """Ends the connection at once with a code; what waits for the peer is dropped."""
        self._over = True
        self._drop_all()
        self.broker.part(self)
        # Its connection may take a while to end; it counts no more.
        self.known_now()
        self.vhost.peers.pop(self.number, None)
        if self.connection.state is not State.CLOSED:
            if self.connection.state in (State.OPENING, State.GREETING):
                message = _cut(message, PREAUTH_OUT - _ERROR_FRAME)
            self.say(Error(None, code, message))
        self.close()

    def beat(self) -> None:
        self.spoke = self.broker.seconds()
        self.say(Heartbeat())

    def farewell(self) -> Goodbye | None:
        """What ends an orderly connection; nothing where it has ended already."""
        if self.connection.state in (State.READY, State.CLOSING):
            return Goodbye("DONE" if self.leaving else Code.SHUTDOWN)
        return None

    def close(self) -> None:
        """Closes when everything that waits has been written."""
        self._closing = True
        if self._transport is not None and not self.outbox:
            self._transport.close()

    def abort(self) -> None:
        """Closes now: the peer is lost, and what waits for it is dropped."""
        self._over = True
        self._drop_all()
        if self._transport is not None:
            self._transport.abort()
            self._transport = None
        elif self.give_up is not None:
            self.give_up()

    def _drop_all(self) -> None:
        """What it has sent, and what waits for it to read, is of no more use."""
        self._incoming = None
        self._parts = _NOTHING
        self.outbox.clear()

    def _too_slow(self, what: str, seconds: float) -> None:
        self._deadline = None
        self.refuse(Code.SLOW, f"no {what} within {seconds:g} s")
        self.broker.wake(self.vhost)


_CREDENTIALS = struct.Struct("3i")


def _same_user(transport: asyncio.BaseTransport) -> bool:
    """Whether the other end of a Unix socket belongs to this user, or to root."""
    peer = transport.get_extra_info("socket")
    if not hasattr(socket, "SO_PEERCRED"):
        return True  # the socket's mode, 0600, is what guards it there
    packed = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    uid: int = _CREDENTIALS.unpack(packed)[1]
    return uid in (0, os.getuid())


def _address(transport: asyncio.BaseTransport) -> str | None:
    """The host at the other end; None for a Unix socket."""
    name = transport.get_extra_info("peername")
    return str(name[0]) if isinstance(name, tuple) and name else None


def _cut(text: str, limit: int) -> str:
    """The text's beginning that takes at most `limit` bytes."""
    return text.encode()[:limit].decode(errors="ignore")
