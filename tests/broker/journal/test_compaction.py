"""When the oldest segment goes, and what is written of it once more."""

import msgpack
import pytest

from chervil.address import DEFAULT_VHOST
from chervil.protocol import Outcome, Stage
from chervil.protocol.messages import Complete, Completed, Confirm, Forget, Publish, Revoke
from chervil_broker.journal.compaction import (
    DISK_MIN,
    IDS_AT_A_TIME,
    Compaction,
    Forgotten,
    Need,
    Revoked,
    SessionOpened,
    Whole,
    mentions,
)
from chervil_broker.journal.layout import LayoutError
from chervil_broker.journal.records import Open, Published, RecordError, decode, pack
from chervil_broker.journal.segments import Segment
from tests.broker.journal.small_journals import Journal
from tests.broker.journaled import play
from tests.broker.talk import task

MB = 1 << 20
ID = bytes(range(16))


def numbered(*numbers):
    return [Segment(f"seg-{number}", number, 1, MB) for number in numbers]


@pytest.mark.parametrize(
    ("disk", "live", "due"),
    [
        (DISK_MIN, 0, False),
        (DISK_MIN + 1, 0, True),
        (DISK_MIN + 1, DISK_MIN // 2, True),
        (2 * DISK_MIN, DISK_MIN, False),
        (2 * DISK_MIN + 1, DISK_MIN, True),
    ],
)
def test_compaction_is_due_when_the_disk_holds_twice_what_is_alive(disk, live, due):
    assert Need().is_due(disk, live, numbered(1, 2), 0) == due


def test_the_only_segment_is_never_given_up():
    assert not Need().is_due(100 * DISK_MIN, 0, numbered(4), 0)


def test_rounds_follow_one_another_while_they_gain_something():
    need = Need(disk_min=10)
    for number in range(1, 20):
        assert need.is_due(1000 + number, 0, numbered(number, number + 1, number + 2), 0)
        need.removed(100, 75)


def test_a_round_without_gain_is_followed_by_a_rest_until_as_much_is_written():
    need = Need(disk_min=10)
    assert need.is_due(1000, 0, numbered(1, 2), 5000)
    need.removed(100, 100)
    assert need.is_due(1000, 0, numbered(2, 3), 6000)
    need.removed(100, 51)
    assert not need.is_due(1000, 0, numbered(3, 4), 7000)
    assert not need.is_due(1000, 0, numbered(3, 4), 7499)
    assert need.is_due(1500, 0, numbered(3, 4), 7500)
    need.removed(100, 0)
    assert need.is_due(1500, 0, numbered(5, 6), 7500), "another round, by itself"


def test_when_nothing_is_due_any_more_the_round_is_over():
    need = Need(disk_min=10)
    assert need.is_due(1000, 0, numbered(1, 2), 0)
    assert not need.is_due(9, 0, numbered(2, 3), 0)
    assert need.is_due(1000, 0, numbered(4, 5), 0)


def journal(*frames):
    """A segment with these frames of records, another one behind it."""
    made = Journal()
    made.begin(256 * 1024)
    for records in frames:
        made.frame(*[pack(record)[4:] for record in records])
    first = made.segment
    made.begin(4096)
    return made, Segment(first, 1, 1, 256 * 1024), Segment(made.segment, 2, made.sequence, 4096)


def test_what_may_have_to_be_written_again_is_named_frame_by_frame():
    ids = [number.to_bytes(16, "big") for number in range(IDS_AT_A_TIME + 1)]
    rows = [[id_, place, None, b"[]"] for place, id_ in enumerate(ids[:3])]
    session = SessionOpened(1, ID, ID, "worker", "me", "token", False, DEFAULT_VHOST, 9)
    made, segment, following = journal(
        [Open(ID, "boot", "always", 1, 2, "0")],
        [Published("shop", 1, "me", 2, [["a", "q", 0, rows[:2]], ["b", "q", 0, rows[2:]]]), session],
        [],
        [Forgotten("shop", 7, ids), Revoked("mail", "him", ["x"])],
    )
    assert list(mentions(made.files, segment, following)) == [
        [],
        [Whole("shop", ids[:3]), session],
        [Forgotten("shop", 7, ids[:-1]), Forgotten("shop", 7, ids[-1:]), Revoked("mail", "him", ["x"])],
    ]


def test_a_segment_that_does_not_hold_what_it_should_is_not_passed_over():
    made, segment, following = journal(
        [Open(ID, "boot", "always", 1, 2, "0")], [Forgotten(DEFAULT_VHOST, 1, [ID])]
    )
    made.overwrite(segment.name, 64 + 100, bytes(200))
    with pytest.raises(LayoutError):
        list(mentions(made.files, segment, following))
    made, segment, following = journal([Open(ID, "boot", "always", 1, 2, "0")])
    with pytest.raises(LayoutError, match="no frame begins here"):
        list(mentions(made.files, segment, following._replace(first=following.first + 1)))
    made = Journal()
    made.begin(4096)
    made.frame(msgpack.packb([99]))
    with pytest.raises(RecordError):
        list(mentions(made.files, Segment(made.segment, 1, 1, 4096), Segment("", 2, 2, 4096)))


def looked_at(house, found, oldest):
    """The records that a compaction of this house makes."""
    broker = house.broker
    compaction = Compaction(
        broker.bodies,
        lambda name: broker.vhosts[name].engine if name in broker.vhosts else None,
        broker.sessions.record_of,
        lambda: 50,
    )
    broker.pump.settle()
    return [copy and decode(copy[4:]) for copy in compaction.copies(found, oldest)]


async def populated(house):
    """A worker's session, a task that is done, one that is forgotten, one that waits, an id that was revoked."""
    worker = await house.worker(task(b"d" * 16), task(b"f" * 16))
    rows = [[id_, lease, Outcome.SUCCESS, "json", b"1"] for id_, lease in worker.leases]
    worker.talker.send(Complete(1, rows))
    await worker.talker.expect(Completed)
    guest = await house.guest()
    guest.send(
        Forget(1, [b"f" * 16]),
        Revoke(2, [b"r" * 16], False),
        Publish(3, [task(b"w" * 16, queue="other", body=b'[["w"],{}]')]),
    )
    await guest.expect(Confirm)
    await house.at_rest()


def test_what_is_alive_is_written_whole_and_what_is_not_is_passed_over(tmp_path):
    async def scenario(house):
        await populated(house)
        engine = house.broker.default.engine
        for id_, home in ((b"d" * 16, 3), (b"w" * 16, 4)):
            engine.tasks[id_].home = home
        ids = [b"d" * 16, b"f" * 16, b"w" * 16, b"?" * 16]
        done, *others = looked_at(house, [Whole(DEFAULT_VHOST, ids)], 3)
        assert others == [None] * 3, "one is in a newer segment, two are not there"
        assert (done.task.id, done.task.stage, done.task.result) == (b"d" * 16, Stage.SUCCESS, ["json", b"1"])
        assert engine.tasks[b"d" * 16].home == 50
        (waits,) = looked_at(house, [Whole(DEFAULT_VHOST, [b"w" * 16])], 4)
        assert waits.task.body == [None, "json", b'[["w"],{}]']
        assert looked_at(house, [Whole("gone", ids)], 99) == []

    play(tmp_path / "data", scenario)


def test_ids_are_written_again_while_they_are_remembered_for_the_same(tmp_path):
    async def scenario(house):
        await populated(house)
        engine = house.broker.default.engine
        since = engine.forgotten[b"f" * 16]
        by = engine.revoked_ids[b"r" * 16]
        for found in (Forgotten(DEFAULT_VHOST, since, [b"f" * 16]), Revoked(DEFAULT_VHOST, by, [b"r" * 16])):
            more = found._replace(ids=[*found.ids, b"?" * 16])
            assert looked_at(house, [more], 1) == [found]
        other = [
            Forgotten(DEFAULT_VHOST, since + 1, [b"f" * 16]),
            Revoked(DEFAULT_VHOST, "somebody", [b"r" * 16]),
            Forgotten("gone", since, [b"f" * 16]),
            Revoked("gone", by, [b"r" * 16]),
        ]
        assert looked_at(house, other, 1) == [None] * 4

    play(tmp_path / "data", scenario)


def test_a_session_is_written_again_as_it_is_now_while_there_is_one(tmp_path):
    async def scenario(house):
        await populated(house)
        (number,) = [
            number for number in house.broker.sessions.numbers() if house.broker.sessions.record_of(number)
        ]
        old = SessionOpened(number, ID, ID, "worker", "me", "token", False, DEFAULT_VHOST, 0)
        now, gone = looked_at(house, [old, old._replace(number=99)], 1)
        assert (now.number, now.sequence) == (number, 1)
        assert gone is None

    play(tmp_path / "data", scenario)


def test_all_that_is_known_is_what_stands_in_for_a_segment_that_can_not_be_read(tmp_path):
    async def scenario(house):
        await populated(house)
        broker = house.broker
        compaction = Compaction(
            broker.bodies, lambda name: broker.vhosts[name].engine, broker.sessions.record_of, lambda: 1
        )
        found = list(compaction.everything([*broker.vhosts], broker.sessions.numbers()))
        assert [type(each) for each in found] == [SessionOpened, Whole, Forgotten, Revoked]
        assert {*found[1].ids} == {b"d" * 16, b"w" * 16}
        assert (found[2].ids, found[3].ids) == ([b"f" * 16], [b"r" * 16])

    play(tmp_path / "data", scenario)


def test_what_is_of_no_use_any_more_is_left_out_before_the_loop_looks_at_it(tmp_path):
    async def scenario(house):
        await populated(house)
        broker = house.broker
        engine = broker.default.engine
        engine.tasks[b"w" * 16].home = 4
        since, by = engine.forgotten[b"f" * 16], engine.revoked_ids[b"r" * 16]
        compaction = Compaction(
            broker.bodies,
            lambda name: broker.vhosts[name].engine if name in broker.vhosts else None,
            broker.sessions.record_of,
            lambda: 1,
        )
        session = SessionOpened(99, ID, ID, "worker", "me", "token", False, DEFAULT_VHOST, 0)
        found = [
            session,
            Whole(DEFAULT_VHOST, [b"w" * 16, b"d" * 16, b"?" * 16]),
            Whole(DEFAULT_VHOST, [b"f" * 16]),
            Whole("gone", [b"d" * 16]),
            Forgotten(DEFAULT_VHOST, since, [b"f" * 16, b"?" * 16]),
            Forgotten(DEFAULT_VHOST, since - 1, [b"f" * 16]),
            Revoked(DEFAULT_VHOST, by, [b"r" * 16]),
        ]
        assert compaction.needed(found, 3) == [
            session,
            Whole(DEFAULT_VHOST, [b"d" * 16]),
            Forgotten(DEFAULT_VHOST, since, [b"f" * 16]),
            Revoked(DEFAULT_VHOST, by, [b"r" * 16]),
        ]

    play(tmp_path / "data", scenario)
