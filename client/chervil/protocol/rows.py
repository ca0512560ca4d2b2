"""The rows that batches are made of, and their checks.

Rows stay plain lists, unpacked by name where they are read: they are what a task costs. The two that
come from outside by the hundred thousand, task and completion rows, have checks written out by hand
(measured: 0.45 us a task row, against 1.9 us through `fields.row`).
"""

from collections.abc import Iterator
from typing import Any

from chervil.protocol import fields
from chervil.protocol.frames import pack
from chervil.protocol.limits import (
    BODY_MAX,
    CODE_MAX,
    CODEC_MAX,
    FRAME_BATCH,
    HEADERS_MAX,
    ID_MAX,
    INPUTS_MAX,
    MESSAGE_MAX,
    NAME_MAX,
    OPTIONS_MAX,
    ROWS_MAX,
    UINT_MAX,
)
from chervil.protocol.vocabulary import (
    DELIVERY_LIMIT_MAX,
    PRIORITY_MAX,
    SIGNAL_MAX,
    Info,
    Outcome,
    RejectOption,
    ReleaseOption,
    RetryOption,
    RevokedOption,
    Stage,
    TaskOption,
    Verdict,
)

#: [id, name, queue, priority, options?, headers?, codec, body]
TaskRow = list[Any]
#: [id, lease, redelivered, attempts, retries, name, queue, priority, options?, headers?, codec, body,
#: inputs?]
DeliveryRow = list[Any]
#: [id, lease, outcome, codec?, body?, options?, publishes?]
CompletionRow = list[Any]
#: [id, stage, codec?, body?, info?]
StatusRow = list[Any]


def between(low: int, high: int) -> fields.Check:
    """An integer in a range."""

    def check(value: Any) -> int:
        if type(value) is int and low <= value <= high:
            return value
        raise ValueError(f"wants an integer from {low} to {high}, not {fields.brief(value)}")

    return check


name = fields.text(NAME_MAX)
codec = fields.text(CODEC_MAX)
headers = fields.binary(HEADERS_MAX)
body = fields.binary(BODY_MAX)

TASK_OPTIONS: dict[int, fields.Check] = {
    TaskOption.DELAY_MS: fields.uint,
    TaskOption.DUE_AT: fields.uint,
    TaskOption.EXPIRES_MS: fields.uint,
    TaskOption.EXPIRES_AT: fields.uint,
    TaskOption.IGNORE_RESULT: fields.boolean,
    TaskOption.EARLY_ACK: fields.boolean,
    TaskOption.FAIL_ON_LOST: fields.boolean,
    TaskOption.DELIVERY_LIMIT: between(1, DELIVERY_LIMIT_MAX),
    TaskOption.TIME_LIMIT_MS: fields.uint,
    TaskOption.SOFT_TIME_LIMIT_MS: fields.uint,
    TaskOption.INPUTS: between(0, INPUTS_MAX),
    TaskOption.ON_SUCCESS: fields.list_of(fields.row(fields.task_id, fields.uint), ROWS_MAX),
    TaskOption.ON_FAILURE: fields.list_of(fields.task_id, ROWS_MAX),
    TaskOption.UNIQUE_KEY: name,
    TaskOption.LIMIT_KEY: name,
    TaskOption.RESULT_EXPIRES_MS: fields.uint,
    TaskOption.RETRIES: fields.uint,
    TaskOption.ROOT_ID: fields.task_id,
    TaskOption.PARENT_ID: fields.task_id,
    TaskOption.GROUP_ID: fields.task_id,
    TaskOption.GROUP_INDEX: fields.uint,
    TaskOption.ORIGIN: name,
    TaskOption.SHADOW: name,
    TaskOption.STAMPS: fields.string_map,
    TaskOption.MAX_RETRIES: fields.uint,
}
task_options = fields.options(TASK_OPTIONS)
#: Fewer than a delivery may have: an expiry that a retry sets comes on top.
_OPTIONS_PUBLISHED_MAX = OPTIONS_MAX - 2

