import errno
import json
import os
import shutil
import threading

import pytest

from chervil_broker.journal.backup import COPIES_MAX, BackupError, backup, copy, restore
from chervil_broker.journal.files import OSFiles
from chervil_broker.journal.layout import pack_frame, pack_record
from chervil_broker.journal.reader import Damage
from chervil_broker.journal.records import Tick, decode, pack
from chervil_broker.journal.spares import Spares
from chervil_broker.journal.writer import Writer
from tests.broker.journal.fake_files import FakeFiles
from tests.broker.journal.small_journals import INSTANCE, TICK, read, three_segments


@pytest.fixture
def journal():
    return three_segments("mark")


@pytest.fixture
def folder(tmp_path, journal):
    """A data folder on the disk."""
    path = tmp_path / "data"
    path.mkdir()
    for name in journal.names:
        (path / name).write_bytes(journal.files.get(name))
    for name in ("lock", "spare-1"):
        (path / name).write_bytes(b"x")
    (path / "aside").mkdir()
    (path / "users.json").write_text('{"version": 1}')
    return path


class Lively(FakeFiles):
    """A folder in which something happens when a file is opened for the nth time."""

    def __init__(self, journal, happens):
        super().__init__()
        for name in journal.names:
            self.put(name, journal.files.get(name))
        self.opened = 0
        self.happens = happens

    def open(self, name):
        self.opened += 1
        self.happens(self)
        return super().open(name)


def test_copy_has_the_segments_the_users_and_the_flag_and_nothing_else(journal, folder, tmp_path):
    copied = tmp_path / "copy"
    checked = backup(folder, copied)
    assert checked.records == len(journal.records)
    assert sorted(path.name for path in copied.iterdir()) == sorted(
        [*journal.names, "restored", "users.json"]
    )
    for name in journal.names:
        assert (copied / name).read_bytes() == journal.files.get(name)
    assert json.loads((copied / "users.json").read_text()) == {"version": 1}


def test_copy_is_private(folder, tmp_path):
    copied = tmp_path / "deeper" / "copy"
    backup(folder, copied)
    assert copied.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in copied.iterdir()} == {0o600}


def test_copy_of_a_folder_without_users_has_none(journal, folder, tmp_path):
    (folder / "users.json").unlink()
    backup(folder, tmp_path / "copy")
    assert not (tmp_path / "copy" / "users.json").exists()


def test_copy_is_flagged_first_and_synced_at_the_end(journal):
    copied = FakeFiles()
    copy(journal.files, copied)
    assert copied.calls[0].name == "restored"
    assert copied.calls[-1].operation == "sync_folder"
    after = copied.crash()
    assert read(after)[0] == journal.records
    assert journal.files.calls == []


def test_frame_that_is_being_written_is_not_in_the_copy(journal):
    whole = len(journal.records)
    half = pack_frame([pack_record(bytes(100))], journal.sequence, 0, journal.salt)[:90]
    journal.overwrite(journal.segment, journal.offset, half)
    copied = FakeFiles()
    checked = copy(journal.files, copied)
    assert checked.records == whole
    assert copied.get(journal.segment) == journal.files.get(journal.segment)[: journal.offset] + bytes(
        8192 - journal.offset
    )
    assert read(copied.crash())[1].torn == 0
    assert read(journal.files)[1].torn > 0


@pytest.mark.parametrize("after", [1, 2, 3])
def test_segment_that_comes_meanwhile_is_left_for_the_next_backup(journal, after):
    records = journal.records

    def happens(files):
        if files.opened == after:
            journal.begin(4096)
            journal.frame(TICK)
            files.put(journal.segment, journal.files.get(journal.segment))

    copied = FakeFiles()
    copy(Lively(journal, happens), copied)
    assert read(copied)[0] == records


def test_frames_that_come_meanwhile_may_be_in_the_copy(journal):
    def happens(files):
        if files.opened == 2:
            journal.frame(TICK)
            files.put(journal.segment, journal.files.get(journal.segment))

    copied = FakeFiles()
    copy(Lively(journal, happens), copied)
    assert read(copied)[0] == journal.records


@pytest.mark.parametrize("after", [1, 2])
def test_copy_begins_anew_when_a_segment_that_is_to_be_copied_vanishes(journal, after):
    oldest = journal.names[:after]

    def happens(files):
        if files.opened == after:
            for name in oldest:
                files.remove(name)

    copied = FakeFiles()
    checked = copy(Lively(journal, happens), copied)
    assert [s.name for s in checked.tail.position.segments] == journal.names[after:]
    assert set(copied.names()) == {"restored", *journal.names[after:]}


def test_segment_that_vanishes_when_it_was_copied_is_in_the_copy(journal):
    def happens(files):
        if files.opened == 2:
            files.remove(journal.names[0])

    copied = FakeFiles()
    copy(Lively(journal, happens), copied)
    assert read(copied)[0] == journal.records


