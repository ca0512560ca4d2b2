"""Segments that are filled with zeros before they are needed: the reserve for a full disk."""

import errno
import threading

from chervil_broker.journal.files import Files

#: The first segment of a folder: small, so that a broker with little to do takes little room.
FIRST_SIZE = 1024 * 1024
#: No segment is larger, unless one frame is: compaction gives back the disk in pieces of this.
LARGEST_SIZE = 32 * 1024 * 1024
#: No segment is smaller, and sizes are multiples of it: the page in which file systems give room.
PAGE = 4096
#: So many wait. Two of the largest are what completions have room for while the disk is full.
SPARES = 2
_PREFIX = "spare-"
#: A file is looked through in pieces of this many bytes.
_PIECE = 1024 * 1024
_ZEROS = bytes(_PIECE)


class NoRoom(OSError):
    """The disk is full (ENOSPC, EDQUOT) and a new segment can not be made. Nothing is lost by it."""


class Spares:
    """The spare segments of a folder. One thread takes them, another may make them at the same time."""

    def __init__(
        self, files: Files, first: int = FIRST_SIZE, largest: int = LARGEST_SIZE, least: int = 0
    ) -> None:
        """`first`, `largest`: sizes of segments, multiples of PAGE. No spare has less than `least` bytes."""
        assert PAGE <= first <= largest
        assert first % PAGE == largest % PAGE == 0
        self._files = files
        self._first = first
        self._largest = largest
        self._least = least + -least % PAGE
        #: Size of the next one to be made: each has twice as much as the one before.
        self._size = first
        #: (name, size), the oldest first.
        self._ready: list[tuple[str, int]] = []
        self._taking = threading.Lock()
        #: Held while a file is filled, which takes long.
        self._making = threading.Lock()

    def begin(self, last: int) -> None:
        """Takes up what an earlier process left; `last` is the size of the newest segment, 0 without any.

        A spare counts only when all of it is zeros: a crash may have cut off its making, or its use.
        """
        if last:
            self._size = self._twice(last)
        for name in self._names():
            size = self._usable(name) if len(self._ready) < SPARES else 0
            if size:
                self._ready.append((name, size))
                self._size = max(self._size, self._twice(size))
            else:
                self._files.remove(name)
        self._ready.sort(key=lambda spare: spare[1])

    @property
    def sizes(self) -> list[int]:
        """Of those that are ready."""
        with self._taking:
            return [size for _, size in self._ready]

    def make(self) -> bool:
        """Makes one where one is missing; whether another one is missing still. Raises NoRoom and OSError."""
        with self._making:
            if len(self.sizes) < SPARES:
                spare = self._filled(max(self._size, self._least))
                with self._taking:
                    self._ready.append(spare)
        return len(self.sizes) < SPARES

    def take(self, size: int) -> tuple[str, int]:
        """Name and size of one that has `size` bytes at the least; makes it where none is ready.

        It is the caller's then, to write and to rename. Raises NoRoom and OSError.
        """
        if spare := self._ready_one(size):
            return spare
        with self._making:
            # Perhaps the one that was being filled.
            return self._ready_one(size) or self._filled(max(size + -size % PAGE, self._size))

    def _ready_one(self, size: int) -> tuple[str, int] | None:
        with self._taking:
            for spare in self._ready:
                if spare[1] >= size:
                    self._ready.remove(spare)
                    return spare
        return None

    def _filled(self, size: int) -> tuple[str, int]:
        """A new one; `_making` is held, so nobody else gives names."""
        taken = set(self._names())
        numbers = range(1, len(taken) + 2)
        name = next(name for number in numbers if (name := f"{_PREFIX}{number}") not in taken)
        try:
            self._files.create(name, size).close()
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise NoRoom(error.errno, f"no room for a segment of {size} bytes") from error
            raise
        if size >= self._size:
            self._size = self._twice(size)
        return name, size

    def _names(self) -> list[str]:
        return [name for name in self._files.names() if name.startswith(_PREFIX)]

    def _twice(self, size: int) -> int:
        return max(self._first, min(2 * size, self._largest))

    def _usable(self, name: str) -> int:
        """Its size; 0 where it is not to be used."""
        file = self._files.open(name)
        try:
            size = file.size()
            if size % PAGE or not max(PAGE, self._least) <= size <= max(self._largest, self._least):
                return 0
            for offset in range(0, size, _PIECE):
                piece = file.read(_PIECE, offset)
                if piece != _ZEROS[: len(piece)]:
                    return 0
            return size
        finally:
            file.close()