RETRY_OPTIONS: dict[int, fields.Check] = {
    RetryOption.DELAY_MS: fields.uint,
    RetryOption.DUE_AT: fields.uint,
    RetryOption.EXPIRES_MS: fields.uint,
    RetryOption.EXPIRES_AT: fields.uint,
    RetryOption.QUEUE: name,
    RetryOption.PRIORITY: between(0, PRIORITY_MAX),
    RetryOption.BODY: fields.row(fields.optional(headers), codec, body),
}
REJECT_OPTIONS: dict[int, fields.Check] = {RejectOption.REQUEUE: fields.boolean}
RELEASE_OPTIONS: dict[int, fields.Check] = {ReleaseOption.CLAIMED: fields.boolean}
REVOKED_OPTIONS: dict[int, fields.Check] = {RevokedOption.EXPIRED: fields.boolean}
_OUTCOME_OPTIONS: dict[int, fields.Check] = {
    Outcome.RETRY: fields.options(RETRY_OPTIONS, bodies=(RetryOption.BODY,)),
    Outcome.REJECT: fields.options(REJECT_OPTIONS),
    Outcome.RELEASE: fields.options(RELEASE_OPTIONS),
    Outcome.REVOKED: fields.options(REVOKED_OPTIONS),
}
_no_options = fields.options({})

INFO_OPTIONS: dict[int, fields.Check] = {
    Info.NAME: name,
    Info.QUEUE: name,
    Info.ATTEMPTS: fields.uint,
    Info.RETRIES: fields.uint,
    Info.WAITING_FOR: fields.text(CODE_MAX),
    Info.DUE_IN_MS: fields.uint,
    Info.IN_STAGE_MS: fields.uint,
    Info.WORKER: name,
}


def task_row(value: Any) -> TaskRow:
    """A task row as PUBLISH brings it: just eight fields, the id in its canonical form."""
    if type(value) is not list or len(value) < 8:
        raise ValueError(f"wants a task row of 8 fields, not {fields.brief(value)}")
    if len(value) > 8:
        value = value[:8]
    id_, name_, queue, priority, options, headers_, codec_, body_ = value
    if not (type(id_) is bytes and len(id_) == 16):
        value[0] = fields.task_id(id_)
    # UTF-8 takes at most 4 bytes a character: shorter text needs no encoding to be measured.
    if type(name_) is not str or not 0 < len(name_) < 64 or "\0" in name_:
        name(name_)
    if type(queue) is not str or not 0 < len(queue) < 64 or "\0" in queue:
        name(queue)
    if type(priority) is not int or not 0 <= priority <= PRIORITY_MAX:
        raise ValueError(f"priority wants an integer from 0 to 9, not {fields.brief(priority)}")
    if options is not None:
        task_options(options)
        if len(options) > _OPTIONS_PUBLISHED_MAX:
            raise ValueError(f"wants at most {_OPTIONS_PUBLISHED_MAX} options, not {len(options)}")
    if headers_ is not None:
        headers(headers_)
    if codec_ != "json":
        codec(codec_)
    if type(body_) is not bytes or len(body_) > BODY_MAX:
        body(body_)
    row: TaskRow = value
    return row


_OUTCOMES = {outcome.value for outcome in Outcome}


def completion_row(value: Any) -> CompletionRow:
    """A completion row: just seven fields, nil where the sender left some out."""
    if type(value) is not list or len(value) < 3:
        raise ValueError(f"wants a completion row of at least 3 fields, not {fields.brief(value)}")
    if len(value) != 7:
        value = value[:7] + [None] * (7 - len(value))
    id_, lease, outcome, codec_, body_, options, publishes = value
    if not (type(id_) is bytes and len(id_) == 16):
        value[0] = fields.task_id(id_)
    if type(lease) is not int or not 0 <= lease <= UINT_MAX:
        fields.uint(lease)
    if type(outcome) is not int or outcome not in _OUTCOMES:
        raise ValueError(f"knows no outcome {fields.brief(outcome)}")
    if codec_ is not None and codec_ != "json":
        codec(codec_)
    if body_ is not None:
        body(body_)
    if options is not None:
        _OUTCOME_OPTIONS.get(outcome, _no_options)(options)
    if publishes is not None:
        value[6] = fields.list_of(task_row, ROWS_MAX)(publishes)
    row: CompletionRow = value
    return row


