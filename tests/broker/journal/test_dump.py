import json

import pytest

from chervil_broker.journal.dump import dump
from chervil_broker.journal.reader import Damage
from chervil_broker.journal.records import (
    Changed,
    Close,
    Completed,
    Evicted,
    Forgotten,
    Leased,
    Open,
    Published,
    Revoked,
    SessionEnded,
    SessionOpened,
    TaskState,
    Tick,
    pack,
)
from tests.broker.journal.small_journals import Journal, three_segments

ID = bytes(range(16))
UUID = "00010203-0405-0607-0809-0a0b0c0d0e0f"
STATE = TaskState(
    ID, "t", "q", 0, {1: b"x" * 16, 3: b"abc"}, 5, 1, 2, 0, False, 0, 0, -1, None, None, "shop", 7,
    None, None, None, None, None, [b"\xff", "json", b"[]"], [None, b"\xff\x00"],
)  # fmt: skip


def lines(*records, bodies=False):
    journal = Journal()
    journal.begin(8192)
    for record in records:
        journal.frame(pack(record)[4:])
    return [json.loads(line) for line in dump(journal.files, bodies=bodies)]


def line(record, *, bodies=False):
    (found,) = lines(record, bodies=bodies)
    assert found.pop("segment") == "seg-00000000000000000001.log"
    assert found.pop("offset") == 64
    assert found.pop("record") == 1
    return found


def test_every_record_is_a_line_that_says_where_it_stands():
    journal = Journal()
    journal.begin(4096)
    journal.frame(pack(Tick(1, 2))[4:], pack(Tick(3, 4))[4:])
    journal.frame()
    journal.frame(pack(Close(5, 6))[4:])
    found = [json.loads(line) for line in dump(journal.files)]
    assert [(one["record"], one["offset"], one["kind"], one["now"]) for one in found] == [
        (1, 64, "TICK", 1),
        (2, 64, "TICK", 3),
        (3, journal.frames[2].offset, "CLOSE", 5),
    ]


def test_publish_rows_have_names_and_bodies_are_lengths():
    rows = [[ID, 1, {1: ID, 4: "x"}, b"[[],{}]"], ["my-id", 2, None, b"\xff", "msgpack", b"head"]]
    record = Published("default", 1, "shop", 2, [["tasks.add", "default", 0, rows]])
    assert line(record) == {
        "kind": "PUBLISH", "vhost": "default", "since": 1, "by": "shop", "at_ms": 2,
        "groups": [{"name": "tasks.add", "queue": "default", "priority": 0, "rows": [
            {"id": UUID, "place": 1, "options": {"1": UUID, "4": "x"}, "body": {"bytes": 7}},
            {"id": "my-id", "place": 2, "options": None, "body": {"bytes": 1}, "codec": "msgpack",
             "headers": {"bytes": 4}},
        ]}],
    }  # fmt: skip


def test_bodies_are_written_out_on_request():
    rows = [[ID, 1, None, b"[[],{}]"], ["my-id", 2, None, b"\xff", "msgpack", b"head"]]
    record = Published("default", 1, "shop", 2, [["tasks.add", "default", 0, rows]])
    (group,) = line(record, bodies=True)["groups"]
    assert [row["body"] for row in group["rows"]] == ["[[],{}]", {"base64": "/w=="}]
    assert group["rows"][1]["headers"] == "head"


def test_body_of_16_bytes_is_no_id():
    record = Completed("default", 1, 2, 3, 4, [[ID, 5, "json", bytes(16)], ["x", 6, None, None]])
    assert line(record)["rows"] == [
        {"id": UUID, "kept": 5, "codec": "json", "result": {"bytes": 16}},
        {"id": "x", "kept": 6, "codec": None, "result": None},
    ]


def test_task_is_told_with_all_its_fields():
    task = line(Changed("default", STATE))["task"]
    assert set(task) == set(TaskState._fields)
    assert task["id"] == UUID
    assert task["options"] == {"1": "78787878-7878-7878-7878-787878787878", "3": {"bytes": 3}}
    assert task["body"] == {"headers": {"bytes": 1}, "codec": "json", "body": {"bytes": 2}}
    assert task["result"] == {"codec": None, "result": {"bytes": 2}}
    assert line(Changed("default", STATE))["vhost"] == "default"
    whole = line(Changed("default", STATE), bodies=True)["task"]
    assert whole["body"] == {"headers": {"base64": "/w=="}, "codec": "json", "body": "[]"}
    assert whole["result"] == {"codec": None, "result": {"base64": "/wA="}}
    assert whole["options"] == task["options"]


@pytest.mark.parametrize("as_before", [0, None])
def test_body_that_the_records_before_have_is_told_as_such(as_before):
    task = line(Changed("default", STATE._replace(body=as_before, result=as_before)))["task"]
    assert (task["body"], task["result"]) == (as_before, as_before)


def test_leases_and_ids_are_text():
    assert line(Leased("default", 1, "w@host", 2, 3, [[ID, 4]]))["rows"] == [{"id": UUID, "lease": 4}]
    for record in (
        Evicted("default", [ID, "x"]),
        Forgotten("default", 1, [ID, "x"]),
        Revoked("default", "shop", [ID, "x"]),
    ):
        assert line(record)["ids"] == [UUID, "x"]


def test_secrets_are_not_told():
    session = SessionOpened(3, ID, b"S" * 32, "w@host", "shop", "token", True, "default", 9)
    told = line(session, bodies=True)
    assert told["id"] == ID.hex()
    assert "secret_hash" not in told
    assert "S" * 32 not in json.dumps(told)


def test_the_others_are_told_as_they_are():
    assert line(Open(ID, "boot", "always", 1, 2, "0.1"))["instance"] == ID.hex()
    assert line(SessionEnded(3)) == {"kind": "END", "number": 3}


def test_record_that_can_not_be_read_is_a_line_with_the_error():
    journal = Journal()
    journal.begin(4096)
    journal.frame(b"\x91\x63", b"\xc1", pack(Tick(1, 2))[4:])
    unknown, broken, tick = (json.loads(line) for line in dump(journal.files))
    assert unknown["kind"] == 99
    assert "unknown" in unknown["error"]
    assert (broken["kind"], "error" in broken) == (None, True)
    assert tick["kind"] == "TICK"


def test_lines_before_the_damage_come_first():
    journal = three_segments("mark")
    broken = journal.frames[5]
    journal.flip(broken.segment, broken.offset, 0)
    lines = dump(journal.files)
    before = sum(len(frame.records) for frame in journal.frames[:5])
    assert len([next(lines) for _ in range(before)]) == before
    with pytest.raises(Damage):
        next(lines)
