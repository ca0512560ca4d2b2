"""Every command of protocol.md as a typed message, and the one table that says how each is read.

`COMMANDS` is what the parser, the state machine, the documents' tests and the brokers' dispatch
read. A message is a NamedTuple whose fields stand in the order of the wire.
"""

from typing import Any, NamedTuple

from chervil.protocol import fields, rows
from chervil.protocol.errors import Code, LocalProtocolError, RemoteProtocolError
from chervil.protocol.ids import WireId
from chervil.protocol.limits import (
    CODE_MAX,
    FEATURES_MAX,
    FRAME_BATCH,
    MESSAGE_MAX,
    NAME_MAX,
    QUEUES_MAX,
    ROWS_MAX,
    TASK_NAMES_MAX,
)
from chervil.protocol.vocabulary import HelloOption, Role, Side, SubscribeOption, WelcomeOption

VERSION = 1


class Hello(NamedTuple):
    min_version: int
    max_version: int
    features: list[str]
    name: str
    token: str | None = None
    vhost: str | None = None
    resume: list[bytes] | None = None
    options: dict[int, Any] | None = None

    def __repr__(self) -> str:
        """The message without its token and its session's secret."""
        shown = self._replace(token=self.token and "***", resume=self.resume and [self.resume[0], b"***"])
        return f"Hello{tuple(shown)}"


class Welcome(NamedTuple):
    version: int
    features: list[str]
    instance: bytes
    session: bytes
    secret: bytes
    resumed: bool
    heartbeat_ms: int
    options: dict[int, Any] | None = None

    def __repr__(self) -> str:
        """The message without the session's secret."""
        return f"Welcome{tuple(self._replace(secret=b'***'))}"


class Goodbye(NamedTuple):
    code: str
    message: str | None = None


class Heartbeat(NamedTuple):
    pass


class Error(NamedTuple):
    request: int | None
    code: str
    message: str
    details: dict[str, Any] | None = None


class Ok(NamedTuple):
    request: int
    value: int | None = None


class Resume(NamedTuple):
    request: int
    inventory: list[list[Any]]
    sequence: int
    more: bool | None = None


class Publish(NamedTuple):
    request: int
    tasks: list[rows.TaskRow]


class Confirm(NamedTuple):
    request: int
    accepted: int
    exceptions: list[list[Any]] | None = None


class Window(NamedTuple):
    limit: int


class Watch(NamedTuple):
    request: int
    ids: list[WireId]


class Status(NamedTuple):
    request: int
    tasks: list[rows.StatusRow]
    more: bool | None = None


class Result(NamedTuple):
    tasks: list[rows.StatusRow]


class Unwatch(NamedTuple):
    ids: list[WireId]


class Query(NamedTuple):
    request: int
    ids: list[WireId]


class Forget(NamedTuple):
    request: int
    ids: list[WireId]


class History(NamedTuple):
    request: int
    id: WireId


class Subscribe(NamedTuple):
    request: int
    queues: list[str]
    tasks: list[str] | None = None
    options: dict[int, Any] | None = None


class Credit(NamedTuple):
    limit: int


class Deliver(NamedTuple):
    tasks: list[rows.DeliveryRow]


class Started(NamedTuple):
    tasks: list[list[Any]]
    request: int | None = None


class Complete(NamedTuple):
    sequence: int
    tasks: list[rows.CompletionRow]


class Completed(NamedTuple):
    sequence: int
    exceptions: list[list[int]] | None = None


class Cancel(NamedTuple):
    tasks: list[list[Any]]


class Stats(NamedTuple):
    request: int


class Report(NamedTuple):
    request: int
    report: dict[str, Any]


class Purge(NamedTuple):
    request: int
    queues: list[str]


class Revoke(NamedTuple):
    request: int
    ids: list[WireId]
    terminate: bool
    signal: int | None = None


class Rerun(NamedTuple):
    request: int
    ids: list[WireId]


class List(NamedTuple):
    request: int
    kind: str
    cursor: str | None
    limit: int


class Grow(NamedTuple):
    request: int
    id: WireId
    inputs: int


Message = (
    Hello
    | Welcome
    | Goodbye
    | Heartbeat
    | Error
    | Ok
    | Resume
    | Publish
    | Confirm
    | Window
    | Watch
    | Status
    | Result
    | Unwatch
    | Query
    | Forget
    | History
    | Subscribe
    | Credit
    | Deliver
    | Started
    | Complete
    | Completed
    | Cancel
    | Stats
    | Report
    | Purge
    | Revoke
    | Rerun
    | List
    | Grow
)


