"""The file layer, against the real file system."""

import errno
import os
import stat

import pytest

from chervil_broker.journal.files import OSFiles


@pytest.fixture
def files(tmp_path):
    return OSFiles(tmp_path)


def test_a_new_file_is_zeros_of_its_size_and_nobody_elses(files, tmp_path):
    file = files.create("a", 3 * 1024 * 1024 + 5)
    assert file.size() == 3 * 1024 * 1024 + 5
    assert file.read(10**8, 0) == bytes(3 * 1024 * 1024 + 5)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o600
    # Written, and not only promised: a full disk is met here and not at a commit.
    assert (tmp_path / "a").stat().st_blocks * 512 >= 3 * 1024 * 1024
    file.close()


def test_what_is_written_is_read_at_its_offset_and_by_whoever_opens_it(files):
    file = files.create("a", 16)
    file.write(b"abc", 2)
    file.sync()
    file.close()
    again = files.open("a")
    assert again.read(16, 0) == b"\0\0abc" + bytes(11)
    assert again.read(100, 14) == bytes(2)
    assert again.read(1, 16) == b""
    again.close()


def test_a_file_that_exists_is_not_made_again(files):
    files.create("a", 1).close()
    with pytest.raises(FileExistsError):
        files.create("a", 1)


def test_a_file_that_there_is_no_room_for_leaves_nothing(files, monkeypatch):
    def full(descriptor, data, offset):
        raise OSError(errno.ENOSPC, "no space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(OSError, match="no space"):
        files.create("a", 10)
    assert files.names() == []


def test_a_write_that_takes_a_part_goes_on_with_the_rest(files, monkeypatch):
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: pwrite(fd, bytes(data)[:2], offset))
    file = files.create("a", 8)
    file.write(b"abcdefg", 1)
    assert file.read(8, 0) == b"\0abcdefg"
    file.close()


def test_a_write_that_takes_nothing_more_is_an_error(files, monkeypatch):
    file = files.create("a", 8)
    taken = iter([2, 0])
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: next(taken))
    with pytest.raises(OSError, match="nothing more"):
        file.write(b"abc", 0)
    file.close()


def test_a_read_in_parts_is_whole(files, monkeypatch):
    pread = os.pread
    file = files.create("a", 8)
    file.write(b"abcdefgh", 0)
    monkeypatch.setattr(os, "pread", lambda fd, size, offset: pread(fd, min(size, 3), offset))
    assert file.read(8, 0) == b"abcdefgh"
    file.close()


def test_names_are_sorted_and_follow_renames_and_removals(files):
    for name in "cab":
        files.create(name, 1).close()
    files.rename("c", "d")
    files.remove("a")
    files.sync_folder()
    assert files.names() == ["b", "d"]
