"""Broker URLs, and the one rule by which a program finds its broker.

chervil://[token@]host[:port][/vhost]     TCP
chervils://[token@]host[:port][/vhost]    TCP with TLS
chervil+unix:///absolute/path             a Unix socket
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote, unquote, urlsplit

from chervil.tls_files import TLSFiles, files_from

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
    #: Other addresses of it, in the order in which they are to be tried.
    others: tuple[BrokerURL, ...] = ()
    #: For those that speak TLS.
    files: TLSFiles = TLSFiles()

    @property
    def urls(self) -> tuple[BrokerURL, ...]:
        return (self.url, *self.others)

    @property
    def redacted(self) -> str:
        """All addresses, for people."""
        return " or ".join(url.redacted for url in self.urls)


class Addresses:
    """Where a broker is to be found: the address that worked last comes first, until it fails."""

    def __init__(self, found: Found) -> None:
        self.found = found
        #: Whether the broker was ever reached, by any client that has these addresses.
        self.reached = False
        self._first = 0

    @property
    def first(self) -> BrokerURL:
        return self.found.urls[self._first]

    def in_order(self) -> tuple[BrokerURL, ...]:
        urls, first = self.found.urls, self._first
        return urls[first:] + urls[:first]

    def failed(self, url: BrokerURL) -> None:
        """It cannot be reached there: the next one is first. Several threads may find out the same."""
        if url is self.first:
            self._first = (self._first + 1) % len(self.found.urls)


#: A broker's URL as settings have it: one, several with ";" between them, or a list of them.
URLs = str | Sequence[str]


def find_broker(
    flag: str | None, app_urls: URLs | None, cwd: Path, app_files: TLSFiles | None = None
) -> Found:
    """The broker to talk to: flag, environment, app, a `chervil dev` that runs in `cwd`, default.

    `app_files` is the app's setting `broker_use_ssl`. Raises ValueError for what is no URL, naming where it
    came from.
    """
    sources = (
        (flag, "flag --broker", "type -b {}"),
        (os.environ.get("CHERVIL_BROKER_URL"), "environment CHERVIL_BROKER_URL", "set CHERVIL_BROKER_URL={}"),
        (app_urls, "app", 'set broker_url = "{}"'),
    )
    for urls, source, correction in sources:
        if urls:
            return found_at(urls, source, correction, app_files)
    dev = cwd.absolute() / DEV_SOCKET
    if _listens(dev):
        return Found(BrokerURL("chervil+unix", path=str(dev)), "running dev of this folder")
    return found_at(DEFAULT_URL, "default", 'set broker_url = "{}"', app_files)


def found_at(urls: URLs, source: str, correction: str, app_files: TLSFiles | None) -> Found:
    """A broker whose addresses are known; `correction` is as in `BrokerURL.parse`. Raises ValueError."""
    try:
        url, *others = parse_urls(urls, correction)
        if app_files is not None:
            _check_encrypted((url, *others))
    except ValueError as error:
        raise ValueError(f"{error} (from {source})") from None
    return Found(url, source, tuple(others), files_from(app_files))


def parse_urls(urls: URLs, correction: str = 'set broker_url = "{}"') -> list[BrokerURL]:
    """At least one; `correction` is as in `BrokerURL.parse`. Raises ValueError."""
    texts = urls.split(";") if isinstance(urls, str) else [one for text in urls for one in text.split(";")]
    parsed = [BrokerURL.parse(text, correction) for text in texts if text.strip()]
    if not parsed:
        raise ValueError(f"it names no broker; {correction.format(DEFAULT_URL)}")
    return parsed


def _check_encrypted(urls: Sequence[BrokerURL]) -> None:
    """An app that says `broker_use_ssl` believes what it sends to be encrypted."""
    for url in urls:
        if url.scheme == "chervil":
            encrypted = replace(url, scheme="chervils")
            raise ValueError(
                f"broker_use_ssl is set, and {url} is an address without TLS; write {encrypted}, or take "
                "broker_use_ssl away"
            )


def _listens(path: Path) -> bool:
    """Whether someone accepts connections there: a dev that was killed leaves its socket file behind."""
    try:
        if not path.is_socket():
            return False
    except OSError:  # in a folder that is not ours to look into
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
