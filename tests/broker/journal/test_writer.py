import errno
import itertools
import random

import msgpack
import pytest

from chervil_broker.journal import writer as writing
from chervil_broker.journal.layout import SEGMENT_HEADER_SIZE, frame_size, pack_record, segment_name
from chervil_broker.journal.reader import Reader
from chervil_broker.journal.spares import NoRoom, Spares
from chervil_broker.journal.tail import cut
from chervil_broker.journal.writer import MARK_SIZE, JournalStopped, Writer
from tests.broker.journal.fake_files import FakeFiles

INSTANCE = bytes(range(16))
OPEN = pack_record(msgpack.packb([1, "open"]))
CLOSE = pack_record(msgpack.packb([2, 10, 20]))
#: Of the smallest segments, doubling once.
SIZES = (4096, 8192)
ROTATION = ["write", "sync", "rename", "sync_folder"]


def record(number: int, size: int = 100) -> bytes:
    """A record that is told from others, of this size."""
    return pack_record(b"\xc4%d " % number + bytes(size - 4 - len(b"\xc4%d " % number)))


def opened(files, fsync="always", seed=0):
    """A writer that has not begun, and where it is to begin."""
    reader = Reader(files)
    list(reader)
    position = cut(files, FakeFiles(), reader.tail) if reader.tail else None
    salts = random.Random(f"{seed} {len(files.names())} {position}")
    spares = Spares(files, *SIZES)
    writer = Writer(
        files,
        spares,
        INSTANCE,
        opening=lambda: OPEN,
        new_salt=lambda: salts.randbytes(8),
        fsync=fsync,
    )
    return writer, position


def begun(files, fsync="always"):
    writer, position = opened(files, fsync)
    writer.begin(position)
    return writer


def written(files):
    """All records, with their lengths again, but for OPEN."""
    return [
        pack_record(body) for found in Reader(files) for body in found.records if pack_record(body) != OPEN
    ]


def tail(files):
    reader = Reader(files)
    list(reader)
    return reader.tail


def operations(files, since=0):
    return [call.operation for call in files.calls[since:]]


def test_journal_begins_with_a_durable_open_record():
    files = FakeFiles()
    writer = begun(files)
    (found,) = Reader(files.crash())
    assert [pack_record(body) for body in found.records] == [OPEN]
    assert found.header.instance == INSTANCE
    assert (found.header.number, found.frame.first) == (1, 1)
    assert (writer.sequence, writer.durable) == (1, 1)
    assert writer.segments == (found.segment,)


def test_a_write_is_one_frame_and_is_durable_when_it_returns():
    files = FakeFiles()
    writer = begun(files)
    before = len(files.calls)
    writer.write([record(1), record(2)])
    writer.write([record(3)])
    assert operations(files, before) == ["write", "sync", "write", "sync"]
    frames = [
        (found.frame.first, found.frame.record_count, found.frame.durable) for found in Reader(files.crash())
    ]
    assert frames == [(1, 1, 0), (2, 2, 1), (4, 1, 3)]
    assert written(files.crash()) == [record(1), record(2), record(3)]
    assert writer.written == sum(found.frame.end - found.frame.offset for found in Reader(files))


def test_full_segment_is_followed_by_a_durable_one_of_twice_its_size_up_to_the_largest():
    files = FakeFiles()
    writer = begun(files)
    for number in range(1, 200):
        segments = writer.segments
        before = len(files.calls)
        writer.write([record(number)])
        if writer.segments != segments:
            # Made, then written to; the frame comes when the name is durable.
            assert operations(files, before) == ["create", *ROTATION, "write", "sync"]
            assert files.calls[-1].name == files.calls[-2].name != segments[-1].name
    assert [segment.size for segment in writer.segments] == [4096, *[8192] * 4]
    assert [segment.number for segment in writer.segments] == [1, 2, 3, 4, 5]
    assert written(files.crash()) == [record(number) for number in range(1, 200)]
    firsts = {}
    for found in Reader(files):
        firsts.setdefault(found.segment.name, pack_record(found.records[0]))
    assert list(firsts.values()) == [OPEN] * 5
    assert [segment_name(segment.first) for segment in writer.segments] == list(firsts)


def test_spare_that_is_ready_is_taken_for_the_next_segment():
    files = FakeFiles()
    writer = begun(files)
    writer._spares.make()
    before = len(files.calls)
    writer.write([record(1, 4000)])
    assert operations(files, before) == [*ROTATION, "write", "sync"]
    assert files.names() == [segment.name for segment in writer.segments]


@pytest.mark.parametrize("size", [8192, 20_000])
def test_frame_that_is_larger_than_segments_are_has_one_of_its_own(size):
    files = FakeFiles()
    writer = begun(files)
    writer.write([record(1)])
    writer.write([record(2, size)])
    writer.write([record(3)])
    assert written(files.crash()) == [record(1), record(2, size), record(3)]
    assert writer.segments[1].size - size in range(len(OPEN), 2 * 4096)
    assert writer.segments[1].size % 4096 == 0


