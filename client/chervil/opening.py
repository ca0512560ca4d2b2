"""Opening a line: who we are, whether we may, and in words what is wrong where it fails."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from shlex import quote
from socket import gaierror

from chervil.address import DEFAULT_URL, DEV_SOCKET, BrokerURL, Found
from chervil.conversation import L, Line, LineBroken
from chervil.exceptions import AccessRefused, OperationalError
from chervil.exchange import WELCOME
from chervil.protocol import Code, RequestRefused
from chervil.statedir import read_token

_AUTH = (Code.AUTH_REQUIRED, Code.AUTH_FAILED)


async def open_line(
    found: Found,
    name: str,
    timeout: float,  # noqa: ASYNC109  # for the message; `limit` is what holds
    *,
    limit: float,
    connect: Callable[[BrokerURL, float], Awaitable[L]],
    close: Callable[[L], None],
) -> L:
    """A line to a broker, connected and greeted before the instant `limit`, `timeout` seconds from now.

    `connect` makes one to a URL, within its deadline, and `close` ends one without a word. Raises
    AccessRefused when the broker does not take the token, OperationalError for everything else; its
    message names the URL, where that came from, and what to do.
    """
    url = found.url
    where = f"the broker at {url.redacted} ({found.source})"
    if url.scheme == "chervils":
        raise OperationalError(f"cannot reach {where}: this version does not speak TLS; use chervil://")
    try:
        # On a Unix socket the kernel says who we are.
        token = url.token if url.path is not None else read_token(url)
        line = await connect(url, limit)
    except TimeoutError:
        raise OperationalError(f"cannot reach {where} within {timeout:g} s; is it there?") from None
    except OSError as error:
        reason = error.strerror or str(error)
        if error.filename is not None and url.path is None:
            raise OperationalError(
                f"cannot read the token for {where}: {error.filename}: {reason}; see CHERVIL_TOKEN_FILE"
            ) from None
        raise OperationalError(f"cannot reach {where}: {reason}; {_remedy(url, error)}") from None
    try:
        await _greet(line, name, token, url.vhost, limit)
    except RequestRefused as error:
        close(line)
        if error.code in _AUTH:
            # The broker's message says where its token is.
            raise AccessRefused(f"{where} does not let us in: {error.code}: {error.message}") from None
        raise OperationalError(f"{where} refused the connection: {error}") from None
    except TimeoutError:
        close(line)
        raise OperationalError(
            f"{where} accepts connections and does not answer: is it a Chervil broker, and alive?"
        ) from None
    except LineBroken as error:
        close(line)
        raise OperationalError(f"cannot talk to {where}: {error}; is it a Chervil broker?") from None
    except BaseException:
        close(line)
        raise
    return line


def _remedy(url: BrokerURL, error: OSError) -> str:
    """What to do about a connection that could not be made."""
    if isinstance(error, gaierror):
        return "check the host name"
    if not isinstance(error, ConnectionRefusedError | FileNotFoundError):
        return "check the URL"
    if url.path is None:
        if url.key == BrokerURL.parse(DEFAULT_URL).key:
            return "start one: chervil broker"
        address = str(BrokerURL("chervil", host=url.host, port=url.port)).removeprefix("chervil://")
        return f"start one: chervil broker --bind {address}"
    if Path(url.path).parts[-2:] == DEV_SOCKET.parts:
        return "start one in that folder: chervil -A MODULE dev"
    return f"start one: chervil broker --unix {quote(url.path)}"


async def _greet(line: Line, name: str, token: str | None, vhost: str | None, end: float) -> None:
    await line.send(line.exchange.hello(name, token, vhost), end)
    while line.exchange.welcome is None:
        if line.exchange.ended is not None:
            raise line.exchange.ended
        await line.news(WELCOME, end)
