"""Bodies and results in memory, by handle: the engine holds handles and sizes, never bytes."""

from collections.abc import Iterable
from typing import NamedTuple


class TaskBody(NamedTuple):
    """What DELIVER repeats of a task row without looking into it."""

    headers: bytes | None
    codec: str
    body: bytes


class ResultBody(NamedTuple):
    """A result, a failure record (codec `failure`), or a reason in plain UTF-8 (codec None)."""

    codec: str | None
    body: bytes


class Bodies:
    """Handle -> body. A handle is used once; the engine says when it is free.

    Plain bytes stand for a task's body in JSON without headers, which nearly all are: 80 bytes less each.
    """

    __slots__ = ("_held", "_next")

    def __init__(self) -> None:
        self._held: dict[int, bytes | TaskBody | ResultBody] = {}
        self._next = 1

    @property
    def next(self) -> int:
        """The handle of the next body: those of all that are held are lower."""
        return self._next

    def put_task(self, headers: bytes | None, codec: str, body: bytes) -> int:
        """Keeps a task's body; returns its handle."""
        handle = self._next
        self._next = handle + 1
        plain = headers is None and codec == "json"
        self._held[handle] = body if plain else TaskBody(headers, codec, body)
        return handle

    def put_result(self, codec: str | None, body: bytes) -> int:
        """Keeps a result; returns its handle."""
        handle = self._next
        self._next = handle + 1
        self._held[handle] = ResultBody(codec, body)
        return handle

    def task(self, handle: int) -> tuple[bytes | None, str, bytes]:
        """(headers, codec, body) of a task; KeyError for a handle that is free, TypeError for a result's."""
        held = self._held[handle]
        if type(held) is bytes:
            return None, "json", held
        if type(held) is not TaskBody:
            raise TypeError(f"handle {handle} is a result's")
        return held

    def result(self, handle: int) -> ResultBody:
        """A result; raises KeyError for a handle that is free, TypeError for a task's."""
        held = self._held[handle]
        if type(held) is not ResultBody:
            raise TypeError(f"handle {handle} is a task's")
        return held

    def free(self, handles: Iterable[int]) -> None:
        held = self._held
        for handle in handles:
            del held[handle]

    def __len__(self) -> int:
        return len(self._held)
