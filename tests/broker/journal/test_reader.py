"""Each rule by which a journal is damaged, or torn, or whole. test_damage.py tries every byte and bit."""

import msgpack
import pytest

from chervil_broker.journal import layout
from chervil_broker.journal.layout import SegmentHeader, pack_frame, pack_record
from chervil_broker.journal.reader import Damage, Reader, is_close, next_frame
from tests.broker.journal.fake_files import FakeFiles
from tests.broker.journal.small_journals import CLOSE, INSTANCE, Journal, read, three_segments


@pytest.fixture
def journal():
    return three_segments("mark")


def damage(files):
    with pytest.raises(Damage) as caught:
        read(files)
    return caught.value


def frames_of(journal, segment):
    return [frame for frame in journal.frames if frame.segment == segment]


def with_records(frames):
    return [frame for frame in frames if frame.records]


def rename(journal, old, new):
    journal.files.put(new, journal.files.get(old))
    journal.files.remove(old)


@pytest.mark.parametrize("ending", ["open", "mark", "close"])
def test_whole_journal_is_read_in_order(ending):
    journal = three_segments(ending)
    reader = Reader(journal.files)
    found = list(reader)
    assert [record for one in found for record in one.records] == journal.records
    assert [(one.segment.name, one.frame.offset, one.frame.first) for one in found] == [
        (frame.segment, frame.offset, frame.first) for frame in journal.frames
    ]
    assert {one.header.instance for one in found} == {reader.instance} == {INSTANCE}
    tail = reader.tail
    assert tail is not None
    assert tail.torn == 0
    assert tail.position.sequence == len(journal.records)
    assert tail.position.offset == journal.frames[-1].end
    assert tail.position.clean == (ending == "close")
    assert [(s.name, s.number, s.size) for s in tail.position.segments] == [
        (name, number, len(journal.files.get(name))) for number, name in enumerate(journal.names, 1)
    ]
    assert [s.first for s in tail.position.segments] == [
        frames_of(journal, name)[0].first for name in journal.names
    ]


def test_tail_says_what_the_last_frames_say_was_durable(journal):
    assert read(journal.files)[1].durable == len(journal.records)
    assert read(three_segments("open").files)[1].durable == len(journal.records) - 2


def test_folder_without_segments_has_no_tail():
    files = FakeFiles()
    for other in ("lock", "spare-1", "users.json", "seg-1.log", "seg-00000000000000000001.log.new"):
        files.put(other, b"x")
    assert read(files) == ([], None)


def test_journal_may_begin_later_than_with_its_first_segment(journal):
    oldest, *rest = journal.names
    journal.files.remove(oldest)
    records, tail = read(journal.files)
    assert records == journal.records[-len(records) :]
    assert [segment.name for segment in tail.position.segments] == rest


def test_last_segment_may_be_empty(journal):
    journal.begin(4096)
    records, tail = read(journal.files)
    assert records == journal.records
    assert tail.position.segments[-1] == (journal.segment, 4, journal.sequence, 4096)
    assert (tail.position.offset, tail.torn) == (64, 0)


def test_segment_may_be_full_to_its_last_byte():
    journal = Journal()
    journal.begin(4096)
    journal.frame(bytes(4096 - 64 - 48 - 4 - 4))
    assert journal.offset == 4096
    assert read(journal.files)[1].position.offset == 4096
    journal.begin(4096)
    assert read(journal.files)[0] == journal.records


def test_segment_after_a_clean_end_goes_on(journal):
    journal = three_segments("close")
    journal.begin(4096)
    journal.frame(journal.record())
    records, tail = read(journal.files)
    assert records == journal.records
    assert not tail.position.clean


def test_frame_that_is_damaged_in_an_earlier_segment_is_damage(journal):
    broken = with_records(frames_of(journal, journal.names[1]))[3]
    journal.flip(broken.segment, broken.offset + 60, 3)
    found = damage(journal.files)
    assert (found.file, found.offset) == (broken.segment, broken.offset)
    assert found.at_risk == len(broken.records)
    assert "checksum of the frame's payload" in found.what


def test_damage_in_the_last_frame_of_an_earlier_segment_puts_its_records_at_risk(journal):
    last = frames_of(journal, journal.names[0])[-1]
    journal.flip(last.segment, last.offset + 50, 0)
    found = damage(journal.files)
    assert (found.file, found.offset, found.at_risk) == (last.segment, last.offset, 1)


def test_anything_behind_the_frames_of_an_earlier_segment_is_damage(journal):
    journal.flip(journal.names[0], 4095, 0)
    found = damage(journal.files)
    assert (found.file, found.offset) == (journal.names[0], frames_of(journal, journal.names[0])[-1].end)


