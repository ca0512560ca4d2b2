"""Who listens on this machine: the users behind its Unix sockets and its ports. A leaf.

Other users of a machine can listen where a program looks for its broker. Trusted are this user and root.
"""

import os
import stat
import struct
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import socket

#: What SO_PEERCRED says: process, user and group.
_CREDENTIALS = struct.Struct("3i")
#: Seconds for a socket of this machine to accept.
_PROBE_SECONDS = 1.0

#: The system's TCP sockets, those that listen first (proc(5)).
_TABLE, _TABLE_6 = "/proc/net/tcp", "/proc/net/tcp6"
_LISTENS = b"0A"
#: Bytes of a read: a row, so that the system does not look for more. A walk to the end of its table takes it
#: 2 ms and more (measured); up to the row that is wanted 30 us.
_PIECE = 200
#: Addresses as bytes.
_MAPPED = bytes(10) + b"\xff\xff"
_LOOPBACK_6 = bytes(15) + b"\x01"
#: Who a user is called that this user namespace does not know, and all the users that the first one knows.
_UNKNOWN_USER = 65_534
_ALL_USERS = ["0", "0", "4294967295"]


def listens(path: Path, correction: str) -> bool:
    """Whether a program of this user, or root's, accepts connections on a Unix socket that was not named.

    A program that was killed leaves its socket file behind. Where others can write, in /tmp say, one of
    theirs may stand: it is passed over with a warning; `correction` is what to type if it is meant.
    """
    try:
        found = path.lstat()
    except OSError:  # it is not there, or in a folder that is not ours to look into
        return False
    if not stat.S_ISSOCK(found.st_mode):
        return False
    owner = found.st_uid
    if is_trusted(owner):
        import socket

        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(_PROBE_SECONDS)
            try:
                probe.connect(os.fspath(path))
            except OSError:
                return False
            owner = _user_behind(probe, owner)
    if is_trusted(owner):
        return True
    import logging

    logging.getLogger("chervil").warning(
        "%s is of %s and is passed over; if that is the broker you mean, type %s",
        path,
        user_name(owner),
        correction,
    )
    return False


def is_trusted(uid: int) -> bool:
    return uid in (os.geteuid(), 0)


def _user_behind(connected: "socket.socket", otherwise: int) -> int:
    """Who listens at the other end of a Unix socket; `otherwise` where the system does not say."""
    import socket

    if not hasattr(socket, "SO_PEERCRED"):
        return otherwise
    packed = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return int(_CREDENTIALS.unpack(packed)[1])


def stranger_at(peer: Any, owner: int) -> str | None:
    """Who listens at the other end of a TCP connection, where that is surely a stranger on this machine.

    `peer` is the socket's name of the other end, `owner` a user who is no stranger either. None where the
    address is another machine's, or the system does not say: it knows no /proc, or another program passes the
    connection on.
    """
    try:
        user = _user_at(str(peer[0]), int(peer[1]))
    except (OSError, ValueError):
        return None
    if user is None or is_trusted(user) or user == owner:
        return None
    if user == _UNKNOWN_USER and not _knows_all_users():
        return None
    return user_name(user)


def user_name(uid: int) -> str:
    """A user as messages name him."""
    import pwd  # here, as only messages need it

    try:
        return f"user {pwd.getpwuid(uid).pw_name}"
    except KeyError:
        return f"user number {uid}"


def _user_at(host: str, port: int) -> int | None:
    """Who listens on a port of this machine's own addresses; None for others, and where nobody does.

    Two users cannot listen on one port, the one on an address of it and the other on every address.
    """
    import socket  # here, as the broker's URL is known without it

    if ":" not in host:
        packed = socket.inet_pton(socket.AF_INET, host)
        if packed[0] != 127:
            return None
        user = _listener(_TABLE, port, packed, bytes(4))
        # One for both protocols stands in the other table.
        return _listener(_TABLE_6, port, _MAPPED + packed, bytes(16)) if user is None else user
    packed = socket.inet_pton(socket.AF_INET6, host)
    return _listener(_TABLE_6, port, packed, bytes(16)) if packed == _LOOPBACK_6 else None


def _listener(table: str, port: int, *addresses: bytes) -> int | None:
    """The user whose socket listens on a port at one of these addresses."""
    wanted = [b"%s:%04X" % (_as_in_table(address), port) for address in addresses]
    descriptor = os.open(table, os.O_RDONLY)
    try:
        rest = b""
        while piece := os.read(descriptor, _PIECE):
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                words = line.split()
                if words[1] in wanted and words[3] == _LISTENS:
                    return int(words[7])
                # After those that listen come the connections, of which there may be tens of thousands.
                if words[3] not in (_LISTENS, b"st"):
                    return None
    finally:
        os.close(descriptor)
    return None


def _as_in_table(address: bytes) -> bytes:
    """Every four bytes of it are written as a number of this machine."""
    if sys.byteorder == "little":
        address = b"".join(address[at : at + 4][::-1] for at in range(0, len(address), 4))
    return address.hex().upper().encode()


def _knows_all_users() -> bool:
    try:
        return Path("/proc/self/uid_map").read_text().split() == _ALL_USERS
    except OSError:
        return False
