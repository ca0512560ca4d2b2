"""Exceptions to failure records and back (protocol.md, section 5).

Nothing is imported because a record names it: a class is rebuilt only when this process already has it.
"""

import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from chervil.exceptions import (
    DecodeError,
    RemoteError,
    TaskRevokedError,
    TimeLimitExceeded,
    WorkerLostError,
)
from chervil.protocol.failure import ARGS_MAX, MESSAGE_MAX, TRACEBACK_MAX, FailureRecord
from chervil.protocol.ids import to_wire
from chervil.protocol.limits import NAME_MAX
from chervil.serialization import decode, encode

#: The serializer of an exception's arguments; every client has it.
_ARGS_CODEC = "json"

#: What the system says of a task, whatever class the writer of the record, in its language, calls it.
_CLASS_OF_KIND: dict[str, type[Exception]] = {
    "expired": TaskRevokedError,
    "lost": WorkerLostError,
    "revoked": TaskRevokedError,
    "time_limit": TimeLimitExceeded,
}


def failure_body(
    exc: BaseException, task_id: str, task_name: str, kind: str = "exception", traceback: str | None = None
) -> bytes:
    """The packed failure record of an exception: a result's body for the codec `failure`.

    `kind` is one of protocol.md's; `traceback` is text. Everything is cut to its limit (a traceback keeps
    its end), NULs are replaced, arguments that JSON cannot hold or that are too large are left out. Never
    raises because of the exception: one whose `str()` fails is named by its class.
    """
    cls = type(exc)
    try:
        message = str(exc)
    except BaseException as error:  # user code, which may even exit
        message = f"<str() of the exception raised {type(error).__name__}>"
    try:
        args: bytes | None = encode(_ARGS_CODEC, list(exc.args))
    except BaseException:  # user code again: a container or number of a class of its own
        args = None
    if args is not None and len(args) > ARGS_MAX:
        args = None
    return FailureRecord(
        kind,
        _head(f"{cls.__module__}.{cls.__qualname__}", NAME_MAX),
        _head(message, MESSAGE_MAX) or None,
        (_tail(traceback, TRACEBACK_MAX) or None) if traceback else None,
        to_wire(task_id),
        _head(task_name, NAME_MAX),
        None if args is None else _ARGS_CODEC,
        args,
    ).pack()


def exception_from(record: FailureRecord) -> Exception:
    """The exception that a record tells of, ready to be raised.

    Its class is the one the record names when this process has it (in `sys.modules`, and a subclass of
    Exception: a task's SystemExit must not end its caller), otherwise RemoteError. The remote traceback is
    its attribute `remote_traceback` (text or None) and one of its notes, so it is printed with it.
    """
    args = _args_of(record)
    cls = _CLASS_OF_KIND.get(record.kind) or _class_named(record.type)
    exc = _rebuild(cls, args) if cls is not None else None
    if exc is None:
        exc = RemoteError(record.type, record.message or "", args)
    exc.remote_traceback = record.traceback  # type: ignore[attr-defined]
    if record.traceback:
        exc.add_note(f"\nRemote traceback of {record.task_name}:\n{record.traceback.rstrip()}")
    return exc


def _args_of(record: FailureRecord) -> Sequence[Any]:
    if record.args is not None and record.args_codec is not None:
        try:
            args = decode(record.args_codec, record.args)
        except DecodeError:
            args = None
        if isinstance(args, list):
            return args
    return [] if record.message is None else [record.message]


def _rebuild(cls: type[Exception], args: Sequence[Any]) -> Exception | None:
    """An instance of `cls`; one whose constructor wants something else gets its arguments without it."""
    for make in (cls, cls.__new__):
        try:
            exc = make(*args) if make is cls else make(cls, *args)
            exc.args = tuple(args)
            str(exc)
        except Exception:  # noqa: S112  # user code: what it raises says only that this way does not work
            continue
        if type(exc) is cls:
            return exc
    return None


def _class_named(name: str) -> type[Exception] | None:
    """The exception class of a qualified name, among the modules that are already imported."""
    parts = name.split(".")
    for split in range(len(parts) - 1, 0, -1):
        module = _module(".".join(parts[:split]))
        if module is None:
            continue
        # Looked up in dictionaries: getattr could run a module's __getattr__, which may import.
        found: Any = module
        for part in parts[split:]:
            found = vars(found).get(part) if isinstance(found, ModuleType | type) else None
        if isinstance(found, type) and issubclass(found, Exception):
            return found
    return None


def _module(name: str) -> ModuleType | None:
    """An imported module; a script that runs as `__main__` is also found by its file's name."""
    module = sys.modules.get(name)
    if module is None:
        main = sys.modules.get("__main__")
        file = getattr(main, "__file__", None) or ""
        if file.endswith(f"/{name}.py") or file == f"{name}.py":
            return main
    return module


def _clean(text: str) -> bytes:
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace")


def _head(text: str, limit: int) -> str:
    return _clean(text)[:limit].decode("utf-8", "ignore")


def _tail(text: str, limit: int) -> str:
    return _clean(text)[-limit:].decode("utf-8", "ignore")
