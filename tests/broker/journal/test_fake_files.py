"""The folder in memory behaves as a real one, and loses what a real one may lose."""

import errno

import pytest

from chervil_broker.journal.files import OSFiles
from tests.broker.journal.fake_files import SECTOR, Call, FakeFiles


@pytest.fixture(params=["fake", "real"])
def files(request, tmp_path):
    return FakeFiles() if request.param == "fake" else OSFiles(tmp_path)


def test_folder_of_either_kind_does_the_same(files):
    file = files.create("b", 100)
    file.write(b"hello", 98)
    file.sync()
    assert file.size() == 103
    assert file.read(1000, 97) == b"\0hello"
    assert file.read(1, 103) == b""
    files.create("a", 0).close()
    with pytest.raises(FileExistsError):
        files.create("a", 0)
    assert files.names() == ["a", "b"]
    files.rename("b", "c")
    file.write(b"J", 98)
    assert files.open("c").read(5, 98) == b"Jello"
    files.remove("a")
    files.sync_folder()
    assert files.names() == ["c"]
    for missing in (files.open, files.remove):
        with pytest.raises(FileNotFoundError):
            missing("b")


def made(size=2 * SECTOR):
    """A folder with a durable file of zeros, and the file."""
    files = FakeFiles()
    file = files.create("f", size)
    files.sync_folder()
    return files, file


def test_what_was_not_synced_is_gone_after_a_crash():
    files, file = made()
    file.write(b"old", 0)
    file.sync()
    file.write(b"new", 0)
    assert files.get("f")[:3] == b"new"
    assert files.crash().get("f")[:3] == b"old"


def test_crash_keeps_the_sectors_that_are_chosen_each_as_one_write_left_it():
    files, file = made()
    file.write(b"x" * 4, SECTOR - 2)
    file.write(b"y", SECTOR)
    first = files.crash(lambda piece: piece.offset == 0)
    assert first.get("f").replace(b"\0", b"") == b"xx"
    # Of the second sector there are two states: neither has the later write without the one before.
    second = files.crash(lambda piece: piece.offset == SECTOR and piece.data[:1] == b"x")
    assert second.get("f").replace(b"\0", b"") == b"xx"
    assert files.crash(lambda piece: True).get("f") == files.get("f")


def test_after_a_failed_sync_no_other_makes_those_writes_durable():
    files, file = made()
    files.fail_at(4, errno.EIO)
    file.write(b"a", 0)
    with pytest.raises(OSError, match="Input/output"):
        file.sync()
    file.sync()
    assert files.crash().get("f")[:1] == b"\0"
    assert files.crash(lambda piece: True).get("f")[:1] == b"a"
    file.write(b"b", 1)
    file.sync()
    assert files.crash().get("f")[:2] == b"ab", "the sector was written again"


def test_names_are_durable_after_a_sync_of_the_folder():
    files, _ = made()
    files.create("g", 1)
    files.rename("f", "h")
    assert files.crash().names() == ["f"]
    assert files.crash(lambda piece: True).names() == ["g", "h"]
    assert files.crash(lambda piece: piece.operation == "rename").names() == ["h"]
    files.remove("g")
    files.sync_folder()
    assert files.crash().names() == ["h"]


def test_change_of_a_name_that_was_not_kept_can_not_be_changed_further():
    files = FakeFiles()
    files.create("f", 1)
    files.rename("f", "g")
    assert files.crash(lambda piece: piece.operation == "rename").names() == []


@pytest.mark.parametrize("n", range(1, 7))
def test_nth_call_fails_and_is_noted(n):
    files = FakeFiles()
    files.fail_at(n, errno.ENOSPC)
    steps = [
        lambda: files.create("f", 10),
        lambda: files.open("f").write(b"abcd", 0),
        lambda: files.open("f").sync(),
        lambda: files.rename("f", "g"),
        files.sync_folder,
        lambda: files.remove("g"),
    ]
    for number, step in enumerate(steps[:n], 1):
        if number < n:
            step()
        else:
            with pytest.raises(OSError, match="No space") as raised:
                step()
            assert raised.value.errno == errno.ENOSPC
    operations = ["create", "write", "sync", "rename", "sync_folder", "remove"]
    assert [call.operation for call in files.calls] == operations[:n]
    if n == 2:
        assert files.get("f")[:4] == b"ab\0\0", "half of it"


def test_files_find_no_room_on_a_full_disk_until_one_is_removed():
    files = FakeFiles()
    files.room = 10
    files.create("f", 8)
    with pytest.raises(OSError, match="No space"):
        files.create("g", 8)
    files.remove("f")
    files.create("g", 8)
    assert files.names() == ["g"]
    assert files.room == 2


def test_hook_sees_each_call_before_it_is_made():
    files, file = made()
    seen = []
    files.before = lambda call: seen.append((call, files.get("f")[:1]))
    file.write(b"a", 0)
    file.sync()
    assert seen == [(Call("write", "f", 0, 1), b"\0"), (Call("sync", "f"), b"a")]


def test_names_in_folders_below_show_as_the_folder():
    files = FakeFiles()
    files.put("aside/x", b"1")
    files.put("y", b"2")
    assert files.names() == ["aside", "y"]
    assert files.crash().get("aside/x") == b"1"
