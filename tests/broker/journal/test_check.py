import msgpack
import pytest

from chervil_broker.journal.check import check
from chervil_broker.journal.reader import Damage
from tests.broker.journal.fake_files import FakeFiles
from tests.broker.journal.small_journals import three_segments


@pytest.fixture
def journal():
    return three_segments("mark")


def test_whole_journal_is_counted(journal):
    checked = check(journal.files)
    assert checked.size == 4096 + 6144 + 8192
    assert checked.records == len(journal.records)
    assert checked.tail is not None
    assert checked.tail.torn == 0


def test_torn_tail_is_no_damage_and_is_told(journal):
    journal.flip(journal.segment, 8191, 0)
    checked = check(journal.files)
    assert checked.tail is not None
    assert checked.tail.torn == 8192 - journal.offset
    assert journal.files.calls == []


def test_folder_without_segments_is_no_damage():
    assert check(FakeFiles()) == (0, 0, None)


def test_damage_is_raised(journal):
    journal.flip(journal.names[0], 100, 0)
    with pytest.raises(Damage) as caught:
        check(journal.files)
    assert caught.value.file == journal.names[0]


@pytest.mark.parametrize(
    ("record", "what", "repairable"),
    [
        ([99, 1], "kind 99 of records is unknown", False),
        ([3, "now", 1], "TICK whose now", True),
        ("text", "does not begin with its kind", True),
    ],
)
def test_record_that_can_not_be_read_is_damage_and_a_newer_ones_is_not_for_repair(
    journal, record, what, repairable
):
    journal.frame(journal.record(), msgpack.packb(record))
    wrong = journal.frames[-1]
    with pytest.raises(Damage, match=what) as caught:
        check(journal.files)
    found = caught.value
    assert (found.file, found.offset, found.repairable) == (wrong.segment, wrong.offset, repairable)
