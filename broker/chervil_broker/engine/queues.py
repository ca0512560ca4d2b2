"""Ready tasks: queue -> priority -> class -> first in, first out.

A class is what is passed over as a whole: the tasks of one name. (Limits will make it name and limit
key.) A class that nobody who is asking knows costs one step, however many tasks it holds.
"""

from collections import deque
from collections.abc import Collection, Iterator
from heapq import heapify, heappop, heappush, nsmallest

from chervil_broker.engine.charges import (
    CLASS_BYTES,
    LEVEL_BYTES,
    QUEUE_BYTES,
    Charges,
    text_bytes,
)
from chervil_broker.engine.consumers import Line
from chervil_broker.engine.task import QUEUED, Task

#: Empty classes that a level keeps for the next task of that name, so that a trickle makes none anew; but
#: none once what is charged besides tasks counts.
EMPTY_CLASSES = 64
#: Tombstones, or stale heads, that are not worth a rebuild.
_FEW = 16
#: In place of a sequence number: the level does not list the class.
NOT_LISTED = -1


class TaskClass:
    """The ready tasks of one name and priority, in order of their sequence numbers.

    `ready` has those that came at the end. A task that goes back to its old place comes into the heap
    `returned`, for it may belong anywhere. Expired tasks stay as tombstones until they surface.
    """

    __slots__ = (
        "_dead",
        "head",
        "known",
        "name",
        "number",
        "parking_timer",
        "ready",
        "returned",
        "unknown_since",
    )

    def __init__(self, name: str, known: bool, number: int) -> None:
        self.name = name
        #: Unlike that of any other class of its level, past ones included.
        self.number = number
        #: Whether any consumer of the queue knows this name.
        self.known = known
        #: Broker time since which the queue has consumers and none of them knows this name; None: it has
        #: none, or one does.
        self.unknown_since: int | None = None
        #: The timer that is set to look for tasks that have waited too long for that; 0 is none. Never for
        #: a class without tasks.
        self.parking_timer = 0
        #: The sequence number under which the level lists it.
        self.head = NOT_LISTED
        self.ready: deque[Task] = deque()
        self.returned: list[tuple[int, Task]] = []
        self._dead = 0

    def first(self) -> Task | None:
        """The task whose turn it is, after clearing tombstones before it."""
        ready, returned = self.ready, self.returned
        while ready and ready[0].stage != QUEUED:
            ready.popleft()
            self._dead -= 1
        while returned and returned[0][1].stage != QUEUED:
            heappop(returned)
            self._dead -= 1
        if returned and (not ready or returned[0][0] < ready[0].sequence):
            return returned[0][1]
        return ready[0] if ready else None

    def take(self, limit: int, before: int | None, out: list[Task]) -> None:
        """Moves tasks to `out` until it holds `limit`, or one is reached that is not `before`."""
        if self.returned:
            while len(out) < limit and (task := self.first()) is not None:
                if before is not None and task.sequence > before:
                    return
                if self.returned and self.returned[0][1] is task:
                    heappop(self.returned)
                else:
                    self.ready.popleft()
                out.append(task)
            return
        ready = self.ready
        pop, append = ready.popleft, out.append
        room = limit - len(out)
        while room and ready:
            if before is not None and ready[0].sequence > before:
                return
            task = pop()
            if task.stage == QUEUED:
                append(task)
                room -= 1
            else:
                self._dead -= 1

    def empty(self) -> None:
        """All its tasks have left."""
        self.ready = deque()
        self.returned = []
        self._dead = 0

    def bury(self) -> None:
        """One of the tasks has just left otherwise; at half, the tombstones go."""
        self._dead += 1
        if self._dead > _FEW and self._dead * 2 > len(self.ready) + len(self.returned):
            self.ready = deque(task for task in self.ready if task.stage == QUEUED)
            self.returned = [entry for entry in self.returned if entry[1].stage == QUEUED]
            heapify(self.returned)
            self._dead = 0


