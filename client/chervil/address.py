"""Broker URLs, and the one rule by which a program finds its broker.

chervil://[token@]host[:port][/vhost]     TCP
chervils://[token@]host[:port][/vhost]    TCP with TLS
chervil+unix:///absolute/path             a Unix socket
"""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote, unquote, urlsplit

DEFAULT_PORT = 2437
DEFAULT_URL = f"chervil://127.0.0.1:{DEFAULT_PORT}"
#: The vhost of a URL that names none.
DEFAULT_VHOST = "default"
SCHEMES = ("chervil", "chervils", "chervil+unix")

#: Where a `chervil dev` of a folder listens, relative to it.
DEV_SOCKET = Path(".chervil") / "broker.sock"

_LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, slots=True)
class BrokerURL:
    """Where a broker listens; `parse` makes one. The token shows in no text that this class makes."""

    scheme: str
    host: str | None = None
    port: int | None = None
    #: The absolute path of a Unix socket; host and port are None then.
    path: str | None = None
    token: str | None = field(default=None, repr=False)
    vhost: str | None = None

    @classmethod
    def parse(cls, text: str, correction: str = 'set broker_url = "{}"') -> "BrokerURL":
        """The URL in `text`; raises ValueError with a message that says what to type instead.

        `correction` is how to put another URL where this one came from.
        """
        scheme, separator, rest = text.strip().partition("://")
        if not separator:
            raise ValueError(
                f"{_safe(text)!r} is not a broker URL; write it as chervil://HOST:PORT; "
                f"for example {correction.format(DEFAULT_URL)}"
            )
        scheme = scheme.lower()
        if scheme not in SCHEMES:
            raise ValueError(
                f"{scheme}:// is not a Chervil broker: Chervil needs no Redis or RabbitMQ, its broker is its "
                f'own ("chervil broker" starts one); {correction.format(DEFAULT_URL)}'
            )
        if scheme == "chervil+unix":
            return cls(scheme, path=_socket_path(rest))
        return cls._parse_network(scheme, rest)

    @classmethod
    def _parse_network(cls, scheme: str, rest: str) -> "BrokerURL":
        example = f"write {scheme}://HOST:PORT, for example {scheme}://127.0.0.1:{DEFAULT_PORT}"
        try:
            parts = urlsplit(f"{scheme}://{rest}")
            port = DEFAULT_PORT if parts.port is None else parts.port
        except ValueError as error:
            raise ValueError(f"{scheme}://{_safe(rest)}: {error}; {example}") from None
        if parts.query or parts.fragment:
            raise ValueError(f"a broker URL has no '?' or '#' part; {example}")
        if not parts.hostname or port == 0:
            raise ValueError(f"{scheme}://{_safe(rest)} names no host or no port; {example}")
        if parts.username and parts.password:
            raise ValueError(f"a broker URL has a token and no password; write {scheme}://TOKEN@HOST:PORT")
        token = unquote(parts.username or parts.password or "") or None
        vhost = unquote(parts.path.lstrip("/")) or None
        return cls(scheme, host=parts.hostname, port=port, token=token, vhost=vhost)

    def __str__(self) -> str:
        if self.path is not None:
            return f"{self.scheme}://{quote(self.path)}"
        host = f"[{self.host}]" if self.host and ":" in self.host else self.host
        token = "***@" if self.token else ""
        vhost = f"/{quote(self.vhost, safe='')}" if self.vhost else ""
        return f"{self.scheme}://{token}{host}:{self.port}{vhost}"

    @property
    def redacted(self) -> str:
        """The same as str(): with *** where a token is."""
        return str(self)

    @property
    def key(self) -> str:
        """What identifies the address, without token and vhost: `127.0.0.1:2437`, or a socket's path."""
        if self.path is not None:
            return self.path
        host = "127.0.0.1" if self.host in _LOCAL else self.host
        return f"[{host}]:{self.port}" if host and ":" in host else f"{host}:{self.port}"


class Found(NamedTuple):
    """A broker's URL and where it came from, in the words that messages use."""

    url: BrokerURL
    #: "flag --broker", "environment CHERVIL_BROKER_URL", "app", "running dev of this folder" or "default"
    source: str


def find_broker(flag: str | None, app_url: str | None, cwd: Path) -> Found:
    """The broker to talk to: flag, environment, app, a `chervil dev` that runs in `cwd`, default.

    Raises ValueError, naming the source, when the first that is given is no broker URL.
    """
    given = (
        (flag, "flag --broker", "type -b {}"),
        (os.environ.get("CHERVIL_BROKER_URL"), "environment CHERVIL_BROKER_URL", "set CHERVIL_BROKER_URL={}"),
        (app_url, "app", 'set broker_url = "{}"'),
    )
    for text, source, correction in given:
        if text:
            try:
                return Found(BrokerURL.parse(text, correction), source)
            except ValueError as error:
                raise ValueError(f"{error} (from {source})") from None
    dev = cwd.absolute() / DEV_SOCKET
    if _listens(dev):
        return Found(BrokerURL("chervil+unix", path=str(dev)), "running dev of this folder")
    return Found(BrokerURL.parse(DEFAULT_URL), "default")


def _listens(path: Path) -> bool:
    """Whether someone accepts connections there: a dev that was killed leaves its socket file behind."""
    if not path.is_socket():
        return False
    import socket

    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(os.fspath(path))
        except OSError:
            return False
    return True


def _socket_path(rest: str) -> str:
    path = unquote(rest)
    if not path.startswith("/"):
        raise ValueError(
            f"chervil+unix://{rest} has no absolute path; write chervil+unix:///ABSOLUTE/PATH, "
            "with three slashes"
        )
    return os.path.normpath("/" + path.lstrip("/"))


def _safe(text: str) -> str:
    """Text of a URL that could not be parsed, without what may be a token."""
    head, at, tail = text.rpartition("@")
    return f"***@{tail}" if at and head else text
