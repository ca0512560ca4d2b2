"""Broker URLs, and the one rule by which a program finds its broker.

chervil://[token@]host[:port][/vhost]     TCP
chervils://[token@]host[:port][/vhost]    TCP with TLS
chervil+unix:///absolute/path[?virtual_host=vhost]    a Unix socket

Several have ";" between them. In a token, a vhost and a path anything else than letters, digits and ._~- is
written as in any URL: %40 for "@". A text that is no such URL is not repeated in the message that refuses it:
where there is a mistake, a token may stand anywhere.
"""

import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import monotonic
from typing import NamedTuple
from urllib.parse import SplitResult, quote, unquote, urlsplit

from chervil.listeners import listens
from chervil.suggest import nearest
from chervil.tls_files import TLSFiles, files_from

DEFAULT_PORT = 2437
DEFAULT_URL = f"chervil://127.0.0.1:{DEFAULT_PORT}"
#: The vhost of a URL that names none.
DEFAULT_VHOST = "default"
SCHEMES = ("chervil", "chervils", "chervil+unix")
#: What those type who take a broker for a web server.
_WEB = {"http": "chervil", "https": "chervils"}

#: Where a `chervil dev` of a folder listens, relative to it.
DEV_SOCKET = Path(".chervil") / "broker.sock"

#: Seconds for which an address that failed comes after the others: one that answers nothing costs a new
#: connection its share of the time.
FAILED_SECONDS = 30.0

_LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})

#: What brokers call their vhosts.
_VHOST = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
#: What Kombu calls it in the URL of a Unix socket, whose path is taken.
_VHOST_PARAMETER = "virtual_host"
#: Long enough for those of other systems; a longer one may be something else.
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]{0,15}")
#: A "%" that begins no escaped byte.
_STRAY_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")


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
        text = text.strip()
        scheme, separator, rest = text.partition("://")
        scheme = scheme.lower()
        if not separator or not _SCHEME.fullmatch(scheme):
            raise ValueError(
                "this is not a broker URL; write it as chervil://HOST:PORT; "
                f"for example {correction.format(DEFAULT_URL)}"
            )
        if meant := _meant(scheme):
            example = "chervil+unix:///ABSOLUTE/PATH" if meant == "chervil+unix" else f"{meant}://HOST:PORT"
            raise ValueError(
                f"{scheme}:// is not how a broker URL begins; did you mean {meant}://? For example "
                f"{correction.format(example)}"
            )
        if scheme not in SCHEMES:
            raise ValueError(
                f"{scheme}:// is not a Chervil broker: Chervil needs no Redis or RabbitMQ, its broker is its "
                f'own ("chervil broker" starts one); {correction.format(DEFAULT_URL)}'
            )
        if "://" in rest or "," in rest:
            raise ValueError(
                f"it seems to be more than one URL; write {scheme}://HOST:PORT;{scheme}://HOST:PORT with a "
                "semicolon between them (and %2C for a comma in a token or a path)"
            )
        if " " in text or not text.isprintable() or _STRAY_PERCENT.search(text):
            raise ValueError(
                'there is a blank, an unprintable character or a lone "%" in the broker URL; '
                "write %20 for a blank, and %25 for a % itself"
            )
        return cls._parse_unix(scheme, rest) if scheme == "chervil+unix" else cls._parse_network(scheme, rest)

    @classmethod
    def _parse_unix(cls, scheme: str, rest: str) -> "BrokerURL":
        written, mark, query = rest.partition("?")
        path = _decoded(written)
        if "#" in rest or not path.startswith("/") or not path.isprintable():
            raise ValueError(
                "chervil+unix:// has no absolute path; write chervil+unix:///ABSOLUTE/PATH, with three "
                "slashes (and %23 for a # in it)"
            )
        vhost = None
        if mark:
            name, _, value = query.partition("=")
            vhost = _decoded(value)
            if name != _VHOST_PARAMETER or not _VHOST.fullmatch(vhost):
                raise ValueError(
                    "all that may follow the path of chervil+unix:// is the name of a vhost; write "
                    f"chervil+unix:///ABSOLUTE/PATH?{_VHOST_PARAMETER}=NAME (and %3F for a ? in the path)"
                )
        return cls(scheme, path=os.path.normpath("/" + path.lstrip("/")), vhost=vhost)

    @classmethod
    def _parse_network(cls, scheme: str, rest: str) -> "BrokerURL":
        example = f"write {scheme}://HOST:PORT, for example {scheme}://127.0.0.1:{DEFAULT_PORT}"
        try:
            parts = urlsplit(f"{scheme}://{rest}")
            port = DEFAULT_PORT if parts.port is None else parts.port
        except ValueError:
            # Its message repeats what it takes for the port, and that may be a part of a token.
            raise ValueError(f"its host or its port is none; {example}") from None
        if parts.query or parts.fragment or "?" in rest or "#" in rest:
            raise ValueError(f"a broker URL has no '?' or '#' part; {example}")
        if not parts.hostname or not _is_host(parts.hostname) or port == 0:
            raise ValueError(f"it names no host or no port; {example}")
        if parts.username and parts.password:
            raise ValueError(f"a broker URL has a token and no password; write {scheme}://TOKEN@HOST:PORT")
        return cls(
            scheme,
            host=parts.hostname,
            port=port,
            token=_token_of(parts),
            vhost=_vhost_of(parts, scheme),
        )

    def __str__(self) -> str:
        if self.path is not None:
            vhost = f"?{_VHOST_PARAMETER}={quote(self.vhost, safe='')}" if self.vhost else ""
            return f"{self.scheme}://{quote(self.path)}{vhost}"
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


