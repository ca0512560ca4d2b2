"""Due times and expiries, on two clocks: broker time, and the wall clock for absolute times."""

from heapq import heapify, heappop, heappush

from chervil_broker.engine.task import Task, Times

#: Dead entries that are not worth a rebuild.
_FEW = 64


class TimerHeap:
    """The deadlines of one clock.

    An entry is (deadline, timer, task) and is live while the task's `times` names the timer. Cancelled
    entries stay until they surface, or until they are half of the heap.
    """

    __slots__ = ("_dead", "_heap")

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, Task]] = []
        self._dead = 0

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, deadline: int, timer: int, task: Task) -> None:
        heappush(self._heap, (deadline, timer, task))

    def cancelled(self) -> None:
        """One of the entries has just died."""
        self._dead += 1
        if self._dead > _FEW and self._dead * 2 > len(self._heap):
            self._heap = [entry for entry in self._heap if _live(entry[1], entry[2].times)]
            heapify(self._heap)
            self._dead = 0

    def next(self) -> int | None:
        """The earliest live deadline."""
        heap = self._heap
        while heap and not _live(heap[0][1], heap[0][2].times):
            heappop(heap)
            self._dead -= 1
        return heap[0][0] if heap else None

    def pop(self, time: int) -> tuple[int, Task] | None:
        """The earliest (timer, task) whose deadline has come, or None."""
        deadline = self.next()
        if deadline is None or deadline > time:
            return None
        _, timer, task = heappop(self._heap)
        return timer, task

    def held(self) -> list[Task]:
        """Tasks that wait for their due time."""
        return [
            task for _, timer, task in self._heap if task.times is not None and task.times.due_timer == timer
        ]


def _live(timer: int, times: Times | None) -> bool:
    return times is not None and timer in (times.due_timer, times.expires_timer)


class Deadlines:
    """Both clocks: who is due, who expires."""

    __slots__ = ("_broker", "_timer", "_wall")

    def __init__(self) -> None:
        self._broker = TimerHeap()
        self._wall = TimerHeap()
        self._timer = 0

    def __len__(self) -> int:
        """Entries held, cancelled ones included."""
        return len(self._broker) + len(self._wall)

    def hold(self, task: Task, due: int, wall: bool) -> None:
        """Sets the due time of a task that has none running."""
        times = _times(task)
        times.due, times.due_wall = due, wall
        times.due_timer = self._add(task, due, wall)

    def expire(self, task: Task, expires: int, wall: bool) -> None:
        """Sets the expiry of a task, in place of an earlier one."""
        times = _times(task)
        if times.expires_timer:
            times.expires_timer = 0
            self._clock(times.expires_wall).cancelled()
        times.expires, times.expires_wall = expires, wall
        times.expires_timer = self._add(task, expires, wall)

    def rearm(self, task: Task) -> None:
        """Sets the expiry timer again if it fired while the task was leased."""
        times = task.times
        if times is not None and times.expires is not None and not times.expires_timer:
            times.expires_timer = self._add(task, times.expires, times.expires_wall)

    def restore(self, task: Task, *, held: bool) -> None:
        """Sets the timers of a task that has its times and no timer; `held`: until its due time."""
        times = _times(task)
        if held:
            assert times.due is not None, "what is held is held until a time"
            times.due_timer = self._add(task, times.due, times.due_wall)
        self.rearm(task)

    def forget(self, task: Task) -> None:
        """Cancels whatever runs for a task that has become final."""
        times = task.times
        if times is None:
            return
        task.times = None
        if times.due_timer:
            self._clock(times.due_wall).cancelled()
        if times.expires_timer:
            self._clock(times.expires_wall).cancelled()

    def fire(self, now: int, wall: int, limit: int) -> tuple[list[Task], list[Task]]:
        """Up to `limit` tasks whose time has come: (due, expired)."""
        due: list[Task] = []
        expired: list[Task] = []
        for clock, time in ((self._broker, now), (self._wall, wall)):
            while len(due) + len(expired) < limit and (fired := clock.pop(time)) is not None:
                timer, task = fired
                times = _times(task)
                if timer == times.due_timer:
                    times.due_timer = 0
                    due.append(task)
                else:
                    times.expires_timer = 0
                    expired.append(task)
        return due, expired

    def next(self) -> tuple[int | None, int | None]:
        """The earliest deadlines of broker time and of the wall clock."""
        return self._broker.next(), self._wall.next()

    def held(self) -> list[Task]:
        """Tasks that wait for their due time, in no order that means anything."""
        return self._broker.held() + self._wall.held()

    def _clock(self, wall: bool) -> TimerHeap:
        return self._wall if wall else self._broker

    def _add(self, task: Task, deadline: int, wall: bool) -> int:
        self._timer += 1
        self._clock(wall).add(deadline, self._timer, task)
        return self._timer


def _times(task: Task) -> Times:
    if task.times is None:
        task.times = Times()
    return task.times
