"""What a task was called with: `codec`, `body` and `body_bytes` of HISTORY's report (protocol.md)."""

import json
from collections.abc import Mapping
from typing import Any

from chervil.exceptions import DecodeError
from chervil.serialization import decode


def called_with(report: Mapping[str, Any]) -> str | None:
    """The call as Python writes it, `(2, 3), x=1`, or why it cannot be shown; None where it is dropped.

    It may be as long as the body, and holds whatever its publisher put there.
    """
    size = report.get("body_bytes")
    if size is None:
        return None
    if report.get("body") is None:
        return f"{size} bytes, too long to be shown"
    try:
        args, kwargs = _arguments(report)
        return ", ".join([repr(tuple(args)), *(f"{key}={value!r}" for key, value in kwargs.items())])
    except (DecodeError, RecursionError):  # what is nested deep can be read and not be written
        return f"{size} bytes of {report.get('codec')} that cannot be read here"


def with_arguments(report: Mapping[str, Any]) -> dict[str, Any]:
    """The report with `args` and `kwargs` in place of `body`, None where they cannot be written as JSON."""
    shown = {key: value for key, value in report.items() if key != "body"}
    if "body" in report:
        shown["args"], shown["kwargs"] = None, None
        try:
            args, kwargs = _arguments(report)
            json.dumps([args, kwargs], default=str)
        except (DecodeError, RecursionError, TypeError, ValueError):
            return shown
        shown["args"], shown["kwargs"] = args, kwargs
    return shown


def _arguments(report: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    """(args, kwargs) of the body; raises DecodeError for what is none."""
    body = report.get("body")
    if not isinstance(body, bytes):
        raise DecodeError("there is no body")
    match decode(str(report.get("codec")), body):
        case [list() as args, dict() as kwargs]:
            return args, kwargs
    raise DecodeError("a body is [args, kwargs]")