def delivery_row(value: Any) -> DeliveryRow:
    """A delivery row: thirteen fields, `inputs` nil where it was left out."""
    if _is_usual_delivery(value):
        value.append(None)
    else:
        value = _delivery(value)
    row: DeliveryRow = value
    return row


def _is_usual_delivery(value: Any) -> bool:
    """Whether a value is a valid delivery of twelve fields without options, headers or rare forms.

    Measured: 0.5 us a row, against 3.1 us through `_delivery`; a worker reads one for every task.
    """
    if type(value) is not list or len(value) != 12:
        return False
    id_, lease, redelivered, attempts, retries, name_, queue, priority, options, headers_, codec_, body_ = (
        value
    )
    return (
        options is None
        and headers_ is None
        and codec_ == "json"
        and type(id_) is bytes
        and len(id_) == 16
        and type(lease) is type(attempts) is type(retries) is type(priority) is int
        and 0 <= lease <= UINT_MAX
        and 0 <= attempts <= UINT_MAX
        and 0 <= retries <= UINT_MAX
        and 0 <= priority <= PRIORITY_MAX
        and type(redelivered) is bool
        and type(name_) is type(queue) is str
        and 0 < len(name_) < 64
        and 0 < len(queue) < 64
        and "\0" not in name_
        and "\0" not in queue
        and type(body_) is bytes
        and len(body_) <= BODY_MAX
    )


_delivery = fields.row(
    fields.task_id,
    fields.uint,
    fields.boolean,
    fields.uint,
    fields.uint,
    name,
    name,
    between(0, PRIORITY_MAX),
    fields.optional(task_options),
    fields.optional(headers),
    codec,
    body,
    fields.optional(fields.list_of(fields.row(codec, body), INPUTS_MAX)),
    required=12,
)

status_row = fields.row(
    fields.task_id,
    between(0, max(Stage)),
    fields.optional(codec),
    fields.optional(body),
    fields.optional(fields.options(INFO_OPTIONS)),
    required=2,
)
exception_row = fields.row(fields.uint, fields.text(CODE_MAX), fields.text(MESSAGE_MAX))
verdict_row = fields.row(fields.uint, between(min(Verdict), max(Verdict)))
started_row = fields.row(fields.task_id, fields.uint, fields.optional(fields.boolean), required=2)
inventory_row = fields.row(fields.task_id, fields.uint, between(0, 1))
resume_row = fields.row(fields.exactly(16), fields.exactly(32))
signal = between(1, SIGNAL_MAX)
cancel_row = fields.row(fields.task_id, fields.uint, fields.optional(signal), required=2)

#: What a row weighs besides its body, headers and options: two names, a codec, an id, numbers.
_ROW_OVERHEAD = 2 * NAME_MAX + CODEC_MAX + ID_MAX + 82


def weight(body_: bytes | None, headers_: bytes | None, options: dict[int, Any] | None) -> int:
    """An upper bound, in bytes, of a task, delivery or completion row with these parts."""
    size = _ROW_OVERHEAD
    if body_ is not None:
        size += len(body_)
    if headers_ is not None:
        size += len(headers_)
    if options:
        size += len(pack(options))
    return size


def batches(rows: list[list[Any]], weights: list[int]) -> Iterator[list[list[Any]]]:
    """Splits rows so that each part fits a frame: up to 256 KiB, or one row larger than that."""
    start = 0
    total = 0
    for index, size in enumerate(weights):
        if index > start and (total + size > FRAME_BATCH or index - start >= ROWS_MAX):
            yield rows[start:index]
            start, total = index, 0
        total += size
    if start < len(rows):
        yield rows[start:] if start else rows


__all__ = [
    "CompletionRow",
    "DeliveryRow",
    "StatusRow",
    "TaskRow",
    "batches",
    "completion_row",
    "delivery_row",
    "status_row",
    "task_row",
    "weight",
]
