"""Segments and frames, byte for byte: docs/journal-format.md."""

import struct
from zlib import crc32

import pytest

from chervil_broker.journal import layout
from chervil_broker.journal.layout import (
    FRAME_EXTRA_MAX,
    FRAME_HEADER_SIZE,
    Frame,
    LayoutError,
    SegmentHeader,
    VersionError,
    first_of,
    frame_size,
    pack_frame,
    pack_record,
    segment_name,
    unpack_frame,
    unpack_records,
)

SALT = b"saltsalt"
HEADER = SegmentHeader(b"i" * 16, 3, 70, SALT)


def resealed(data: bytes, offset: int, new: bytes) -> bytes:
    """A segment's header with other bytes in it and a checksum that is right again."""
    head = bytearray(data[:60])
    head[offset : offset + len(new)] = new
    return bytes(head) + struct.pack(">I", crc32(head))


def resealed_frame(frame: bytes, offset: int, new: bytes) -> bytes:
    head = bytearray(frame[:44])
    head[offset : offset + len(new)] = new
    return bytes(head) + struct.pack(">I", crc32(head, crc32(SALT))) + frame[48:]


def test_a_segments_header_is_as_the_page_says():
    data = HEADER.pack()
    assert data[:60] == (
        b"CHERVILJ" + bytes([0, 0, 0, 1, 0, 0, 0, 64]) + b"i" * 16
        + bytes([0] * 7 + [3]) + bytes([0] * 7 + [70]) + SALT + bytes(4)
    )  # fmt: skip
    assert data[60:] == struct.pack(">I", crc32(data[:60]))
    assert SegmentHeader.unpack(data) == HEADER
    assert SegmentHeader.unpack(data + bytes(100)) == HEADER


@pytest.mark.parametrize("bit", range(64 * 8))
def test_no_bit_of_a_segments_header_may_change(bit):
    data = bytearray(HEADER.pack())
    data[bit // 8] ^= 1 << bit % 8
    with pytest.raises(LayoutError):
        SegmentHeader.unpack(bytes(data))


def test_another_version_is_named():
    with pytest.raises(VersionError, match="version 2 of the format; this program knows 1"):
        SegmentHeader.unpack(resealed(HEADER.pack(), 8, bytes([0, 0, 0, 2])))


@pytest.mark.parametrize(("offset", "new"), [(12, bytes([0, 0, 0, 65])), (56, b"\0\0\0\1")])
def test_fields_that_are_given_must_be_so(offset, new):
    with pytest.raises(LayoutError, match="fields"):
        SegmentHeader.unpack(resealed(HEADER.pack(), offset, new))


def test_a_header_that_is_cut_short_says_so():
    with pytest.raises(LayoutError, match="63 bytes are too few"):
        SegmentHeader.unpack(HEADER.pack()[:63])


def test_a_frame_is_as_the_page_says():
    frame = pack_frame([pack_record(b"abc"), pack_record(b"")], 5, 4, SALT)
    payload = b"\0\0\0\3abc\0\0\0\0"
    head = b"CHVF" + struct.pack(">IIIQQ8sI", len(payload), 2, 0, 5, 4, SALT, 0)
    seed = crc32(SALT)
    assert frame[:FRAME_HEADER_SIZE] == head + struct.pack(">I", crc32(head, seed))
    assert frame[48:59] == payload
    assert frame[59:63] == struct.pack(">I", crc32(payload, seed))
    assert frame[63:] == bytes(1)
    assert unpack_frame(frame, 0, SALT) == Frame(0, 64, 5, 2, 4, payload)
    assert unpack_records(unpack_frame(frame, 0, SALT)) == [b"abc", b""]


@pytest.mark.parametrize("size", range(20))
def test_every_frame_ends_at_a_multiple_of_8_and_is_found_at_its_offset(size):
    frame = pack_frame([pack_record(b"x" * size)], 1, 0, SALT)
    assert len(frame) == frame_size(size + 4)
    assert len(frame) % 8 == 0
    assert len(frame) <= size + 4 + FRAME_EXTRA_MAX
    segment = bytes(64) + frame + bytes(64)
    found = unpack_frame(segment, 64, SALT)
    assert (found.offset, found.end) == (64, 64 + len(frame))
    assert unpack_records(found) == [b"x" * size]


def test_a_mark_has_no_payload():
    mark = unpack_frame(pack_frame([], 9, 8, SALT), 0, SALT)
    assert (mark.record_count, mark.first, mark.durable, mark.payload) == (0, 9, 8, b"")
    assert unpack_records(mark) == []


def test_no_bit_of_a_frame_may_change():
    frame = pack_frame([pack_record(b"abc")], 5, 4, SALT)
    for bit in range(len(frame) * 8):
        changed = bytearray(frame)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(LayoutError):
            unpack_frame(bytes(changed), 0, SALT)


def test_a_frame_that_is_cut_short_anywhere_is_none():
    frame = pack_frame([pack_record(b"abcdefgh")], 5, 4, SALT)
    for size in range(len(frame)):
        with pytest.raises(LayoutError):
            unpack_frame(frame[:size], 0, SALT)


def test_a_frame_of_another_file_is_none():
    frame = pack_frame([pack_record(b"abc")], 5, 4, b"olderold")
    with pytest.raises(LayoutError, match="checksum of the frame's header"):
        unpack_frame(frame, 0, SALT)


@pytest.mark.parametrize(
    ("offset", "new"),
    [(12, b"\0\0\0\1"), (40, b"\0\0\0\1"), (4, struct.pack(">I", layout.PAYLOAD_MAX + 1))],
)
def test_fields_of_a_frame_that_are_given_must_be_so(offset, new):
    with pytest.raises(LayoutError, match="fields"):
        unpack_frame(resealed_frame(pack_frame([], 5, 4, SALT), offset, new), 0, SALT)


@pytest.mark.parametrize(
    ("payload", "count"),
    [(b"\0\0\0\3abc", 2), (b"\0\0\0\3abc", 0), (b"\0\0\0\4abc", 1), (b"\0\0\0", 1), (b"\0\0\0\2abc", 1)],
)
def test_records_must_be_those_that_the_frame_names(payload, count):
    with pytest.raises(LayoutError, match="are not the"):
        unpack_records(Frame(0, 64, 1, count, 0, payload))


def test_names_of_segments_sort_as_the_log_goes():
    names = [segment_name(first) for first in (1, 9, 10, 2**63)]
    assert names == sorted(names)
    assert [first_of(name) for name in names] == [1, 9, 10, 2**63]


@pytest.mark.parametrize(
    "name", ["lock", "seg-1.log", "seg-0000000000000000000x.log", "seg-00000000000000000001", "spare-1",
             "00000000000000000001", "seg-" + chr(0x660) * 20 + ".log"],
)  # fmt: skip
def test_another_file_is_no_segment(name):
    assert first_of(name) is None
