"""A copy of a journal, of a running broker's too and without its help; and a data folder made from one.

A segment is never changed once there is a newer one, and the last one only grows. So a copy of the segments
that are there at one moment, oldest first, and of the last one up to the end of its last valid frame, is the
journal as it was a moment later. Only one thing may happen meanwhile: compaction removes segments that were
not copied yet. Then the copy begins anew.
"""

import shutil
import tempfile
from pathlib import Path

from chervil_broker.journal.check import Checked, check
from chervil_broker.journal.files import Files, OSFiles
from chervil_broker.journal.opening import RESTORED
from chervil_broker.journal.reader import Damage, read_all, segment_names

USERS = "users.json"
#: How often a copy is begun. Compaction removes a segment in the time in which the broker writes several.
COPIES_MAX = 5


class BackupError(Exception):
    """No copy was made; the text says why and what to do."""


def backup(source: Path, destination: Path) -> Checked:
    """Copies the data folder of a broker, which may be running, and reads the copy.

    Raises BackupError, Damage (what is copied is damaged) and OSError; then there is no copy.
    """
    if not segment_names(files := OSFiles(source, read_only=True)):
        raise BackupError(f"there is no journal in {source}: name the folder that --data names")
    return _make(files, destination)


def restore(source: Path, folder: Path) -> Checked:
    """Makes a data folder from a backup, which stays as it is. Raises as `backup` does."""
    files = OSFiles(source, read_only=True)
    if RESTORED not in files.names():
        raise BackupError(f"{source} is no backup: there is no file {RESTORED!r} in it")
    return _make(files, folder)


def copy(source: Files, destination: Files) -> Checked:
    """Copies segments and the users file into an empty folder, flags it as restored, and reads it."""
    before = None
    for _ in range(COPIES_MAX):
        try:
            _copy(source, destination)
            checked = check(destination)
            _cut(destination, checked)
            return checked
        except FileNotFoundError:
            pass
        except Damage as damage:
            # A list of names that was read while one came may have a gap: damage is there the next time too.
            if str(damage) == before:
                raise
            before = str(damage)
        for name in destination.names():
            destination.remove(name)
    raise BackupError(
        f"segments were removed while they were copied, {COPIES_MAX} times; try again, or onto a faster disk"
    )


def _make(source: Files, folder: Path) -> Checked:
    """Copies into a new folder that gets its name when the copy is whole."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BackupError(f"{folder} is there and not empty; name another folder, or remove it")
    parent = folder.absolute().parent
    parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=parent))
    try:
        checked = copy(source, OSFiles(unfinished))
        unfinished.rename(folder)
    except BaseException:
        shutil.rmtree(unfinished)
        raise
    OSFiles(parent).sync_folder()
    return checked


def _copy(source: Files, destination: Files) -> None:
    # First of all, so that no part of a copy is ever without it.
    put(destination, RESTORED, b"")
    for name in segment_names(source):
        put(destination, name, read_all(source, name))
    if USERS in source.names():
        put(destination, USERS, read_all(source, USERS))
    destination.sync_folder()


def _cut(destination: Files, checked: Checked) -> None:
    """Takes a frame off the end that was being written, or that a crash tore; the source still has it."""
    if checked.tail and checked.tail.torn:
        position = checked.tail.position
        file = destination.open(position.segments[-1].name)
        try:
            file.write(bytes(checked.tail.torn), position.offset)
            file.sync()
        finally:
            file.close()


def put(files: Files, name: str, data: bytes) -> None:
    """Makes a file, synced; its name is durable after `sync_folder`."""
    file = files.create(name, len(data))
    try:
        file.write(data, 0)
        file.sync()
    finally:
        file.close()