def test_frame_leaves_room_for_a_mark_behind_it():
    files = FakeFiles()
    begun(files)
    room = 4096 - SEGMENT_HEADER_SIZE - frame_size(len(OPEN)) - MARK_SIZE
    largest = next(size for size in itertools.count(room, -1) if frame_size(size) <= room)
    for size, segments in ((largest, 1), (largest + 1, 2)):
        files = FakeFiles()
        writer = begun(files)
        writer.write([record(1, size)])
        writer.mark()
        assert len(writer.segments) == segments
        assert written(files.crash()) == [record(1, size)]


def test_mark_is_durable_and_stands_once_behind_a_frame():
    files = FakeFiles()
    writer = begun(files)
    writer.write([record(1)])
    before = len(files.calls)
    writer.mark()
    writer.mark()
    assert operations(files, before) == ["write", "sync"]
    *_, last = Reader(files.crash())
    assert (last.frame.record_count, last.frame.first, last.frame.durable) == (0, 3, 2)
    writer.write([record(2)])
    writer.mark()
    assert [found.frame.first for found in Reader(files.crash())] == [1, 2, 3, 3, 4]


@pytest.mark.parametrize("fsync", ["interval", "off"])
def test_without_a_sync_at_each_write_frames_are_durable_at_the_next_sync(fsync):
    files = FakeFiles()
    writer = begun(files, fsync)
    writer.write([record(1)])
    writer.write([record(2)])
    assert writer.unsynced
    assert (writer.sequence, writer.durable) == (3, 1)
    assert written(files.crash()) == []
    writer.sync()
    assert not writer.unsynced
    assert written(files.crash()) == [record(1), record(2)]
    assert [found.frame.durable for found in Reader(files)] == [0, 1, 1]
    writer.sync()
    assert operations(files)[-2:] == ["write", "sync"], "nothing to sync"


def test_mark_comes_after_what_it_follows_is_durable():
    files = FakeFiles()
    writer = begun(files, "interval")
    writer.write([record(1)])
    before = len(files.calls)
    writer.mark()
    assert operations(files, before) == ["sync", "write", "sync"]
    assert [found.frame.durable for found in Reader(files)] == [0, 1, 2]


def test_segment_is_durable_before_another_follows_it_even_without_syncs():
    files = FakeFiles()
    writer = begun(files, "off")
    states = []
    files.before = lambda call: states.append(files.crash(lambda piece: piece.operation != "write"))
    for number in range(100):
        writer.write([record(number)])
    assert len(writer.segments) > 2
    for state in states:
        list(Reader(state))


def test_clean_end_is_durable_and_the_next_writer_begins_a_segment():
    files = FakeFiles()
    writer = begun(files, "interval")
    writer.write([record(1)])
    writer.close_clean([record(2), CLOSE])
    with pytest.raises(JournalStopped, match="closed"):
        writer.write([record(3)])
    files = files.crash()
    assert tail(files).position.clean
    again = begun(files)
    assert len(again.segments) == 2
    assert again.durable == again.sequence == 5
    again.write([record(3)])
    assert written(files.crash()) == [record(1), record(2), CLOSE, record(3)]
    assert [found.frame.durable for found in Reader(files)][-2:] == [4, 5]


def test_writer_goes_on_in_the_segment_that_a_crash_left():
    files = FakeFiles()
    begun(files).write([record(1)])
    files = files.crash()
    writer = begun(files)
    writer.write([record(2)])
    assert len(writer.segments) == 1
    bodies = [pack_record(body) for found in Reader(files.crash()) for body in found.records]
    assert bodies == [OPEN, record(1), OPEN, record(2)]


def test_writer_begins_a_segment_where_the_crash_left_no_room_for_its_first_record():
    files = FakeFiles()
    writer = begun(files)
    room = 4096 - SEGMENT_HEADER_SIZE - frame_size(len(OPEN)) - MARK_SIZE
    writer.write([record(1, room - 56)])
    files = files.crash()
    writer = begun(files)
    assert len(writer.segments) == 2
    assert written(files.crash()) == [record(1, room - 56)]


def test_what_a_failed_sync_left_is_written_once_more_by_the_next_writer():
    files = FakeFiles()
    writer = begun(files)
    files.fail_at(len(files.calls) + 2, errno.EIO)
    with pytest.raises(OSError, match="Input/output"):
        writer.write([record(1, 2000)])
    # The process ends, the machine does not: the kernel still shows the frame, whose sync failed.
    assert written(files) == [record(1, 2000)]
    begun(files)
    assert written(files.crash()) == [record(1, 2000)]


def test_clean_end_whose_sync_failed_is_written_once_more_before_a_segment_follows_it():
    files = FakeFiles()
    writer = begun(files)
    files.fail_at(len(files.calls) + 2, errno.EIO)
    with pytest.raises(OSError, match="Input/output"):
        writer.close_clean([record(1, 2000), CLOSE])
    assert tail(files).position.clean
    begun(files)
    assert written(files.crash()) == [record(1, 2000), CLOSE]


