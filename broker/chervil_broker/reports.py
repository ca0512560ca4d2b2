"""Commands that are answered by REPORT: STATS, HISTORY, LIST."""

from typing import TYPE_CHECKING, Any

from chervil.protocol import Code
from chervil.protocol.frames import pack
from chervil.protocol.limits import FRAME_BATCH
from chervil.protocol.messages import History, List, Report, Stats
from chervil_broker.completions import record_in
from chervil_broker.wire_rows import FAILURE_TYPES

if TYPE_CHECKING:
    from chervil_broker.bodies import Bodies
    from chervil_broker.broker import Broker
    from chervil_broker.engine.engine import Engine
    from chervil_broker.peer import Peer

#: Longest arguments that HISTORY shows, in bytes: enough to know a call by, a quarter of a frame.
BODY_MAX = 64 * 1024
#: Longest page of a LIST, in bytes, unless one row is longer: no frame is to hold up others.
PAGE_BYTES_MAX = FRAME_BATCH
_LATER_LISTS = frozenset({"queues", "tasks", "workers", "schedules"})


def stats(broker: "Broker", peer: "Peer", message: Stats) -> None:
    peer.end_turn()
    broker.reply(peer, Report(message.request, broker.stats(peer)))


def history(broker: "Broker", peer: "Peer", message: History) -> None:
    peer.end_turn()
    report, handle = peer.vhost.engine.history(message.id)
    if "name" in report:
        report["error"] = _error(broker.bodies, handle, report.get("error"))
        report |= _arguments(broker.bodies, peer.vhost.engine.body_handle(message.id))
    broker.reply(peer, Report(message.request, report))


def _error(bodies: "Bodies", handle: int | None, written: dict[str, Any] | None) -> dict[str, Any] | None:
    """A failure without its traceback: of the record behind a handle, or what the broker wrote itself.

    None where there is neither, or the body is no record.
    """
    if handle is None:
        return written and written | {"type": FAILURE_TYPES[written["kind"]]}
    codec, body = bodies.result(handle)
    if codec is None:  # what its worker said of a process that died
        return {"kind": "lost", "type": FAILURE_TYPES["lost"], "message": body.decode(errors="replace")}
    record = record_in(codec, body)
    if record is None:
        return None
    return {"kind": record.kind, "type": record.type, "message": record.message}


def _arguments(bodies: "Bodies", handle: int | None) -> dict[str, Any]:
    """What a task was called with, as its publisher wrote it; without it where it is long or dropped."""
    if handle is None:
        return {"codec": None, "body": None, "body_bytes": None}
    _, codec, body = bodies.task(handle)
    return {
        "codec": codec,
        "body": body if len(body) <= BODY_MAX else None,
        "body_bytes": len(body),
    }


def list_(broker: "Broker", peer: "Peer", message: List) -> None:
    peer.end_turn()
    if message.kind in _LATER_LISTS:
        text = f"LIST {message.kind} is for a later release of the broker; STATS tells some of it"
        broker.refuse_request(peer, message.request, Code.NOT_IMPLEMENTED, text)
    elif message.kind != "dead":
        text = f"LIST knows no {message.kind!r}; it knows dead"
        broker.refuse_request(peer, message.request, Code.BAD_TASK, text)
    else:
        try:
            rows, cursor = _page(peer.vhost.engine, message.cursor, message.limit)
        except ValueError as error:
            broker.refuse_request(peer, message.request, Code.BAD_TASK, f"LIST cursor: {error}")
        else:
            broker.reply(peer, Report(message.request, {"tasks": rows, "cursor": cursor}))


def _page(engine: "Engine", cursor: str | None, limit: int) -> tuple[list[dict[str, Any]], str | None]:
    """As many dead letters from a cursor on as a frame holds; raises ValueError for no cursor of ours."""
    while True:
        rows, after = engine.dead(cursor, limit)
        if len(rows) <= 1 or len(pack(rows)) <= PAGE_BYTES_MAX:
            return rows, after
        limit = (len(rows) + 1) // 2
