"""The service manager that started this process: its sockets, its watchdog, and what it is told. A leaf.

The protocols are systemd's sd_notify(3), sd_listen_fds(3) and sd_watchdog_enabled(3). Where nobody manages
this process there are no sockets and no watchdog, and what is told goes nowhere.
"""

import contextlib
import os
import socket
import stat
import time
from collections.abc import MutableMapping

#: The first descriptor that is passed; the others follow it without a gap.
FIRST_DESCRIPTOR = 3

#: Seconds that a word about our state may wait for a manager that does not read.
TELL_SECONDS = 1.0

#: Characters of a status: what one line of `systemctl status` shows.
STATUS_MAX = 200


class ServiceManager:
    """Made once, at the start, before other threads and processes: what it takes out of the environment is
    meant for this process alone, and children shall not inherit it.

    Raises ValueError where the manager passes something that cannot be listened on.
    """

    #: Seconds between two calls of `alive`: half of what the manager waits; None where it does not watch us.
    alive_every: float | None
    #: Listening stream sockets that the manager made for us, in its order. They are the manager's: the file
    #: of a Unix socket stays when we end.
    sockets: list[socket.socket]

    def __init__(self, environ: MutableMapping[str, str] = os.environ) -> None:
        self._address = _notify_address(environ.pop("NOTIFY_SOCKET", ""))
        self.alive_every = _half(environ.pop("WATCHDOG_USEC", ""), environ.pop("WATCHDOG_PID", None))
        count = environ.pop("LISTEN_FDS", "")
        environ.pop("LISTEN_FDNAMES", None)
        self.sockets = _passed(count) if environ.pop("LISTEN_PID", "") == str(os.getpid()) else []

    def ready(self, status: str = "") -> None:
        """We serve: for the first time, or again after `reloading`."""
        self._tell("READY=1", status)

    def reloading(self) -> None:
        """Settings are read anew; `ready` follows."""
        # The clock is what systemd wants to tell this reload from an earlier one (Type=notify-reload).
        self._tell(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self, status: str = "") -> None:
        """We end in order."""
        self._tell("STOPPING=1", status)

    def status(self, status: str) -> None:
        """A line for `systemctl status`."""
        self._tell("", status)

    def alive(self) -> None:
        """For the watchdog, from the loop that may stand still; to be called every `alive_every` s."""
        # Never waited for: the next one comes before the manager's patience is over.
        self._send("WATCHDOG=1", 0.0)

    async def stay_alive(self) -> None:
        """Calls `alive` in time, for ever; ends at once where nobody watches."""
        import asyncio  # a worker makes this object before it forks children, which need none

        while self.alive_every is not None:
            self.alive()
            await asyncio.sleep(self.alive_every)

    def _tell(self, state: str, status: str = "") -> None:
        # A line end would begin a word of its own.
        text = " ".join(status.split())[:STATUS_MAX]
        words = [state] if state else []
        if text:
            words.append(f"STATUS={text}")
        self._send("\n".join(words), TELL_SECONDS)

    def _send(self, message: str, seconds: float) -> None:
        if self._address is None or not message:
            return
        # A manager that went away or does not read, and want of a descriptor, are no reason to stop serving.
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.settimeout(seconds)
            sock.sendto(message.encode(errors="replace"), self._address)


def _notify_address(text: str) -> str | None:
    """A Unix socket's address: a path, or a name in the abstract namespace; None for vsock and others."""
    if text.startswith("@"):
        return "\0" + text[1:]
    return text if text.startswith("/") else None


def _half(usec: str, pid: str | None) -> float | None:
    """Half of the watchdog's limit, in seconds; None where it is not for this process."""
    if not usec.isdecimal() or int(usec) == 0 or pid not in (None, str(os.getpid())):
        return None
    return int(usec) / 2_000_000


def _passed(count: str) -> list[socket.socket]:
    """The sockets from FIRST_DESCRIPTOR on, closed on exec."""
    if not count.isdecimal():
        raise ValueError(
            f"LISTEN_FDS={count!r} is no number of sockets; it is the service manager that sets it"
        )
    descriptors = range(FIRST_DESCRIPTOR, FIRST_DESCRIPTOR + int(count))
    for descriptor in descriptors:
        _check(descriptor)
        os.set_inheritable(descriptor, False)
    return [socket.socket(fileno=descriptor) for descriptor in descriptors]


def _check(descriptor: int) -> None:
    """Raises ValueError unless it is a stream socket that listens."""
    try:
        mode = os.fstat(descriptor).st_mode
    except OSError:
        raise ValueError(f"the service manager passes descriptor {descriptor}, which is not open") from None
    if stat.S_ISSOCK(mode):
        # A duplicate, because closing a socket object closes its descriptor.
        with socket.socket(fileno=os.dup(descriptor)) as sock:
            if sock.type == socket.SOCK_STREAM and sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                return
    raise ValueError(
        f"the service manager passes descriptor {descriptor}, which does not listen for streams; "
        "its socket unit wants ListenStream= and Accept=no"
    )
