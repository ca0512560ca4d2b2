"""The disk under the benchmarks: which one it is, and how many commits a second it takes."""

import os
import re
import statistics
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

#: Of a frame with one task of 100 bytes in the broker's journal, about.
FRAME_BYTES = 256
#: As many bytes as the journal's first segments have.
FILE_BYTES = 1024 * 1024
#: File systems whose files are in memory: a sync there costs nothing, and means nothing.
IN_MEMORY = frozenset({"tmpfs", "ramfs"})
#: Where temporary files outlive a start of the machine, so on a disk, whatever /tmp is.
LASTING = "/var/tmp"


class Commits(NamedTuple):
    """The commit limit of a run: one append and fdatasync after the other, in a file that has its size."""

    per_second: float
    p50_ms: float
    p99_ms: float


def scratch_folder() -> Path:
    """Where temporary files are on a disk. Raises OSError where there is no such place."""
    for folder in (Path(tempfile.gettempdir()), Path(LASTING)):
        if file_system(folder)[0] not in IN_MEMORY:
            return folder
    raise OSError(
        f"{tempfile.gettempdir()} and {LASTING} are in memory, where a sync costs nothing: "
        "set TMPDIR to a folder on a disk"
    )


def file_system(folder: Path) -> tuple[str, str]:
    """Type and source of the file system that holds a folder, like ("ext4", "/dev/vda")."""
    here = folder.resolve()
    best, found = -1, ("unknown", "unknown")
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        # proc(5): six fields, optional ones, a dash, type and source. The last of equal mounts is on top.
        fields, _, more = line.partition(" - ")
        point = Path(_unescaped(fields.split()[4]))
        if here.is_relative_to(point) and len(point.parts) >= best:
            best = len(point.parts)
            kind, source, *_ = more.split()
            found = kind, source
    return found


def _unescaped(text: str) -> str:
    """A path as mountinfo has it, with blanks and the like in octal."""
    return re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), text)


def commit_limit(folder: Path, count: int = 1000) -> Commits:
    """Appends and syncs so many times in a file of the folder."""
    path = folder / "commits"
    frame = os.urandom(FRAME_BYTES)
    taken = []
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.pwrite(descriptor, bytes(FILE_BYTES), 0)
        os.fsync(descriptor)
        for number in range(count):
            start = time.perf_counter()
            os.pwrite(descriptor, frame, number * FRAME_BYTES % FILE_BYTES)
            os.fdatasync(descriptor)
            taken.append(time.perf_counter() - start)
    finally:
        os.close(descriptor)
        path.unlink()
    slow = statistics.quantiles(taken, n=100)[98]
    return Commits(count / sum(taken), statistics.median(taken) * 1000, slow * 1000)
