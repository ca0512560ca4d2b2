"""A damaged journal opens after its repair, with every record that could still be read, whatever happened to it."""

import os
import random
from itertools import product
from zlib import crc32

import msgpack
import pytest

from chervil_broker.journal.layout import SegmentHeader, pack_frame, pack_record, segment_name
from chervil_broker.journal.reader import Damage, Reader
from chervil_broker.journal.repair import MISSING_MAX, plan, repair
from chervil_broker.journal.salvage import NOTHING
from tests.broker.journal.fake_files import FakeFiles
from tests.broker.journal.small_journals import CLOSE, INSTANCE, TICK, Journal, read, three_segments

PROVING = os.environ.get("CHERVIL_PROVE") == "1"
SAMPLES = 5000 if PROVING else 120


@pytest.fixture
def journal():
    return three_segments("mark")


def salt():
    return b"new salt"


def mended(files, aside=None):
    """Repairs, and returns what was planned; the journal opens then, with as many records as were told."""
    aside = aside or FakeFiles()
    planned = plan(files)
    before = {name: files.get(name) for name in files.names() if name != "repairing"}
    repair(files, aside, planned, salt)
    kept = [aside.get(name) for name in aside.names()]
    for name, data in before.items():
        assert name in files.names() or data in kept
        assert files.names().count(name) == 0 or files.get(name) == data or data in kept
    records, _ = read(files)
    assert len([record for record in records if record != NOTHING]) == planned.saved
    assert plan(files).steps == []
    return planned


def without(journal, *lost):
    """All records, with such that say nothing in the place of these frames'."""
    return [NOTHING if frame in lost else record for frame in journal.frames for record in frame.records]


def frames_of(journal, number):
    return [frame for frame in journal.frames if frame.segment == journal.names[number] and frame.records]


@pytest.mark.parametrize("ending", ["open", "mark", "close"])
def test_whole_journal_wants_no_repair(ending):
    journal = three_segments(ending)
    planned = plan(journal.files)
    assert (planned.steps, planned.lost, planned.saved) == ([], 0, len(journal.records))
    repair(journal.files, FakeFiles(), planned, salt)
    assert {call.operation for call in journal.files.calls} <= {"sync_folder"}


def test_torn_tail_is_left_to_the_broker():
    journal = three_segments("open")
    journal.flip(journal.segment, journal.frames[-1].offset + 60, 0)
    assert plan(journal.files).steps == []


@pytest.mark.parametrize("number", [0, 1, 2])
def test_only_the_records_of_the_damaged_frame_are_lost(journal, number):
    lost = frames_of(journal, number)[2]
    before = {name: journal.files.get(name) for name in journal.names}
    journal.flip(lost.segment, lost.offset + 60, 0)
    damaged = journal.files.get(lost.segment)
    aside = FakeFiles()
    planned = mended(journal.files, aside)
    assert read(journal.files)[0] == without(journal, lost)
    assert planned.lost == len(lost.records)
    (step,) = planned.steps
    assert step.name == lost.segment
    assert f"offset {lost.offset}: the checksum of the frame's payload is wrong" in step.what
    assert aside.names() == [lost.segment]
    assert aside.get(lost.segment) == damaged
    others = [name for name in journal.names if name != lost.segment]
    assert all(journal.files.get(name) == before[name] for name in others)
    assert "restored" in journal.files.names()


def test_damage_in_several_segments_is_repaired_at_once(journal):
    lost = [frames_of(journal, 0)[1], frames_of(journal, 0)[4], frames_of(journal, 2)[1]]
    for frame in lost:
        journal.flip(frame.segment, frame.offset + 3, 0)
    assert len(mended(journal.files).steps) == 2
    assert read(journal.files)[0] == without(journal, *lost)


@pytest.mark.parametrize("number", [0, 1, 2])
def test_header_is_made_again_from_frames_and_neighbours(journal, number):
    name = journal.names[number]
    header = SegmentHeader.unpack(journal.files.get(name))
    journal.overwrite(name, 0, bytes(64))
    planned = mended(journal.files)
    assert planned.lost == 0
    assert read(journal.files)[0] == journal.records
    assert SegmentHeader.unpack(journal.files.get(name)) == header._replace(salt=salt())


def test_all_headers_are_made_again(journal):
    for name in journal.names:
        journal.overwrite(name, 0, bytes(64))
    mended(journal.files)
    reader = Reader(journal.files)
    assert [record for found in reader for record in found.records] == journal.records
    assert reader.instance == INSTANCE


