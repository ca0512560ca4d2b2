"""A broker with small segments, whose disk may fail: `python -m tests.e2e.small_journal`.

There are no options for either, as nobody needs them. The environment may say: SEGMENT_SIZE, the largest
segment in bytes; DISK_MIN, what the disk may hold before anything is compacted; FAILING_CALL, the number of
the sync or the write of a file, counted from the first of this process, that fails with EIO, and all after it.
"""

import errno
import os
from collections.abc import Callable
from typing import Any

from chervil_broker.journal import compaction, opening
from chervil_broker.journal.files import OSFile
from chervil_broker.journal.spares import PAGE, Spares


def failing_at(number: int) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Has the nth call of all that are wrapped in this fail, and every one after it."""
    calls = 0

    def wrap(method: Callable[..., None]) -> Callable[..., None]:
        def call(*args: Any) -> None:
            nonlocal calls
            calls += 1
            if calls >= number:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            method(*args)

        return call

    return wrap


if __name__ == "__main__":
    largest = int(os.environ.get("SEGMENT_SIZE", 16 * PAGE))
    opening.Spares = lambda files, least: Spares(files, first=min(largest, 4 * PAGE), largest=largest)
    # Before the module that reads it is loaded.
    compaction.DISK_MIN = int(os.environ.get("DISK_MIN", 64 * PAGE))
    if "FAILING_CALL" in os.environ:
        failing = failing_at(int(os.environ["FAILING_CALL"]))
        OSFile.sync = failing(OSFile.sync)
        OSFile.write = failing(OSFile.write)

    from chervil_broker.cli import broker

    broker()