def test_oldest_segment_is_gone_for_good_before_the_next_goes():
    files = FakeFiles()
    writer = begun(files)
    for number in range(100):
        writer.write([record(number)])
    names = [segment.name for segment in writer.segments]
    assert len(names) > 2
    writer.remove_oldest()
    assert operations(files)[-2:] == ["remove", "sync_folder"]
    assert [segment.name for segment in writer.segments] == files.crash().names() == names[1:]


def test_last_segment_is_not_removed():
    files = FakeFiles()
    writer = begun(files)
    with pytest.raises(ValueError, match="last segment"):
        writer.remove_oldest()
    writer.write([record(1)])
    assert written(files.crash()) == [record(1)]


def test_full_disk_is_no_failure_and_the_frame_may_be_written_later():
    files = FakeFiles()
    writer = begun(files)
    files.room = 100
    for _ in range(2):
        before = len(files.calls)
        with pytest.raises(NoRoom, match="no room for a segment of 8192 bytes"):
            writer.write([record(1, 4000)])
        assert operations(files, before) == ["create"]
    writer.write([record(2)])
    files.room = 10_000
    writer.write([record(1, 4000)])
    assert written(files.crash()) == [record(2), record(1, 4000)]


def test_writer_that_found_no_room_for_its_first_segment_may_begin_again():
    files = FakeFiles()
    files.room = 100
    writer, _ = opened(files)
    with pytest.raises(NoRoom):
        writer.begin(None)
    files.room = None
    writer.begin(None)
    assert len(writer.segments) == 1


def test_frame_that_no_reader_would_take_is_not_written(monkeypatch):
    files = FakeFiles()
    writer = begun(files)
    monkeypatch.setattr(writing, "PAYLOAD_MAX", 9000)
    before = len(files.calls)
    with pytest.raises(ValueError, match="a frame holds 9,000"):
        writer.write([record(1, 9000)])
    assert files.calls[before:] == []


def exercise(files, confirmed):
    """A writer's life: frames, marks, rotations, a removal, an end. Adds to `confirmed` what was written."""
    writer = begun(files)
    for number in range(70):
        writer.write([record(number)])
        confirmed.append(record(number))
        if number % 7 == 0:
            writer.mark()
        if number == 50:
            writer.remove_oldest()
    writer.close_clean([CLOSE])
    confirmed.append(CLOSE)
    return writer


def call_count():
    files = FakeFiles()
    exercise(files, [])
    return len(files.calls)


@pytest.mark.parametrize("failure", [errno.EIO, errno.ENOSPC])
def test_whichever_call_fails_nothing_is_tried_after_it_and_what_was_confirmed_is_there(failure):
    counts = {"dead": 0, "alive": 0}
    for n in range(1, call_count() + 1):
        files = FakeFiles()
        files.fail_at(n, failure)
        confirmed = []
        with pytest.raises(OSError, match=r"Input/output|No space|no room") as raised:
            exercise(files, confirmed)
        assert len(files.calls) == n
        if isinstance(raised.value, NoRoom):
            counts["alive"] += 1
            assert files.calls[-1].operation == "create"
        else:
            counts["dead"] += 1
        for after in (files, files.crash(), files.crash(lambda piece: True)):
            begun(after)
            found = written(after)
            assert found == confirmed_part(found, confirmed), n
            assert written(after.crash()) == found, n
    assert counts["dead"] > 150
    assert (counts["alive"] > 0) == (failure == errno.ENOSPC)


def confirmed_part(found, confirmed):
    """What must be found: of the confirmed all, but for a removed segment's; the next one may be there too."""
    everything = [record(number) for number in range(70)] + [CLOSE]
    start = everything.index(found[0]) if found else 0
    assert start == 0 or len(confirmed) > 50
    assert len(confirmed) <= start + len(found) <= len(confirmed) + 1
    return everything[start : start + len(found)]


@pytest.mark.parametrize(
    "later",
    [
        Writer.mark,
        Writer.sync,
        lambda writer: writer.write([record(2)]),
        lambda writer: writer.close_clean([CLOSE]),
        lambda writer: writer.begin(None),
    ],
)
def test_writer_that_failed_is_dead(later):
    files = FakeFiles()
    writer = begun(files)
    files.fail_at(len(files.calls) + 2, errno.EIO)
    with pytest.raises(OSError, match="Input/output"):
        writer.write([record(1)])
    calls = list(files.calls)
    with pytest.raises(JournalStopped, match=r"not written to any more: .*Input/output"):
        later(writer)
    writer.close()
    assert files.calls == calls


def test_every_loss_of_power_leaves_what_was_confirmed():
    chance = random.Random(5)
    keeps = [
        None,
        lambda piece: True,
        lambda piece: piece.operation == "write",
        lambda piece: piece.operation != "write",
        *[lambda piece: chance.random() < 0.5] * 3,
    ]
    files = FakeFiles()
    confirmed = []
    states = []
    files.before = lambda call: states.append((list(confirmed), [files.crash(keep) for keep in keeps]))
    exercise(files, confirmed)
    assert len(states) == len(files.calls)
    for known, afters in states:
        for after in afters:
            begun(after)
            found = written(after)
            assert found == confirmed_part(found, known)
            again = after.crash()
            begun(again)
            assert written(again) == found