class Level:
    """The classes of one priority, merged by the sequence numbers of their first tasks.

    `heads` holds (sequence, class's number, class); an entry counts while the class's `head` is that
    sequence. Only classes that somebody knows are listed. The class's number is there so that classes
    are never compared: one that was dropped and its successor may be listed under one sequence.
    """

    __slots__ = ("_charges", "_made", "classes", "heads")

    def __init__(self, charges: Charges) -> None:
        self._charges = charges
        charges.bytes += LEVEL_BYTES
        self.classes: dict[str, TaskClass] = {}
        self.heads: list[tuple[int, int, TaskClass]] = []
        self._made = 0

    def make(self, name: str, known: bool) -> TaskClass:
        """A new class of this level."""
        self._made += 1
        class_ = self.classes[name] = TaskClass(name, known, self._made)
        self._charges.bytes += CLASS_BYTES + text_bytes(name)
        return class_

    def emptied(self, class_: TaskClass) -> None:
        """Drops a class without tasks, unless it is kept for the next one."""
        if len(self.classes) > EMPTY_CLASSES or self._charges.counted:
            class_.head = NOT_LISTED
            del self.classes[class_.name]
            self._charges.bytes -= CLASS_BYTES + text_bytes(class_.name)

    def dissolve(self) -> None:
        """The level is over with all its classes."""
        for class_ in self.classes.values():
            # An entry of a heap may hold the class longer than we do.
            class_.empty()
            self._charges.bytes -= CLASS_BYTES + text_bytes(class_.name)
        self._charges.bytes -= LEVEL_BYTES

    def list_(self, class_: TaskClass) -> None:
        """Lists a class whose first task may have changed, if anybody knows it."""
        if not class_.known:
            return
        first = class_.first()
        if first is None or first.sequence == class_.head:
            return
        class_.head = first.sequence
        heappush(self.heads, (first.sequence, class_.number, class_))
        if len(self.heads) > 2 * len(self.classes) + _FEW:
            self.heads = [(c.head, c.number, c) for c in self.classes.values() if c.head != NOT_LISTED]
            heapify(self.heads)

    def take(self, limit: int, known: Collection[str] | None, out: list[Task]) -> None:
        """Moves tasks of `known` names to `out`, oldest first, until it holds `limit`.

        With one class listed the run has no bound, so the usual case is one loop over one deque.
        """
        passed: list[tuple[int, int, TaskClass]] = []
        while self.heads and len(out) < limit:
            sequence, number, class_ = heappop(self.heads)
            if class_.head != sequence:
                continue
            if known is not None and class_.name not in known:
                passed.append((sequence, number, class_))
                continue
            class_.head = NOT_LISTED
            first = class_.first()
            if first is not None and first.sequence == sequence:
                class_.take(limit, self.heads[0][0] if self.heads else None, out)
                first = class_.first()
            if first is not None:
                class_.head = first.sequence
                heappush(self.heads, (first.sequence, number, class_))
            else:
                self.emptied(class_)
        for entry in passed:
            heappush(self.heads, entry)

    def relist(self, class_: TaskClass, known: bool) -> None:
        """Says whether anybody knows a class, which lists it or takes it off."""
        class_.known = known
        class_.head = NOT_LISTED
        self.list_(class_)