def test_frame_that_is_damaged_before_a_valid_one_is_damage(journal):
    broken = with_records(frames_of(journal, journal.names[2]))[-1]
    journal.flip(broken.segment, broken.offset + 60, 3)
    found = damage(journal.files)
    assert (found.file, found.offset, found.at_risk) == (broken.segment, broken.offset, len(broken.records))


def test_frame_before_a_valid_one_is_damage_when_it_is_zeros(journal):
    broken = with_records(frames_of(journal, journal.names[2]))[0]
    journal.overwrite(broken.segment, broken.offset, bytes(broken.end - broken.offset))
    assert damage(journal.files).offset == broken.offset


def test_frame_of_a_wrong_sequence_is_damage_and_no_torn_tail(journal):
    journal.sequence += 5
    journal.frame(journal.record())
    wrong = journal.frames[-1]
    found = damage(journal.files)
    assert (found.file, found.offset, found.at_risk) == (wrong.segment, wrong.offset, 5)
    assert f"begins with record {wrong.first}, not with {wrong.first - 5}" in found.what


def test_frame_that_comes_twice_is_damage(journal):
    journal.sequence -= 2
    journal.frame(journal.record(), journal.record())
    found = damage(journal.files)
    assert (found.offset, found.at_risk) == (journal.frames[-1].offset, None)


def test_valid_checksum_over_records_that_are_none_is_damage(journal):
    data = pack_frame([b"\xff\xff\xff\xff"], journal.sequence, 0, journal.salt)
    journal.overwrite(journal.segment, journal.offset, data)
    found = damage(journal.files)
    assert found.offset == journal.offset
    assert "not the 1 records" in found.what


def test_last_frame_that_is_damaged_is_a_torn_tail():
    journal = three_segments("open")
    last = journal.frames[-1]
    journal.flip(last.segment, last.offset + 60, 3)
    records, tail = read(journal.files)
    assert records == journal.records[: -len(last.records)]
    assert tail.position.offset == last.offset
    assert 0 < tail.torn <= last.end - last.offset
    assert not tail.position.clean


def test_bytes_behind_the_last_frame_are_a_torn_tail(journal):
    journal.flip(journal.segment, 8190, 7)
    records, tail = read(journal.files)
    assert records == journal.records
    assert tail.position.offset + tail.torn == 8191


def test_frame_of_another_salt_is_a_torn_tail(journal):
    """What an older file left on the disk passes for no frame of this one."""
    stale = pack_frame([pack_record(b"old")], journal.sequence, 0, b"oldsalt!")
    journal.overwrite(journal.segment, journal.offset, stale)
    records, tail = read(journal.files)
    assert records == journal.records
    assert tail.torn > 0


@pytest.mark.parametrize("what", ["a bit", "a frame", "a mark"])
def test_anything_after_a_clean_end_is_damage(what):
    journal = three_segments("close")
    end = journal.offset
    if what == "a bit":
        journal.flip(journal.segment, 8000, 0)
    elif what == "a frame":
        journal.frame(journal.record())
    else:
        journal.frame()
    found = damage(journal.files)
    assert (found.file, found.offset) == (journal.segment, end)
    assert "clean end" in found.what


def test_anything_after_a_clean_end_in_an_earlier_segment_is_damage():
    journal = three_segments("close")
    end, segment = journal.offset, journal.segment
    journal.frame(journal.record())
    journal.begin(4096)
    found = damage(journal.files)
    assert (found.file, found.offset, found.at_risk) == (segment, end, 1)


def test_segment_that_is_missing_is_damage(journal):
    _, missing, last = journal.names
    journal.files.remove(missing)
    found = damage(journal.files)
    assert (found.file, found.offset) == (last, 0)
    assert found.what == "segments that are missing before it: 1"
    assert found.at_risk == sum(len(frame.records) for frame in frames_of(journal, missing))


def test_earlier_segment_without_its_last_frames_is_damage(journal):
    lost = frames_of(journal, journal.names[0])[-1]
    journal.overwrite(lost.segment, lost.offset, bytes(lost.end - lost.offset))
    found = damage(journal.files)
    assert (found.file, found.offset, found.at_risk) == (lost.segment, lost.offset, 1)
    assert found.what == "its last records are missing"


def test_segment_of_another_broker_is_damage(journal):
    journal.instance = b"another instance"
    journal.begin(4096)
    found = damage(journal.files)
    assert (found.file, found.offset) == (journal.segment, 0)
    assert "of another broker than " + journal.names[2] in found.what


@pytest.mark.parametrize("number", [0, 2])
def test_segment_with_a_number_that_was_there_is_damage(journal, number):
    journal.number = number
    journal.begin(4096)
    assert "does not go on from" in damage(journal.files).what


