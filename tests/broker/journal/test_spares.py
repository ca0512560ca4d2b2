import errno
import threading

import pytest

from chervil_broker.journal.spares import SPARES, NoRoom, Spares
from tests.broker.journal.fake_files import FakeFiles

PAGE = 4096


def begun(files, last=0, first=PAGE, largest=4 * PAGE):
    spares = Spares(files, first, largest)
    spares.begin(last)
    return spares


def fill(spares):
    while spares.make():
        pass


def test_two_are_made_each_twice_as_large_as_the_one_before():
    files = FakeFiles()
    spares = begun(files)
    assert spares.make()
    assert not spares.make()
    assert not spares.make()
    assert spares.sizes == [PAGE, 2 * PAGE]
    assert files.names() == ["spare-1", "spare-2"]
    assert len(files.get("spare-2")) == 2 * PAGE


def test_sizes_go_on_from_the_newest_segment_to_the_largest():
    spares = begun(FakeFiles(), last=PAGE)
    fill(spares)
    assert spares.sizes == [2 * PAGE, 4 * PAGE]
    assert spares.take(1) == ("spare-1", 2 * PAGE)


def test_no_segment_is_larger_than_the_largest_though_one_was():
    spares = begun(FakeFiles(), last=100 * PAGE)
    fill(spares)
    assert spares.sizes == [4 * PAGE] * SPARES


def test_smallest_that_is_large_enough_is_taken_and_is_gone_from_the_spares():
    files = FakeFiles()
    spares = begun(files)
    fill(spares)
    assert spares.take(PAGE + 1) == ("spare-2", 2 * PAGE)
    assert spares.sizes == [PAGE]
    assert files.names() == ["spare-1", "spare-2"], "it is renamed by whoever took it"
    files.rename("spare-2", "seg")
    fill(spares)
    assert spares.sizes == [PAGE, 4 * PAGE]


def test_one_is_made_when_none_is_ready():
    spares = begun(FakeFiles())
    assert spares.take(1) == ("spare-1", PAGE)


def test_one_is_made_of_pages_when_none_is_large_enough():
    files = FakeFiles()
    spares = begun(files)
    fill(spares)
    assert spares.take(9 * PAGE + 1) == ("spare-3", 10 * PAGE)
    assert spares.sizes == [PAGE, 2 * PAGE]
    files.rename("spare-3", "seg")
    spares.take(1)
    files.rename("spare-1", "seg-2")
    fill(spares)
    assert spares.sizes == [2 * PAGE, 4 * PAGE], "the large one did not count"


def test_those_of_an_earlier_process_are_taken_up():
    files = FakeFiles()
    fill(begun(files, last=PAGE))
    spares = begun(files, last=PAGE)
    assert spares.sizes == [2 * PAGE, 4 * PAGE]
    assert not spares.make()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        bytes(PAGE - 1),
        bytes(5 * PAGE),
        bytes(PAGE - 1) + b"x",
        b"CHERVILJ" + bytes(2 * PAGE - 8),
    ],
    ids=["empty", "cut off", "too large", "not zeros", "a header"],
)
def test_what_a_crash_left_half_made_or_half_used_is_thrown_away(content):
    files = FakeFiles()
    files.put("spare-1", content)
    files.put("spare-2", bytes(2 * PAGE))
    assert begun(files).sizes == [2 * PAGE]
    assert files.names() == ["spare-2"]


def test_all_of_a_large_one_is_looked_at():
    files = FakeFiles()
    large = 3 * 1024 * 1024
    files.put("spare-1", bytes(large - 1) + b"x")
    files.put("spare-2", bytes(large))
    assert begun(files, largest=large).sizes == [large]


def test_more_than_are_wanted_are_thrown_away():
    files = FakeFiles()
    for number in (1, 2, 3):
        files.put(f"spare-{number}", bytes(PAGE))
    assert begun(files).sizes == [PAGE, PAGE]
    assert files.names() == ["spare-1", "spare-2"]


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EDQUOT])
def test_full_disk_is_told_from_a_failure(error):
    files = FakeFiles()
    files.fail_at(1, error)
    files.fail_at(2, error)
    files.fail_at(3, errno.EIO)
    spares = begun(files)
    with pytest.raises(NoRoom, match="no room for a segment of 4096 bytes") as raised:
        spares.make()
    assert raised.value.errno == error
    with pytest.raises(NoRoom):
        spares.take(1)
    with pytest.raises(OSError, match="Input/output") as other:
        spares.make()
    assert not isinstance(other.value, NoRoom)
    fill(spares)
    assert spares.sizes == [PAGE, 2 * PAGE]


def test_ready_one_is_taken_while_another_is_filled_and_that_one_is_waited_for():
    files = FakeFiles()
    spares = begun(files)
    spares.make()
    filling, go_on = threading.Event(), threading.Event()

    def hold(call):
        filling.set()
        assert go_on.wait(10)

    files.before = hold
    maker = threading.Thread(target=spares.make)
    maker.start()
    assert filling.wait(10)
    assert spares.take(1) == ("spare-1", PAGE)
    files.before = None
    taken = []
    taker = threading.Thread(target=lambda: taken.append(spares.take(1)))
    taker.start()
    go_on.set()
    maker.join(10)
    taker.join(10)
    assert taken == [("spare-2", 2 * PAGE)]
    assert [call.operation for call in files.calls] == ["create"] * 2


def test_none_is_smaller_than_what_one_record_needs():
    files = FakeFiles()
    files.put("spare-1", bytes(2 * PAGE))
    spares = Spares(files, PAGE, 4 * PAGE, least=5 * PAGE - 1)
    spares.begin(0)
    assert files.names() == [], "one from before is of no use"
    fill(spares)
    assert spares.sizes == [5 * PAGE, 5 * PAGE]
    again = Spares(files, PAGE, 4 * PAGE, least=5 * PAGE - 1)
    again.begin(PAGE)
    assert again.sizes == [5 * PAGE, 5 * PAGE]
