import errno

import pytest

from chervil_broker.journal.reader import Reader
from chervil_broker.journal.tail import TAILS_MAX, cut, keep
from tests.broker.journal.fake_files import FakeFiles
from tests.broker.journal.small_journals import read, three_segments


@pytest.fixture
def journal():
    """Its last frame is torn: the second half of it is zeros."""
    journal = three_segments("open")
    last = journal.frames[-1]
    middle = (last.offset + last.end) // 2
    journal.overwrite(last.segment, middle, bytes(last.end - middle))
    return journal


def tail_of(files):
    reader = Reader(files)
    for _ in reader:
        pass
    assert reader.tail is not None
    return reader.tail


def contents(files):
    return {name: files.get(name) for name in files.names()}


def test_torn_tail_is_kept_aside_and_overwritten_with_zeros(journal):
    aside = FakeFiles()
    last = journal.frames[-1]
    before = journal.files.get(last.segment)
    tail = tail_of(journal.files)
    position = cut(journal.files, aside, tail)
    assert position == tail.position
    assert position.offset == last.offset
    after = journal.files.get(last.segment)
    assert after == before[: last.offset] + bytes(len(before) - last.offset)
    assert contents(aside) == {
        f"{last.segment}-{last.offset:010d}": before[last.offset : last.offset + tail.torn]
    }
    assert read(journal.files)[0] == journal.records[:-2]
    assert read(journal.files)[1].torn == 0


def test_cutting_again_changes_nothing(journal):
    aside = FakeFiles()
    tail = tail_of(journal.files)
    cut(journal.files, aside, tail)
    once = contents(journal.files), contents(aside)
    for again in (tail, tail_of(journal.files)):
        cut(journal.files, aside, again)
        assert contents(journal.files) == once[0]
    assert len(aside.names()) <= 2


def test_what_is_cut_is_durable_aside_before_it_is_overwritten(journal):
    aside = FakeFiles()
    kept = []

    def before(call):
        if call.operation == "write":
            kept.append(contents(aside.crash()))

    journal.files.before = before
    torn = tail_of(journal.files)
    cut(journal.files, aside, torn)
    assert kept == [contents(aside)]
    assert [call.operation for call in journal.files.calls] == ["write", "sync"]


def test_whole_journal_is_synced_and_nothing_else(journal):
    journal = three_segments("mark")
    aside = FakeFiles()
    cut(journal.files, aside, tail_of(journal.files))
    assert [call.operation for call in journal.files.calls] == ["sync"]
    assert aside.calls == []


def test_every_crash_in_between_is_recovered_to_the_same_bytes(journal):
    start = contents(journal.files)
    cut(journal.files, FakeFiles(), tail_of(journal.files))
    whole = contents(journal.files)
    torn = tail_of(put(start)).torn
    for written in range(0, torn, 8):
        files = put(start)
        files.open(journal.segment).write(bytes(written), journal.frames[-1].offset)
        cut(files, FakeFiles(), tail_of(files))
        assert contents(files) == whole


def put(given):
    files = FakeFiles()
    for name, data in given.items():
        files.put(name, data)
    return files


@pytest.mark.parametrize("nth", [1, 2])
def test_error_is_not_hidden(journal, nth):
    journal.files.fail_at(nth, errno.EIO)
    with pytest.raises(OSError, match="error"):
        cut(journal.files, FakeFiles(), tail_of(journal.files))


@pytest.mark.parametrize("nth", [1, 2, 3, 4])
def test_nothing_is_overwritten_that_could_not_be_kept(journal, nth):
    aside = FakeFiles()
    aside.fail_at(nth, errno.ENOSPC)
    before = contents(journal.files)
    with pytest.raises(OSError, match="No space"):
        cut(journal.files, aside, tail_of(journal.files))
    assert contents(journal.files) == before


def test_same_bytes_are_kept_once_and_others_beside_them():
    aside = FakeFiles()
    assert [keep(aside, "a", data) for data in (b"one", b"one", b"two", b"two", b"one")] == [
        "a", "a", "a-2", "a-2", "a",
    ]  # fmt: skip
    assert contents(aside) == {"a": b"one", "a-2": b"two"}


def test_oldest_tails_make_room_for_new_ones_and_originals_stay(journal):
    aside = FakeFiles()
    aside.put("seg-00000000000000000001.log", b"an original")
    for number in range(TAILS_MAX + 5):
        aside.put(f"seg-00000000000000000001.log-{number:010d}", b"x")
    cut(journal.files, aside, tail_of(journal.files))
    names = aside.names()
    assert len(names) == TAILS_MAX + 1
    assert names[0] == "seg-00000000000000000001.log"
    assert names[1] == "seg-00000000000000000001.log-0000000006"
    assert names[-1].startswith(journal.segment)
