"""When each vhost's engine is to run next by itself, on both clocks.

A run of the pump touches only the vhosts that it ran: those that are idle cost it nothing, however many
there are.
"""

from heapq import heapify, heappop, heappush

#: Dead entries that are not worth a rebuild.
_FEW = 64


class Alarms:
    """The next alarms of each vhost, by its name: one of broker time, one of the wall clock; in ns."""

    def __init__(self) -> None:
        self._broker = _Clock()
        self._wall = _Clock()

    def arm(self, name: str, due: int | None, wall_due: int | None) -> None:
        """Replaces a vhost's alarms; None: it has none on that clock."""
        self._broker.arm(name, due)
        self._wall.arm(name, wall_due)

    def take(self, now: int, wall: int) -> set[str]:
        """The vhosts whose time has come, by either clock; they have no such alarm any more."""
        return self._broker.take(now) | self._wall.take(wall)

    def wait(self, now: int, wall: int) -> int | None:
        """Nanoseconds until the next alarm, negative where it has gone by; None without one."""
        waits = [
            next_ - time
            for next_, time in ((self._broker.next(), now), (self._wall.next(), wall))
            if next_ is not None
        ]
        return min(waits, default=None)


class _Clock:
    """A heap of (time, name). An entry that is no longer its vhost's time is dead until it surfaces."""

    __slots__ = ("_heap", "_times")

    def __init__(self) -> None:
        self._heap: list[tuple[int, str]] = []
        self._times: dict[str, int] = {}

    def arm(self, name: str, time: int | None) -> None:
        if time == self._times.get(name):
            return
        if time is None:
            del self._times[name]
            return
        self._times[name] = time
        heappush(self._heap, (time, name))
        if len(self._heap) > 2 * len(self._times) + _FEW:
            self._heap = [(live, whose) for whose, live in self._times.items()]
            heapify(self._heap)

    def next(self) -> int | None:
        heap, times = self._heap, self._times
        while heap and times.get(heap[0][1]) != heap[0][0]:
            heappop(heap)
        return heap[0][0] if heap else None

    def take(self, time: int) -> set[str]:
        names = set()
        while (due := self.next()) is not None and due <= time:
            _, name = heappop(self._heap)
            del self._times[name]
            names.add(name)
        return names
