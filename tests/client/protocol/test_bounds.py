"""What decoding a payload may allocate, for the densest payloads that msgpack knows."""

import tracemalloc

import msgpack
import pytest

from chervil.protocol import bounds
from chervil.protocol.frames import unpack
from chervil.protocol.limits import FRAME_BATCH, FRAME_MAX, PREAUTH_FRAME, VALUES_MAX


def array_of(count: int, element: bytes) -> bytes:
    return b"\xdd" + count.to_bytes(4, "big") + element * count


def filled(size: int, element: bytes) -> bytes:
    """An array of as many elements as fit `size` bytes."""
    return array_of((size - 5) // len(element), element)


def nested(size: int, head: bytes) -> bytes:
    """Arrays within arrays, each announcing more than is there."""
    return (head * (size // len(head)))[:size]


def peak(payload: bytes) -> tuple[int, bool]:
    """(bytes that decoding allocated at its height, whether the payload was refused)."""
    refused = False
    tracemalloc.start()
    try:
        unpack(payload)
    except ValueError:
        refused = True
    finally:
        allocated = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return allocated, refused


DENSE = {
    "empty maps": b"\x80",
    "empty arrays": b"\x90",
    "maps of one": b"\x81\x00\x00",
    "arrays of one": b"\x91\x00",
    "text of one character beyond Latin-1": b"\xa2\xc4\x80",
    "numbers of two bytes": b"\xcd\x01\x01",
    "nil": b"\xc0",
}


@pytest.mark.parametrize("element", DENSE.values(), ids=DENSE)
def test_longest_frame_of_dense_values_allocates_little_or_is_refused(element):
    payload = filled(FRAME_MAX, element)
    allocated, refused = peak(payload)
    assert refused
    assert allocated < len(payload) / 10


@pytest.mark.parametrize("element", DENSE.values(), ids=DENSE)
def test_longest_batch_of_dense_values_allocates_80_bytes_a_value_at_most(element):
    payload = filled(FRAME_BATCH, element)
    allocated, refused = peak(payload)
    assert not refused
    assert allocated <= 80 * VALUES_MAX


def test_as_many_values_as_allowed_allocate_twenty_times_the_longest_frame_at_most():
    text = b"\xd9\x3c" + "Ā".encode() * 30
    payload = array_of(VALUES_MAX - 1, text)
    allocated, refused = peak(payload)
    assert not refused
    assert allocated <= 80 * VALUES_MAX + 2 * len(payload)
    assert allocated <= 20 * FRAME_MAX


@pytest.mark.parametrize("size", [PREAUTH_FRAME, FRAME_BATCH, FRAME_MAX])
@pytest.mark.parametrize(
    "head", [b"\xdc\xff\xff", b"\xdd\x00\x00\xff\xff", b"\xde\x0f\xff\x00", b"\xdc\x00\xff"]
)
def test_nested_announcements_set_nothing_aside(size, head):
    allocated, refused = peak(nested(size, head))
    assert refused
    assert allocated <= 64 * 1024 + 2 * min(size, FRAME_BATCH)


@pytest.mark.parametrize("head", [b"\xdc\x01\xfe", b"\xdd\x00\x00\x01\xfe", b"\x81\x00"])
def test_payload_too_short_to_be_walked_allocates_under_a_megabyte(head):
    allocated, _ = peak(nested(512, head))
    assert allocated < 1_000_000


def test_a_body_is_copied_once():
    payload = msgpack.packb([16, 1, [["t", b"x" * 16_000_000]]])
    allocated, refused = peak(payload)
    assert not refused
    assert allocated < 1.01 * len(payload)


def test_text_that_is_widened_by_one_character_takes_five_times_its_bytes_at_most():
    payload = msgpack.packb(["x" * 16_000_000 + "🌿"])
    allocated, refused = peak(payload)
    assert not refused
    assert allocated < 5.1 * len(payload)


LONG = b"x" * (VALUES_MAX + 1)
EVERY_FORM = [
    0, 127, 128, 255, 256, 65535, 65536, 2**32, 2**63, -1, -32, -33, -128, -129, -32769, -(2**31) - 1,
    None, True, False, 1.5, "", "a" * 31, "a" * 32, "a" * 255, "a" * 256, "a" * 65536,
    b"", b"a" * 255, b"a" * 256, b"a" * 65536, [], [0] * 15, [0] * 16, [0] * 65536,
    {}, {key: [0] for key in range(15)}, dict.fromkeys(range(16)), dict.fromkeys(range(65536)),
]  # fmt: skip


@pytest.mark.parametrize("value", EVERY_FORM, ids=lambda value: repr(value)[:20])
def test_walk_of_a_long_payload_steps_over_every_form(value):
    payload = msgpack.packb([value, LONG])
    assert unpack(payload) == [value, LONG]
    for cut in (1, len(LONG), len(LONG) + 5, len(LONG) + 6):
        if len(payload) - cut > VALUES_MAX:
            with pytest.raises(ValueError, match="ends before its last value"):
                bounds.check(payload[:-cut])


def test_walk_of_a_long_payload_steps_over_a_single_precision_number():
    assert unpack(b"\x92\xca\x3f\xc0\x00\x00" + msgpack.packb(LONG)) == [1.5, LONG]


@pytest.mark.parametrize(
    "ext",
    [
        b"\xd4\x05a",
        b"\xd5\x05aa",
        b"\xd6\xffaaaa",
        b"\xd7\x05" + b"a" * 8,
        b"\xd8\x05" + b"a" * 16,
        b"\xc7\x01\x05a",
        b"\xc8\x00\x01\x05a",
        b"\xc9\x00\x00\x00\x01\x05a",
    ],
)
def test_walk_of_a_long_payload_steps_over_ext_types_which_decoding_refuses(ext):
    payload = b"\x92" + ext + msgpack.packb(LONG)
    bounds.check(payload)
    with pytest.raises(ValueError, match="max_ext_len"):
        unpack(payload)


def test_values_are_counted_to_the_last():
    most = msgpack.packb([0] * (VALUES_MAX - 2) + [b"xxxxxxxx"])
    assert len(most) > VALUES_MAX
    assert len(unpack(most)) == VALUES_MAX - 1
    with pytest.raises(ValueError, match="more than 262144 values"):
        unpack(msgpack.packb([0] * (VALUES_MAX - 1) + [b"xxxxxxxx"]))


def test_payload_of_512_bytes_is_left_to_the_decoder_and_one_more_is_walked():
    short = b"\xdc\xff\xff" + b"\x00" * 509
    assert len(short) == 512
    bounds.check(short)
    with pytest.raises(ValueError, match="ends before"):
        bounds.check(short + b"\x00")
