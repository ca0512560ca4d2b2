"""The commit gate: what leaves the broker waits until what it rests on is durable."""

from collections import deque
from collections.abc import Callable


class Gate:
    """Releases held actions in order, each once the store has made its sequence durable."""

    __slots__ = ("_durable", "_held", "_shut")

    def __init__(self) -> None:
        self._durable = 0
        self._shut = False
        self._held: deque[tuple[int, Callable[[], None]]] = deque()

    def hold(self, sequence: int, release: Callable[[], None]) -> None:
        """Calls `release` as soon as `sequence` is durable: now, if it is."""
        if sequence <= self._durable and not self._held and not self._shut:
            release()
        else:
            self._held.append((sequence, release))

    def open_to(self, sequence: int) -> None:
        """The store has made everything up to `sequence` durable."""
        self._durable = sequence
        held = self._held
        while held and held[0][0] <= sequence and not self._shut:
            held.popleft()[1]()

    def shut(self) -> None:
        """Nothing is released any more: what is decided from now on rests on nothing."""
        self._shut = True

    def __len__(self) -> int:
        return len(self._held)
