"""One connection to the broker: HELLO to GOODBYE, heartbeats, one write a loop turn."""

import asyncio
import itertools
import math
from typing import Any, Protocol, cast

from chervil.address import BrokerURL
from chervil.opening import ending_before_greeting
from chervil.protocol import (
    VERSION,
    Connection,
    HelloOption,
    Message,
    RemoteProtocolError,
    RequestRefused,
    Side,
    State,
)
from chervil.protocol.limits import MISSED_HEARTBEATS
from chervil.protocol.messages import (
    Cancel,
    Completed,
    Deliver,
    Error,
    Goodbye,
    Heartbeat,
    Hello,
    Ok,
    Welcome,
)
from chervil.protocol.rows import DeliveryRow
from chervil.statedir import NotPrivate, Token, find_token, why_withheld
from chervil.tcp import retry_often
from chervil.tls_files import SPEAKS_TLS, TLSFailed, TLSFiles, is_alert

#: Seconds for a connection to be made and greeted.
CONNECT_SECONDS = 4.0
#: How often a session looks whether it has said or heard something.
LOOKS_PER_HEARTBEAT = 8

#: Seconds that the broker has to answer the end of TLS, before the connection is closed all the same.
SHUTDOWN_SECONDS = 1.0

_CLOSED = "the connection was closed"

#: Numbers the connections of this process: a broker tells a HELLO that was given up and comes late by it.
_attempts = itertools.count(1)


class NoToken(Exception):
    """The token cannot be read, or is not for whoever listens there: the broker was asked nothing."""


class Owner(Protocol):
    """Who is told what comes in."""

    def delivered(self, rows: list[DeliveryRow]) -> None:
        """The broker has delivered tasks."""

    def completed(self, message: Completed) -> None:
        """The broker has answered a COMPLETE."""

    def cancelled(self, rows: list[list[Any]]) -> None:
        """The broker wants these tasks no longer."""

    def ok(self, message: Ok) -> None:
        """The broker has done what was asked."""

    def lost(self) -> None:
        """The connection is gone."""


class Session(asyncio.Protocol):
    """A session with the broker on one connection, from WELCOME on; `connect` makes one.

    `ended` is done when the connection is gone, with the reason in words.
    """

    def __init__(
        self, owner: Owner, hello: Hello, url: BrokerURL, files: TLSFiles, token: Token | None
    ) -> None:
        """`token` is that of `hello`, and says who may have it."""
        loop = asyncio.get_running_loop()
        self.welcomed: asyncio.Future[Welcome] = loop.create_future()
        self.ended: asyncio.Future[str] = loop.create_future()
        self._loop = loop
        self._owner = owner
        self._hello = hello
        self._url = url
        self._files = files
        self._token = token
        self._connection = Connection(Side.CLIENT)
        self._transport: asyncio.Transport | None = None
        self._heartbeat_seconds = 0.0
        self._sent_at = self._received_at = loop.time()
        self._timer: asyncio.TimerHandle | None = None
        #: When the next look at the broker's silence is due; infinite before the first.
        self._look_at = math.inf
        self._why = _CLOSED
        #: The code of the broker's ERROR, when that has ended the connection.
        self.refused: str | None = None
        #: The code of the broker's GOODBYE.
        self.goodbye: str | None = None

    @property
    def open(self) -> bool:
        """Whether tasks come in and completions go out."""
        return self._connection.state is State.READY and not self.ended.done()

    def send(self, messages: list[Message]) -> None:
        """Sends messages in one write."""
        assert self._transport is not None
        self._transport.write(b"".join([self._connection.send(message) for message in messages]))
        self._sent_at = self._loop.time()

    async def say_goodbye(self, seconds: float) -> None:
        """Ends the session in order, waiting up to `seconds` for the broker to agree."""
        if self.open:
            self.send([Goodbye("DONE")])
            await asyncio.wait([self.ended], timeout=seconds)
        self.close()

    def close(self, why: str | None = None) -> None:
        """Ends the connection; what was sent before still goes out."""
        self._why = why or self._why
        if self._transport is not None:
            self._transport.close()

    def abort(self, why: str) -> None:
        """Ends the connection at once, as the broker cannot be trusted or heard."""
        self._why = why
        assert self._transport is not None
        self._transport.abort()

    # asyncio calls these

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are of no common class.
        self._transport = cast("asyncio.Transport", transport)
        sock = transport.get_extra_info("socket")
        if sock is not None:
            retry_often(sock)
        if why := why_withheld(self._url, transport.get_extra_info("peername"), self._token):
            self.welcomed.set_exception(NoToken(why))
            self.abort(why)
            return
        self.send([self._hello])

    def data_received(self, data: bytes) -> None:
        self._received_at = self._loop.time()
        try:
            for message in self._connection.receive(data):
                self._dispatch(message)
        except RemoteProtocolError as error:
            self.abort(SPEAKS_TLS if is_alert(data) else f"the broker broke the protocol: {error}")

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        why = self._in_words(exc)
        if not self.welcomed.done():
            self.welcomed.set_exception(ConnectionError(why))
        self.ended.set_result(why)
        self._owner.lost()

    def _in_words(self, exc: Exception | None) -> str:
        """Why the connection is gone; before the greeting, and unless somebody has said, what to look at."""
        explained = exc and _explained(exc, self._url, self._files)
        why = f"{self._why}: {explained}" if explained else self._why
        if self.welcomed.done() or self._why is not _CLOSED or isinstance(explained, TLSFailed):
            return why
        return f"{why}; {ending_before_greeting(self._url, self._files)}"

    def _dispatch(self, message: Message) -> None:
        if isinstance(message, Deliver):
            if self.open:  # else it was on its way when we said goodbye, and goes back with our leases
                self._owner.delivered(message.tasks)
        elif isinstance(message, Completed):
            self._owner.completed(message)
        elif isinstance(message, Ok):
            self._owner.ok(message)
        elif isinstance(message, Cancel):
            self._owner.cancelled(message.tasks)
        elif isinstance(message, Welcome):
            self._heartbeat_seconds = message.heartbeat_ms / 1000
            self._watch()
            if not self.welcomed.done():
                self.welcomed.set_result(message)
        elif isinstance(message, Error):
            self._refused(message)
        elif isinstance(message, Goodbye):
            self.goodbye = message.code
            self._why = f"the broker said goodbye: {message.code}" + (
                f" ({message.message})" if message.message else ""
            )
            self.close()

    def _refused(self, error: Error) -> None:
        if self.refused is not None:  # what follows on the first refusal says less
            return
        self._why = f"{error.code}: {error.message}"
        self.refused = error.code
        if not self.welcomed.done():
            self.welcomed.set_exception(RequestRefused(error.code, error.message))
        self.close()

    def _watch(self) -> None:
        """Sends a heartbeat when a quarter of the time has passed in silence.

        So one is never late; and a broker whose machine was gone for a while is found to have forgotten this
        connection soon after it is back. A look that itself comes late by a heartbeat says nothing of the
        broker: this process was stopped, and what came meanwhile may not be read yet. The next look decides.
        """
        pause = self._heartbeat_seconds / LOOKS_PER_HEARTBEAT
        now = self._loop.time()
        silence = now - self._received_at
        stopped = now - self._look_at > self._heartbeat_seconds
        if silence > MISSED_HEARTBEATS * self._heartbeat_seconds and not stopped:
            self.abort(f"the broker has been silent for {silence:.1f} s")
            return
        if now - self._sent_at >= 2 * pause and self._connection.state is State.READY:
            self.send([Heartbeat()])
        self._look_at = now + pause
        self._timer = self._loop.call_later(pause, self._watch)


