"""One end of a connection as a state machine without I/O: bytes in, messages out; messages in, bytes out."""

from collections.abc import Iterator
from enum import Enum
from itertools import product

from chervil.protocol.errors import Code, LocalProtocolError, RemoteProtocolError
from chervil.protocol.frames import FrameReader, FrameWriter
from chervil.protocol.limits import FRAME_MAX, PREAUTH_FIELDS, PREAUTH_FRAME
from chervil.protocol.messages import COMMANDS, NUMBERS, Error, Message, number_of, parse
from chervil.protocol.vocabulary import Side


class State(Enum):
    """Where a connection is (protocol.md, section 3)."""

    OPENING = "OPENING"
    GREETING = "GREETING"
    READY = "READY"
    CLOSING = "CLOSING"
    CLOSED = "CLOSED"

    # By identity: Enum's own hash is a Python call, and each frame looks a transition up.
    __hash__ = object.__hash__


#: Where a command leads, when it does not leave the state as it is.
_MOVES = {
    (State.OPENING, "HELLO"): State.GREETING,
    (State.GREETING, "WELCOME"): State.READY,
    (State.OPENING, "ERROR"): State.CLOSED,
    (State.GREETING, "ERROR"): State.CLOSED,
    (State.READY, "GOODBYE"): State.CLOSING,
}

#: (state, who sends, command number) -> next state. What is not here is BAD_STATE. The second
#: GOODBYE, and an ERROR without a request, end the connection; those two depend on more than the state.
TRANSITIONS: dict[tuple[State, Side, int], State] = {
    (State(state), side, command.number): _MOVES.get((State(state), command.name), State(state))
    for command, side in product(COMMANDS.values(), Side)
    if command.sender in (None, side)
    for state in command.states
}

_GOODBYE = next(c.number for c in COMMANDS.values() if c.name == "GOODBYE")
_ERROR = NUMBERS[Error]


class Connection:
    """One end of a connection.

    `receive` raises RemoteProtocolError when the peer broke the rules; tell it the code and close.
    `send` raises LocalProtocolError when this program would break them; nothing is sent then.
    """

    def __init__(self, side: Side) -> None:
        self.side = side
        self.state = State.OPENING
        self._peer = side.other
        self._said_goodbye: Side | None = None
        self._frames = FrameReader(PREAUTH_FRAME if side is Side.BROKER else FRAME_MAX)
        self._writer = FrameWriter()

    def receive(self, data: bytes) -> Iterator[Message]:
        """The messages that `data` completes, one by one as they are parsed.

        Each may be answered before the next is taken, so a HELLO is judged before what follows it.
        """
        for array, size in self._frames.feed(data):
            if self.state is State.OPENING and len(array) > PREAUTH_FIELDS + 1:
                raise RemoteProtocolError(
                    Code.BAD_FRAME, f"a first frame of {len(array) - 1} fields; HELLO has {PREAUTH_FIELDS}"
                )
            message = parse(array, size)
            try:
                self._advance(self._peer, array[0], message)
            except LocalProtocolError as error:
                raise RemoteProtocolError(error.code, error.message) from None
            yield message

    def send(self, message: Message) -> bytes:
        """The frame to put on the wire."""
        number = number_of(message)
        frame = self._writer.frame((number, *message))
        self._advance(self.side, number, message)
        return frame

    @property
    def buffered(self) -> int:
        """Bytes of an incomplete frame."""
        return self._frames.buffered

    def accept_frames_up_to(self, limit: int) -> None:
        """Changes the longest payload that is accepted; a broker does so once it has said WELCOME."""
        self._frames.limit = limit

    def _advance(self, sender: Side, number: int, message: Message) -> None:
        state = self.state
        after = TRANSITIONS.get((state, sender, number))
        if after is None:
            raise LocalProtocolError(
                Code.BAD_STATE, f"{COMMANDS[number].name} may not come from {sender.value!r} in {state.value}"
            )
        if number == _GOODBYE:
            if self._said_goodbye not in (None, sender):
                after = State.CLOSED
            self._said_goodbye = self._said_goodbye or sender
        elif number == _ERROR and isinstance(message, Error) and message.request is None:
            after = State.CLOSED
        self.state = after
