"""Finished tasks: how long they are kept, and which go first when their budget is spent."""

from collections import deque
from collections.abc import Callable
from heapq import heappop, heappush

from chervil_broker.engine.task import NO_HANDLE, NOT_KEPT, Task

#: Records are dropped in whole seconds, this many a pump at most: nobody waits for it.
SWEEP_MAX = 2_000
_SECOND = 1_000_000_000
#: Tombstones that are not worth a rebuild.
_FEW = 64


class Shelf:
    """Tasks in the order in which they came; those that left from the middle stay as tombstones up to half.

    A task that left and came again may stand here twice, and counts at its earlier place.
    """

    __slots__ = ("_dead", "_holds", "_tasks", "add")

    def __init__(self, holds: Callable[[Task], bool]) -> None:
        #: Tells a task from a tombstone.
        self._holds = holds
        self._tasks: deque[Task] = deque()
        self._dead = 0
        #: Puts a task at the end.
        self.add = self._tasks.append

    def __len__(self) -> int:
        """Entries, tombstones included."""
        return len(self._tasks)

    @property
    def empty(self) -> bool:
        """Whether there are only tombstones."""
        return self._dead == len(self._tasks)

    def oldest(self) -> Task | None:
        """Removes and returns the oldest."""
        while self._tasks:
            task = self._tasks.popleft()
            if self._holds(task):
                return task
            self._dead -= 1
        return None

    def left(self) -> None:
        """One of the tasks has just left."""
        self._dead += 1
        if self._dead > _FEW and self._dead * 2 > len(self._tasks):
            held = {task.id: task for task in self._tasks if self._holds(task)}
            self._tasks.clear()
            self._tasks.extend(held.values())
            self._dead = 0


class Results:
    """Every final task that is still known, but dead letters. `freed` takes handles that are free now."""

    __slots__ = ("_add", "_bare", "_buckets", "_newest", "_read", "_seconds", "_unread", "bytes", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        #: What the records weigh, with results and bodies and without.
        self.bytes = 0
        self._bare = 0
        #: Tasks by the second of broker time in which they are to be dropped, and those seconds as a heap.
        self._buckets: dict[int, Shelf] = {}
        self._seconds: list[int] = []
        #: The second whose bucket `_add` puts a task into: nearly every task comes into that of the last.
        self._newest = NOT_KEPT
        self._add: Callable[[Task], None]
        #: Tasks with a result or a body, which may go for room.
        self._read = Shelf(lambda task: task.kept != NOT_KEPT and task.read and has_content(task))
        self._unread = Shelf(lambda task: task.kept != NOT_KEPT and not task.read and has_content(task))

    def keep(self, task: Task, until: int) -> None:
        """Keeps a task that has just become final until broker time `until`, a second more or less."""
        second = until // _SECOND + 1
        if second != self._newest:
            self._choose(second)
        self._add(task)
        task.kept = second
        bare = task.overhead
        content = task.size + task.result_size
        if task.unusual is not None or task.ending is not None:
            bare = task.weight() - content
        self._bare += bare
        self.bytes += bare + content
        if task.result != NO_HANDLE or task.handle != NO_HANDLE:
            self._unread.add(task)

    def restore(self, task: Task) -> None:
        """Keeps a final task again until the second that it says; those that came first are first."""
        self.keep(task, (task.kept - 1) * _SECOND)

    def _choose(self, second: int) -> None:
        """Has the tasks that come go into the bucket of a second, which is made on first use."""
        bucket = self._buckets.get(second)
        if bucket is None:
            bucket = self._buckets[second] = Shelf(lambda task: task.kept == second)
            heappush(self._seconds, second)
        self._newest = second
        self._add = bucket.add

    def remove(self, task: Task) -> None:
        """Lets a task go with what it has: it is to run again, or to be forgotten."""
        bucket = self._buckets[task.kept]
        self._let_go(task)
        task.read = False
        bucket.left()

    def mark_read(self, task: Task) -> None:
        """Somebody was given the result: it may go before those that nobody has seen."""
        if task.kept != NOT_KEPT and not task.read and has_content(task):
            task.read = True
            self._unread.left()
            self._read.add(task)

    def trim(self, freed: list[int]) -> tuple[list[Task], list[Task]]:
        """Makes room if the budget is overspent; returns tasks (whose result went, whose record went).

        Results that were read go first, then the others, oldest first, each with its body. Where bare
        records take more than half of the budget the oldest records go instead: otherwise a day of tasks
        without a result would leave no room for the result of this minute.
        """
        evicted: list[Task] = []
        dropped: list[Task] = []
        while self.bytes > self.limit:
            if self._bare * 2 > self.limit:
                dropped.append(self._drop_oldest(freed))
                continue
            task = self._read.oldest() or self._unread.oldest()
            assert task is not None, "without records over half of the limit, results are what is over it"
            self.bytes -= task.size + task.result_size
            empty(task, freed)
            evicted.append(task)
        return evicted, dropped

    def sweep(self, now: int, freed: list[int]) -> list[Task]:
        """Drops records whose time has come, at most SWEEP_MAX; returns them."""
        dropped: list[Task] = []
        while len(dropped) < SWEEP_MAX and (second := self.next()) is not None and second <= now:
            dropped.append(self._drop_oldest(freed))
        return dropped

    def next(self) -> int | None:
        """Broker time of the next sweep."""
        seconds = self._seconds
        while seconds and self._buckets[seconds[0]].empty:
            second = heappop(seconds)
            del self._buckets[second]
            if second == self._newest:
                self._newest = NOT_KEPT
        return seconds[0] * _SECOND if seconds else None

    def _drop_oldest(self, freed: list[int]) -> Task:
        """Drops the record that is to go soonest. The caller still knows its stage as it was."""
        self.next()
        task = self._buckets[self._seconds[0]].oldest()
        assert task is not None, "a bucket without tasks is not the next one"
        self._let_go(task)
        empty(task, freed)
        return task

    def _let_go(self, task: Task) -> None:
        weight = task.weight()
        self.bytes -= weight
        self._bare -= weight - task.size - task.result_size
        task.kept = NOT_KEPT
        if has_content(task):
            (self._read if task.read else self._unread).left()


def has_content(task: Task) -> bool:
    """Whether a final task has a result or a body."""
    return task.result != NO_HANDLE or task.handle != NO_HANDLE


def empty(task: Task, freed: list[int]) -> None:
    """Frees what a final task has of a result and a body."""
    if task.result != NO_HANDLE:
        freed.append(task.result)
    if task.handle != NO_HANDLE:
        freed.append(task.handle)
    task.result = task.handle = NO_HANDLE
    task.result_size = task.size = 0
    task.shed_options()