def test_instance_that_nobody_knows_any_more_is_a_new_one():
    journal = Journal()
    journal.begin(4096)
    journal.frame(TICK)
    journal.frame(TICK)
    journal.overwrite(journal.segment, 0, bytes(64))
    mended(journal.files)
    reader = Reader(journal.files)
    assert len([record for found in reader for record in found.records]) == 2
    assert reader.instance not in (b"", bytes(16))


def test_sector_with_header_and_first_frame_costs_that_frame_alone(journal):
    name = journal.names[1]
    journal.overwrite(name, 0, bytes(512))
    gone = [frame for frame in frames_of(journal, 1) if frame.offset < 512]
    mended(journal.files)
    assert read(journal.files)[0] == without(journal, *gone)


def test_missing_segment_is_replaced_by_one_that_says_nothing(journal):
    journal.files.remove(journal.names[1])
    planned = mended(journal.files)
    assert read(journal.files)[0] == without(journal, *frames_of(journal, 1))
    assert planned.lost == sum(len(frame.records) for frame in frames_of(journal, 1))
    assert "a segment is missing before" in planned.steps[0].what


def test_several_missing_segments_are_replaced(journal):
    first = len(journal.records) + 1
    for _ in range(3):
        journal.fill(4096)
    for name in journal.names[3:5]:
        journal.files.remove(name)
    planned = mended(journal.files)
    assert [step.header.number for step in planned.steps if step.header] == [4, 5]
    records, tail = read(journal.files)
    assert [s.number for s in tail.position.segments] == [1, 2, 3, 4, 5, 6]
    assert set(records[first - 1 : -len(journal.frames[-1].records) - 1]) >= {NOTHING}


def test_segment_of_which_nothing_can_be_read_is_replaced_too(journal):
    journal.files.put(journal.names[1], bytes(6144))
    aside = FakeFiles()
    planned = mended(journal.files, aside)
    assert planned.steps[0].lost is None
    assert aside.names() == [journal.names[1]]
    assert read(journal.files)[0] == without(journal, *frames_of(journal, 1))


@pytest.mark.parametrize("number", [0, 2])
def test_segment_at_an_end_of_which_nothing_can_be_read_is_taken_out(journal, number):
    journal.files.put(journal.names[number], b"")
    mended(journal.files)
    left = [frame for frame in journal.frames if frame.segment != journal.names[number]]
    assert read(journal.files)[0] == [record for frame in left for record in frame.records]


def test_earlier_segment_without_its_end_is_filled_up(journal):
    lost = frames_of(journal, 0)[-2:]
    journal.files.put(journal.names[0], journal.files.get(journal.names[0])[: lost[0].offset + 20])
    mended(journal.files)
    assert read(journal.files)[0] == without(journal, *lost)


def test_something_behind_the_frames_of_an_earlier_segment_is_taken_out(journal):
    journal.flip(journal.names[0], 4095, 0)
    planned = mended(journal.files)
    assert planned.steps[0].what == "something follows its last frame"
    assert read(journal.files)[0] == journal.records


def test_something_behind_the_frames_is_taken_out_also_where_the_next_segment_is_missing(journal):
    journal.flip(journal.names[0], 4095, 0)
    journal.files.remove(journal.names[1])
    mended(journal.files)
    assert read(journal.files)[0] == without(journal, *frames_of(journal, 1))


def test_something_behind_a_clean_end_is_taken_out():
    journal = three_segments("close")
    journal.flip(journal.segment, 8191, 0)
    mended(journal.files)
    records, tail = read(journal.files)
    assert records == journal.records
    assert tail.position.clean


def test_records_behind_a_clean_end_stay():
    journal = three_segments("close")
    journal.frame(TICK)
    mended(journal.files)
    assert read(journal.files)[0] == [NOTHING if record == CLOSE else record for record in journal.records]


def test_segment_of_another_broker_is_taken_out(journal):
    journal.instance = b"another instance"
    journal.begin(4096)
    journal.frame(TICK)
    aside = FakeFiles()
    planned = mended(journal.files, aside)
    assert [step.what for step in planned.steps] == ["it is of another broker"]
    assert aside.names() == [journal.segment]
    assert read(journal.files)[0] == journal.records[:-1]


