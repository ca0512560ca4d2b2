"""Command -> handler: what the broker does with each message. No queue logic here: that is the engine's."""

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from chervil.protocol import Code, Message, Side, SubscribeOption, WireId
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
from chervil_broker.completions import complete
from chervil_broker.greeting import goodbye, hello
from chervil_broker.greeting import resume as reconcile
from chervil_broker.reports import history, list_, stats
from chervil_broker.turns import CHANGE_COST, TURN_ROWS, OfIds, split

if TYPE_CHECKING:
    from chervil_broker.broker import Broker
    from chervil_broker.peer import Peer

log = logging.getLogger("chervil.broker")


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
    broker.windows.count(peer.number, peer.window, published)
    broker.engine.publish(peer.session, message.request, tasks)


def _first_part(peer: "Peer", message: OfIds, cost: int) -> list[WireId]:
    """Those of a request's ids, each once, that are to be taken now, at this cost; the others are next."""
    ids = list(dict.fromkeys(message.ids))
    if len(ids) > peer.part_ids:
        parts = split(message, ids, peer)
        ids = next(parts).ids
        peer.take_next(parts)
    peer.spent += cost * len(ids)
    return ids


def _answered(peer: "Peer", message: OfIds) -> list[WireId]:
    """The first part of those that are answered with all there is to tell: a turn's worth."""
    return _first_part(peer, message, TURN_ROWS // peer.part_ids)


def watch(broker: "Broker", peer: "Peer", message: Watch) -> None:
    peer.watches.add(message.request)
    broker.engine.watch(peer.session, message.request, _answered(peer, message))


def unwatch(broker: "Broker", peer: "Peer", message: Unwatch) -> None:
    peer.spent += len(message.ids)
    broker.engine.unwatch(peer.session, message.ids)


def query(broker: "Broker", peer: "Peer", message: Query) -> None:
    broker.engine.query(peer.session, message.request, _answered(peer, message))


def forget(broker: "Broker", peer: "Peer", message: Forget) -> None:
    broker.engine.forget(peer.session, message.request, _first_part(peer, message, CHANGE_COST))


def subscribe(broker: "Broker", peer: "Peer", message: Subscribe) -> None:
    peer.end_turn()  # every class of its queues is looked at again
    options = message.options or {}
    if not peer.subscribed:
        log.info("worker %s serves %s", peer.name, ", ".join(message.queues) or "no queue")
    peer.consumes = peer.subscribed = True
    broker.engine.subscribe(
        peer.session,
        message.request,
        message.queues,
        message.tasks,
        options.get(SubscribeOption.CONCURRENCY, 0),
        options.get(SubscribeOption.PROCESS_ID, 0),
    )


def credit(broker: "Broker", peer: "Peer", message: Credit) -> None:
    broker.engine.credit(peer.session, message.limit)


def started(broker: "Broker", peer: "Peer", message: Started) -> None:
    peer.spent += len(message.tasks)
    broker.engine.started(peer.session, message.tasks, message.request)


def purge(broker: "Broker", peer: "Peer", message: Purge) -> None:
    peer.end_turn()
    broker.engine.purge(peer.session, message.request, message.queues)


def revoke(broker: "Broker", peer: "Peer", message: Revoke) -> None:
    ids = _first_part(peer, message, CHANGE_COST)
    signal = SIGNAL_DEFAULT if message.signal is None else message.signal
    broker.engine.revoke(peer.session, message.request, ids, message.terminate, signal)


def rerun(broker: "Broker", peer: "Peer", message: Rerun) -> None:
    broker.engine.rerun(peer.session, message.request, _first_part(peer, message, CHANGE_COST))


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
