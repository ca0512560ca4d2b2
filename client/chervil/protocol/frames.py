"""Frames: a u32 length, then one msgpack array. Bytes in, arrays out; arrays in, bytes out."""

from collections.abc import Callable, Iterator
from struct import Struct
from typing import Any, cast

import msgpack

from chervil.protocol import bounds
from chervil.protocol.errors import Code, LocalProtocolError, RemoteProtocolError
from chervil.protocol.limits import FRAME_BATCH, FRAME_MAX

_LENGTH = Struct(">I")
_HEAD = _LENGTH.size


def refuse_ext(code: int, data: bytes) -> object:
    """`ext_hook` of every unpacking here: extension types carry no meaning and are not decoded."""
    del data
    raise ValueError(f"ext type {code} is not allowed")


def pack(value: Any, unicode_errors: str = "strict") -> bytes:
    """One msgpack value as bytes; raises ValueError, TypeError or OverflowError where it can't be."""
    return cast("bytes", msgpack.packb(value, unicode_errors=unicode_errors))


def unpack(payload: bytes | memoryview) -> Any:
    """One msgpack value out of a payload; raises ValueError (msgpack's own errors are ValueErrors).

    What it allocates is bounded: see `bounds`.
    """
    bounds.check(payload)
    try:
        # max_ext_len: a timestamp, ext type -1, would be decoded without asking the hook.
        return msgpack.unpackb(payload, raw=False, strict_map_key=False, ext_hook=refuse_ext, max_ext_len=0)
    except TypeError as error:  # a map whose key is an array or a map
        raise ValueError(str(error)) from None


class FrameReader:
    """Cuts a byte stream into frames and decodes each. Not to be used again after it raised."""

    def __init__(self, limit: int = FRAME_MAX) -> None:
        #: Longest payload accepted, in bytes; may be changed between frames.
        self.limit = limit
        self._rest = bytearray()

    @property
    def buffered(self) -> int:
        """Bytes of an incomplete frame held here; never more than one frame and one read."""
        return len(self._rest)

    def feed(self, data: bytes) -> Iterator[tuple[list[Any], int]]:
        """Yields (array, payload length) for each frame that `data` completes.

        The limit is looked up for each frame, so a caller may raise it in between. Raises
        RemoteProtocolError with BAD_FRAME.
        """
        source: bytes | bytearray = data
        if self._rest:
            self._rest += data
            source = self._rest
            if len(source) < _HEAD or len(source) < _HEAD + self._checked_length(source, 0):
                return
            self._rest = bytearray()
        at = 0
        end = len(source)
        with memoryview(source) as view:
            while end - at >= _HEAD:
                length = self._checked_length(source, at)
                if end - at - _HEAD < length:
                    break
                body = at + _HEAD
                at = body + length
                yield decode(view[body:at]), length
            if at < end:
                self._rest += view[at:end]

    def _checked_length(self, source: bytes | bytearray, at: int) -> int:
        length: int = _LENGTH.unpack_from(source, at)[0]
        if not 1 <= length <= self.limit:
            raise RemoteProtocolError(
                Code.BAD_FRAME, f"a frame of {length} bytes; 1 to {self.limit} are allowed here"
            )
        return length


def decode(payload: bytes | memoryview) -> list[Any]:
    """The array in a payload. Raises RemoteProtocolError with BAD_FRAME."""
    try:
        array = unpack(payload)
    except ValueError as error:
        raise RemoteProtocolError(Code.BAD_FRAME, f"not msgpack: {type(error).__name__} {error}") from None
    if type(array) is not list or not array:
        raise RemoteProtocolError(Code.BAD_FRAME, "the payload is not a msgpack array with a command number")
    return array


def _packer() -> Callable[[Any], bytes]:
    pack: Callable[[Any], bytes] = msgpack.Packer(autoreset=True, buf_size=4096).pack
    return pack


class FrameWriter:
    """Encodes arrays into frames. One instance belongs to one connection: a Packer is not shared."""

    def __init__(self) -> None:
        self._pack = _packer()

    def frame(self, array: tuple[Any, ...]) -> bytes:
        """One frame; raises LocalProtocolError when it can't be encoded or is too long."""
        try:
            payload = self._pack(array)
        except (TypeError, ValueError, OverflowError) as error:
            raise LocalProtocolError(Code.BAD_FIELD, f"not encodable: {error}") from error
        if len(payload) > FRAME_BATCH:
            self._pack = _packer()  # a Packer keeps the longest buffer that it ever needed
        if len(payload) > FRAME_MAX:
            raise LocalProtocolError(
                Code.BAD_FRAME, f"a frame of {len(payload)} bytes; {FRAME_MAX} is the limit"
            )
        return _LENGTH.pack(len(payload)) + payload
