"""What the link and the nursery tell each other, one message a packet.

link -> nursery   Spawn (with the child's end of its socket), Stop
nursery -> link   Manifest or Failed, once; then Born and Exited
"""

import socket
from collections.abc import Sequence
from typing import Any, NamedTuple

from chervil_worker import packets


class Spawn(NamedTuple):
    """Fork a child for this slot; its end of the socket comes with the message."""

    slot: int


class Stop(NamedTuple):
    """Children have lost their sockets and end by themselves; kill those that do not, and end."""


class Manifest(NamedTuple):
    """The app is there: what the link must know of it."""

    #: The app's name, for people.
    app: str
    #: The broker that the app itself names, if any: its setting `broker_url`.
    broker_urls: str | list[str] | None
    #: Its setting `broker_use_ssl`, if any: the fields of `chervil.tls_files.TLSFiles`.
    broker_files: list[str | None] | None
    default_queue: str
    tasks: list[str]
    #: Those whose terms are not the plain ones, by name: the fields of `terms.Terms`.
    terms: dict[str, list[Any]]


class Failed(NamedTuple):
    """The app could not be loaded; the nursery has said why, and ends with this exit code."""

    code: int


class Born(NamedTuple):
    slot: int
    pid: int


class Exited(NamedTuple):
    """The child of a slot is gone; `status` is as waitpid gives it, pid 0 one that could not be forked."""

    slot: int
    pid: int
    status: int


Message = Spawn | Stop | Manifest | Failed | Born | Exited
_KINDS: tuple[type[Message], ...] = (Spawn, Stop, Manifest, Failed, Born, Exited)


def send(sock: socket.socket, message: Message, descriptors: Sequence[int] = ()) -> None:
    """Sends a message; raises OSError when the other side is gone."""
    packets.send(sock, _KINDS.index(type(message)), packets.pack(tuple(message)), descriptors)


def receive(sock: socket.socket, flags: int = 0) -> tuple[Message, tuple[int, ...]] | None:
    """The next message and the descriptors that came with it; None when the other side is gone."""
    packet = packets.receive(sock, flags)
    if packet is None:
        return None
    assert packet.payload is not None, "only a Spawn has a descriptor beside it, and that is a small packet"
    return _KINDS[packet.number](*packets.unpack(packet.payload)), packet.descriptors
