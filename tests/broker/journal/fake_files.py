"""A folder in memory that fails when it is told to, and knows what a loss of power would leave of it."""

import errno
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

#: Disks write so many bytes whole or not at all.
SECTOR = 512


class Call(NamedTuple):
    """One call that changes the disk: create, write, sync, rename, remove or sync_folder."""

    operation: str
    #: "" for sync_folder; of a rename the old name.
    name: str
    offset: int = 0
    #: Bytes of a create or a write.
    size: int = 0
    #: Of a rename.
    new: str = ""


class Piece(NamedTuple):
    """Something that is not durable yet: a sector as one write left it, or one change of a name.

    Those that `keep` chooses are applied in the order in which they were made, so the last one of a sector wins.
    A change of a name that can not be made (its file is not there, as its create was not chosen) is passed over.
    """

    #: write, create, rename or remove
    operation: str
    name: str
    offset: int
    data: bytes


@dataclass
class Content:
    """A file's bytes, and what it is called now."""

    name: str
    written: bytearray
    durable: bytearray
    #: Sectors (offset, bytes) written since the last sync, oldest first.
    pending: list[tuple[int, bytes]] = field(default_factory=list)
    #: Those of failed syncs: they may be on the disk or not, and no later sync says so: the kernel calls them clean.
    doubtful: list[tuple[int, bytes]] = field(default_factory=list)

    def write(self, data: bytes, offset: int) -> None:
        if offset + len(data) > len(self.written):
            more = bytes(offset + len(data) - len(self.written))
            self.written += more
        self.written[offset : offset + len(data)] = data
        for sector in range(offset - offset % SECTOR, offset + len(data), SECTOR):
            self.pending.append((sector, bytes(self.written[sector : sector + SECTOR])))

    def sync(self) -> None:
        put(self.durable, self.pending)
        self.pending.clear()

    def fail_to_sync(self) -> None:
        self.doubtful += self.pending
        self.pending.clear()


def put(target: bytearray, sectors: list[tuple[int, bytes]]) -> None:
    for offset, data in sectors:
        target += bytes(max(offset + len(data) - len(target), 0))
        target[offset : offset + len(data)] = data


class FakeFile:
    """A `File`; reads see what was written, durable or not."""

    def __init__(self, files: "FakeFiles", content: Content) -> None:
        self._files = files
        self._content = content
        self.closed = False

    def read(self, size: int, offset: int) -> bytes:
        assert not self.closed
        with self._files.lock:
            return bytes(self._content.written[offset : offset + size])

    def size(self) -> int:
        with self._files.lock:
            return len(self._content.written)

    def write(self, data: bytes, offset: int) -> None:
        """A write that fails has written its first half."""
        assert not self.closed
        error = self._files.called(Call("write", self._content.name, offset, len(data)))
        with self._files.lock:
            self._content.write(data[: len(data) // 2] if error else data, offset)
        if error:
            raise error

    def sync(self) -> None:
        assert not self.closed
        error = self._files.called(Call("sync", self._content.name))
        with self._files.lock:
            if error:
                self._content.fail_to_sync()
                raise error
            self._content.sync()

    def close(self) -> None:
        self.closed = True


class FakeFiles:
    """`Files` in memory. Safe for threads, as the real ones are."""

    def __init__(self) -> None:
        #: Every call that changes the disk, the failed ones too.
        self.calls: list[Call] = []
        #: Bytes for which new files have room: with less, `create` fails with ENOSPC. None: no limit.
        self.room: int | None = None
        #: Called before each of the calls, without the lock: a test may block in it, or take a `crash()`.
        self.before: Callable[[Call], None] | None = None
        self.lock = threading.RLock()
        self._failures: dict[int, int] = {}
        self._files: dict[str, Content] = {}
        self._durable: dict[str, Content] = {}
        #: Changes of names since the last sync_folder: (operation, name, new name, content).
        self._renamed: list[tuple[str, str, str, Content]] = []

    def fail_at(self, n: int, error: int) -> None:
        """The nth call, counted from 1 as in `calls`, fails with this errno; may be said several times."""
        self._failures[n] = error

    def called(self, call: Call) -> OSError | None:
        """Notes a call; the error that it must end with."""
        if self.before is not None:
            self.before(call)
        with self.lock:
            self.calls.append(call)
            failure = self._failures.get(len(self.calls))
        return None if failure is None else OSError(failure, os.strerror(failure), call.name)

    def names(self) -> list[str]:
        """Of the folder itself: of a name with slashes what stands before the first."""
        with self.lock:
            return sorted({name.partition("/")[0] for name in self._files})

    def create(self, name: str, size: int) -> FakeFile:
        error = self.called(Call("create", name, size=size))
        with self.lock:
            if name in self._files:
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), name)
            if error:
                raise error
            if self.room is not None:
                if size > self.room:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), name)
                self.room -= size
            content = Content(name, bytearray(size), bytearray(size))
            self._files[name] = content
            self._renamed.append(("create", name, "", content))
        return FakeFile(self, content)

    def open(self, name: str) -> FakeFile:
        with self.lock:
            return FakeFile(self, self._there(name))

    def rename(self, old: str, new: str) -> None:
        error = self.called(Call("rename", old, new=new))
        with self.lock:
            content = self._there(old)
            if error:
                raise error
            self._files[new] = self._files.pop(old)
            content.name = new
            self._renamed.append(("rename", old, new, content))

    def remove(self, name: str) -> None:
        error = self.called(Call("remove", name))
        with self.lock:
            content = self._there(name)
            if error:
                raise error
            del self._files[name]
            self._renamed.append(("remove", name, "", content))
            if self.room is not None:
                self.room += len(content.written)

    def sync_folder(self) -> None:
        error = self.called(Call("sync_folder", ""))
        with self.lock:
            if error:
                raise error
            self._durable = dict(self._files)
            self._renamed.clear()

    def crash(self, keep: Callable[[Piece], bool] | None = None) -> "FakeFiles":
        """The folder after a loss of power: what is durable, and of the rest what `keep` says yes to."""
        keep = keep or (lambda piece: False)
        after = FakeFiles()
        with self.lock:
            names = dict(self._durable)
            for operation, name, new, content in self._renamed:
                if (operation == "create" or names.get(name) is content) and keep(
                    Piece(operation, name, 0, b"")
                ):
                    names.pop(name, None)
                    if operation != "remove":
                        names[new or name] = content
            for name, content in names.items():
                kept = bytearray(content.durable)
                rest = content.doubtful + content.pending
                put(kept, [sector for sector in rest if keep(Piece("write", name, *sector))])
                after.put(name, bytes(kept))
        return after

    def put(self, name: str, data: bytes) -> None:
        """Makes a file of these bytes, durable at once and no call; in place of one that is there."""
        with self.lock:
            self._files[name] = self._durable[name] = Content(name, bytearray(data), bytearray(data))

    def get(self, name: str) -> bytes:
        """All of a file as a reader sees it."""
        with self.lock:
            return bytes(self._there(name).written)

    def _there(self, name: str) -> Content:
        if name not in self._files:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
        return self._files[name]
