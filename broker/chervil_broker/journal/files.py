"""The file system, as much of it as the journal needs. Tests and the simulator put another in its place."""

import errno
import os
from pathlib import Path
from typing import Protocol

_ZEROS = bytes(1024 * 1024)


class File(Protocol):
    """An open file. Errors are OSError."""

    def read(self, size: int, offset: int) -> bytes:
        """Up to so many bytes; fewer only at the end of the file."""
        ...

    def write(self, data: bytes, offset: int) -> None:
        """Writes all of it."""
        ...

    def size(self) -> int: ...

    def sync(self) -> None:
        """Has everything written be durable. After an error nothing is known: it is never tried again."""
        ...

    def close(self) -> None: ...


class Files(Protocol):
    """The files of one folder, by name."""

    def names(self) -> list[str]:
        """Sorted."""
        ...

    def create(self, name: str, size: int) -> File:
        """A new file of zeros that are written and synced, and not only promised; it must not exist."""
        ...

    def open(self, name: str) -> File: ...

    def rename(self, old: str, new: str) -> None:
        """Durable after `sync_folder`, as are `remove` and the name that `create` made."""
        ...

    def remove(self, name: str) -> None: ...

    def sync_folder(self) -> None: ...


class OSFile:
    """A file of the operating system."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def read(self, size: int, offset: int) -> bytes:
        parts = []
        while size > 0 and (part := os.pread(self._descriptor, size, offset)):
            parts.append(part)
            size -= len(part)
            offset += len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def write(self, data: bytes, offset: int) -> None:
        written = os.pwrite(self._descriptor, data, offset)
        if written < len(data):
            rest = memoryview(data)[written:]
            while rest:
                offset += written
                written = os.pwrite(self._descriptor, rest, offset)
                if written == 0:
                    raise OSError(errno.EIO, "nothing more is written")
                rest = rest[written:]

    def size(self) -> int:
        return os.fstat(self._descriptor).st_size

    def sync(self) -> None:
        os.fdatasync(self._descriptor)

    def close(self) -> None:
        os.close(self._descriptor)


class OSFiles:
    """The files of a folder of the operating system."""

    def __init__(self, folder: Path, *, read_only: bool = False) -> None:
        """`read_only`: what is opened can only be read, as the disk or the file's mode may want it."""
        self._folder = folder
        self._access = os.O_RDONLY if read_only else os.O_RDWR

    def names(self) -> list[str]:
        return sorted(path.name for path in self._folder.iterdir())

    def create(self, name: str, size: int) -> OSFile:
        path = self._folder / name
        file = OSFile(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        try:
            for offset in range(0, size, len(_ZEROS)):
                file.write(_ZEROS[: min(len(_ZEROS), size - offset)], offset)
            file.sync()
        except BaseException:
            file.close()
            path.unlink()
            raise
        return file

    def open(self, name: str) -> OSFile:
        return OSFile(os.open(self._folder / name, self._access | os.O_CLOEXEC))

    def rename(self, old: str, new: str) -> None:
        (self._folder / old).rename(self._folder / new)

    def remove(self, name: str) -> None:
        (self._folder / name).unlink()

    def sync_folder(self) -> None:
        descriptor = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
