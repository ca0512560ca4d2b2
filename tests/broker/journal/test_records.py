"""Records as bytes and back, and what is no record."""

import msgpack
import pytest

from chervil_broker.journal.records import (
    Changed,
    Close,
    Completed,
    Evicted,
    Forgotten,
    Kind,
    Leased,
    Open,
    Published,
    RecordError,
    Revoked,
    SessionEnded,
    SessionOpened,
    TaskState,
    Tick,
    decode,
    pack,
)

UUID = bytes(range(16))
STATE = TaskState(
    "a", "add", "q", 3, {16: 2, 9: "me"}, 7, 10, 99, 2, True, 1, 0, -2, "w@h", 5, "me", 4,
    [8, False, None, True], [[[5, "lost", "w@h", 1, None]], 0, False, ["me", None], 0], 6, [10, "revoked", "why"],
    12, [None, "json", b"[]"], 0,
)  # fmt: skip
RECORDS = [
    Open(UUID, "boot", "always", 1, 2, "0.1"),
    Close(1, 2),
    Tick(1, 2),
    Published(
        "shop", 1, "me", 2, [["add", "q", 0, [[UUID, 1, None, b"[]"], ["b", 2, {}, b"", "json", b"h"]]]]
    ),
    Leased("shop", 3, "w@h", 1, 2, [[UUID, 1], ["b", 2]]),
    Completed("shop", 3, 1, 2, 3, [[UUID, 9, None, None], ["b", 9, "json", b"1"]]),
    Changed("shop", STATE),
    Evicted("shop", [UUID, "b"]),
    Forgotten("shop", 1, [UUID, "b"]),
    Revoked("shop", "me", [UUID, "b"]),
    SessionOpened(3, UUID, bytes(32), "w@h", "me", "token", True, "shop", 1),
    SessionEnded(3),
]


def body(record):
    """A record without its length."""
    packed = pack(record)
    assert int.from_bytes(packed[:4]) == len(packed) - 4
    return packed[4:]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_record_comes_back_as_it_was(record):
    assert decode(body(record)) == record


def test_every_kind_has_its_number():
    assert [msgpack.unpackb(body(record), strict_map_key=False)[0] for record in RECORDS] == [
        kind.value for kind in Kind
    ]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_fields_that_a_later_version_adds_are_ignored(record):
    fields = msgpack.unpackb(body(record), strict_map_key=False)
    if type(record) is Changed:
        fields[2].append("later")
    assert decode(msgpack.packb([*fields, "later", 1])) == record


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_missing_or_wrong_field_is_named(record):
    fields = msgpack.unpackb(body(record), strict_map_key=False)
    for index, name in enumerate(type(record)._fields, 1):
        wrong = [*fields[:index], 1.5, *fields[index + 1 :]]
        for data in (wrong, fields[:index]):
            with pytest.raises(
                RecordError, match=f"{Kind(fields[0]).name} whose {name} is not as it should be"
            ) as e:
                decode(msgpack.packb(data))
            assert e.value.kind == fields[0]


@pytest.mark.parametrize("index", range(len(STATE)))
def test_task_with_a_wrong_field_is_refused(index):
    for wrong in ([*STATE[:index], 1.5, *STATE[index + 1 :]], [*STATE[:index]]):
        with pytest.raises(RecordError, match="TASK whose task"):
            decode(msgpack.packb([Kind.TASK.value, "shop", wrong]))


@pytest.mark.parametrize(
    "row",
    [
        7,
        [UUID, 1, None],
        [b"short", 1, None, b""],
        ["", 1, None, b""],
        [UUID, "1", None, b""],
        [UUID, 1, [], b""],
        [UUID, 1, None, "text"],
        [UUID, 1, None, b"", None],
        [UUID, 1, None, b"", "json", "text"],
    ],
)
def test_published_row_that_is_none_is_refused(row):
    with pytest.raises(RecordError, match="PUBLISH whose groups"):
        decode(body(Published("shop", 1, "me", 2, [["add", "q", 0, [row]]])))


def test_published_row_with_a_codec_alone_is_taken():
    record = Published(
        "shop",
        1,
        "me",
        2,
        [["add", "q", 0, [[UUID, 1, None, b"", "msgpack"], [UUID, 1, None, b"", "json", None]]]],
    )
    assert decode(body(record)) == record


@pytest.mark.parametrize("row", [7, [UUID], [7, 1], [UUID, "1"]])
def test_leased_row_that_is_none_is_refused(row):
    with pytest.raises(RecordError, match="LEASE whose rows"):
        decode(body(Leased("shop", 3, "w@h", 1, 2, [row])))


@pytest.mark.parametrize(
    "row",
    [
        7,
        [UUID, 9, None],
        [7, 9, None, None],
        [UUID, "9", None, None],
        [UUID, 9, 1, b""],
        [UUID, 9, None, "1"],
    ],
)
def test_completed_row_that_is_none_is_refused(row):
    with pytest.raises(RecordError, match="COMPLETE whose rows"):
        decode(body(Completed("shop", 3, 1, 2, 3, [row])))


@pytest.mark.parametrize(
    ("data", "kind", "said"),
    [
        (b"", None, "no msgpack"),
        (b"\xc1", None, "no msgpack"),
        (msgpack.packb([3, 1, 2]) + b"\0", None, "no msgpack"),
        (msgpack.packb([3, msgpack.ExtType(1, b""), 2]), None, "no msgpack"),
        (msgpack.packb({}), None, "begin with its kind"),
        (msgpack.packb([]), None, "begin with its kind"),
        (msgpack.packb(["3", 1, 2]), None, "begin with its kind"),
        (msgpack.packb([13, 1]), 13, "kind 13 of records is unknown"),
        (msgpack.packb([0]), 0, "kind 0 of records is unknown"),
    ],
)
def test_what_is_no_record_is_refused_and_said_why(data, kind, said):
    with pytest.raises(RecordError, match=said) as refused:
        decode(data)
    assert refused.value.kind == kind
