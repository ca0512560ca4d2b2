"""Frames: cutting a stream into arrays, and arrays into frames."""

import tracemalloc
from struct import pack

import msgpack
import pytest

from chervil.protocol.errors import Code, LocalProtocolError, RemoteProtocolError
from chervil.protocol.frames import FrameReader, FrameWriter, decode, unpack
from chervil.protocol.limits import FRAME_BATCH, FRAME_MAX


def frame(*array):
    payload = msgpack.packb(array)
    return pack(">I", len(payload)) + payload


def arrays(reader, data):
    return [array for array, _ in reader.feed(data)]


def test_frame_comes_with_its_payload_length():
    assert list(FrameReader().feed(frame(49, 1))) == [([49, 1], 3)]


def test_several_frames_in_one_read():
    assert arrays(FrameReader(), frame(4) + frame(49, 1) + frame(49, 2)) == [[4], [49, 1], [49, 2]]


def test_frame_split_at_every_byte():
    data = frame(49, 70000) + frame(3, "DONE")
    for cut in range(len(data) + 1):
        reader = FrameReader()
        assert arrays(reader, data[:cut]) + arrays(reader, data[cut:]) == [[49, 70000], [3, "DONE"]]
        assert reader.buffered == 0


def test_one_byte_at_a_time():
    reader = FrameReader()
    data = frame(49, 1) * 3
    got = [array for n in range(len(data)) for array in arrays(reader, data[n : n + 1])]
    assert got == [[49, 1]] * 3


def test_ten_thousand_tiny_frames_in_one_read_leave_nothing_behind():
    reader = FrameReader()
    assert arrays(reader, frame(4) * 10_000 + b"\x00") == [[4]] * 10_000
    assert reader.buffered == 1


def test_buffer_never_exceeds_one_frame_and_one_read():
    reader = FrameReader()
    body = frame(50, b"x" * 100_000)
    read = 65_536
    stream = body * 20
    for at in range(0, len(stream), read):
        assert len(arrays(reader, stream[at : at + read])) <= 1
        assert reader.buffered < len(body) + read
    assert reader.buffered == 0


class CountingBuffer(bytearray):
    """The reader's buffer, counting the bytes that are moved into it."""

    moved = 0

    def __iadd__(self, data):
        self.moved += len(data)
        return super().__iadd__(data)


def test_large_frame_in_pieces_is_copied_once_into_the_buffer_and_tried_once(monkeypatch):
    tried = []
    monkeypatch.setattr("chervil.protocol.frames.decode", lambda view: tried.append(len(view)) or [4])
    reader = FrameReader()
    data = frame(50, b"x" * (FRAME_MAX - 100))
    reader._rest = buffer = CountingBuffer()
    pieces = [data[at : at + 65_536] for at in range(0, len(data), 65_536)]
    # The first piece finds an empty buffer, and `+=` of it replaces nothing.
    got = [array for piece in pieces for array in arrays(reader, piece)]
    assert got == [[4]]
    assert tried == [len(data) - 4]
    assert buffer.moved == len(data)
    assert reader.buffered == 0


def test_large_frame_in_pieces_needs_no_second_buffer():
    reader = FrameReader()
    data = frame(50, b"x" * 8_000_000)
    tracemalloc.start()
    for at in range(0, len(data) - 65_536, 65_536):
        assert not arrays(reader, data[at : at + 65_536])
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert held < 1.2 * len(data)


@pytest.mark.parametrize("length", [0, 11, 2**32 - 1])
def test_length_out_of_range_is_refused_before_the_payload_comes(length):
    with pytest.raises(RemoteProtocolError, match="1 to 10 are allowed") as caught:
        arrays(FrameReader(limit=10), pack(">I", length))
    assert caught.value.code is Code.BAD_FRAME


def test_length_is_refused_as_soon_as_its_last_byte_comes():
    reader = FrameReader(limit=10)
    assert arrays(reader, b"\x00\x00\x00") == []
    with pytest.raises(RemoteProtocolError):
        arrays(reader, b"\x0b")


def test_limit_may_be_raised_between_two_frames_of_one_read():
    reader = FrameReader(limit=3)
    got = []
    for array, _ in reader.feed(frame(49, 1) + frame(49, 70000)):
        got.append(array)
        reader.limit = 100
    assert got == [[49, 1], [49, 70000]]


@pytest.mark.parametrize(
    "payload", [b"\xc1", b"\x80", b"\x90", b"\x01", b"\x91", b"\x91\x04\x00", b"\x92\x04"]
)
def test_payload_that_is_no_array_with_a_number_is_a_bad_frame(payload):
    with pytest.raises(RemoteProtocolError) as caught:
        decode(payload)
    assert caught.value.code is Code.BAD_FRAME


def test_nesting_deeper_than_the_decoder_goes_is_a_bad_frame():
    with pytest.raises(RemoteProtocolError) as caught:
        decode(b"\x91" * 100_000 + b"\x00")
    assert caught.value.code is Code.BAD_FRAME


def test_every_ext_type_is_refused():
    for kind in range(-128, 128):
        with pytest.raises(ValueError, match=r"ext"):
            unpack(
                msgpack.packb(msgpack.ExtType(kind, b"abcd"))
                if kind >= 0
                else b"\xd6" + pack("b", kind) + b"abcd"
            )
    with pytest.raises(ValueError, match="ext type 5 is not allowed"):
        unpack(b"\xc7\x00\x05")


@pytest.mark.parametrize("key", [b"\x90", b"\x80"])
def test_map_with_a_container_as_key_is_refused(key):
    with pytest.raises(ValueError, match="unhashable"):
        unpack(b"\x81" + key + b"\x00")


def test_writer_puts_the_length_before_the_payload():
    assert FrameWriter().frame((49, 1)) == b"\x00\x00\x00\x03\x92\x31\x01"


@pytest.mark.parametrize("value", [object(), 2**64, "\ud800", {1: object()}])
def test_writer_refuses_what_msgpack_can_not_say_and_goes_on(value):
    writer = FrameWriter()
    with pytest.raises(LocalProtocolError) as caught:
        writer.frame((65, 1, {"x": ["begun", value]}))
    assert caught.value.code is Code.BAD_FIELD
    assert writer.frame((4,)) == b"\x00\x00\x00\x02\x91\x04"


def test_writer_refuses_nesting_without_end():
    loop: list[object] = []
    loop.append(loop)
    with pytest.raises(LocalProtocolError, match="not encodable"):
        FrameWriter().frame((65, loop))


def test_writer_refuses_a_frame_that_is_too_long():
    writer = FrameWriter()
    head = len(msgpack.packb((50, b"x" * FRAME_MAX))) - FRAME_MAX
    assert len(writer.frame((50, b"x" * (FRAME_MAX - head)))) == FRAME_MAX + 4
    with pytest.raises(LocalProtocolError, match=f"{FRAME_MAX} is the limit") as caught:
        writer.frame((50, b"x" * (FRAME_MAX - head + 1)))
    assert caught.value.code is Code.BAD_FRAME


def test_writer_does_not_keep_the_buffer_of_a_large_frame():
    writer = FrameWriter()
    tracemalloc.start()
    writer.frame((50, b"x" * (4 * FRAME_BATCH)))
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert held < 2 * FRAME_BATCH
