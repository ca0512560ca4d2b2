"""What the engine decided, as records; and records, as what they say. docs/journal-format.md lists them.

Here are the records themselves; recording.py makes those of a pump.
"""

from collections.abc import Callable
from enum import IntEnum
from typing import Any, NamedTuple

import msgpack

from chervil.protocol import WireId
from chervil.protocol.frames import unpack
from chervil.protocol.ids import is_wire_id
from chervil_broker.journal.layout import pack_record


class Kind(IntEnum):
    """The first field of a record."""

    OPEN = 1
    CLOSE = 2
    TICK = 3
    PUBLISH = 4
    LEASE = 5
    COMPLETE = 6
    TASK = 7
    EVICT = 8
    FORGET = 9
    REVOKED = 10
    SESSION = 11
    END = 12


class RecordError(Exception):
    """A record that is not as it should be; the text says what is wrong with it."""

    def __init__(self, message: str, kind: int | None = None) -> None:
        super().__init__(message)
        #: The kind that it says, if it says one.
        self.kind = kind


class Open(NamedTuple):
    """A broker began to write; also the first record of every segment."""

    instance: bytes
    boot: str
    fsync: str
    now: int
    wall: int
    version: str
    #: Every task that was not final then is flagged as delivered before.
    flagged: bool = False


class Close(NamedTuple):
    """The broker ended in order."""

    now: int
    wall: int


class Tick(NamedTuple):
    """The clocks."""

    now: int
    wall: int


class Published(NamedTuple):
    """Tasks are QUEUED. A group is [name, queue, priority, rows]."""

    vhost: str
    since: int
    by: str
    at_ms: int
    #: Rows are [id, place, options, body], and where they are not as most are [..., codec, headers].
    groups: list[list[Any]]


class Leased(NamedTuple):
    """Tasks are LEASED; rows are [id, lease]."""

    vhost: str
    session: int
    worker: str
    since: int
    at_ms: int
    rows: list[list[Any]]


class Completed(NamedTuple):
    """A COMPLETE is applied; rows are [id, kept, codec, body], one for each task that is SUCCESS by it."""

    vhost: str
    session: int
    sequence: int
    since: int
    ended_ms: int
    rows: list[list[Any]]


class TaskState(NamedTuple):
    """All of a task; the fields that are lists are described in the page of the format."""

    id: WireId
    name: str
    queue: str
    priority: int
    options: dict[int, Any] | None
    place: int
    stage: int
    since: int
    lease: int
    redelivered: bool
    attempts: int
    retries: int
    session: int
    worker: str | None
    delivered_ms: int | None
    by: str
    published_ms: int
    times: list[Any] | None
    past: list[Any] | None
    ended_ms: int | None
    ending: list[Any] | None
    kept: int | None
    #: 0: as in the records before.
    body: list[Any] | int | None
    result: list[Any] | int | None


class Changed(NamedTuple):
    """A task is as this says."""

    vhost: str
    task: TaskState


class Evicted(NamedTuple):
    """Results and bodies are dropped."""

    vhost: str
    ids: list[WireId]


class Forgotten(NamedTuple):
    """Tasks are gone, and their ids are remembered."""

    vhost: str
    since: int
    ids: list[WireId]


class Revoked(NamedTuple):
    """Ids of which nothing is known are to be REVOKED when they are published."""

    vhost: str
    by: str
    ids: list[WireId]


class SessionOpened(NamedTuple):
    """A session that may be resumed."""

    number: int
    id: bytes
    secret_hash: bytes
    name: str
    user: str
    known_by: str
    in_users_file: bool
    vhost: str
    #: The highest of its COMPLETEs.
    sequence: int


class SessionEnded(NamedTuple):
    """A session is over."""

    number: int


Record = (
    Open
    | Close
    | Tick
    | Published
    | Leased
    | Completed
    | Changed
    | Evicted
    | Forgotten
    | Revoked
    | SessionOpened
    | SessionEnded
)

_KINDS: dict[type[Record], Kind] = {
    Open: Kind.OPEN,
    Close: Kind.CLOSE,
    Tick: Kind.TICK,
    Published: Kind.PUBLISH,
    Leased: Kind.LEASE,
    Completed: Kind.COMPLETE,
    Changed: Kind.TASK,
    Evicted: Kind.EVICT,
    Forgotten: Kind.FORGET,
    Revoked: Kind.REVOKED,
    SessionOpened: Kind.SESSION,
    SessionEnded: Kind.END,
}

_pack: Callable[[Any], bytes] = msgpack.Packer(autoreset=True, buf_size=65_536).pack


def pack(record: Record) -> bytes:
    """A record as it stands in a frame."""
    return pack_record(_pack((_KINDS[type(record)].value, *record)))


def decode(data: bytes) -> Record:
    """A record without its length; raises RecordError. Fields beyond those that are known are ignored."""
    try:
        fields = unpack(data)
    except ValueError as error:
        raise RecordError(f"a record that is no msgpack: {error}") from None
    if type(fields) is not list or not fields or type(fields[0]) is not int:
        raise RecordError("a record that does not begin with its kind")
    kind = fields[0]
    known = _FIELDS.get(kind)
    if known is None:
        raise RecordError(f"kind {kind} of records is unknown to this program; use a newer one", kind)
    make, checks = known
    values = fields[1 : len(checks) + 1]
    try:
        _check(checks, values)
    except _Wrong as wrong:
        field = _TYPES[kind]._fields[wrong.index]
        raise RecordError(f"{Kind(kind).name} whose {field} is not as it should be", kind) from None
    return make(values)


