"""Where the engines' records go before their answers may leave.

A store takes a batch of records and says when they are durable. Replies wait for that at the gate
(gate.py). One keeps nothing; the other is the journal (journal/store.py).
"""

from collections.abc import Callable
from typing import Any, Protocol


class Store(Protocol):
    """Takes batches in order; each gets the next number, from 1."""

    #: What WELCOME and stats call it: `memory`, `always`, `interval` or `off`.
    durability: str
    #: Whether records are to be made for it at all.
    keeps: bool
    #: Called in the loop with the number of the newest batch that is durable, whenever that has grown.
    on_durable: Callable[[int], None]

    @property
    def segment(self) -> int:
        """The number of the newest segment; a batch comes into this one or a later one."""
        ...

    def append(self, records: list[bytes]) -> int:
        """Takes one batch of records and returns its number; `on_durable` follows. The list is taken over."""
        ...

    def give_up(self, error: Exception) -> None:
        """What the engines hold is not what was appended: nothing is durable from now on."""
        ...

    def stats(self) -> dict[str, Any]:
        """What STATS tells of it."""
        ...


class MemoryStore:
    """Keeps nothing: what the engines decide is gone with the process."""

    durability = "memory"
    keeps = False
    segment = 0

    def __init__(self) -> None:
        self.on_durable: Callable[[int], None] = nobody

    def append(self, records: list[bytes]) -> int:
        raise AssertionError(f"{len(records)} records for a store that keeps nothing")

    def give_up(self, error: Exception) -> None:
        raise AssertionError("nothing is kept that the engines could differ from") from error

    def stats(self) -> dict[str, Any]:
        return {}


def nobody(number: int) -> None:
    """Stands in until a gate listens."""
