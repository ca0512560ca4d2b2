"""Command -> handler: what the broker does with each message. No queue logic here: that is the engine's."""

import logging
from collections.abc import Callable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from chervil.protocol import Code, Message, RemoteProtocolError, Role, Side, SubscribeOption, WireId
from chervil.protocol.messages import (
    COMMANDS,
    Complete,
    Credit,
    Forget,
    Goodbye,
    Heartbeat,
    Hello,
    History,
    List,
    Publish,
    Purge,
    Query,
    Rerun,
    Resume,
    Revoke,
    Started,
    Stats,
    Subscribe,
    Unwatch,
    Watch,
)
from chervil.protocol.vocabulary import SIGNAL_DEFAULT
from chervil_broker import audit
from chervil_broker.completions import complete
from chervil_broker.greeting import goodbye, hello
from chervil_broker.greeting import resume as reconcile
from chervil_broker.reports import history, list_, stats
from chervil_broker.turns import Measure, OfIds, Part, changes, first_part

if TYPE_CHECKING:
    from chervil_broker.broker import Broker
    from chervil_broker.peer import Peer

log = logging.getLogger("chervil.broker")
Change = TypeVar("Change", Forget, Rerun, Revoke)


def heartbeat(broker: "Broker", peer: "Peer", message: Heartbeat) -> None:
    """That it came is all it says; the peer has noted when."""
    del broker, peer, message


def resume(broker: "Broker", peer: "Peer", message: Resume) -> None:
    peer.spent += len(message.inventory)
    reconcile(broker, peer, message)


def publish(broker: "Broker", peer: "Peer", message: Publish) -> None:
    put = broker.bodies.put_task
    tasks = []
    published = 0
    for id_, name, queue, priority, options, headers, codec, body in message.tasks:
        size = len(body) if headers is None else len(body) + len(headers)
        published += size
        tasks.append((id_, name, queue, priority, options, put(headers, codec, body), size))
    peer.spent += len(tasks)
    peer.vhost.windows.count(peer.number, peer.window, published)
    peer.vhost.engine.publish(peer.session, message.request, tasks)


def _taken(peer: "Peer", message: OfIds, measure: Measure) -> list[WireId]:
    """Those of a request's ids that are taken now, charged to the peer's turn."""
    part = first_part(message, peer, measure)
    peer.spent += part.cost
    return part


def _change(peer: "Peer", message: Change) -> list[WireId]:
    """Those whose tasks go from one place to another; the audit log tells of all of them at once."""
    if not isinstance(message.ids, Part):
        audit.act(peer, type(message).__name__.upper(), message.ids)
    return _taken(peer, message, changes)


def watch(broker: "Broker", peer: "Peer", message: Watch) -> None:
    peer.watches.add(message.request)
    peer.vhost.engine.watch(peer.session, message.request, _taken(peer, message, peer.vhost.answers))


def unwatch(broker: "Broker", peer: "Peer", message: Unwatch) -> None:
    peer.spent += len(message.ids)
    peer.vhost.engine.unwatch(peer.session, message.ids)


def query(broker: "Broker", peer: "Peer", message: Query) -> None:
    peer.vhost.engine.query(peer.session, message.request, _taken(peer, message, peer.vhost.answers))


def forget(broker: "Broker", peer: "Peer", message: Forget) -> None:
    peer.vhost.engine.forget(peer.session, message.request, _change(peer, message))


def subscribe(broker: "Broker", peer: "Peer", message: Subscribe) -> None:
    peer.end_turn()  # every class of its queues is looked at again
    options = message.options or {}
    if not peer.subscribed:
        log.info("worker %s serves %s", peer.name, ", ".join(message.queues) or "no queue")
    peer.consumes = peer.subscribed = True
    broker.sessions.keep(peer.session)
    peer.vhost.engine.subscribe(
        peer.session,
        message.request,
        message.queues,
        message.tasks,
        options.get(SubscribeOption.CONCURRENCY, 0),
        options.get(SubscribeOption.PROCESS_ID, 0),
    )


def credit(broker: "Broker", peer: "Peer", message: Credit) -> None:
    peer.vhost.engine.credit(peer.session, message.limit)


def started(broker: "Broker", peer: "Peer", message: Started) -> None:
    peer.spent += len(message.tasks)
    peer.vhost.engine.started(peer.session, message.tasks, message.request)


def purge(broker: "Broker", peer: "Peer", message: Purge) -> None:
    peer.end_turn()
    audit.act(peer, "PURGE", message.queues, "all queues")
    peer.vhost.engine.purge(peer.session, message.request, message.queues)


def revoke(broker: "Broker", peer: "Peer", message: Revoke) -> None:
    ids = _change(peer, message)
    signal = SIGNAL_DEFAULT if message.signal is None else message.signal
    peer.vhost.engine.revoke(peer.session, message.request, ids, message.terminate, signal)


def rerun(broker: "Broker", peer: "Peer", message: Rerun) -> None:
    peer.vhost.engine.rerun(peer.session, message.request, _change(peer, message))


def forbidden(broker: "Broker", peer: "Peer", message: Any) -> None:
    """A command whose role its user does not have."""
    role = _ROLES[type(message)]
    name = _FIRST.get(role) or type(message).__name__.upper()
    text = f"{name} needs the role {role.value}, which user {peer.identity.name} does not have"
    request = getattr(message, "request", None)
    if request is None:
        raise RemoteProtocolError(Code.FORBIDDEN, text)
    broker.refuse_request(peer, request, Code.FORBIDDEN, text)


def later(broker: "Broker", peer: "Peer", message: Any) -> None:
    """A command that protocol.md marks (later)."""
    text = f"{type(message).__name__.upper()} is for a later release of the broker"
    broker.refuse_request(peer, message.request, Code.NOT_IMPLEMENTED, text)


Handler = Callable[["Broker", "Peer", Any], None]

HANDLERS: dict[type[Message], Handler] = {
    Hello: hello,
    Goodbye: goodbye,
    Heartbeat: heartbeat,
    Resume: resume,
    Publish: publish,
    Watch: watch,
    Unwatch: unwatch,
    Query: query,
    Forget: forget,
    History: history,
    Subscribe: subscribe,
    Credit: credit,
    Started: started,
    Complete: complete,
    Stats: stats,
    Purge: purge,
    Revoke: revoke,
    Rerun: rerun,
    List: list_,
    **{
        command.message: later
        for command in COMMANDS.values()
        if command.later and command.sender is Side.CLIENT
    },
}

_ROLES = {command.message: command.role for command in COMMANDS.values()}
#: What who has a role begins with. A worker sends CREDIT in the same breath: it is refused for want of the
#: same, and is to be told the same.
_FIRST = {Role.CONSUME: "SUBSCRIBE"}


@cache
def handlers_for(roles: frozenset[Role]) -> Mapping[type[Message], Handler]:
    """What becomes of each message of somebody with these roles."""
    return {kind: handler if _ROLES[kind] in roles else forbidden for kind, handler in HANDLERS.items()}