class _Wrong(Exception):
    """The field at this index."""

    def __init__(self, index: int) -> None:
        super().__init__(index)
        self.index = index


_Check = Callable[[Any], bool]
#: Of an id that is no text.
_UUID_SIZE = 16


def _check(checks: tuple[_Check, ...], values: list[Any]) -> None:
    for index, check in enumerate(checks):
        if index >= len(values) or not check(values[index]):
            raise _Wrong(index)


def _number(value: Any) -> bool:
    return type(value) is int and value >= 0


def _session(value: Any) -> bool:
    return type(value) is int and value >= -2


def _text(value: Any) -> bool:
    return type(value) is str


def _bytes(value: Any) -> bool:
    return type(value) is bytes


def _flag(value: Any) -> bool:
    return type(value) is bool


def _map(value: Any) -> bool:
    return type(value) is dict


def _or_nil(check: _Check) -> _Check:
    return lambda value: value is None or check(value)


def _unless_as_before(check: _Check) -> _Check:
    return lambda value: value is None or value == 0 or check(value)


def _array(*checks: _Check) -> _Check:
    """A list that begins with such fields."""
    count = len(checks)

    def check_array(value: Any) -> bool:
        return (
            type(value) is list
            and len(value) >= count
            and all(check(field) for check, field in zip(checks, value, strict=False))
        )

    return check_array


def _every(check: _Check) -> _Check:
    """A list of such fields."""
    return lambda value: type(value) is list and all(map(check, value))


def _changed(values: list[Any]) -> Changed:
    return Changed(values[0], TaskState._make(values[1][: len(_TASK)]))


def _group(group: Any) -> bool:
    """Written out, as are the next three, for there may be millions of them."""
    return (
        type(group) is list
        and len(group) >= 4
        and type(group[0]) is str
        and type(group[1]) is str
        and _number(group[2])
        and type(group[3]) is list
        and all(map(_publish_row, group[3]))
    )


def _publish_row(row: Any) -> bool:
    return (
        type(row) is list
        and len(row) >= 4
        and ((type(row[0]) is bytes and len(row[0]) == _UUID_SIZE) or is_wire_id(row[0]))
        and type(row[1]) is int
        and (row[2] is None or type(row[2]) is dict)
        and type(row[3]) is bytes
        and (len(row) == 4 or _kind_of_body(row))
    )


def _kind_of_body(row: list[Any]) -> bool:
    return type(row[4]) is str and (len(row) == 5 or row[5] is None or type(row[5]) is bytes)


def _lease_row(row: Any) -> bool:
    return type(row) is list and len(row) >= 2 and is_wire_id(row[0]) and type(row[1]) is int


def _complete_row(row: Any) -> bool:
    return (
        type(row) is list
        and len(row) >= 4
        and is_wire_id(row[0])
        and type(row[1]) is int
        and (row[2] is None or type(row[2]) is str)
        and (row[3] is None or type(row[3]) is bytes)
    )


def _event(value: Any) -> bool:
    return type(value) is list and len(value) >= 2 and _number(value[0]) and _text(value[1])


_ids = _every(is_wire_id)
_times = _array(_or_nil(_number), _flag, _or_nil(_number), _flag)
_called_off = _array(_text, _or_nil(_number))
_past = _array(_every(_event), _number, _flag, _or_nil(_called_off), _number)
_ending = _array(_number, _or_nil(_text), _or_nil(_text))
_body = _array(_or_nil(_bytes), _text, _bytes)
_result = _array(_or_nil(_text), _bytes)
_TASK = (
    is_wire_id,
    *(_text, _text, _number, _or_nil(_map)),
    *(_number, _number, _number, _number, _flag, _number, _number),
    *(_session, _or_nil(_text), _or_nil(_number), _text, _number),
    *(_or_nil(_times), _or_nil(_past), _or_nil(_number), _or_nil(_ending), _or_nil(_number)),
    *(_unless_as_before(_body), _unless_as_before(_result)),
)
_FIELDS: dict[int, tuple[Callable[[list[Any]], Record], tuple[_Check, ...]]] = {
    Kind.OPEN.value: (Open._make, (_bytes, _text, _text, _number, _number, _text, _flag)),
    Kind.CLOSE.value: (Close._make, (_number, _number)),
    Kind.TICK.value: (Tick._make, (_number, _number)),
    Kind.PUBLISH.value: (Published._make, (_text, _number, _text, _number, _every(_group))),
    Kind.LEASE.value: (Leased._make, (_text, _number, _text, _number, _number, _every(_lease_row))),
    Kind.COMPLETE.value: (
        Completed._make,
        (_text, _number, _number, _number, _number, _every(_complete_row)),
    ),
    Kind.TASK.value: (_changed, (_text, _array(*_TASK))),
    Kind.EVICT.value: (Evicted._make, (_text, _ids)),
    Kind.FORGET.value: (Forgotten._make, (_text, _number, _ids)),
    Kind.REVOKED.value: (Revoked._make, (_text, _text, _ids)),
    Kind.SESSION.value: (
        SessionOpened._make,
        (_number, _bytes, _bytes, _text, _text, _text, _flag, _text, _number),
    ),
    Kind.END.value: (SessionEnded._make, (_number,)),
}
_TYPES: dict[int, Any] = {kind.value: type_ for type_, kind in _KINDS.items()}