class Command(NamedTuple):
    """How one command is read and when it may be sent."""

    number: int
    #: Its class above; the class's name in capitals is the command's name.
    message: type[Any]
    #: The side that sends it; None is both.
    sender: Side | None
    role: Role
    #: Names of the connection states in which it may be sent.
    states: tuple[str, ...]
    #: (type as protocol.md writes it, check) for each field, in order.
    fields: tuple[tuple[str, fields.Check], ...]
    #: Specified, not yet done by this release's broker.
    later: bool = False

    @property
    def name(self) -> str:
        return self.message.__name__.upper()


_READY = ("READY",)
_OPEN = ("READY", "CLOSING")
_C, _B = Side.CLIENT, Side.BROKER

_uint = ("uint", fields.uint)
_options = ("options?", fields.optional(fields.options({})))
_ids = (f"list<id>({ROWS_MAX})", fields.list_of(fields.task_id, ROWS_MAX))
_watched = (f"list<id>({ROWS_MAX})", fields.list_of(fields.task_id, ROWS_MAX, at_least=1))
_code = (f"text({CODE_MAX})", fields.text(CODE_MAX))
_message = fields.text(MESSAGE_MAX)
_queues = (f"list<text({NAME_MAX})>({QUEUES_MAX})", fields.list_of(rows.name, QUEUES_MAX))
_features = ("list<text(64)>(32)", fields.list_of(fields.text(CODE_MAX), FEATURES_MAX))
_statuses = (f"list<status row>({ROWS_MAX})", fields.list_of(rows.status_row, ROWS_MAX))
_token = (f"text({NAME_MAX})?", fields.optional(fields.secret(NAME_MAX)))
_name_or_nil = (f"text({NAME_MAX})?", fields.optional(rows.name))


def _batch(kind: str, check: fields.Check, *, at_least: int = 0) -> tuple[str, fields.Check]:
    return f"list<{kind}>({ROWS_MAX})", fields.list_of(check, ROWS_MAX, at_least=at_least)


def _batch_or_nil(kind: str, check: fields.Check) -> tuple[str, fields.Check]:
    return f"list<{kind}>({ROWS_MAX})?", fields.optional(fields.list_of(check, ROWS_MAX))


_TABLE = (
    Command(1, Hello, _C, Role.ANY, ("OPENING",), (
        _uint, _uint, _features, (f"text({NAME_MAX})", rows.name), _token, _name_or_nil,
        ("resume row?", fields.optional(rows.resume_row)),
        ("options?", fields.optional(fields.options({HelloOption.ATTEMPT: fields.uint}))),
    )),
    Command(2, Welcome, _B, Role.ANY, ("GREETING",), (
        _uint, _features, ("bytes(16)", fields.exactly(16)), ("bytes(16)", fields.exactly(16)),
        ("bytes(32)", fields.exactly(32)), ("bool", fields.boolean), _uint,
        ("options?", fields.optional(fields.options({
            WelcomeOption.DURABILITY: fields.text(CODE_MAX),
            WelcomeOption.RELEASE: fields.text(CODE_MAX),
            WelcomeOption.BODY_LIMIT: fields.uint,
        }))),
    )),
    Command(3, Goodbye, None, Role.ANY, _OPEN, (_code, ("text(4096)?", fields.optional(_message)))),
    Command(4, Heartbeat, None, Role.ANY, _OPEN, ()),
    Command(5, Error, _B, Role.ANY, ("OPENING", "GREETING", "READY", "CLOSING"), (
        ("uint?", fields.optional(fields.uint)), _code, ("text(4096)", _message),
        ("map?", fields.optional(fields.string_map)),
    )),
    Command(6, Ok, _B, Role.ANY, _OPEN, (_uint, ("uint?", fields.optional(fields.uint)))),
    Command(7, Resume, _C, Role.CONSUME, _READY, (
        _uint, _batch("inventory row", rows.inventory_row), _uint,
        ("bool?", fields.optional(fields.boolean)),
    )),
    Command(16, Publish, _C, Role.PUBLISH, _READY, (_uint, _batch("task row", rows.task_row, at_least=1))),
    Command(17, Confirm, _B, Role.PUBLISH, _OPEN, (
        _uint, _uint, _batch_or_nil("exception row", rows.exception_row),
    )),
    Command(18, Window, _B, Role.PUBLISH, _OPEN, (_uint,)),
    Command(32, Watch, _C, Role.PUBLISH, _READY, (_uint, _watched)),
    Command(33, Status, _B, Role.PUBLISH, _OPEN, (
        _uint, _statuses, ("bool?", fields.optional(fields.boolean)),
    )),
    Command(34, Result, _B, Role.PUBLISH, _OPEN, (_statuses,)),
    Command(35, Unwatch, _C, Role.ANY, _READY, (_ids,)),
    Command(36, Query, _C, Role.ANY, _READY, (_uint, _ids)),
    Command(37, Forget, _C, Role.PUBLISH, _READY, (_uint, _ids)),
    Command(38, History, _C, Role.ANY, _READY, (_uint, ("id", fields.task_id))),
    Command(48, Subscribe, _C, Role.CONSUME, _READY, (
        _uint, _queues,
        (f"list<text({NAME_MAX})>({TASK_NAMES_MAX})?",
         fields.optional(fields.list_of(rows.name, TASK_NAMES_MAX))),
        ("options?", fields.optional(fields.options({
            SubscribeOption.CONCURRENCY: fields.uint,
            SubscribeOption.PROCESS_ID: fields.uint,
        }))),
    )),
    Command(49, Credit, _C, Role.CONSUME, _READY, (_uint,)),
    Command(50, Deliver, _B, Role.CONSUME, _OPEN, (_batch("delivery row", rows.delivery_row),)),
    Command(51, Started, _C, Role.CONSUME, _READY, (
        _batch("started row", rows.started_row), ("uint?", fields.optional(fields.uint)),
    )),
    Command(52, Complete, _C, Role.CONSUME, _OPEN, (_uint, _batch("completion row", rows.completion_row))),
    Command(53, Completed, _B, Role.CONSUME, _OPEN, (_uint, _batch_or_nil("verdict row", rows.verdict_row))),
    Command(54, Cancel, _B, Role.CONSUME, _OPEN, (_batch("cancel row", rows.cancel_row),)),
    Command(64, Stats, _C, Role.CONTROL, _READY, (_uint,)),
    Command(65, Report, _B, Role.CONTROL, _OPEN, (_uint, ("map", fields.string_map))),
    Command(66, Purge, _C, Role.CONTROL, _READY, (_uint, _queues)),
    Command(67, Revoke, _C, Role.CONTROL, _READY, (
        _uint, _ids, ("bool", fields.boolean), ("uint?", fields.optional(rows.signal)),
    )),
    Command(68, Rerun, _C, Role.CONTROL, _READY, (_uint, _ids)),
    Command(69, List, _C, Role.CONTROL, _READY, (
        _uint, ("text(32)", fields.text(32)), _name_or_nil, ("uint", rows.between(1, 1000)),
    )),
    Command(70, Grow, _C, Role.CONSUME, _READY, (_uint, ("id", fields.task_id), _uint), later=True),
)  # fmt: skip

