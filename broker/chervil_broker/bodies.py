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
    """Handle -> body. A handle is used once; the engine says when it is free."""

    __slots__ = ("_held", "_next")

    def __init__(self) -> None:
        self._held: dict[int, TaskBody | ResultBody] = {}
        self._next = 1

    def put(self, body: TaskBody | ResultBody) -> int:
        handle = self._next
        self._next = handle + 1
        self._held[handle] = body
        return handle

    def task(self, handle: int) -> TaskBody:
        """The body of a task; raises KeyError for a handle that is free, TypeError for a result's."""
        held = self._held[handle]
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
