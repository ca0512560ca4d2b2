"""A journal as JSON lines, one record a line, for people and their tools."""

import base64
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from chervil.protocol.ids import to_text
from chervil_broker.journal.files import Files
from chervil_broker.journal.reader import Reader
from chervil_broker.journal.records import (
    _KINDS,
    Changed,
    Completed,
    Evicted,
    Forgotten,
    Leased,
    Open,
    Published,
    Record,
    RecordError,
    Revoked,
    SessionOpened,
    TaskState,
    decode,
)

_PUBLISH_ROW = ("id", "place", "options", "body", "codec", "headers")
_LEASE_ROW = ("id", "lease")
_COMPLETE_ROW = ("id", "kept", "codec", "result")
_BODY = ("headers", "codec", "body")
_RESULT = ("codec", "result")
_UUID_BYTES = 16

_Show = Callable[[bytes], Any]


def dump(files: Files, *, bodies: bool = False) -> Iterator[str]:
    """The records, oldest first, each as one line of JSON with its kind, its place and its fields.

    `record` is its sequence in the journal, `segment` and `offset` say where the frame is that holds it.

    Ids are text. Headers, bodies and results are {"bytes": their length}; with `bodies` they are text where
    they are UTF-8, else {"base64": ...}. Hashes of secrets are left out. A record that can not be read is a
    line with `error`. Raises Damage after the last line before the damage.
    """
    show = _whole if bodies else _length
    for found in Reader(files):
        for sequence, data in enumerate(found.records, found.frame.first):
            line: dict[str, Any] = {
                "segment": found.segment.name,
                "offset": found.frame.offset,
                "record": sequence,
            }
            try:
                record = decode(data)
                line |= {"kind": _KINDS[type(record)].name, **_fields(record, show)}
            except RecordError as error:
                line |= {"kind": error.kind, "error": str(error)}
            yield json.dumps(line)


def _fields(record: Record, show: _Show) -> dict[str, Any]:
    """A record's fields by name, with nothing in them that JSON has not."""
    fields = record._asdict()
    match record:
        case Open():
            fields["instance"] = record.instance.hex()
        case Published():
            fields["groups"] = [
                {"name": name, "queue": queue, "priority": priority, "rows": _rows(_PUBLISH_ROW, rows, show)}
                for name, queue, priority, rows, *_ in record.groups
            ]
        case Leased():
            fields["rows"] = _rows(_LEASE_ROW, record.rows, show)
        case Completed():
            fields["rows"] = _rows(_COMPLETE_ROW, record.rows, show)
        case Changed():
            fields["task"] = _task(record.task, show)
        case Evicted() | Forgotten() | Revoked():
            fields["ids"] = [to_text(id_) for id_ in record.ids]
        case SessionOpened():
            fields["id"] = record.id.hex()
            del fields["secret_hash"]
    return fields


def _task(task: TaskState, show: _Show) -> dict[str, Any]:
    fields = task._asdict()
    fields["id"] = to_text(task.id)
    fields["options"] = _plain(task.options, _short)
    fields["body"] = _content(_BODY, task.body, show)
    fields["result"] = _content(_RESULT, task.result, show)
    return fields


def _content(names: Sequence[str], content: list[Any] | int | None, show: _Show) -> Any:
    """A task's body or result; 0 stands for that of the records before."""
    if isinstance(content, list):
        return _plain(dict(zip(names, content, strict=False)), show)
    return content


def _rows(names: Sequence[str], rows: list[list[Any]], show: _Show) -> list[dict[str, Any]]:
    shown = []
    for row in rows:
        fields = dict(zip(names, row, strict=False))
        fields["id"] = to_text(fields["id"])
        if "options" in fields:
            fields["options"] = _plain(fields["options"], _short)
        shown.append(_plain(fields, show))
    return shown


def _plain(value: Any, show: _Show) -> Any:
    if isinstance(value, bytes):
        return show(value)
    if isinstance(value, dict):
        return {str(key): _plain(field, show) for key, field in value.items()}
    if isinstance(value, list):
        return [_plain(field, show) for field in value]
    return value


def _short(value: bytes) -> Any:
    """Bytes in a task's options: the id of another task, or something that only its length is told of."""
    return to_text(value) if len(value) == _UUID_BYTES else _length(value)


def _length(value: bytes) -> Any:
    return {"bytes": len(value)}


def _whole(value: bytes) -> Any:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(value).decode()}
