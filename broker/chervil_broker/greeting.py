"""How a connection begins and ends: HELLO, RESUME, GOODBYE."""

import hmac
from typing import TYPE_CHECKING

from chervil.protocol import Code, HelloOption, Message, RemoteProtocolError, WelcomeOption
from chervil.protocol.limits import FRAME_MAX, HEARTBEAT_MS, INVENTORY_MAX
from chervil.protocol.messages import VERSION, Goodbye, Hello, Ok, Resume, Welcome, Window
from chervil.version import __version__
from chervil_broker.sessions import Credentials
from chervil_broker.tokens import hashed

if TYPE_CHECKING:
    from chervil_broker.broker import Broker
    from chervil_broker.peer import Peer

#: Seconds in which a session that was resumed brings its whole inventory: until then nobody else may
#: have what it leased.
RESUME_SECONDS = 10


def hello(broker: "Broker", peer: "Peer", message: Hello) -> None:
    if not message.min_version <= VERSION <= message.max_version:
        raise RemoteProtocolError(
            Code.VERSION_UNSUPPORTED,
            f"this broker speaks version {VERSION}, the client {message.min_version} to "
            f"{message.max_version}; install releases that match",
        )
    if message.vhost is not None:
        raise RemoteProtocolError(
            Code.BAD_FIELD, "HELLO vhost: this broker has one vhost; leave it out of the URL"
        )
    if peer.needs_token and broker.token_hash is not None:
        _check_token(broker.token_hash, message.token)
    peer.name = message.name
    peer.stop_deadline()
    peer.known_now()
    peer.connection.accept_frames_up_to(FRAME_MAX)
    credentials = None if message.resume is None else Credentials(*message.resume)
    attempt = (message.options or {}).get(HelloOption.ATTEMPT)
    resumed = credentials is not None and broker.resume_session(peer, credentials, attempt)
    if credentials is None or not resumed:
        credentials = broker.begin_session(peer)
    else:
        peer.expect_within(RESUME_SECONDS, "whole inventory (RESUME)")
    welcome: list[Message] = [
        Welcome(
            VERSION,
            [],
            broker.instance,
            credentials.id,
            credentials.secret,
            resumed=resumed,
            heartbeat_ms=HEARTBEAT_MS,
            options={
                WelcomeOption.DURABILITY: broker.store.durability,
                WelcomeOption.RELEASE: __version__,
                WelcomeOption.BODY_LIMIT: broker.options.body_limit,
            },
        )
    ]
    if broker.windows.welcome(peer.number, peer.window):
        welcome.append(Window(peer.window.limit))
    peer.say(*welcome)


def _check_token(token_hash: bytes, token: str | None) -> None:
    if token is None:
        raise RemoteProtocolError(
            Code.AUTH_REQUIRED,
            "this broker asks for a token; set CHERVIL_TOKEN_FILE to the file that it named at its start",
        )
    if not hmac.compare_digest(token_hash, hashed(token)):
        raise RemoteProtocolError(
            Code.AUTH_FAILED,
            "the token is not this broker's; set CHERVIL_TOKEN_FILE to the file that it named at its start",
        )


def resume(broker: "Broker", peer: "Peer", message: Resume) -> None:
    if peer.inventory is None:
        raise RemoteProtocolError(
            Code.BAD_STATE, "RESUME in a session that was not resumed, or a second one after the last part"
        )
    peer.inventory += message.inventory
    if len(peer.inventory) > INVENTORY_MAX:
        raise RemoteProtocolError(
            Code.TOO_MANY, f"an inventory of more than {INVENTORY_MAX} leases; no session can hold so many"
        )
    if message.more:
        broker.reply(peer, Ok(message.request))
        return
    inventory, peer.inventory = peer.inventory, None
    peer.stop_deadline()
    broker.engine.reconcile(peer.session, message.request, inventory)


def goodbye(broker: "Broker", peer: "Peer", message: Goodbye) -> None:
    del message
    if peer.in_session:
        broker.end_session(peer)
        peer.leaving = True
        broker.pump.leaving.append(peer)