def test_segment_that_begins_before_the_end_of_the_last_one_is_damage(journal):
    journal.sequence -= 1
    journal.begin(4096)
    found = damage(journal.files)
    assert found.file == journal.segment
    assert "does not go on from" in found.what


def test_segment_under_another_name_is_damage(journal):
    wrong = layout.segment_name(journal.sequence + 100)
    rename(journal, journal.names[2], wrong)
    found = damage(journal.files)
    assert found.file == wrong
    assert "not what its name says" in found.what


@pytest.mark.parametrize("size", [0, 1, 63])
def test_last_segment_shorter_than_its_header_is_damage(journal, size):
    journal.files.put(journal.segment, journal.files.get(journal.segment)[:size])
    found = damage(journal.files)
    assert (found.file, found.offset) == (journal.segment, 0)


def test_newer_version_is_refused_by_name_and_not_offered_for_repair(journal, monkeypatch):
    monkeypatch.setattr(layout, "VERSION", 2)
    header = SegmentHeader(INSTANCE, 1, 1, b"12345678").pack()
    monkeypatch.undo()
    journal.overwrite(journal.names[0], 0, header)
    found = damage(journal.files)
    assert not found.repairable
    assert str(found).startswith(journal.names[0] + ": version 2 of the format; this program knows 1")
    assert "chervil broker repair" not in found.advice("/var/lib/chervil")


def test_message_names_folder_file_offset_records_at_risk_and_the_command(journal):
    broken = with_records(frames_of(journal, journal.names[1]))[3]
    journal.flip(broken.segment, broken.offset + 60, 3)
    text = damage(journal.files).advice("/var/lib/my broker")
    assert "the journal in /var/lib/my broker is damaged" in text
    assert f"{broken.segment}, offset {broken.offset}: the checksum" in text
    assert f"records at risk: {len(broken.records)}." in text
    assert text.endswith("chervil broker repair '/var/lib/my broker'")


def test_message_says_when_nobody_knows_how_many_records_are_at_risk(journal):
    journal.flip(journal.segment, 3, 0)
    assert str(damage(journal.files)).endswith("records at risk: not known how many")


def test_reading_changes_nothing_and_closes_what_it_opens():
    journal = three_segments("open")
    journal.flip(journal.segment, 8190, 7)
    before = {name: journal.files.get(name) for name in journal.names}
    journal.files.calls.clear()
    read(journal.files)
    assert journal.files.calls == []
    assert {name: journal.files.get(name) for name in journal.names} == before


def test_next_frame_is_found_at_multiples_of_8_alone():
    salt = b"saltsalt"
    frame = pack_frame([pack_record(b"x")], 7, 6, salt)
    for shift in range(1, 17):
        found = next_frame(bytes(shift) + frame + bytes(8), 0, salt)
        assert (found is not None) == (shift % 8 == 0)
    assert next_frame(frame + frame, 8, salt)[:3] == (len(frame), 2 * len(frame), 7)


def test_only_the_kind_makes_a_close_record():
    assert is_close(CLOSE)
    assert is_close(msgpack.packb([2, 1 << 60, 1 << 60, "more"]))
    for other in ([3, 1, 2], [12, 2], [20], 2, b"", {2: 2}, "\x02", []):
        assert not is_close(msgpack.packb(other))
    assert not is_close(b"")


@pytest.mark.parametrize(("durable", "damaged"), [(0, False), (1, False), (2, True)])
def test_frames_that_were_never_synced_may_miss_one_before_them(durable, damaged):
    """With fsync `interval` and `off` the newest frames reach the disk in any order."""
    journal = Journal()
    journal.begin(4096)
    for record in (b"\x91\x03", b"\x92\x03\x01"):
        journal.frame(record)
    lost, later = journal.frames[1], pack_frame([pack_record(b"\x91\x03")], 3, durable, journal.salt)
    journal.overwrite(journal.segment, lost.offset, bytes(lost.end - lost.offset))
    journal.overwrite(journal.segment, lost.end, later)
    if damaged:
        assert damage(journal.files).offset == lost.offset
    else:
        reader = Reader(journal.files)
        assert [found.frame.first for found in reader] == [1]
        assert reader.tail.position.offset == lost.offset
        assert reader.tail.torn > lost.end - lost.offset


def test_a_mark_that_is_missing_before_a_frame_is_damage_whatever_was_synced():
    journal = Journal()
    journal.begin(4096)
    journal.frame(b"\x91\x03")
    journal.frame()
    mark = journal.frames[1]
    journal.overwrite(journal.segment, mark.offset, bytes(mark.end - mark.offset))
    journal.overwrite(journal.segment, mark.end, pack_frame([pack_record(b"\x91\x03")], 2, 0, journal.salt))
    assert damage(journal.files).offset == mark.offset
