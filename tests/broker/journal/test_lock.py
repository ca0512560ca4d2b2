import errno
import fcntl
import os
import stat
import subprocess
import sys

import pytest

from chervil.statedir import NotPrivate
from chervil_broker.journal import lock
from chervil_broker.journal.lock import LOCK_NAME, FolderInUse, FolderLock

#: A process that holds the lock of a folder until its input ends.
HOLDER = """
import sys
from pathlib import Path
from chervil_broker.journal.lock import FolderLock
held = FolderLock(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


def test_folder_is_made_for_this_user_alone_and_its_name_is_durable(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(lock, "_sync_folder", synced.append)
    FolderLock(tmp_path / "a" / "b").release()
    assert stat.S_IMODE((tmp_path / "a" / "b").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "a" / "b" / LOCK_NAME).stat().st_mode) == 0o600
    assert sorted(synced) == [tmp_path, tmp_path / "a"]


def test_new_folder_s_parent_is_synced(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_ino))
    FolderLock(tmp_path / "data").release()
    assert synced == [tmp_path.stat().st_ino]


@pytest.mark.parametrize("mode", [0o770, 0o702])
def test_folder_that_others_may_write_to_is_refused_with_what_to_type(tmp_path, mode):
    folder = tmp_path / "my data"
    folder.mkdir()
    folder.chmod(mode)
    with pytest.raises(NotPrivate, match=f"type: chmod 700 '{folder}'"):
        FolderLock(folder)
    assert list(folder.iterdir()) == []


def test_second_process_is_told_which_one_has_the_folder(tmp_path):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(
            FolderInUse, match=f"process {holder.pid} uses the data folder {tmp_path}.*--data"
        ):
            FolderLock(tmp_path)
        holder.kill()
    held = FolderLock(tmp_path)
    assert (tmp_path / LOCK_NAME).read_text() == f"{os.getpid()}\n"
    held.release()


def test_folder_can_be_had_again_when_it_was_released(tmp_path):
    for _ in range(2):
        held = FolderLock(tmp_path)
        with pytest.raises(FolderInUse):
            FolderLock(tmp_path)
        held.release()


def test_lock_that_names_nobody_is_another_process_s(tmp_path):
    held = FolderLock(tmp_path)
    (tmp_path / LOCK_NAME).write_text("")
    with pytest.raises(FolderInUse, match=r"^another process uses the data folder"):
        FolderLock(tmp_path)
    held.release()


def test_lock_file_is_never_a_link_to_another_file(tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("precious")
    folder = tmp_path / "data"
    folder.mkdir(mode=0o700)
    (folder / LOCK_NAME).symlink_to(elsewhere)
    with pytest.raises(OSError, match="symbolic links"):
        FolderLock(folder)
    assert elsewhere.read_text() == "precious"


@pytest.mark.parametrize(
    ("error", "message"), [(errno.ENOLCK, "has no locks .*local disk"), (errno.EIO, "Input/output error")]
)
def test_file_system_without_locks_is_named(tmp_path, monkeypatch, error, message):
    def fail(descriptor, operation):
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(fcntl, "flock", fail)
    closed = []
    close = os.close
    monkeypatch.setattr(os, "close", lambda descriptor: (closed.append(descriptor), close(descriptor)))
    with pytest.raises(OSError, match=message) as raised:
        FolderLock(tmp_path)
    assert raised.value.errno == error
    assert len(closed) == 1
