"""Errors of the wire, and their codes (protocol.md, section 6).

    ProtocolError            the rules were broken; has a stable `code`
      LocalProtocolError     by us: a bug in this program, nothing was sent
      RemoteProtocolError    by the peer: tell it the code and close

`RequestRefused` is no breach: the peer understood a request and said no to it.
"""

from enum import StrEnum


class Code(StrEnum):
    """Stable error codes; the text is what travels."""

    AUTH_REQUIRED = "AUTH_REQUIRED"
    AUTH_FAILED = "AUTH_FAILED"
    VERSION_UNSUPPORTED = "VERSION_UNSUPPORTED"
    BAD_FRAME = "BAD_FRAME"
    BAD_STATE = "BAD_STATE"
    BAD_FIELD = "BAD_FIELD"
    UNKNOWN_COMMAND = "UNKNOWN_COMMAND"
    UNKNOWN_OPTION = "UNKNOWN_OPTION"
    SLOW = "SLOW"
    TOO_MANY = "TOO_MANY"
    SHUTDOWN = "SHUTDOWN"
    FORBIDDEN = "FORBIDDEN"
    NOT_IMPLEMENTED = "NOT_IMPLEMENTED"
    DUPLICATE = "DUPLICATE"
    FULL = "FULL"
    BODY_TOO_LARGE = "BODY_TOO_LARGE"
    BAD_TASK = "BAD_TASK"


#: Codes that refuse one request or one row and leave the connection alone.
NOT_FATAL = frozenset(
    {
        Code.FORBIDDEN,
        Code.NOT_IMPLEMENTED,
        Code.DUPLICATE,
        Code.FULL,
        Code.BODY_TOO_LARGE,
        Code.BAD_TASK,
    }
)


class ProtocolError(Exception):
    """The rules of protocol.md were broken.

    `code` is a `Code`, `message` says what was wrong and with what.
    """

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


class LocalProtocolError(ProtocolError):
    """This program tried to send what it may not; nothing was sent."""


class RemoteProtocolError(ProtocolError):
    """The peer sent what it may not; the connection is of no further use."""


class RequestRefused(Exception):
    """The peer refused a request (an ERROR that names it, or one that ended the connection)."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
