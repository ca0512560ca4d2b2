"""What the benchmark's workers run. Each process stamps into a file of its own, through a memory map.

A map costs no system call a stamp and survives the process: nothing needs to be flushed at its end.
"""

import mmap
import os
import struct
import time
from pathlib import Path

from chervil import Chervil

app = Chervil("benchmarks.tasks")

STAMPS_FOLDER = "CHERVIL_BENCH_STAMPS"
#: Stamps a process can hold: 16 bytes each, in a sparse file.
STAMPS_MAX = 4_000_000
_STAMP = struct.Struct("<qq")


class _Stamps:
    def __init__(self) -> None:
        self.pid = 0
        self.count = 0
        self.map: mmap.mmap | None = None

    def add(self, started: int, value: int) -> None:
        if self.pid != os.getpid() or self.map is None:
            self._open()
            assert self.map is not None
        _STAMP.pack_into(self.map, self.count * _STAMP.size, started, value)
        self.count += 1

    def _open(self) -> None:
        self.pid, self.count = os.getpid(), 0
        path = Path(os.environ[STAMPS_FOLDER]) / str(self.pid)
        with path.open("wb+") as file:
            file.truncate(STAMPS_MAX * _STAMP.size)
            self.map = mmap.mmap(file.fileno(), 0)


_stamps = _Stamps()


def read_stamps(folder: Path) -> list[tuple[int, int]]:
    """(monotonic ns of the first line, value) of every task that ran."""
    found = []
    for path in folder.iterdir():
        data = path.read_bytes() if path.stat().st_size == 0 else _used(path)
        found += [stamp for stamp in _STAMP.iter_unpack(data) if stamp[0]]
    return found


def _used(path: Path) -> bytes:
    """The stamps of one file up to the first empty one."""
    used = bytearray()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            used += chunk
            if chunk[-_STAMP.size :] == bytes(_STAMP.size):
                break
    return bytes(used)


@app.task
def noop(payload: str) -> None:
    """Does nothing but say when."""
    del payload
    _stamps.add(time.monotonic_ns(), 0)


@app.task
def latency(sent: int) -> None:
    """Stamps how long its call has been on the way, in ns."""
    now = time.monotonic_ns()
    _stamps.add(now, now - sent)


@app.task
def add(x: int, y: int) -> int:
    return x + y
