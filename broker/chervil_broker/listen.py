"""The addresses a broker listens on: TCP on loopback, Unix sockets."""

import errno
import ipaddress
import os
import socket
import stat
from pathlib import Path

from chervil.address import DEFAULT_PORT, BrokerURL
from chervil_broker.options import BrokerOptions

#: Connections that the kernel holds for us while the loop is busy: a storm of reconnecting workers.
BACKLOG = 4096
#: Longest path that fits the kernel's socket address, in bytes.
UNIX_PATH_MAX = 107


class ListenError(Exception):
    """An address can't be listened on; the message says why and what to do."""


def parse_bind(text: str) -> tuple[str, int]:
    """(host, port) of a --bind value; raises ValueError."""
    host, colon, port = text.rpartition(":")
    if not colon and is_loopback(text):
        host, port = text, str(DEFAULT_PORT)
    bracketed = host.startswith("[") and host.endswith("]")
    if not (colon or host) or not port.isdecimal() or int(port) > 65535 or (":" in host and not bracketed):
        raise ValueError(f"--bind {text!r} is no HOST:PORT; type --bind 127.0.0.1:{DEFAULT_PORT}")
    host = host.removeprefix("[").removesuffix("]") or "127.0.0.1"
    return host, int(port)


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def listen_tcp(scheme: str, host: str, port: int) -> tuple[socket.socket, BrokerURL]:
    """A listening socket and the URL that clients use for it (port 0 picks a free one)."""
    host = "127.0.0.1" if host == "localhost" else host
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    server = socket.socket(family, socket.SOCK_STREAM)
    try:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((host, port))
        server.listen(BACKLOG)
    except OSError as error:
        server.close()
        if error.errno == errno.EADDRINUSE:
            raise ListenError(
                f"{host}:{port} is in use; is a broker running already? (chervil health)  "
                f"Another address: chervil broker --bind {host}:{port + 1 if port < 65535 else 0}"
            ) from None
        raise ListenError(f"can't listen on {host}:{port}: {error.strerror}") from None
    return server, BrokerURL(scheme, host=host, port=server.getsockname()[1])


def adopt(server: socket.socket, options: BrokerOptions) -> tuple[socket.socket, BrokerURL]:
    """A listening socket that the service manager made, and the URL that clients use for it."""
    name = server.getsockname()
    if server.family == socket.AF_UNIX:
        if not isinstance(name, str) or not name:
            raise ListenError("the service manager passes a Unix socket that has no path; give it one")
        return server, BrokerURL("chervil+unix", path=name)
    host, port = name[:2]
    check_open(host, options)
    return server, BrokerURL("chervils" if options.tls_cert else "chervil", host=host, port=port)


def check_open(host: str, options: BrokerOptions) -> None:
    """Raises ValueError for an address that is open to other machines without TLS, unless that is wanted."""
    if not (options.tls_cert or options.no_tls or is_loopback(host)):
        raise ValueError(
            f"{host} is open to other machines: give --tls-cert and --tls-key; "
            "or --no-tls, where nobody else can be on that network"
        )


def listen_unix(path: Path) -> tuple[socket.socket, BrokerURL]:
    """A listening Unix socket that only this user can connect to (mode 0600)."""
    path = path.absolute()
    if len(os.fsencode(path)) > UNIX_PATH_MAX:
        raise ListenError(f"--unix {path}: the path is longer than {UNIX_PATH_MAX} bytes; use a shorter one")
    _remove_stale(path)
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # The socket file gets its mode at bind: nobody else may connect even for a moment.
    before = os.umask(0o177)
    try:
        server.bind(str(path))
        server.listen(BACKLOG)
    except OSError as error:
        server.close()
        raise ListenError(f"can't listen on {path}: {error.strerror}") from None
    finally:
        os.umask(before)
    return server, BrokerURL("chervil+unix", path=str(path))


def _remove_stale(path: Path) -> None:
    """Removes the socket of a broker that is gone; refuses to touch anything else."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise ListenError(f"{path} exists and is no socket; name another path with --unix")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
        except OSError as error:
            raise ListenError(f"can't tell whether {path} is in use: {error.strerror}") from None
    raise ListenError(f"a broker is listening on {path} already; stop it, or name another path with --unix")


def remove_socket(url: BrokerURL) -> None:
    """Removes the file of a Unix socket at the end."""
    if url.path is not None:
        Path(url.path).unlink(missing_ok=True)
