"""Command -> handler: what the broker does with each message. No queue logic here: that is the engine's."""

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from chervil.protocol import Code, Message, RemoteProtocolError, Side, SubscribeOption
from chervil.protocol.frames import pack
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
from chervil_broker.greeting import goodbye, hello, resume
from chervil_broker.reports import history, list_, stats

if TYPE_CHECKING:
    from chervil_broker.broker import Broker
    from chervil_broker.peer import Peer

log = logging.getLogger("chervil.broker")

#: What an option takes in memory besides its packed size.
OPTION_BYTES = 100
#: Ids that one session may wait for at once: each costs about 400 bytes beside what its task is charged.
WATCHED_MAX = 262_144


def heartbeat(broker: "Broker", peer: "Peer", message: Heartbeat) -> None:
    """That it came is all it says; the peer has noted when."""
    del broker, peer, message


def publish(broker: "Broker", peer: "Peer", message: Publish) -> None:
    put = broker.bodies.put_task
    tasks = []
    published = 0
    for id_, name, queue, priority, options, headers, codec, body in message.tasks:
        size = len(body) if headers is None else len(body) + len(headers)
        published += size
        if options is not None:
            size += OPTION_BYTES * len(options) + len(pack(options))
        tasks.append((id_, name, queue, priority, options, put(headers, codec, body), size))
    broker.windows.count(peer.number, peer.window, published)
    broker.engine.publish(peer.session, message.request, tasks)


def watch(broker: "Broker", peer: "Peer", message: Watch) -> None:
    ids = list(dict.fromkeys(message.ids))
    peer.spent += len(ids)
    peer.watching.update(ids)
    if len(peer.watching) > WATCHED_MAX:
        raise RemoteProtocolError(
            Code.TOO_MANY, f"more than {WATCHED_MAX} tasks are waited for; UNWATCH some, or wait for fewer"
        )
    peer.watches.add(message.request)
    broker.engine.watch(peer.session, message.request, ids)


def unwatch(broker: "Broker", peer: "Peer", message: Unwatch) -> None:
    peer.watching.difference_update(message.ids)
    broker.engine.unwatch(peer.session, message.ids)


def query(broker: "Broker", peer: "Peer", message: Query) -> None:
    ids = list(dict.fromkeys(message.ids))
    peer.spent += len(ids)
    broker.engine.query(peer.session, message.request, ids)


def forget(broker: "Broker", peer: "Peer", message: Forget) -> None:
    peer.spent += len(message.ids)
    broker.engine.forget(peer.session, message.request, message.ids)


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
    peer.spent += len(message.ids)
    signal = SIGNAL_DEFAULT if message.signal is None else message.signal
    broker.engine.revoke(peer.session, message.request, message.ids, message.terminate, signal)


def rerun(broker: "Broker", peer: "Peer", message: Rerun) -> None:
    peer.spent += len(message.ids)
    broker.engine.rerun(peer.session, message.request, message.ids)


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
