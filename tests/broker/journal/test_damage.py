"""Three small segments, cut off at every byte and with every bit turned over: never silent, never a wrong record.

With CHERVIL_PROVE=1 every byte and every bit; without it a few hundred that are the same each time.
"""

import os
import random
from bisect import bisect_right
from typing import NamedTuple

import pytest

from chervil_broker.journal.reader import Damage, Reader
from chervil_broker.journal.tail import cut
from tests.broker.journal.fake_files import FakeFiles
from tests.broker.journal.small_journals import three_segments

PROVING = os.environ.get("CHERVIL_PROVE") == "1"
#: Of each test here, where not all are tried.
SAMPLES = 150
#: All that a shared machine may take for some 150,000 readings of a journal.
PROVING_SECONDS = 1800

ENDINGS = ["open", "mark", "close"]
HEADER = 64


class Outcome(NamedTuple):
    """What reading a journal came to."""

    records: list
    #: (file, offset) of the damage; None: it was opened.
    damage: tuple | None
    #: What was cut off at the end of the last segment: (offset, bytes); None: nothing.
    torn: tuple | None


def chosen(cases):
    return cases if PROVING else sorted(random.Random(7).sample(cases, SAMPLES))


def opened(files):
    """Reads a journal and cuts its tail; then once more, which must come to the same and change nothing."""
    records = []
    reader = Reader(files)
    try:
        for found in reader:
            records += found.records
    except Damage as caught:
        damage = caught
    else:
        damage = None
    if damage:
        assert damage.repairable
        assert damage.file in files.names()
        assert "chervil broker repair" in damage.advice("x")
        assert files.calls == []
        return Outcome(records, (damage.file, damage.offset), None)
    tail = reader.tail
    assert tail is not None
    if not tail.torn:
        return Outcome(records, None, None)
    last = tail.position.segments[-1].name
    before, aside = files.get(last), FakeFiles()
    offset = tail.position.offset
    cut(files, aside, tail)
    (name,) = aside.names()
    kept = aside.get(name)
    assert kept == before[offset : offset + tail.torn]
    assert files.get(last) == before[:offset] + bytes(len(before) - offset)
    assert not any(before[offset + tail.torn :])

    again = Reader(files)
    assert [record for found in again for record in found.records] == records
    assert again.tail is not None
    assert again.tail.torn == 0
    assert again.tail.position == tail.position == cut(files, aside, again.tail)
    assert files.get(last) == before[:offset] + bytes(len(before) - offset)
    return Outcome(records, None, (offset, kept))


class Places:
    """Which frame a byte belongs to."""

    def __init__(self, journal):
        self.journal = journal
        self.of = {
            name: [frame for frame in journal.frames if frame.segment == name] for name in journal.names
        }

    def before(self, segment, offset):
        """Frames of the segment that end at or before `offset`."""
        return bisect_right([frame.end for frame in self.of[segment]], offset)

    def records_before(self, segment, count):
        """All records up to the first `count` frames of this segment."""
        first = self.of[segment][0].first
        here = [record for frame in self.of[segment][:count] for record in frame.records]
        return self.journal.records[: first - 1] + here

    def end(self, segment, count):
        return self.of[segment][count - 1].end if count else HEADER


@pytest.fixture(params=ENDINGS)
def ending(request):
    return request.param


@pytest.fixture
def places(ending):
    return Places(three_segments(ending))


@pytest.mark.timeout(PROVING_SECONDS if PROVING else 60)
def test_last_segment_cut_off_anywhere_leaves_the_longest_whole_prefix(places):
    files, segment = places.journal.files, places.journal.segment
    whole = files.get(segment)
    for size in chosen(range(len(whole))):
        files.put(segment, whole[:size])
        files.calls.clear()
        outcome = opened(files)
        if size < HEADER:
            assert outcome.damage == (segment, 0)
            assert outcome.records == places.records_before(segment, 0)
            continue
        count = places.before(segment, size)
        end = places.end(segment, count)
        assert outcome.damage is None, size
        assert outcome.records == places.records_before(segment, count), size
        rest = whole[end:size].rstrip(b"\0")
        assert outcome.torn == ((end, rest) if rest else None), size


@pytest.mark.timeout(PROVING_SECONDS if PROVING else 60)
def test_earlier_segment_cut_off_anywhere_is_damage_unless_only_zeros_are_gone(places):
    files = places.journal.files
    cases = [(name, size) for name in places.journal.names[:-1] for size in range(len(files.get(name)))]
    for segment, size in chosen(cases):
        whole = files.get(segment)
        files.put(segment, whole[:size])
        files.calls.clear()
        outcome = opened(files)
        files.put(segment, whole)
        count = places.before(segment, size)
        if count == len(places.of[segment]):
            assert outcome == (places.journal.records, None, None)
        elif size < HEADER:
            assert outcome == (places.records_before(segment, 0), (segment, 0), None)
        else:
            damage = (segment, places.end(segment, count))
            assert outcome == (places.records_before(segment, count), damage, None), size


@pytest.mark.timeout(PROVING_SECONDS if PROVING else 60)
@pytest.mark.parametrize("number", [0, 1, 2])
def test_bit_that_is_turned_over_is_damage_there_or_a_tail_that_is_kept(ending, places, number):
    files = places.journal.files
    segment = places.journal.names[number]
    last = places.journal.frames[-1]
    whole = files.get(segment)
    for case in chosen(range(len(whole) * 8)):
        at = case // 8
        files.put(segment, whole[:at] + bytes([whole[at] ^ 1 << case % 8]) + whole[at + 1 :])
        files.calls.clear()
        outcome = opened(files)
        if at < HEADER:
            assert outcome == (places.records_before(segment, 0), (segment, 0), None), case
            continue
        count = places.before(segment, at)
        end = places.end(segment, count)
        assert outcome.records == places.records_before(segment, count), case
        # The honest limit: nothing durable follows the last frame, so damage to it may be a torn write.
        may_be_torn = segment == last.segment and (
            end == last.offset or (end == last.end and ending != "close")
        )
        if may_be_torn:
            assert outcome.damage is None, case
            assert outcome.torn is not None, case
            assert outcome.torn[0] == end, case
        else:
            assert outcome.damage == (segment, end), case
    assert files.names() == places.journal.names
