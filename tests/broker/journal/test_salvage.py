import msgpack
import pytest

from chervil_broker.journal.layout import SegmentHeader, pack_frame, pack_record
from chervil_broker.journal.reader import Damage
from chervil_broker.journal.salvage import LOST_MAX, NOTHING, Salvage, guessed_header, salvage, segment_of
from tests.broker.journal.small_journals import CLOSE, INSTANCE, TICK, Journal, read, three_segments


@pytest.fixture
def journal():
    """One segment with five frames of two records."""
    journal = Journal()
    journal.begin(4096)
    for _ in range(5):
        journal.frame(journal.record(), TICK)
    return journal


def header_of(journal):
    return SegmentHeader.unpack(journal.files.get(journal.segment))


def saved(journal, until=None):
    return salvage(journal.segment, journal.files.get(journal.segment), header_of(journal), until)


def flat(found):
    return [record for frame in found.frames for record in frame]


def test_whole_segment_has_no_problems(journal):
    found = saved(journal)
    assert flat(found) == journal.records
    assert (found.problems, found.lost, found.saved, found.sequence, found.torn) == ([], 0, 10, 11, False)


def test_lost_frame_is_replaced_by_as_many_records_that_say_nothing(journal):
    lost = journal.frames[2]
    journal.flip(journal.segment, lost.offset + 60, 0)
    found = saved(journal)
    assert flat(found) == journal.records[:4] + [NOTHING] * 2 + journal.records[6:]
    assert (found.lost, found.saved, found.sequence) == (2, 8, 11)
    assert found.problems == [f"offset {lost.offset}: the checksum of the frame's payload is wrong"]


def test_end_that_is_torn_is_no_problem_of_its_own(journal):
    journal.flip(journal.segment, journal.frames[-1].offset + 60, 0)
    found = saved(journal)
    assert flat(found) == journal.records[:-2]
    assert found.torn
    assert found.problems == []


def test_gap_between_valid_frames_is_filled(journal):
    journal.sequence += 3
    journal.frame(TICK)
    found = saved(journal)
    assert flat(found) == journal.records[:-1] + [NOTHING] * 3 + [TICK]
    assert found.problems == [f"offset {journal.frames[-1].offset}: the records before it are missing"]


@pytest.mark.parametrize(("step", "until"), [(-1, None), (0, 11)])
def test_records_that_are_elsewhere_too_are_left_out(journal, step, until):
    journal.sequence += step
    journal.frame(journal.record())
    found = saved(journal, until)
    assert flat(found) == journal.records[:-1]
    assert "elsewhere too" in found.problems[0]


def test_records_of_a_frame_that_does_not_hold_them_are_lost(journal):
    data = pack_frame([b"\xff\xff\xff\xff"], journal.sequence, 0, journal.salt)
    journal.overwrite(journal.segment, journal.offset, data)
    found = saved(journal)
    assert flat(found) == [*journal.records, NOTHING]
    assert found.lost == 1


def test_record_that_can_not_be_read_is_lost_alone(journal):
    journal.frame(TICK, msgpack.packb([3, "soon"]), TICK)
    found = saved(journal)
    assert flat(found)[-3:] == [TICK, NOTHING, TICK]
    assert (found.lost, found.saved) == (1, 12)


def test_record_of_a_newer_program_is_not_thrown_away(journal):
    journal.frame(msgpack.packb([99]))
    with pytest.raises(Damage, match="kind 99") as caught:
        saved(journal)
    assert not caught.value.repairable


@pytest.mark.parametrize("what", ["frame", "mark", "bit"])
def test_clean_end_with_something_behind_it_is_a_problem(journal, what):
    journal.frame(CLOSE)
    end = journal.offset
    if what == "bit":
        journal.flip(journal.segment, 4000, 0)
    elif what == "mark":
        journal.frame()
    else:
        journal.frame(TICK)
    found = saved(journal)
    assert found.problems == [f"offset {end}: something follows the record of a clean end"]
    last = [NOTHING, TICK] if what == "frame" else [CLOSE]
    assert flat(found) == [*journal.records[:10], *last]


@pytest.mark.parametrize("ending", ["open", "mark", "close"])
def test_segment_that_is_written_anew_is_read_as_before(ending):
    journal = three_segments(ending)
    found = saved(journal)
    data = segment_of(header_of(journal)._replace(salt=b"new salt"), found, 8000)
    assert len(data) == 8192
    journal.files.put(journal.segment, data)
    records, tail = read(journal.files)
    assert records == journal.records
    assert tail.torn == 0
    assert tail.position.clean == (ending == "close")


def test_segment_grows_by_pages_where_what_says_nothing_takes_more():
    found = Salvage([], 7)
    found.lose(25_000, "seg")
    header = SegmentHeader(INSTANCE, 3, 7, b"saltsalt")
    data = segment_of(header, found, 0)
    assert len(data) % 4096 == 0
    again = salvage("seg", data, header, None)
    assert again.problems == []
    assert flat(again) == [NOTHING] * 25_000


def test_more_lost_records_than_can_be_true_are_refused():
    with pytest.raises(Damage, match="not of one journal") as caught:
        Salvage([], 1).lose(LOST_MAX + 1, "seg")
    assert not caught.value.repairable


def test_header_is_guessed_from_the_frames():
    journal = three_segments("mark")
    for name in journal.names:
        data = journal.files.get(name)
        header = SegmentHeader.unpack(data)
        assert guessed_header(header.first, bytes(64) + data[64:]) == header._replace(number=0)


def test_instance_is_unknown_where_no_opening_record_is_the_first(journal):
    data = journal.files.get(journal.segment)
    assert guessed_header(1, bytes(64) + data[64:]) == (b"", 0, 1, journal.salt)


def test_frames_inside_of_a_body_do_not_give_the_salt_away(journal):
    """A task's body may hold anything, also frames with a salt of their author's."""
    planted = pack_frame([pack_record(TICK)], 1, 0, b"planted!")
    for lead in range(8):
        journal.frame(msgpack.packb([3, 1, 1, bytes(lead) + planted]))
    data = journal.files.get(journal.segment)
    assert guessed_header(1, bytes(64) + data[64:]).salt == journal.salt
    first = journal.frames[5]
    assert guessed_header(1, bytes(first.offset) + data[first.offset :]).salt == journal.salt


def test_many_small_frames_inside_of_a_damaged_one_do_not_outweigh_the_real_ones(journal):
    planted = pack_frame([pack_record(TICK)], 1, 0, b"planted!") * 10
    lead = -(journal.offset + 48 + 4 + len(msgpack.packb([3, 1, 1, bytes(len(planted))])) - len(planted)) % 8
    journal.frame(msgpack.packb([3, 1, 1, bytes(lead) + planted]))
    inside = journal.files.get(journal.segment).index(planted)
    assert inside % 8 == 0
    journal.flip(journal.segment, journal.frames[-1].offset + 60, 0)
    data = journal.files.get(journal.segment)
    assert guessed_header(1, bytes(64) + data[64:]).salt == journal.salt


def test_without_a_frame_no_header_is_guessed():
    assert guessed_header(1, bytes(4096)) is None
    assert guessed_header(1, b"CHVF" * 1024) is None
