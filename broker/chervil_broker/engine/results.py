"""Finished tasks: how long they are kept, and which go first when their budget is spent."""

from collections import deque
from heapq import heappop, heappush

from chervil_broker.engine.task import NO_HANDLE, TASK_OVERHEAD, Task

#: Records are dropped in whole seconds, this many a pump at most: nobody waits for it.
SWEEP_MAX = 2_000
_SECOND = 1_000_000_000
#: Tombstones that are not worth a rebuild.
_FEW = 64


class Shelf:
    """Tasks with a result, oldest first; those that left it otherwise stay as tombstones up to half."""

    __slots__ = ("_dead", "_read", "_tasks")

    def __init__(self, read: bool) -> None:
        #: What `Task.read` says of the tasks that are here.
        self._read = read
        self._tasks: deque[Task] = deque()
        self._dead = 0

    def __len__(self) -> int:
        return len(self._tasks)

    def add(self, task: Task) -> None:
        self._tasks.append(task)

    def oldest(self) -> Task | None:
        """Removes and returns the oldest."""
        while self._tasks:
            task = self._tasks.popleft()
            if self._holds(task):
                return task
            self._dead -= 1
        return None

    def left(self) -> None:
        """One of the tasks has just been read, evicted or dropped."""
        self._dead += 1
        if self._dead > _FEW and self._dead * 2 > len(self._tasks):
            self._tasks = deque(task for task in self._tasks if self._holds(task))
            self._dead = 0

    def _holds(self, task: Task) -> bool:
        return task.read == self._read and task.result != NO_HANDLE


class Results:
    """Every final task that is still known. `freed` is where handles go that are needed no more."""

    __slots__ = ("_buckets", "_read", "_seconds", "_unread", "bytes", "count", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        #: What the records weigh, results included.
        self.bytes = 0
        self.count = 0
        #: Tasks by the second of broker time in which they are to be dropped, and those seconds as a heap.
        self._buckets: dict[int, deque[Task]] = {}
        self._seconds: list[int] = []
        self._read = Shelf(read=True)
        self._unread = Shelf(read=False)

    def keep(self, task: Task, until: int) -> None:
        """Keeps a task that has just become final until broker time `until`, a second more or less."""
        second = until // _SECOND + 1
        bucket = self._buckets.get(second)
        if bucket is None:
            bucket = self._buckets[second] = deque()
            heappush(self._seconds, second)
        bucket.append(task)
        self.count += 1
        self.bytes += TASK_OVERHEAD + task.result_size
        if task.result != NO_HANDLE:
            self._unread.add(task)

    def mark_read(self, task: Task) -> None:
        """Somebody was given the result: it may go before those that nobody has seen."""
        if not task.read and task.result != NO_HANDLE:
            task.read = True
            self._unread.left()
            self._read.add(task)

    def trim(self, freed: list[int]) -> tuple[list[Task], list[Task]]:
        """Makes room if the budget is overspent; returns tasks (whose result went, whose record went).

        Results that were read go first, then the others, oldest first. Where bare records take more than
        half of the budget the oldest records go instead: otherwise a day of tasks without a result
        would leave no room for the result of this minute.
        """
        evicted: list[Task] = []
        dropped: list[Task] = []
        while self.bytes > self.limit:
            if self.count * TASK_OVERHEAD * 2 > self.limit:
                dropped.append(self._drop_oldest(freed))
                continue
            task = self._read.oldest() or self._unread.oldest()
            assert task is not None, "without records over half of the limit, results are what is over it"
            self._free(task, freed)
            evicted.append(task)
        return evicted, dropped

    def sweep(self, now: int, freed: list[int]) -> list[Task]:
        """Drops records whose time has come, at most SWEEP_MAX; returns them."""
        dropped: list[Task] = []
        while len(dropped) < SWEEP_MAX and self._seconds and self._seconds[0] * _SECOND <= now:
            dropped.append(self._drop_oldest(freed))
        return dropped

    def next(self) -> int | None:
        """Broker time of the next sweep."""
        return self._seconds[0] * _SECOND if self._seconds else None

    def _drop_oldest(self, freed: list[int]) -> Task:
        """Drops the record that is to go soonest. The caller still knows its stage as it was."""
        second = self._seconds[0]
        bucket = self._buckets[second]
        task = bucket.popleft()
        if not bucket:
            heappop(self._seconds)
            del self._buckets[second]
        if task.result != NO_HANDLE:
            self._free(task, freed)
            (self._read if task.read else self._unread).left()
        self.count -= 1
        self.bytes -= TASK_OVERHEAD
        return task

    def _free(self, task: Task, freed: list[int]) -> None:
        freed.append(task.result)
        self.bytes -= task.result_size
        task.result = NO_HANDLE
        task.result_size = 0
