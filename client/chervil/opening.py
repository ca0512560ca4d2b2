"""Opening a line: who we are, whether we may, and in words what is wrong where it fails."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from socket import gaierror
from typing import Any, Generic, Protocol, TypeVar

from chervil.address import DEFAULT_URL, DEV_SOCKET, Addresses, BrokerURL
from chervil.conversation import Line, LineBroken
from chervil.exceptions import AccessRefused, OperationalError
from chervil.exchange import WELCOME
from chervil.protocol import Code, RequestRefused
from chervil.statedir import NotPrivate, Token, find_token, unreadable_token, why_withheld
from chervil.tls_files import TLSFailed, TLSFiles, about_certificate

#: It does not take the token, or the user is not to enter this vhost: no other address will do better.
_REFUSED = (Code.AUTH_REQUIRED, Code.AUTH_FAILED, Code.FORBIDDEN)


class Connected(Line, Protocol):
    """A line that has not been greeted."""

    @property
    def peer(self) -> Any:
        """The name of the other end of a TCP connection."""
        ...


L = TypeVar("L", bound=Connected)

#: How the key of a URL begins that leads to this machine.
_THIS_MACHINE = ("127.", "[::1]")

#: Makes a line to a URL, within a deadline.
Connect = Callable[[BrokerURL, TLSFiles, float], Awaitable[L]]


async def open_line(
    addresses: Addresses,
    name: str,
    timeout: float,  # noqa: ASYNC109  # for the message; `limit` is what holds
    *,
    limit: float,
    now: Callable[[], float],
    connect: Connect[L],
    close: Callable[[L], None],
) -> L:
    """A line to a broker, connected and greeted before the instant `limit`, `timeout` seconds from now.

    Its addresses are tried in order (see Addresses); each gets an equal share of the time that is left.
    `connect` makes a line and `close` ends one without a word. Raises AccessRefused when the broker does not
    let us in, OperationalError for everything else; its message names the URL, where that came from, and what
    to do.
    """
    found = addresses.found
    opening = _Opening(found.files, name, connect, close)
    urls = addresses.in_order()
    if len(urls) == 1:
        where = f"the broker at {urls[0].redacted} ({found.source})"
        line = await opening.line(urls[0], where, timeout, limit)
        addresses.opened(urls[0])
        return line
    failures = []
    for tried, url in enumerate(urls):
        start = now()
        share = (limit - start) / (len(urls) - tried)
        try:
            line = await opening.line(url, url.redacted, share, start + share)
        except AccessRefused:
            raise
        except OperationalError as error:
            addresses.failed(url)
            failures.append(str(error))
        else:
            addresses.opened(url)
            return line
    raise OperationalError(f"no address of the broker ({found.source}) works: {'. '.join(failures)}")


@dataclass(frozen=True, slots=True)
class _Opening(Generic[L]):
    """What the attempts at several addresses have in common."""

    files: TLSFiles
    name: str
    connect: Connect[L]
    close: Callable[[L], None]

    async def line(self, url: BrokerURL, where: str, seconds: float, limit: float) -> L:
        """A greeted line to one address, which messages call `where`, before `limit`, in `seconds`."""
        token = _token(url, where)
        try:
            line = await self.connect(url, self.files, limit)
        except TimeoutError:
            raise OperationalError(f"cannot reach {where} within {seconds:.3g} s; is it there?") from None
        except TLSFailed as error:
            raise OperationalError(f"cannot reach {where}: {error}") from None
        except OSError as error:
            reason = error.strerror or str(error)
            raise OperationalError(f"cannot reach {where}: {reason}; {_remedy(url, error)}") from None
        try:
            if why := why_withheld(url, line.peer, token):
                raise OperationalError(f"cannot trust {where}: {why}")
            await _greet(line, self.name, None if token is None else token.text, url.vhost, limit)
        except BaseException as error:
            self.close(line)
            said = self._said(error, url, where)
            if said is None:
                raise
            raise said from None
        return line

    def _said(self, error: BaseException, url: BrokerURL, where: str) -> OperationalError | None:
        """What is said of a greeting that came to nothing; None for what is no affair of the broker."""
        if isinstance(error, RequestRefused):
            if error.code == Code.AUTH_REQUIRED and (why := unreadable_token(url)):
                return AccessRefused(f"{where} asks for a token, and {why}")
            if error.code in _REFUSED:
                # The broker's message says where its token is, or what is not granted.
                return AccessRefused(f"{where} does not let us in: {error.code}: {error.message}")
            return OperationalError(f"{where} refused the connection: {error}")
        if isinstance(error, TimeoutError):
            return OperationalError(
                f"{where} accepts connections and does not answer: is it a Chervil broker, and alive?"
            )
        if isinstance(error, LineBroken):
            remedy = "" if error.explained else f"; {ending_before_greeting(url, self.files)}"
            return OperationalError(f"cannot talk to {where}: {error}{remedy}")
        return None


def _token(url: BrokerURL, where: str) -> Token | None:
    try:
        return find_token(url)
    except NotPrivate as error:
        raise OperationalError(f"no token is sent to {where}: {error}") from None
    except OSError as error:
        raise OperationalError(
            f"cannot read the token for {where}: {error.filename}: {error.strerror}; see CHERVIL_TOKEN_FILE"
        ) from None


def _remedy(url: BrokerURL, error: OSError) -> str:
    """What to do about a connection that could not be made."""
    if isinstance(error, gaierror):
        return "check the host name"
    if not isinstance(error, ConnectionRefusedError | FileNotFoundError):
        return "check the URL"
    if url.path is None:
        if url.key == BrokerURL.parse(DEFAULT_URL).key:
            return "start one: chervil broker"
        if not url.key.startswith(_THIS_MACHINE):
            return "is the broker running there, and does its --bind let other machines in?"
        address = str(BrokerURL("chervil", host=url.host, port=url.port)).removeprefix("chervil://")
        return f"start one: chervil broker --bind {address}"
    if Path(url.path).parts[-2:] == DEV_SOCKET.parts:
        return "start one in that folder: chervil -A MODULE dev"
    return f"start one: chervil broker --unix {quote(url.path)}"


def ending_before_greeting(url: BrokerURL, files: TLSFiles) -> str:
    """What to ask oneself when a connection ends before the greeting, and nothing says why."""
    if url.scheme == "chervils":
        return about_certificate(files)
    if url.scheme == "chervil":
        return "is it a Chervil broker, and one without TLS (with TLS its URL begins with chervils://)?"
    return "is it a Chervil broker?"


async def _greet(line: Line, name: str, token: str | None, vhost: str | None, end: float) -> None:
    await line.send(line.exchange.hello(name, token, vhost), end)
    while line.exchange.welcome is None:
        if line.exchange.ended is not None:
            raise line.exchange.ended
        await line.news(WELCOME, end)
