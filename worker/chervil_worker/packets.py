"""Packets between the link, the nursery and the children: one message each, over SOCK_SEQPACKET sockets.

    small packet:  number (u64, big-endian) | payload
    large packet:  number                      with the payload in an anonymous file, its descriptor
                                               beside it (SCM_RIGHTS)
    in parts:      number with its first bit set | a part of the payload; the last part has the plain number

A packet is read whole or not at all, so two processes may hold the same end: whoever reads a packet
first has it. That is how the link takes back what a child has not begun. So the link sends files. A child
answers in parts: nobody takes those back, and they pass where no descriptor is left, on either side.
"""

import array
import contextlib
import os
import socket
import tempfile
from collections.abc import Callable, Sequence
from struct import Struct
from typing import Any, NamedTuple

import msgpack

#: Payloads over this travel as a file: a socket's buffer (208 KiB on Linux) should hold a good part of
#: a child's look-ahead, and a packet must fit it whole.
INLINE_MAX = 32_768

#: In a packet's number: the payload goes on in the sender's next packet.
MORE = 1 << 63

#: Descriptors that one packet may carry: the payload's file, or a child's end.
DESCRIPTORS_MAX = 2

_NUMBER = Struct(">Q")
_HEAD = _NUMBER.size
_PACKET_MAX = _HEAD + INLINE_MAX
_DESCRIPTOR = array.array("i").itemsize
_ANCILLARY = socket.CMSG_SPACE(DESCRIPTORS_MAX * _DESCRIPTOR)
#: Descriptors that come in are not for programs that a task starts.
_CLOSE_ON_EXEC = int(getattr(socket, "MSG_CMSG_CLOEXEC", 0))
#: Descriptors did not come in: the receiver had none left.
_TRUNCATED = int(socket.MSG_CTRUNC)

#: For `flags`: do not wait, raise BlockingIOError. Plain, as `|` of enum members takes a microsecond.
DONT_WAIT = int(socket.MSG_DONTWAIT)


#: Makes a payload of plain values. One packer a process is enough, as none of them has a second thread.
pack: Callable[[Any], bytes] = msgpack.Packer(autoreset=True).pack


def unpack(payload: bytes) -> Any:
    """The values in a payload of `pack`; what a child sends is checked by `completion.read`."""
    return msgpack.unpackb(payload, strict_map_key=False)


class Packet(NamedTuple):
    """What came in one packet; the descriptors belong to the receiver, who closes them.

    A receiver that is at its limit of open files gets the packet without them: the payload of a large one is
    None then.
    """

    number: int
    payload: bytes | None
    descriptors: tuple[int, ...] = ()


def pair() -> tuple[socket.socket, socket.socket]:
    """Two connected ends."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def send(
    sock: socket.socket, number: int, payload: bytes, descriptors: Sequence[int] = (), flags: int = 0
) -> None:
    """Sends one packet, or sends nothing and raises an OSError: BlockingIOError with DONT_WAIT."""
    if len(payload) <= INLINE_MAX:
        data = _NUMBER.pack(number) + payload
        if not descriptors:
            sock.send(data, flags)
        else:
            socket.send_fds(sock, [data], list(descriptors), flags)
        return
    file = _file_of(payload)
    try:
        socket.send_fds(sock, [_NUMBER.pack(number)], [file, *descriptors], flags)
    finally:
        os.close(file)


def send_in_parts(sock: socket.socket, number: int, payload: bytes) -> None:
    """Sends a payload in as many small packets as it takes, and waits until there is room for them."""
    if len(payload) <= INLINE_MAX:
        sock.send(_NUMBER.pack(number) + payload)
        return
    head = _NUMBER.pack(number | MORE)
    last = (len(payload) - 1) // INLINE_MAX * INLINE_MAX
    for at in range(0, last, INLINE_MAX):
        sock.send(head + payload[at : at + INLINE_MAX])
    sock.send(_NUMBER.pack(number) + payload[last:])


def receive(sock: socket.socket, flags: int = 0) -> Packet | None:
    """The next packet; None at the end (the peer has closed).

    Raises BlockingIOError when there is none and `flags` holds DONT_WAIT or the socket does not block.
    """
    try:
        data, ancillary, said, _ = sock.recvmsg(_PACKET_MAX, _ANCILLARY, flags | _CLOSE_ON_EXEC)
    except ConnectionResetError:  # the peer closed with packets of ours unread
        return None
    if not data:
        return None
    number = _NUMBER.unpack_from(data)[0]
    if not (ancillary or said & _TRUNCATED):
        return Packet(number, data[_HEAD:])
    descriptors = _descriptors(ancillary)
    if not descriptors:
        return Packet(number, data[_HEAD:] or None)
    if len(data) > _HEAD:
        return Packet(number, data[_HEAD:], descriptors)
    return Packet(number, _content(descriptors[0]), descriptors[1:])


def receive_plain(sock: socket.socket) -> tuple[int, bytes]:
    """The next packet of a child, who sends no files: (number, payload). For a socket that does not block.

    User code may have written it. Raises BlockingIOError when there is none, EOFError at the end or for a
    packet without a byte, which look the same, ValueError for one that is too short to have a number.
    Descriptors beside it are closed by the system.
    """
    try:
        data = sock.recv(_PACKET_MAX)
    except ConnectionResetError:  # the peer closed with packets of ours unread
        data = b""
    if not data:
        raise EOFError
    if len(data) < _HEAD:
        raise ValueError("a packet without a number")
    return _NUMBER.unpack_from(data)[0], data[_HEAD:]


def take_back(sock: socket.socket) -> list[int]:
    """The numbers of all unread packets, oldest first; `sock` is the end that they were sent to.

    Payloads are dropped unread: who sent them has them.
    """
    numbers: list[int] = []
    with contextlib.suppress(BlockingIOError):
        while True:
            try:
                data, ancillary, _, _ = sock.recvmsg(_HEAD, _ANCILLARY, DONT_WAIT | _CLOSE_ON_EXEC)
            except ConnectionResetError:
                break
            if not data:
                break
            for descriptor in _descriptors(ancillary):
                os.close(descriptor)
            numbers.append(_NUMBER.unpack_from(data)[0])
    return numbers


def _descriptors(ancillary: list[tuple[int, int, bytes]]) -> tuple[int, ...]:
    found = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            found.frombytes(data[: len(data) - len(data) % found.itemsize])
    return tuple(found)


def _file_of(payload: bytes) -> int:
    """A new anonymous file with this content."""
    if hasattr(os, "memfd_create"):
        file = os.memfd_create("chervil-packet", os.MFD_CLOEXEC)
    else:
        with tempfile.TemporaryFile() as temporary:
            file = os.dup(temporary.fileno())
    try:
        written = 0
        view = memoryview(payload)
        while written < len(payload):
            written += os.pwrite(file, view[written:], written)
    except BaseException:
        os.close(file)
        raise
    return file


def _content(file: int) -> bytes:
    """All of a file, from its beginning; closes it."""
    try:
        size = os.fstat(file).st_size
        content = os.pread(file, size, 0)
        while len(content) < size and (more := os.pread(file, size - len(content), len(content))):
            content += more
        return content
    finally:
        os.close(file)
