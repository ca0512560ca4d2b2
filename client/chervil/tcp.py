"""What long-lived TCP connections between workers and brokers set."""

import contextlib
import socket

#: Linux's socket option (6.15 and later; Python does not name it), and milliseconds: the longest wait between
#: two attempts to send what was not acknowledged. By itself the wait doubles up to 2 minutes, so that after a
#: network that was cut for 10 s has healed, its connections stay dead for up to 10 s more.
TCP_RTO_MAX_MS = 44
RETRY_MS = 1_000


def retry_often(sock: socket.socket) -> None:
    """Has the kernel try again every second while nothing gets through; older ones go on as they do."""
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, TCP_RTO_MAX_MS, RETRY_MS)
