"""The data folder, for one process at a time: it is made, checked, and locked."""

import errno
import fcntl
import os
from pathlib import Path

from chervil.statedir import make_folder

#: The file that is locked. It stays when the lock is given back: removing it would let two hold one each.
LOCK_NAME = "lock"
#: A process id and a line's end.
_PID_MAX = 32


class FolderInUse(Exception):
    """Another process writes to the data folder; the text names it and says what to do."""


class FolderLock:
    """A data folder that is this process's until `release`, or until the process ends in any way."""

    def __init__(self, folder: Path) -> None:
        """Makes the folder where it is missing, with a name that outlasts a loss of power.

        Raises chervil.statedir.NotPrivate where others could change what is in it (it says what to type),
        FolderInUse, and OSError.
        """
        missing = [path for path in (folder, *folder.parents) if not path.exists()]
        make_folder(folder)
        for path in missing:
            _sync_folder(path.parent)
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._descriptor = os.open(folder / LOCK_NAME, flags, 0o600)
        try:
            self._lock(folder)
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Gives it back; once."""
        os.close(self._descriptor)

    def _lock(self, folder: Path) -> None:
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.pread(self._descriptor, _PID_MAX, 0).decode("ascii", "replace").strip()
            who = f"process {pid}" if pid.isdecimal() else "another process"
            raise FolderInUse(
                f"{who} uses the data folder {folder}; end it first, or name another folder with --data"
            ) from None
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS):
                raise
            raise OSError(
                error.errno,
                f"the file system of {folder} has no locks (flock); name a folder on a local disk",
            ) from error
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
