"""Command -> handler: what the broker does with each message. No queue logic here: that is the engine's."""

import hmac
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from chervil.protocol import (
    FAILURE_CODEC,
    Code,
    FailureRecord,
    Message,
    Outcome,
    RemoteProtocolError,
    RetryOption,
    Side,
    SubscribeOption,
    WelcomeOption,
)
from chervil.protocol.frames import pack
from chervil.protocol.limits import FRAME_MAX, HEARTBEAT_MS
from chervil.protocol.messages import (
    COMMANDS,
    VERSION,
    Complete,
    Credit,
    Error,
    Goodbye,
    Heartbeat,
    Hello,
    Publish,
    Purge,
    Query,
    Report,
    Started,
    Stats,
    Subscribe,
    Unwatch,
    Watch,
    Welcome,
)
from chervil.version import __version__
from chervil_broker.bodies import ResultBody, TaskBody
from chervil_broker.engine.completing import CompletionRow
from chervil_broker.tokens import hashed

if TYPE_CHECKING:
    from chervil_broker.broker import Broker
    from chervil_broker.peer import Peer

log = logging.getLogger("chervil.broker")

#: What an option takes in memory besides its packed size.
OPTION_BYTES = 100
#: Longest reason of a LOST that is kept, in bytes: a failure record's message takes 64 KiB, and a byte that
#: is no UTF-8 becomes three.
REASON_MAX = 65_536 // 3
#: Outcomes that protocol.md specifies and this release's engine does not know.
_LATER_OUTCOMES = frozenset({Outcome.REPLACE, Outcome.REJECT, Outcome.IGNORE, Outcome.REVOKED})


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
    peer.connection.accept_frames_up_to(FRAME_MAX)
    broker.engine.open(peer.session, peer.name)
    peer.in_session = True
    peer.say(
        Welcome(
            VERSION,
            [],
            broker.instance,
            broker.random(16),
            broker.random(32),
            resumed=False,
            heartbeat_ms=HEARTBEAT_MS,
            options={
                WelcomeOption.DURABILITY: broker.store.durability,
                WelcomeOption.RELEASE: __version__,
                WelcomeOption.BODY_LIMIT: broker.options.body_limit,
            },
        )
    )


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


def goodbye(broker: "Broker", peer: "Peer", message: Goodbye) -> None:
    del message
    if peer.in_session:
        broker.end_session(peer)
        peer.leaving = True
        broker.leave(peer)


def heartbeat(broker: "Broker", peer: "Peer", message: Heartbeat) -> None:
    """That it came is all it says; the peer has noted when."""
    del broker, peer, message


def publish(broker: "Broker", peer: "Peer", message: Publish) -> None:
    put = broker.bodies.put
    tasks = []
    for id_, name, queue, priority, options, headers, codec, body in message.tasks:
        size = len(body) if headers is None else len(body) + len(headers)
        if options is not None:
            size += OPTION_BYTES * len(options) + len(pack(options))
        tasks.append((id_, name, queue, priority, options, put(TaskBody(headers, codec, body)), size))
    broker.engine.publish(peer.session, message.request, tasks)


def watch(broker: "Broker", peer: "Peer", message: Watch) -> None:
    peer.watches.add(message.request)
    broker.engine.watch(peer.session, message.request, list(dict.fromkeys(message.ids)))


def unwatch(broker: "Broker", peer: "Peer", message: Unwatch) -> None:
    broker.engine.unwatch(peer.session, message.ids)


def query(broker: "Broker", peer: "Peer", message: Query) -> None:
    broker.engine.query(peer.session, message.request, list(dict.fromkeys(message.ids)))


def subscribe(broker: "Broker", peer: "Peer", message: Subscribe) -> None:
    options = message.options or {}
    if not peer.consumes:
        log.info("worker %s serves %s", peer.name, ", ".join(message.queues) or "no queue")
    peer.consumes = True
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
    broker.engine.started(peer.session, message.tasks)


def complete(broker: "Broker", peer: "Peer", message: Complete) -> None:
    if not peer.in_session:
        raise RemoteProtocolError(Code.BAD_STATE, "COMPLETE after GOODBYE: the leases are gone")
    for row in message.tasks:
        if row[2] in _LATER_OUTCOMES or row[6]:
            raise RemoteProtocolError(
                Code.NOT_IMPLEMENTED,
                f"COMPLETE with {Outcome(row[2]).name} or follow-ups is for a later release of the broker",
            )
    put = broker.bodies.put
    limit = broker.options.body_limit
    rows: list[CompletionRow] = []
    for row in message.tasks:
        ordinary = row[5] is None and row[2] != Outcome.LOST and (row[4] is None or len(row[4]) <= limit)
        id_, lease, outcome, codec, body, options, _ = row if ordinary else _within_limits(row, limit)
        if options is not None and RetryOption.BODY in options:
            _keep_new_body(broker, options)
        if body is None:
            rows.append((id_, lease, outcome, None, 0, options))
        else:
            rows.append((id_, lease, outcome, put(ResultBody(codec, body)), len(body), options))
    broker.engine.complete(peer.session, message.sequence, rows)


def _within_limits(row: list[Any], limit: int) -> list[Any]:
    """A completion row, or a FAILURE in its place where it brings a body that is too large to be kept."""
    id_, lease, outcome, codec, body, options, publishes = row
    brought = body if outcome == Outcome.SUCCESS else None
    if options is not None and RetryOption.BODY in options:
        brought = options[RetryOption.BODY][2]
    if brought is not None and len(brought) > limit:
        said = f"{Code.BODY_TOO_LARGE}: {len(brought)} bytes, and the broker takes {limit} (its --body-limit)"
        record = FailureRecord("rejected", "chervil.exceptions.EncodeError", said, None, id_, "task")
        return [id_, lease, Outcome.FAILURE, FAILURE_CODEC, record.pack(), None, None]
    if outcome == Outcome.LOST and body is not None:
        body = body[:REASON_MAX].replace(b"\0", b" ")
    return [id_, lease, outcome, codec, body, options, publishes]


def _keep_new_body(broker: "Broker", options: dict[int, Any]) -> None:
    """Puts the body that a RETRY brings where the engine wants it: as (handle, size) in the options."""
    headers, codec, body = options[RetryOption.BODY]
    handle = broker.bodies.put(TaskBody(headers, codec, body))
    options[RetryOption.BODY] = (handle, len(body) + len(headers or b""))


def stats(broker: "Broker", peer: "Peer", message: Stats) -> None:
    broker.reply(peer, Report(message.request, broker.stats()))


def purge(broker: "Broker", peer: "Peer", message: Purge) -> None:
    broker.engine.purge(peer.session, message.request, message.queues)


def later(broker: "Broker", peer: "Peer", message: Any) -> None:
    """A command that protocol.md marks (later)."""
    broker.count_refusal(Code.NOT_IMPLEMENTED)
    text = f"{type(message).__name__.upper()} is for a later release of the broker"
    broker.reply(peer, Error(message.request, Code.NOT_IMPLEMENTED, text))


Handler = Callable[["Broker", "Peer", Any], None]

HANDLERS: dict[type[Message], Handler] = {
    Hello: hello,
    Goodbye: goodbye,
    Heartbeat: heartbeat,
    Publish: publish,
    Watch: watch,
    Unwatch: unwatch,
    Query: query,
    Subscribe: subscribe,
    Credit: credit,
    Started: started,
    Complete: complete,
    Stats: stats,
    Purge: purge,
    **{
        command.message: later
        for command in COMMANDS.values()
        if command.later and command.sender is Side.CLIENT
    },
}