def test_segment_that_does_not_go_on_is_taken_out(journal):
    journal.number = 1
    journal.begin(4096)
    assert "does not go on" in mended(journal.files).steps[0].what
    assert read(journal.files)[0] == journal.records


def test_copy_of_a_segment_under_another_name_is_taken_out(journal):
    journal.files.put(segment_name(500), journal.files.get(journal.names[1]))
    mended(journal.files)
    assert read(journal.files)[0] == journal.records


def test_segment_under_a_wrong_name_gets_its_right_one(journal):
    right = journal.names[1]
    journal.files.put(segment_name(500), journal.files.get(right))
    journal.files.remove(right)
    assert mended(journal.files).lost == 0
    assert read(journal.files)[0] == journal.records


def test_segment_without_a_header_that_has_no_place_is_taken_out(journal):
    stray = segment_name(frames_of(journal, 1)[-1].first)
    journal.files.put(stray, bytes(64) + pack_frame([pack_record(TICK)], 1, 0, b"straying"))
    mended(journal.files)
    assert read(journal.files)[0] == journal.records


def test_newer_version_is_not_repaired(journal):
    header = bytearray(journal.files.get(journal.names[0])[:60])
    header[11] = 2
    journal.overwrite(journal.names[0], 0, bytes(header) + crc32(header).to_bytes(4))
    with pytest.raises(Damage, match="version 2") as caught:
        plan(journal.files)
    assert not caught.value.repairable


def test_record_of_an_unknown_kind_is_not_repaired(journal):
    journal.frame(msgpack.packb([99]))
    with pytest.raises(Damage, match="kind 99"):
        plan(journal.files)


@pytest.mark.parametrize(
    ("numbers", "records"), [(MISSING_MAX + 1, 5000), (3, 2), (1, 20_000_000), (0, 20_000_000)]
)
def test_files_that_do_not_belong_together_are_refused(journal, numbers, records):
    journal.number += numbers
    journal.sequence += records
    journal.begin(4096)
    with pytest.raises(Damage, match="not of one journal") as caught:
        plan(journal.files)
    assert not caught.value.repairable


def damaged_at_random(seed):
    """A journal to which several things happened."""
    chance = random.Random(seed)
    journal = three_segments(chance.choice(["open", "mark", "close"]))
    for _ in range(chance.choice([1, 1, 2, 3])):
        name = chance.choice([name for name in journal.files.names() if name.startswith("seg-")])
        size = len(journal.files.get(name))
        at = chance.randrange(size)
        what = chance.randrange(6)
        if what == 0:
            journal.files.put(name, journal.files.get(name)[: max(at, 1)])
        elif what == 1:
            journal.overwrite(name, at, bytes(min(512, size - at)))
        elif what == 2 and len(journal.files.names()) > 2:
            journal.files.remove(name)
        elif what == 3:
            journal.overwrite(name, at, chance.randbytes(min(100, size - at)))
        else:
            journal.flip(name, at, chance.randrange(8))
    return journal


def opens(files):
    try:
        read(files)
    except Damage:
        return False
    return True


@pytest.mark.timeout(600 if PROVING else 60)
def test_whatever_happened_the_journal_opens_after_its_repair():
    repaired = 0
    for seed in range(SAMPLES):
        journal = damaged_at_random(seed)
        whole = opens(journal.files)
        planned = mended(journal.files)
        assert (planned.steps == []) == whole, seed
        saved = [record for record in read(journal.files)[0] if record != NOTHING]
        true = iter(journal.records)
        assert all(record in true for record in saved), f"seed {seed}: not in their order, or not all true"
        repaired += not whole
    assert repaired > SAMPLES // 2


@pytest.mark.timeout(600 if PROVING else 60)
def test_repair_that_a_crash_cuts_off_is_done_by_the_next_one():
    for seed in range(SAMPLES // 10):
        journal = damaged_at_random(seed)
        start = {name: journal.files.get(name) for name in journal.files.names()}
        saved = mended(journal.files).saved
        for cut_off, keep in product(range(len(journal.files.calls)), (None, lambda piece: True)):
            files, aside, taken = FakeFiles(), FakeFiles(), []
            for name, data in start.items():
                files.put(name, data)

            def before(call, at=cut_off, files=files, taken=taken, keep=keep):
                if len(files.calls) == at and not taken:
                    taken.append(files.crash(keep))

            files.before = before
            repair(files, aside, plan(files), salt)
            if taken:
                assert mended(taken[0]).saved == saved, (seed, cut_off)
