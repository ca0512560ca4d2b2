"""COMPLETE on its way into the engine: bodies become handles, verdicts get a reason for people."""

from typing import TYPE_CHECKING, Any

from chervil.protocol import (
    FAILURE_CODEC,
    Code,
    FailureRecord,
    Outcome,
    RemoteProtocolError,
    RetryOption,
    unpack_failure,
)
from chervil.protocol.messages import Complete
from chervil_broker.engine.completing import CompletionRow
from chervil_broker.engine.engine import Engine

if TYPE_CHECKING:
    from chervil_broker.broker import Broker
    from chervil_broker.peer import Peer

#: Longest text of a LOST or RELEASE that is kept, in bytes: a failure record's message takes 64 KiB, and
#: a byte that is no UTF-8 becomes three.
TEXT_MAX = 65_536 // 3
#: Longest reason in a task's history, in characters: a line in a terminal.
REASON_MAX = 200
#: A failure record that keeps its own limits is not longer; a longer body is not looked into.
RECORD_MAX = 65_536 + 262_144 + 65_536 + 4_096
_LATER_OUTCOMES = frozenset({Outcome.REPLACE, Outcome.IGNORE})
_SUCCESS = Outcome.SUCCESS.value
#: Outcomes whose body is text.
_TOLD = (Outcome.LOST, Outcome.RELEASE)


def complete(broker: "Broker", peer: "Peer", message: Complete) -> None:
    if not peer.in_session:
        raise RemoteProtocolError(Code.BAD_STATE, "COMPLETE after GOODBYE: the leases are gone")
    for row in message.tasks:
        if row[2] in _LATER_OUTCOMES or row[6]:
            raise RemoteProtocolError(
                Code.NOT_IMPLEMENTED,
                f"COMPLETE with {Outcome(row[2]).name} or follow-ups is for a later release of the broker",
            )
    peer.spent += len(message.tasks)
    put = broker.bodies.put_result
    limit = broker.options.body_limit
    rows: list[CompletionRow] = []
    for row in message.tasks:
        id_, lease, outcome, codec, body, options, _ = row
        if outcome == _SUCCESS and (body is None or len(body) <= limit):
            if body is None:
                rows.append((id_, lease, outcome, None, 0, options, None))
            else:
                rows.append((id_, lease, outcome, put(codec, body), len(body), options, None))
        else:
            rows.append(_with_reason(broker, peer.vhost.engine, row))
    peer.vhost.engine.complete(peer.session, message.sequence, rows)


def _with_reason(broker: "Broker", engine: Engine, row: list[Any]) -> CompletionRow:
    """A row that is no plain success, with the text that its task's history tells."""
    id_, lease, outcome, codec, body, options, _ = _within_limits(row, broker.options.body_limit, engine)
    if options is not None and RetryOption.BODY in options:
        _keep_new_body(broker, options)
    if body is None:
        return id_, lease, outcome, None, 0, options, None
    if outcome in _TOLD:
        body = body[:TEXT_MAX].replace(b"\0", b" ")
        reason: str | None = body.decode(errors="replace")[:REASON_MAX] or None
        if outcome == Outcome.RELEASE:
            return id_, lease, outcome, None, 0, options, reason
    else:
        reason = reason_of(codec, body)
    return id_, lease, outcome, broker.bodies.put_result(codec, body), len(body), options, reason


def reason_of(codec: str | None, body: bytes) -> str | None:
    """`ValueError: message` of a failure record; None where the body is none that can be read."""
    record = record_in(codec, body)
    if record is None:
        return None
    name = record.type.rpartition(".")[2] or record.type
    return (f"{name}: {record.message}" if record.message else name)[:REASON_MAX]


def record_in(codec: str | None, body: bytes) -> FailureRecord | None:
    """The failure record in a body; None where there is none."""
    if codec != FAILURE_CODEC or len(body) > RECORD_MAX:
        return None
    try:
        return unpack_failure(body)
    except ValueError:
        return None


def _within_limits(row: list[Any], limit: int, engine: Engine) -> list[Any]:
    """A completion row, or a FAILURE in its place where it brings a body that is too large to be kept."""
    id_, _, outcome, _, body, options, _ = row
    brought = body if outcome == _SUCCESS else None
    if options is not None and RetryOption.BODY in options:
        brought = options[RetryOption.BODY][2]
    if brought is None or len(brought) <= limit:
        return row
    said = f"{Code.BODY_TOO_LARGE}: {len(brought)} bytes, and the broker takes {limit} (its --body-limit)"
    name = engine.history(id_)[0].get("name", "unknown")
    record = FailureRecord("rejected", "chervil.exceptions.EncodeError", said, None, id_, name)
    return [*row[:2], Outcome.FAILURE.value, FAILURE_CODEC, record.pack(), None, None]


def _keep_new_body(broker: "Broker", options: dict[int, Any]) -> None:
    """Puts the body that a RETRY brings where the engine wants it: as (handle, size) in the options."""
    headers, codec, body = options[RetryOption.BODY]
    handle = broker.bodies.put_task(headers, codec, body)
    options[RetryOption.BODY] = (handle, len(body) + len(headers or b""))
