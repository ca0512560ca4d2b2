"""Where the engine's records go before its answers may leave.

A store takes a batch of records and says when they are durable. Replies wait for that at the gate
(gate.py). This release has one store, which keeps nothing.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol


class Store(Protocol):
    """Takes batches in order; each gets the next sequence number, from 1."""

    #: What WELCOME and stats call it: `memory`, `always`, `interval` or `off`.
    durability: str
    #: Called in the loop with the highest durable sequence, whenever that has grown.
    on_durable: Callable[[int], None]

    def append(self, records: Sequence[tuple[Any, ...]]) -> int:
        """Takes one batch and returns its sequence; `on_durable` follows, perhaps before the return."""
        ...


class MemoryStore:
    """Keeps nothing: a batch counts as durable at once, and is gone with the process."""

    durability = "memory"

    def __init__(self) -> None:
        self.on_durable: Callable[[int], None] = _nobody
        self._sequence = 0

    def append(self, records: Sequence[tuple[Any, ...]]) -> int:
        del records
        self._sequence += 1
        self.on_durable(self._sequence)
        return self._sequence


def _nobody(sequence: int) -> None:
    """Stands in until a gate listens."""
