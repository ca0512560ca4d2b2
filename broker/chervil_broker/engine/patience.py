"""Tasks whose name no consumer of their queue knows: when they have waited long enough for one."""

from heapq import heapify, heappop, heappush

from chervil_broker.engine.queues import Queue, TaskClass

#: Timers of forgotten classes that are not worth a rebuild.
_FEW = 64


class Patience:
    """When to look at tasks whose names no consumer of their queues knows: how long they wait for one."""

    __slots__ = ("_classes", "_number", "_timers", "patience")

    def __init__(self, patience: int) -> None:
        #: In nanoseconds.
        self.patience = patience
        #: (deadline, timer) as a heap, and what each timer is for. Those of classes that are forgotten stay
        #: up to half, but they hold none: names come from outside.
        self._timers: list[tuple[int, int]] = []
        self._classes: dict[int, tuple[Queue, TaskClass]] = {}
        self._number = 0

    def __len__(self) -> int:
        """Timers held, those of forgotten classes included."""
        return len(self._timers)

    def watch(self, queue: Queue, class_: TaskClass) -> None:
        """Sets the time for a class that has waiting tasks, unless it is set."""
        deadline = self.ends(class_)
        if deadline is not None and not class_.parking_timer:
            self._number += 1
            class_.parking_timer = self._number
            self._classes[self._number] = queue, class_
            heappush(self._timers, (deadline, self._number))

    def forget(self, class_: TaskClass) -> None:
        """A class has no tasks, or somebody knows it: there is nothing to look at."""
        if not class_.parking_timer:
            return
        del self._classes[class_.parking_timer]
        class_.parking_timer = 0
        if len(self._timers) > 2 * len(self._classes) + _FEW:
            self._timers = [entry for entry in self._timers if entry[1] in self._classes]
            heapify(self._timers)

    def next(self) -> int | None:
        """The next of these times."""
        timers = self._timers
        while timers and timers[0][1] not in self._classes:
            heappop(timers)
        return timers[0][0] if timers else None

    def pop(self, now: int) -> tuple[Queue, TaskClass] | None:
        """A class whose time has come, or None."""
        deadline = self.next()
        if deadline is None or deadline > now:
            return None
        _, timer = heappop(self._timers)
        queue, class_ = self._classes.pop(timer)
        class_.parking_timer = 0
        return queue, class_

    def ends(self, class_: TaskClass) -> int | None:
        """When the first task of a class has waited long enough; None: it need not wait."""
        first = class_.first()
        if first is None or class_.unknown_since is None:
            return None
        return max(first.since, class_.unknown_since) + self.patience
