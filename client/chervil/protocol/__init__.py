"""The wire, without I/O: protocol.md as code, shared by client, worker and broker."""

from chervil.protocol.connection import TRANSITIONS, Connection, State
from chervil.protocol.errors import (
    Code,
    LocalProtocolError,
    ProtocolError,
    RemoteProtocolError,
    RequestRefused,
)
from chervil.protocol.failure import FAILURE_CODEC, FailureRecord, unpack_failure
from chervil.protocol.ids import WireId, to_text, to_wire
from chervil.protocol.messages import COMMANDS, VERSION, Message
from chervil.protocol.vocabulary import (
    FINAL,
    HelloOption,
    Info,
    Outcome,
    RejectOption,
    ReleaseOption,
    RetryOption,
    RevokedOption,
    Role,
    Side,
    Stage,
    SubscribeOption,
    TaskOption,
    Verdict,
    WelcomeOption,
)

__all__ = [
    "COMMANDS",
    "FAILURE_CODEC",
    "FINAL",
    "TRANSITIONS",
    "VERSION",
    "Code",
    "Connection",
    "FailureRecord",
    "HelloOption",
    "Info",
    "LocalProtocolError",
    "Message",
    "Outcome",
    "ProtocolError",
    "RejectOption",
    "ReleaseOption",
    "RemoteProtocolError",
    "RequestRefused",
    "RetryOption",
    "RevokedOption",
    "Role",
    "Side",
    "Stage",
    "State",
    "SubscribeOption",
    "TaskOption",
    "Verdict",
    "WelcomeOption",
    "WireId",
    "to_text",
    "to_wire",
    "unpack_failure",
]
