"""Whatever a peer sends, RemoteProtocolError is all that comes out, and the buffer stays bounded."""

import json
from pathlib import Path
from struct import pack
from typing import NamedTuple

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chervil.protocol import COMMANDS, Code, Connection, RemoteProtocolError, Side, State, unpack_failure
from chervil.protocol.frames import FrameReader, FrameWriter, decode
from chervil.protocol.messages import parse

_VECTORS = json.loads((Path(__file__).parent / "vectors.json").read_text(encoding="utf-8"))
VALID = [bytes.fromhex(vector["frame"]) for vector in _VECTORS["frames"] + _VECTORS["accepted"]]
LIMIT = 4096
#: What a connection may be ended with for bytes alone.
FOR_BYTES = {Code.BAD_FRAME, Code.BAD_STATE, Code.BAD_FIELD, Code.UNKNOWN_COMMAND, Code.UNKNOWN_OPTION}


class Came(NamedTuple):
    """What came of bytes at both sides in every state."""

    messages: int
    #: Of the refusals, and their texts.
    codes: set[Code]
    texts: list[str]
    #: The most that was buffered, in bytes.
    buffered: int

    @property
    def well(self) -> bool:
        """Nothing but refusals with a code for bytes and a text, and no more buffered than a frame."""
        return self.codes <= FOR_BYTES and all(self.texts) and self.buffered <= 4 + LIMIT


def framed(payload):
    return pack(">I", len(payload)) + payload


def fed(data, read=None) -> Came:
    """Feeds `data` in reads of a size."""
    read = read or max(1, len(data))
    messages = buffered = 0
    refusals: list[RemoteProtocolError] = []
    for side in Side:
        for state in State:
            end = Connection(side)
            end.state = state
            end.accept_frames_up_to(LIMIT)
            try:
                for at in range(0, len(data), read):
                    messages += len(list(end.receive(data[at : at + read])))
                    buffered = max(buffered, end.buffered)
            except RemoteProtocolError as error:
                refusals.append(error)
    return Came(messages, {error.code for error in refusals}, [error.message for error in refusals], buffered)


#: Anything that msgpack can say, keys that hash to the same and keys of every kind included.
anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=8)
    | st.binary(max_size=20)
    | st.just("00010203-0405-0607-0809-0a0b0c0d0e0f"),
    lambda inner: (
        st.lists(inner, max_size=9)
        | st.dictionaries(st.integers(0, 50) | st.text(max_size=4) | st.binary(max_size=2), inner, max_size=5)
    ),
    max_leaves=25,
)


@given(st.binary(max_size=200))
def test_random_bytes(data):
    assert fed(data).well


@given(st.binary(min_size=1, max_size=100))
def test_random_payloads(payload):
    assert fed(framed(payload)).well


@given(st.sampled_from(sorted(COMMANDS)), st.lists(anything, max_size=9))
def test_commands_with_fields_of_any_kind(number, fields):
    assert fed(framed(msgpack.packb([number, *fields]))).well


@given(st.sampled_from(VALID), st.data())
def test_valid_frames_with_a_value_exchanged(frame, data):
    """One field or one cell of a row becomes anything."""
    array = msgpack.unpackb(frame[4:], strict_map_key=False)
    where = array
    for _ in range(3):
        position = data.draw(st.integers(0, max(0, len(where) - 1)))
        if not (where and type(where[position]) is list and data.draw(st.booleans())):
            break
        where = where[position]
    if where:
        where[position % len(where)] = data.draw(anything)
    assert fed(framed(msgpack.packb(array))).well


@given(st.sampled_from(VALID), st.data())
def test_valid_frames_with_flipped_bits(frame, data):
    flipped = bytearray(frame)
    for bit in data.draw(st.lists(st.integers(0, len(frame) * 8 - 1), min_size=1, max_size=4)):
        flipped[bit // 8] ^= 1 << bit % 8
    assert fed(bytes(flipped)).well


@pytest.mark.parametrize("frame", VALID, ids=range(len(VALID)))
def test_valid_frames_cut_short_under_their_own_length(frame):
    for cut in range(1, len(frame) - 4):
        came = fed(framed(frame[4:-cut]))
        assert came.well
        assert (came.messages, came.codes) == (0, {Code.BAD_FRAME})


@given(st.sampled_from(VALID), st.integers(1, 7))
def test_valid_frames_in_small_reads_give_the_same_messages(frame, read):
    whole, in_pieces = fed(frame), fed(frame, read)
    assert whole.well
    assert in_pieces.well
    assert whole.messages > 0
    assert (in_pieces.messages, in_pieces.texts) == (whole.messages, whole.texts)


@given(st.lists(st.sampled_from(VALID), min_size=1, max_size=5), st.data())
def test_stream_cut_anywhere_gives_the_same_arrays(frames, data):
    stream = b"".join(frames)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    reader = FrameReader()
    arrays = [
        array
        for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)
        for array, _ in reader.feed(stream[start:end])
    ]
    assert arrays == [decode(frame[4:]) for frame in frames]
    assert reader.buffered == 0


@given(st.sampled_from(sorted(COMMANDS)), st.lists(anything, max_size=9))
def test_what_was_accepted_can_be_sent_on_and_is_accepted_again(number, fields):
    try:
        message = parse(decode(msgpack.packb([number, *fields])))
    except RemoteProtocolError:
        return
    again = parse(decode(FrameWriter().frame((number, *message))[4:]))
    assert repr(again) == repr(message)


@given(st.binary(max_size=200) | anything.map(msgpack.packb))
def test_anything_as_a_failure_record_is_one_or_a_value_error(body):
    try:
        record = unpack_failure(body)
    except ValueError:
        return
    assert record.kind
