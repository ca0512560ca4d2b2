"""The dead letters themselves: what is parked, in which order, and how much it weighs."""

from bisect import bisect_right
from collections.abc import Iterator

from chervil_broker.engine.task import Task

#: Tombstones that are not worth a rebuild.
_FEW = 64


class Parked:
    """The dead letters, oldest first, each under its number (`Task.sequence`)."""

    __slots__ = ("_numbers", "_tasks", "bytes", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        #: What they weigh: a part of the memory that tasks take.
        self.bytes = 0
        self._tasks: dict[int, Task] = {}
        #: Their numbers, rising; those of tasks that left stay up to half.
        self._numbers: list[int] = []

    def __len__(self) -> int:
        return len(self._tasks)

    def add(self, task: Task, number: int) -> None:
        task.sequence = number
        self._tasks[number] = task
        self._numbers.append(number)
        self.bytes += task.weight()

    def remove(self, task: Task) -> None:
        """Lets a dead letter go with what it has."""
        self.bytes -= task.weight()
        del self._tasks[task.sequence]
        if len(self._numbers) > 2 * len(self._tasks) + _FEW:
            self._numbers = list(self._tasks)

    def over(self) -> list[Task]:
        """The oldest ones, as many as are over the limit; they stay until they are removed."""
        over = self.bytes - self.limit
        tasks = []
        for task in self._after(0) if over > 0 else ():
            if over <= 0:
                break
            tasks.append(task)
            over -= task.weight()
        return tasks

    def page(self, after: int, limit: int) -> list[Task]:
        """Up to `limit` dead letters whose numbers are above `after`."""
        page: list[Task] = []
        for task in self._after(after):
            if len(page) == limit:
                break
            page.append(task)
        return page

    def _after(self, number: int) -> Iterator[Task]:
        for index in range(bisect_right(self._numbers, number), len(self._numbers)):
            task = self._tasks.get(self._numbers[index])
            if task is not None:
                yield task