def test_backup_gives_up_when_segments_vanish_every_time(journal):
    def happens(files):
        raise FileNotFoundError(errno.ENOENT, "gone")

    source = Lively(journal, happens)
    copied = FakeFiles()
    with pytest.raises(BackupError, match=f"{COPIES_MAX} times"):
        copy(source, copied)
    assert source.opened == COPIES_MAX
    assert copied.names() == []


def test_list_of_names_that_had_a_gap_is_read_again(journal):
    names = iter([[journal.names[0], journal.names[2]]])

    class Gap(FakeFiles):
        def names(self):
            return next(names, super().names())

    source = Gap()
    for name in journal.names:
        source.put(name, journal.files.get(name))
    copied = FakeFiles()
    copy(source, copied)
    assert read(copied)[0] == journal.records


def test_damaged_journal_is_not_copied(journal, folder, tmp_path):
    name = journal.names[1]
    data = bytearray((folder / name).read_bytes())
    data[200] ^= 1
    (folder / name).write_bytes(data)
    with pytest.raises(Damage) as caught:
        backup(folder, tmp_path / "copy")
    assert caught.value.file == name
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_something_behind_a_clean_end_is_not_cut_off_in_silence(tmp_path):
    journal = three_segments("close")
    journal.flip(journal.segment, 8191, 0)
    with pytest.raises(Damage, match="clean end"):
        copy(journal.files, FakeFiles())


def test_destination_that_is_not_empty_is_refused(folder, tmp_path):
    with pytest.raises(BackupError, match="not empty"):
        backup(folder, folder)
    (tmp_path / "file").write_text("x")
    with pytest.raises(BackupError, match="not empty"):
        backup(folder, tmp_path / "file")
    (tmp_path / "empty").mkdir()
    assert backup(folder, tmp_path / "empty").records > 0


def test_folder_without_a_journal_is_refused(tmp_path):
    with pytest.raises(BackupError, match="no journal"):
        backup(tmp_path, tmp_path / "copy")


def test_full_disk_leaves_no_copy(journal):
    copied = FakeFiles()
    copied.room = 5000
    with pytest.raises(OSError, match="No space"):
        copy(journal.files, copied)


def test_failed_copy_leaves_nothing_on_the_disk(folder, tmp_path, monkeypatch):
    def fail(self):
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(OSFiles, "sync_folder", fail)
    with pytest.raises(OSError, match="broken"):
        backup(folder, tmp_path / "copy")
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_writer_that_goes_on_meanwhile_is_copied_with_all_that_it_had_written(tmp_path):
    """Segments come many times faster than in any broker, and one goes during each copy."""
    source = tmp_path / "data"
    source.mkdir()
    files = OSFiles(source)
    writer = Writer(
        files,
        Spares(files, 4096, 16384),
        INSTANCE,
        opening=lambda: pack(Tick(0, 0)),
        new_salt=lambda: os.urandom(8),
    )
    writer.begin(None)
    written, enough, stop = [0], threading.Event(), threading.Event()
    going = threading.Semaphore(0)

    def write():
        while not stop.is_set():
            writer.write([pack(Tick(written[0] + 1, 0))] * 20)
            written[0] += 1
            if len(writer.segments) > 5:
                enough.set()
                if going.acquire(blocking=False):
                    writer.remove_oldest()
        writer.close()

    thread = threading.Thread(target=write)
    thread.start()
    try:
        assert enough.wait(30)
        for number in range(5):
            before = written[0]
            going.release()
            copied = tmp_path / str(number)
            backup(source, copied)
            times = [decode(record).now for record in read(OSFiles(copied))[0]]
            frames = [now for now in times if now]
            assert sorted(frames) == frames
            assert set(frames) == set(range(frames[0], frames[-1] + 1))
            assert frames[-1] >= before
    finally:
        stop.set()
        thread.join()


def test_restored_folder_is_the_backup_and_the_backup_stays(journal, folder, tmp_path):
    backup(folder, tmp_path / "copy")
    shutil.rmtree(folder)
    before = {path.name: path.read_bytes() for path in (tmp_path / "copy").iterdir()}
    checked = restore(tmp_path / "copy", folder)
    assert checked.records == len(journal.records)
    for place in (folder, tmp_path / "copy"):
        assert {path.name: path.read_bytes() for path in place.iterdir()} == before
    assert read(OSFiles(folder))[0] == journal.records
    assert (folder / "restored").exists()


def test_backup_on_a_disk_that_is_read_only_is_restored(folder, tmp_path):
    copied = tmp_path / "copy"
    backup(folder, copied)
    for path in copied.iterdir():
        path.chmod(0o400)
    restore(copied, tmp_path / "new")
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "new").iterdir()} == {0o600}


def test_folder_that_is_no_backup_is_not_restored(folder, tmp_path):
    with pytest.raises(BackupError, match="is no backup"):
        restore(folder, tmp_path / "new")


def test_damaged_backup_is_not_restored(journal, folder, tmp_path):
    backup(folder, tmp_path / "copy")
    (tmp_path / "copy" / journal.names[1]).unlink()
    with pytest.raises(Damage):
        restore(tmp_path / "copy", tmp_path / "new")
    assert not (tmp_path / "new").exists()