class Queue:
    """A queue: its ready tasks, how many are elsewhere, and the lines of its consumers."""

    __slots__ = (
        "_charges",
        "consumers",
        "leased",
        "levels",
        "lines",
        "name",
        "order",
        "ready",
        "reported",
        "scheduled",
        "share",
        "turn",
        "unserved_since",
        "warned",
    )

    def __init__(self, name: str, charges: Charges) -> None:
        self._charges = charges
        charges.bytes += QUEUE_BYTES + text_bytes(name)
        self.name = name
        self.levels: dict[int, Level] = {}
        #: Levels by priority, highest first.
        self.order: list[Level] = []
        self.ready = 0
        #: Tasks of this queue in SCHEDULED or RETRY.
        self.scheduled = 0
        self.leased = 0
        #: Consumers by the task names that they know (None: all).
        self.lines: dict[frozenset[str] | None, Line] = {}
        self.consumers = 0
        #: How many tasks a consumer is given at a time in this pump: its part of those that are ready.
        self.share = 1
        #: How often a line was served, so that they are served in turn.
        self.turn = 0
        #: Broker time since which it has ready tasks and no consumer.
        self.unserved_since: int | None = None
        #: Whether that was warned of, and the unknown names that were.
        self.warned = False
        self.reported: dict[str, None] = {}

    @property
    def unused(self) -> bool:
        """Whether nothing would be lost without this queue."""
        return not (self.ready or self.consumers or self.leased or self.scheduled)

    def class_for(self, name: str, priority: int) -> TaskClass:
        """The class of a task, made on first use."""
        level = self.levels.get(priority)
        if level is None:
            level = self.levels[priority] = Level(self._charges)
            self.order = [self.levels[p] for p in sorted(self.levels, reverse=True)]
        class_ = level.classes.get(name)
        if class_ is None:
            class_ = level.make(name, self.knows(name))
            if self.lines and not class_.known:
                # Its tasks come from now on, and each is judged by its own time.
                class_.unknown_since = 0
        return class_

    def knows(self, name: str) -> bool:
        """Whether any consumer knows a task name."""
        return any(known is None or name in known for known in self.lines)

    def added(self, class_: TaskClass, priority: int, count: int) -> None:
        """`count` tasks were appended to a class."""
        self.ready += count
        if class_.head == NOT_LISTED:
            self.levels[priority].list_(class_)

    def put_back(self, task: Task) -> TaskClass:
        """Takes a task again at the place that its sequence number says."""
        class_ = self.class_for(task.name, task.priority)
        heappush(class_.returned, (task.sequence, task))
        self.ready += 1
        self.levels[task.priority].list_(class_)
        return class_

    def take(self, limit: int, known: Collection[str] | None) -> list[Task]:
        """Removes up to `limit` tasks of `known` names, in the order in which they are to run."""
        out: list[Task] = []
        for level in self.order:
            if level.heads:
                level.take(limit, known, out)
                if len(out) >= limit:
                    break
        self.ready -= len(out)
        return out

    def discard(self, task: Task) -> TaskClass | None:
        """A ready task has become final; returns its class if that is without tasks now."""
        self.ready -= 1
        level = self.levels[task.priority]
        class_ = level.classes[task.name]
        class_.bury()
        if class_.first() is not None:
            return None
        level.emptied(class_)
        return class_

    def empty(self) -> list[Task]:
        """Removes and returns all ready tasks."""
        tasks = [
            task
            for class_ in self.classes()
            for task in (*class_.ready, *(entry[1] for entry in class_.returned))
            if task.stage == QUEUED
        ]
        self._dissolve_levels()
        self.ready = 0
        return tasks

    def dissolve(self) -> None:
        """The queue is over; nothing is in it."""
        self._dissolve_levels()
        self._charges.bytes -= QUEUE_BYTES + text_bytes(self.name)

    def _dissolve_levels(self) -> None:
        for level in self.order:
            level.dissolve()
        self.levels.clear()
        self.order.clear()

    def classes(self) -> Iterator[TaskClass]:
        """All its classes, the highest priority first."""
        for level in self.order:
            yield from level.classes.values()

    def recheck(self, now: int) -> None:
        """Lists and takes off classes after the consumers changed."""
        for level in self.order:
            for class_ in level.classes.values():
                known = self.knows(class_.name)
                if known != class_.known:
                    level.relist(class_, known)
                if known or not self.lines:
                    class_.unknown_since = None
                elif class_.unknown_since is None:
                    class_.unknown_since = now

    def unknown(self) -> Iterator[TaskClass]:
        """Classes with ready tasks that no consumer knows; of a queue that has consumers."""
        for class_ in self.classes():
            if not class_.known and class_.first() is not None:
                yield class_

    def unknown_names(self, limit: int) -> list[str]:
        """Names of ready tasks that no consumer knows, up to a limit."""
        names: dict[str, None] = {}
        for class_ in self.unknown():
            if len(names) == limit:
                break
            names[class_.name] = None
        return list(names)

    def names_known(self, limit: int) -> list[str]:
        """Task names that consumers of this queue know, up to a limit, in order."""
        return nsmallest(
            limit, {name: None for line in self.lines.values() for name in sorted(line.known or ())}
        )

    def oldest(self) -> int | None:
        """Broker time since which the longest waiting of the first tasks is ready."""
        firsts = [class_.first() for class_ in self.classes()]
        return min((task.since for task in firsts if task is not None), default=None)