async def connect(
    owner: Owner, url: BrokerURL, files: TLSFiles, node_name: str, resume: list[bytes] | None = None
) -> tuple[Session, Welcome]:
    """Connects and greets; `resume` is the id and the secret of a session to take up again.

    Raises OSError (TimeoutError and TLSFailed among them) when the broker cannot be reached, RequestRefused
    when it does not want us, NoToken when it was not asked.
    """
    try:
        token = find_token(url)
    except NotPrivate as error:
        raise NoToken(f"no token is sent: {error}") from None
    except OSError as error:
        raise NoToken(f"cannot read CHERVIL_TOKEN_FILE, {error.filename}: {error.strerror}") from None
    options = {int(HelloOption.ATTEMPT): next(_attempts)}
    hello = Hello(
        VERSION, VERSION, [], node_name, None if token is None else token.text, url.vhost, resume, options
    )
    loop = asyncio.get_running_loop()
    session = Session(owner, hello, url, files, token)
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            if url.path is not None:
                await loop.create_unix_connection(lambda: session, url.path)
            else:
                assert url.host is not None
                assert url.port is not None
                if url.scheme == "chervils":
                    await _connect_encrypted(session, url.host, url.port, files)
                else:
                    await loop.create_connection(lambda: session, url.host, url.port)
            return session, await session.welcomed
    except BaseException:
        session.close()
        raise


async def _connect_encrypted(session: Session, host: str, port: int, files: TLSFiles) -> None:
    import ssl

    from chervil.tls import context_for, handshake_failure

    try:
        await asyncio.get_running_loop().create_connection(
            lambda: session,
            host,
            port,
            ssl=context_for(files),
            server_hostname=host,
            ssl_shutdown_timeout=SHUTDOWN_SECONDS,
        )
    except (ssl.SSLError, ConnectionResetError, BrokenPipeError) as error:
        raise handshake_failure(error, files) from error


def _explained(error: Exception, url: BrokerURL, files: TLSFiles) -> Exception:
    """What ended a connection, in words that say what to do where it was TLS."""
    if url.scheme != "chervils":
        return error
    import ssl

    from chervil.tls import failure

    return failure(error, files) if isinstance(error, ssl.SSLError) else error
