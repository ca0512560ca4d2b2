"""How processes end with their parent: death signals, process groups, descriptors."""

import contextlib
import ctypes
import os
import signal
import socket
import stat
import sys
import threading
from collections.abc import Collection
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_TASKS = Path("/proc/self/task")
_DESCRIPTORS = Path("/proc/self/fd")

#: Where /proc is missing, descriptors from 3 up to this are looked at: what a program can have open
#: unless it asked for more.
_DESCRIPTORS_GUESS = 1024


def set_death_signal(number: int) -> None:
    """Asks the kernel to send `number` to this process when its parent dies; 0 takes that back.

    Linux only; elsewhere nothing happens, and the end of the sockets tells. A parent that died before the
    call is not noticed: check `os.getppid()` after it.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)


def thread_count() -> int:
    """How many threads this process has, native ones included where the system tells."""
    try:
        return len(os.listdir(_TASKS))  # noqa: PTH208  # names are enough
    except OSError:
        return threading.active_count()


def kill_group(leader: int) -> None:
    """Kills a child's process group, and the child itself where it had no time to make one.

    The caller has not waited for the child yet, so the number is still its own.
    """
    for kill in (os.killpg, os.kill):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            kill(leader, signal.SIGKILL)


def kill_leftovers(leader: int) -> None:
    """Kills what a child's process group still holds once the child itself has been waited for.

    While there is something left the number cannot be anyone else's; to be called before anything else
    is forked.
    """
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)


def open_descriptors() -> set[int]:
    """The descriptors that are open in this process."""
    try:
        names = os.listdir(_DESCRIPTORS)  # noqa: PTH208  # names are enough
    except OSError:
        candidates = range(_DESCRIPTORS_GUESS)
    else:
        candidates = [int(name) for name in names]  # type: ignore[assignment]
    return {descriptor for descriptor in candidates if _is_open(descriptor)}


def close_inherited(keep: Collection[int] = ()) -> None:
    """Closes every descriptor but stdio and `keep`."""
    for descriptor in open_descriptors() - {0, 1, 2, *keep}:
        with contextlib.suppress(OSError):
            os.close(descriptor)


def cut_connections(keep: Collection[int]) -> None:
    """Puts /dev/null in the place of every stream socket but stdio and `keep`.

    For what an app opened while it was imported: two processes on one connection would read each other's
    answers. The number stays taken, so that no later file gets it while a library still holds it. Files,
    such as a log opened for appending, and datagram sockets are fit to be shared and stay.
    """
    void = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for descriptor in open_descriptors() - {0, 1, 2, void, *keep}:
        if _is_stream(descriptor):
            os.dup2(void, descriptor, inheritable=False)
    os.close(void)


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def _is_stream(descriptor: int) -> bool:
    if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
        return False
    with socket.socket(fileno=os.dup(descriptor)) as duplicate:
        return duplicate.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE) != socket.SOCK_DGRAM