def _meant(scheme: str) -> str | None:
    """The scheme that was meant by one that is none; None where it is one, or nobody knows."""
    return None if scheme in SCHEMES else _WEB.get(scheme) or nearest(scheme, SCHEMES)


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
    """Where a broker is to be found, for all connections of one client or worker.

    A new connection begins with the first address that the user wrote. One that has failed comes after the
    others for FAILED_SECONDS; so whoever has gone to a stand-in comes back with a later connection, and open
    ones stay where they are. Where a connection broke, the next one is tried first, as what was under way is
    known there only. Several threads may use it.
    """

    def __init__(self, found: Found) -> None:
        self.found = found
        #: Whether the broker was ever reached, by any client that has these addresses.
        self.reached = False
        #: Where the newest connection leads. All of a client's are to lead there, as a task is known to one
        #: broker only.
        self.current = found.url
        self._failed_at: dict[BrokerURL, float] = {}
        self._broken: tuple[BrokerURL, float] | None = None

    @property
    def first(self) -> BrokerURL:
        return self.in_order()[0]

    def in_order(self) -> tuple[BrokerURL, ...]:
        urls = self.found.urls
        if len(urls) == 1:
            return urls
        long_ago = monotonic() - FAILED_SECONDS
        broken = self._broken

        def rank(url: BrokerURL) -> float:
            failed_at = self._failed_at.get(url, long_ago)
            if broken is not None and url == broken[0] and broken[1] > max(failed_at, long_ago):
                return -math.inf
            return max(failed_at, long_ago)

        return tuple(sorted(urls, key=rank))

    def opened(self, url: BrokerURL) -> None:
        """A connection was made and greeted there."""
        self.reached = True
        self.current = url
        self._failed_at.pop(url, None)

    def failed(self, url: BrokerURL) -> None:
        """No connection could be made there."""
        self._failed_at[url] = monotonic()

    def broke(self, url: BrokerURL) -> None:
        """A connection that was open there is gone."""
        if url == self.current:
            self._broken = (url, monotonic())


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
    url = BrokerURL("chervil+unix", path=str(dev))
    if listens(dev, f"-b {url}"):
        return Found(url, "running dev of this folder")
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
    texts = [text for text in texts if text.strip()]
    if not texts:
        raise ValueError(f"it names no broker; {correction.format(DEFAULT_URL)}")
    parsed = []
    for number, text in enumerate(texts, 1):
        try:
            parsed.append(BrokerURL.parse(text, correction))
        except ValueError as error:
            which = f"URL {number} of {len(texts)}: " if len(texts) > 1 else ""
            raise ValueError(f"{which}{error}") from None
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


def _token_of(parts: SplitResult) -> str | None:
    token = _decoded(parts.username or parts.password or "")
    if " " in token or not token.isprintable():
        raise ValueError("there is a blank or an unprintable character in the URL's token")
    return token or None


def _vhost_of(parts: SplitResult, scheme: str) -> str | None:
    written = parts.path.strip("/")
    vhost = _decoded(written)
    if vhost and ("@" in written or not _VHOST.fullmatch(vhost)):
        raise ValueError(
            f"what follows the port is no name of a vhost; write {scheme}://HOST:PORT/VHOST, with 1 to 64 "
            "letters, digits or . _ - (%40 for an @); or %2F for a / in the token"
        )
    return vhost or None


def _decoded(text: str) -> str:
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise ValueError("what a broker URL has escaped with % is not UTF-8") from None


def _is_host(host: str) -> bool:
    """Whether it may be a name or a number, the latter with a zone."""
    return all(character.isalnum() or character in "._-:%" for character in host)
