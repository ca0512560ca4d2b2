"""Tasks whose name no consumer of their queue knows: when they have waited long enough for one."""

from heapq import heappop, heappush

from chervil_broker.engine.queues import Queue, TaskClass


class Patience:
    """When to look at tasks whose names no consumer of their queues knows: how long they wait for one."""

    __slots__ = ("_number", "_timers", "patience")

    def __init__(self, patience: int) -> None:
        #: In nanoseconds.
        self.patience = patience
        self._timers: list[tuple[int, int, Queue, TaskClass]] = []
        self._number = 0

    def watch(self, queue: Queue, class_: TaskClass) -> None:
        """Sets the time for a class that has waiting tasks, unless it is set."""
        deadline = self.ends(class_)
        if deadline is not None and not class_.parking_timer:
            class_.parking_timer = True
            self._number += 1
            heappush(self._timers, (deadline, self._number, queue, class_))

    def next(self) -> int | None:
        """The next of these times."""
        return self._timers[0][0] if self._timers else None

    def pop(self, now: int) -> tuple[Queue, TaskClass] | None:
        """A class whose time has come, or None."""
        if not self._timers or self._timers[0][0] > now:
            return None
        _, _, queue, class_ = heappop(self._timers)
        class_.parking_timer = False
        return queue, class_

    def ends(self, class_: TaskClass) -> int | None:
        """When the first task of a class has waited long enough; None: it need not wait."""
        first = class_.first()
        if first is None or class_.unknown_since is None:
            return None
        return max(first.since, class_.unknown_since) + self.patience
