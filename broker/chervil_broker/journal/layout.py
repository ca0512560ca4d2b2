"""How segments and frames look, byte for byte: docs/journal-format.md. No I/O here."""

import struct
from collections.abc import Sequence
from typing import NamedTuple
from zlib import crc32

VERSION = 1
#: Frames begin at multiples of this.
ALIGNMENT = 8
SEGMENT_HEADER_SIZE = 64
FRAME_HEADER_SIZE = 48
#: What a frame takes besides its payload, padding included, at most.
FRAME_EXTRA_MAX = FRAME_HEADER_SIZE + 4 + ALIGNMENT - 1
#: Largest payload: several times the largest task, so that what a reader must hold at once is bounded.
PAYLOAD_MAX = 128 * 1024 * 1024

_SEGMENT_MAGIC = b"CHERVILJ"
FRAME_MAGIC = b"CHVF"
_SEGMENT = struct.Struct(">8sII16sQQ8sI")
_FRAME = struct.Struct(">4sIIIQQ8sI")
_U32 = struct.Struct(">I")


class LayoutError(Exception):
    """Bytes that are not what they should be; the text says what is wrong with them."""


class VersionError(LayoutError):
    """A segment of a version that this program does not know."""


class SegmentHeader(NamedTuple):
    """What a segment says of itself."""

    instance: bytes
    number: int
    #: Sequence of its first record.
    first: int
    salt: bytes

    def pack(self) -> bytes:
        head = _SEGMENT.pack(
            _SEGMENT_MAGIC, VERSION, SEGMENT_HEADER_SIZE, self.instance, self.number, self.first, self.salt, 0
        )
        return head + _U32.pack(crc32(head))

    @classmethod
    def unpack(cls, data: bytes) -> "SegmentHeader":
        """Raises VersionError, or LayoutError for what is no segment."""
        if len(data) < SEGMENT_HEADER_SIZE:
            raise LayoutError(f"{len(data)} bytes are too few for the header of a segment")
        head = data[: _SEGMENT.size]
        magic, version, size, instance, number, first, salt, zero = _SEGMENT.unpack(head)
        if magic != _SEGMENT_MAGIC:
            raise LayoutError("it does not begin as a segment does")
        (checksum,) = _U32.unpack_from(data, _SEGMENT.size)
        if checksum != crc32(head):
            raise LayoutError("the checksum of the segment's header is wrong")
        if version != VERSION:
            raise VersionError(f"version {version} of the format; this program knows {VERSION}")
        if size != SEGMENT_HEADER_SIZE or zero:
            raise LayoutError("fields of the segment's header are not as they should be")
        return cls(instance, number, first, salt)


class Frame(NamedTuple):
    """One valid frame. Offsets are in its segment."""

    offset: int
    #: Where the next one begins.
    end: int
    #: Sequence of its first record; of a MARK the sequence that comes next.
    first: int
    #: Records in it; 0: a MARK.
    record_count: int
    #: The highest sequence that was durable when it was made.
    durable: int
    payload: bytes


def frame_size(payload: int) -> int:
    """Bytes that a frame takes whose payload has so many."""
    size = FRAME_HEADER_SIZE + payload + 4
    return size + -size % ALIGNMENT


def frame_length(head: bytes) -> int:
    """The length of the payload that a frame's header tells, unchecked."""
    return int.from_bytes(head[4:8])


def pack_frame(records: Sequence[bytes], first: int, durable: int, salt: bytes) -> bytes:
    """A frame of these records, as `pack_record` made them; a MARK where there are none."""
    payload = b"".join(records)
    head = _FRAME.pack(FRAME_MAGIC, len(payload), len(records), 0, first, durable, salt, 0)
    seed = crc32(salt)
    padding = bytes(frame_size(len(payload)) - FRAME_HEADER_SIZE - len(payload) - 4)
    parts = (head, _U32.pack(crc32(head, seed)), payload, _U32.pack(crc32(payload, seed)), padding)
    return b"".join(parts)


def unpack_frame(data: bytes, offset: int, salt: bytes) -> Frame:
    """The frame that begins at `offset` of a segment; raises LayoutError where none does."""
    start = offset + FRAME_HEADER_SIZE
    if len(data) < start:
        raise LayoutError("the segment ends within the header of a frame")
    head = data[offset : start - 4]
    magic, length, count, zero, first, durable, its_salt, zero2 = _FRAME.unpack(head)
    if magic != FRAME_MAGIC:
        raise LayoutError("no frame begins here")
    seed = crc32(salt)
    (checksum,) = _U32.unpack_from(data, start - 4)
    if its_salt != salt or checksum != crc32(head, seed):
        raise LayoutError("the checksum of the frame's header is wrong")
    if zero or zero2 or length > PAYLOAD_MAX:
        raise LayoutError("fields of the frame's header are not as they should be")
    end = offset + frame_size(length)
    if end > len(data):
        raise LayoutError(f"the frame's payload of {length} bytes goes beyond the end of the segment")
    payload = bytes(data[start : start + length])
    (checksum,) = _U32.unpack_from(data, start + length)
    if checksum != crc32(payload, seed):
        raise LayoutError("the checksum of the frame's payload is wrong")
    if any(data[start + length + 4 : end]):
        raise LayoutError("what fills the frame up is not zeros")
    return Frame(offset, end, first, count, durable, payload)


def pack_record(body: bytes) -> bytes:
    """A record of these bytes, with its length."""
    return _U32.pack(len(body)) + body


def unpack_records(frame: Frame) -> list[bytes]:
    """The records of a frame without their lengths; raises LayoutError where they are not as it says."""
    payload = frame.payload
    records = []
    at = 0
    for _ in range(frame.record_count):
        if at + 4 > len(payload):
            break
        (length,) = _U32.unpack_from(payload, at)
        records.append(payload[at + 4 : at + 4 + length])
        at += 4 + length
    if at != len(payload) or len(records) != frame.record_count:
        raise LayoutError(
            f"the frame's {len(payload)} bytes are not the {frame.record_count} records that it names"
        )
    return records


def segment_name(first: int) -> str:
    """The file name of the segment whose first record has this sequence."""
    return f"seg-{first:020d}.log"


def first_of(name: str) -> int | None:
    """The sequence that a segment's file name says; None for another file."""
    digits = name.removeprefix("seg-").removesuffix(".log")
    if len(digits) != 20 or not (digits.isascii() and digits.isdecimal()):
        return None
    return int(digits) if name == segment_name(int(digits)) else None