COMMANDS: dict[int, Command] = {command.number: command for command in _TABLE}
NUMBERS: dict[type[Any], int] = {command.message: command.number for command in _TABLE}
#: (message class, checks, how many fields must be there) by number: what the parser looks at.
_READ = {
    c.number: (c.message, [check for _, check in c.fields], len(c.fields) - len(c.message._field_defaults))
    for c in _TABLE
}


def parse(array: list[Any], size: int = 0) -> Message:
    """The message in a decoded frame of `size` payload bytes. Raises RemoteProtocolError."""
    number = array[0]
    read = _READ.get(number) if type(number) is int else None
    if read is None:
        raise RemoteProtocolError(Code.UNKNOWN_COMMAND, f"no command {fields.brief(number)}")
    message, checks, required = read
    given = len(array) - 1
    if given < required:
        raise RemoteProtocolError(
            Code.BAD_FIELD, f"{COMMANDS[number].name} wants {required} fields and has {given}"
        )
    if size > FRAME_BATCH and sum(len(field) for field in array if type(field) is list) > 1:
        raise RemoteProtocolError(
            Code.BAD_FRAME,
            f"{COMMANDS[number].name} of {size} bytes; over {FRAME_BATCH} it may hold one item only",
        )
    try:
        if len(checks) == 2 and given >= 2:  # most commands, and all that come in numbers
            return message(checks[0](array[1]), checks[1](array[2]))  # type: ignore[no-any-return]
        return message(*[check(value) for check, value in zip(checks, array[1:], strict=False)])  # type: ignore[no-any-return]
    except ValueError:
        raise _refusal(message, checks, array) from None


def _refusal(message: type[Any], checks: list[fields.Check], array: list[Any]) -> RemoteProtocolError:
    """Why `array` is no `message`, naming the first field at fault."""
    for field, check, value in zip(message._fields, checks, array[1:], strict=False):
        try:
            check(value)
        except ValueError as error:
            unknown = isinstance(error, fields.UnknownOption)
            code = Code.UNKNOWN_OPTION if unknown else Code.BAD_FIELD
            return RemoteProtocolError(code, f"{message.__name__.upper()} {field}: {error}")
    raise AssertionError("a check that refused a value takes it now")


def number_of(message: Message) -> int:
    """The command number of a message; raises LocalProtocolError for anything else."""
    number = NUMBERS.get(type(message))
    if number is None:
        raise LocalProtocolError(Code.UNKNOWN_COMMAND, f"{type(message).__name__} is no message")
    return number
