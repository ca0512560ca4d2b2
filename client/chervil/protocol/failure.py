"""The failure record: what a result with the codec `failure` holds (protocol.md, section 5)."""

from typing import NamedTuple

from chervil.protocol import fields, rows
from chervil.protocol.frames import pack, unpack
from chervil.protocol.ids import WireId

#: The codec name under which a failure record travels.
FAILURE_CODEC = "failure"

MESSAGE_MAX = 65_536
TRACEBACK_MAX = 262_144
ARGS_MAX = 65_536


class FailureRecord(NamedTuple):
    """Why a task did not succeed, readable in any language; `args` is an encoded list."""

    kind: str
    type: str
    message: str | None
    traceback: str | None
    task_id: WireId
    task_name: str
    args_codec: str | None = None
    args: bytes | None = None

    def pack(self) -> bytes:
        """The record as the body of a result."""
        return pack(tuple(self), unicode_errors="replace")


_check = fields.row(
    fields.text(32),
    rows.name,
    fields.optional(fields.text(MESSAGE_MAX)),
    fields.optional(fields.text(TRACEBACK_MAX)),
    fields.task_id,
    rows.name,
    fields.optional(rows.codec),
    fields.optional(fields.binary(ARGS_MAX)),
    required=6,
)


def unpack_failure(body: bytes) -> FailureRecord:
    """The record in a result's body; raises ValueError when it is none."""
    return FailureRecord(*_check(unpack(body)))
