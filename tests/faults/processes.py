"""Trees of processes as /proc shows them."""

import contextlib
import os
import signal
import time
from pathlib import Path


def parents() -> dict[int, int]:
    """Process id -> that of its parent, for all that run; zombies left out."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                state, parent = (entry / "stat").read_text().rsplit(")", 1)[1].split()[:2]
                if state not in "ZX":
                    found[int(entry.name)] = int(parent)
    return found


def children(pid: int, parent_of: dict[int, int]) -> list[int]:
    return [child for child, parent in parent_of.items() if parent == pid]


def marked(mark: str) -> list[int]:
    """The processes with a text in their environment: those that were started with it, and what they forked."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                if mark.encode() in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
    return found


def wait_until_none(mark: str, seconds: float) -> list[int]:
    """The marked processes that are left after so long; returns as soon as there is none."""
    end = time.monotonic() + seconds
    while (left := marked(mark)) and time.monotonic() < end:
        # No parent of theirs is left to be told by, and a pidfd tells of one at a time.
        time.sleep(0.05)
    return left


def kill(pid: int) -> bool:
    """Whether it was there to be killed."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True
