"""The broker's two clocks: broker time, which only runs forward and runs on over restarts, and the wall's."""

import time
from collections.abc import Callable

#: The longest that broker time goes forward for the time in which no broker ran, in ns. A wall clock that was
#: set wrong meanwhile must not have a year's countdowns end at once.
GAP_MAX = 24 * 3600 * 1_000_000_000


class Clock:
    """Gives both times in nanoseconds."""

    __slots__ = ("_monotonic", "_offset", "_wall")

    def __init__(
        self,
        monotonic: Callable[[], int] = time.monotonic_ns,
        wall: Callable[[], int] = time.time_ns,
    ) -> None:
        self._monotonic = monotonic
        self._wall = wall
        #: What broker time is ahead of the system's monotonic clock.
        self._offset = 0

    def go_on(self, now: int, wall: int) -> None:
        """Has broker time go on where it was at `now`, when the wall clock showed `wall`.

        The time in between counts as the wall clock tells it, between nothing and GAP_MAX.
        """
        gap = min(max(0, self._wall() - wall), GAP_MAX)
        self._offset = now + gap - self._monotonic()

    def now(self) -> int:
        """Broker time."""
        return self._monotonic() + self._offset

    def seconds(self, now: int) -> float:
        """What the system's monotonic clock shows at a broker time, in seconds."""
        return (now - self._offset) / 1e9

    def wall(self) -> int:
        """The wall clock."""
        return self._wall()
