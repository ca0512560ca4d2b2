import uuid
from collections import namedtuple
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chervil import serialization
from chervil.exceptions import DecodeError, EncodeError
from chervil.serialization import CODECS, decode, encode

text = st.text() | st.sampled_from(["__type__", "__value__", "datetime", "dict"])
zones = st.none() | st.integers(-1439, 1439).map(lambda minutes: timezone(timedelta(minutes=minutes)))
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | text
    | st.binary()
    | st.datetimes(timezones=zones)
    | st.dates()
    | st.times(timezones=zones)
    | st.timedeltas()
    | st.uuids()
    | st.decimals(allow_nan=False)
)
values = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(text, inner), max_leaves=12)


def without_surrogates(value):
    return "\\ud" not in ascii(value)


@given(values)
def test_json_brings_every_value_back(value):
    assert decode("json", encode("json", value)) == value


@given(values.filter(without_surrogates))
def test_msgpack_brings_every_value_back(value):
    assert decode("msgpack", encode("msgpack", value)) == value


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize(
    "value",
    [
        {"__type__": "datetime", "__value__": "2026-01-01T00:00:00"},
        {"__type__": "dict", "__value__": [["a", 1]]},
        {"__type__": 3, "x": {"__type__": None}},
        ["__type__", {"a": [{"__type__": b"x"}]}],
        {"__type__": datetime(2026, 1, 1, tzinfo=UTC)},
    ],
)
def test_a_dict_with_the_marker_key_survives(codec, value):
    assert decode(codec, encode(codec, value)) == value


@pytest.mark.parametrize("codec", CODECS)
def test_types_come_back_as_themselves(codec):
    value = [
        datetime(2026, 1, 1, 12, tzinfo=UTC),
        date(2026, 1, 1),
        time(1, 2),
        timedelta(days=-1, microseconds=3),
        uuid.uuid4(),
        Decimal("1.10"),
        b"\0\xff",
    ]
    assert [type(v) for v in decode(codec, encode(codec, value))] == [type(v) for v in value]


@pytest.mark.parametrize("codec", CODECS)
def test_tuples_become_lists_and_bytearrays_bytes(codec):
    point = namedtuple("point", "x y")
    assert decode(codec, encode(codec, (point(1, 2), bytearray(b"a"), memoryview(b"b")))) == [
        [1, 2],
        b"a",
        b"b",
    ]


@pytest.mark.parametrize("codec", CODECS)
def test_subclasses_travel_as_their_base(codec):
    class Money(Decimal):
        pass

    assert decode(codec, encode(codec, Money("2.5"))) == Decimal("2.5")


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize(
    ("value", "advice"),
    [({1}, "list"), (frozenset(), "list"), (ValueError("x"), "str"), (object(), "made of")],
)
def test_what_cannot_be_sent_says_what_to_do(codec, value, advice):
    with pytest.raises(EncodeError, match=advice):
        encode(codec, {"deep": [value]})


def test_integers_beyond_64_bits_are_for_json():
    assert decode("json", encode("json", 2**80)) == 2**80
    with pytest.raises(EncodeError, match="64 bits"):
        encode("msgpack", 2**64)


@pytest.mark.parametrize("codec", CODECS)
def test_a_value_that_contains_itself_is_refused(codec):
    value = []
    value.append(value)
    with pytest.raises(EncodeError, match=r"deep|recursion"):
        encode(codec, value)


def test_keys_that_json_has_not_are_refused():
    with pytest.raises(EncodeError, match="keys must be"):
        encode("json", {(1, 2): 3})


def test_json_nan_is_pythons():
    assert encode("json", float("nan")) == b"NaN"
    assert decode("json", b"NaN") != decode("json", b"NaN")


def test_unknown_serializers_are_named():
    with pytest.raises(EncodeError, match="no serializer 'pickle'"):
        encode("pickle", 1)
    with pytest.raises(DecodeError, match="no serializer 'pickle'"):
        decode("pickle", b"")


def test_only_accepted_content_is_read():
    assert decode("json", b"1", ["json"]) == 1
    with pytest.raises(DecodeError, match="accept_content names json"):
        decode("msgpack", b"\x01", ["json"])


@pytest.mark.parametrize(
    ("codec", "data"),
    [
        ("json", b"{"),
        ("json", b"\xff"),
        ("json", b"[" * 100_000),
        ("json", b'{"__type__":"datetime","__value__":"x"}'),
        ("json", b'{"__type__":"bytes","__value__":"?"}'),
        ("json", b'{"__type__":"dict","__value__":5}'),
        ("json", b'{"__type__":"decimal","__value__":"x"}'),
        ("msgpack", b"\xc1"),
        ("msgpack", b""),
        ("msgpack", msgpack.packb(msgpack.ExtType(1, b"x"))),
        ("msgpack", b"\xdd\xff\xff\xff\xff"),
    ],
)
def test_damaged_content_is_a_decode_error(codec, data):
    with pytest.raises(DecodeError, match=f"bytes are not {codec}"):
        decode(codec, data)


def test_markers_of_others_are_left_alone():
    assert decode("json", b'{"__type__":"point","__value__":1}') == {"__type__": "point", "__value__": 1}
    assert decode("json", b'{"__type__":[],"__value__":1}') == {"__type__": [], "__value__": 1}


def test_without_the_c_encoder_json_is_the_same(monkeypatch):
    monkeypatch.setattr(serialization.json.encoder, "c_make_encoder", None)
    plain = serialization._json_encoder()
    value = {"a": (1, 2.5, "é"), "b": date(2026, 1, 1)}
    assert plain(value).encode() == encode("json", value)


def test_a_type_is_told_with_its_article():
    with pytest.raises(EncodeError, match="an object cannot be sent"):
        encode("json", object())
    with pytest.raises(EncodeError, match="a range cannot be sent"):
        encode("json", range(2))
