"""How a connection begins and ends: HELLO, RESUME, GOODBYE."""

from typing import TYPE_CHECKING

from chervil.address import DEFAULT_VHOST
from chervil.protocol import Code, HelloOption, Message, RemoteProtocolError, WelcomeOption
from chervil.protocol.limits import FRAME_MAX, HEARTBEAT_MS, INVENTORY_MAX
from chervil.protocol.messages import VERSION, Goodbye, Hello, Ok, Resume, Welcome, Window
from chervil.version import __version__
from chervil_broker import audit
from chervil_broker.access import Identity
from chervil_broker.sessions import Credentials
from chervil_broker.vhost import VHost

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
    same_user = not peer.needs_token
    identity = broker.access.identify(message.token, peer.certificate, same_user=same_user)
    vhost = _vhost(broker, identity, message.vhost or DEFAULT_VHOST)
    credentials = None if message.resume is None else Credentials(*message.resume)
    _check_that_there_is_room(broker, vhost, identity, credentials)
    peer.introduce(message.name, identity, vhost)
    audit.let_in(peer)
    peer.stop_deadline()
    peer.known_now()
    peer.connection.accept_frames_up_to(FRAME_MAX)
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
    if peer.vhost.windows.welcome(peer.number, peer.window):
        welcome.append(Window(peer.window.limit))
    peer.say(*welcome)


def _vhost(broker: "Broker", identity: Identity, name: str) -> VHost:
    """The vhost of that name. Raises RemoteProtocolError where there is none, or not for this user."""
    if not identity.may_use(name):
        raise RemoteProtocolError(
            Code.FORBIDDEN,
            f"user {identity.name} may not use vhost {name!r}; who may: chervil broker user list",
        )
    vhost = broker.vhosts.get(name)
    if vhost is None or vhost.removed:
        raise RemoteProtocolError(
            Code.FORBIDDEN, f"there is no vhost {name!r}; add it: chervil broker vhost add {name}"
        )
    return vhost


def _check_that_there_is_room(
    broker: "Broker", vhost: VHost, identity: Identity, credentials: Credentials | None
) -> None:
    """Raises RemoteProtocolError if the vhost has no room for one more connection.

    One that takes up a session has the place of that session's older connection, which may not have been
    seen to end.
    """
    most = vhost.quotas.max_connections
    if most is None or len(vhost.peers) < most:
        return
    if credentials is None or not broker.is_connected(credentials, identity, vhost):
        raise RemoteProtocolError(
            Code.TOO_MANY,
            f"vhost {vhost.name!r} has its {most} connections; use fewer, or: "
            f"chervil broker vhost set {vhost.name} --max-connections N",
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
    peer.vhost.engine.reconcile(peer.session, message.request, inventory)


def goodbye(broker: "Broker", peer: "Peer", message: Goodbye) -> None:
    del message
    if peer.in_session:
        broker.end_session(peer)
        peer.leaving = True
        broker.pump.leaving.append(peer)
