"""Which task goes to which child, and how many the broker may send: decided here, without any I/O.

The link tells what happened and when (nanoseconds of a clock that never goes back), asks what follows,
and does it. Every task that was delivered leaves in exactly one way: `answered`, `died` (as lost),
`surplus` (to be released), or dropped with its session.

    delivered ──▶ backlog ──assign──▶ sent to a slot ──answered──▶ done
                     ▲                    │ │
                     └── taken back ──────┘ └── died: the one that ran is lost
    backlog ──surplus──▶ released, ──withdraw──▶ called off

A task that is claimed first (`Task.solo`) gets a slot for itself: the slot is kept for it until it is
idle (`reserved`), the claim is made with the broker, and only then is it sent. Nothing is sent behind it.
"""

import heapq
import signal
from collections import deque
from collections.abc import Collection, Iterable, Iterator
from typing import NamedTuple

from chervil_worker.endings import Mark
from chervil_worker.slot import LONG_RUN_NS, Slot, Stage
from chervil_worker.tasks import Task

#: How many tasks a slot may be sent at once, the one that runs included: enough to keep a child of no-op
#: tasks busy for a round trip to the broker, few enough to be taken back in a fraction of a millisecond.
DEPTH_MAX = 32

#: Waiting time before a child that died without having taken a task is replaced, in nanoseconds:
#: doubling from the first to the second. One that took a task is replaced at once.
RESPAWN_FIRST_NS = 1_000_000_000
RESPAWN_MAX_NS = 30_000_000_000


class Death(NamedTuple):
    """What the end of a child means."""

    #: What it had taken and not answered: at most one, as a child answers before it takes the next.
    lost: list[Task]
    #: The signal that the link had sent it, if any.
    mark: Mark | None
    #: How long to wait until it is replaced, in nanoseconds.
    delay_ns: int


class Slots:
    """The slots of one worker."""

    def __init__(self, count: int) -> None:
        self._slots = [Slot() for _ in range(count)]
        #: What each slot's child was sent and has not answered, number -> task; for whoever asks per task.
        self.with_child = [slot.sent for slot in self._slots]
        self._backlog: deque[Task] = deque()
        #: Solo tasks that no slot is kept for.
        self._solo: deque[Task] = deque()
        #: Slot -> the solo task that it is kept for; those of them that are being claimed.
        self._kept: dict[int, Task] = {}
        self._claiming: set[int] = set()
        self._next_number = 1
        self._delivered = 0
        self._draining = False
        #: Counts sessions: a task of an earlier one has no lease any more.
        self.session = 0

    @property
    def running(self) -> int:
        """How many tasks are with the children."""
        return sum(len(slot.sent) for slot in self._slots)

    def __getitem__(self, index: int) -> Slot:
        return self._slots[index]

    @property
    def capacity(self) -> int:
        """How many tasks all slots together should have at present."""
        return sum(slot.depth for slot in self._slots if slot.stage is not Stage.DOWN)

    @property
    def delivered(self) -> int:
        """How many tasks have been delivered on this connection."""
        return self._delivered

    @property
    def draining(self) -> bool:
        """Whether `drain` was called."""
        return self._draining

    @property
    def idle(self) -> bool:
        """Whether nothing is held at all."""
        return not (self._backlog or self._solo or self._kept or self.running)

    def unstarted(self) -> Iterator[Task]:
        """What no child was sent."""
        yield from self._backlog
        yield from self._solo
        yield from self._kept.values()

    def sent(self) -> Iterator[tuple[int, Task]]:
        """(slot, task) of what the children were sent and have not answered."""
        for index, slot in enumerate(self._slots):
            for task in slot.sent.values():
                yield index, task

    def deliver(self, tasks: Iterable[Task]) -> None:
        """The broker has delivered these."""
        number = self._next_number
        first = number
        for task in tasks:
            task.number = number
            task.session = self.session
            number += 1
            if task.solo:
                self._solo.append(task)
            else:
                self._backlog.append(task)
        self._next_number = number
        self._delivered += number - first

    def assign(self, now: int) -> list[tuple[int, list[Task]]]:
        """What to send to which slot: least loaded first. Counts as sent; see `refused`."""
        if self._solo:
            self._keep()
        if not self._backlog:
            return []
        candidates = [
            (slot.deaf, len(slot.sent), index)
            for index, slot in enumerate(self._slots)
            if slot.stage is Stage.READY and not slot.blocked and slot.room
        ]
        heapq.heapify(candidates)
        assigned: dict[int, list[Task]] = {}
        while candidates and self._backlog:
            deaf, load, index = candidates[0]
            slot = self._slots[index]
            task = self._backlog.popleft()
            if not slot.sent:
                slot.head_since = now
                slot.long = False
            slot.sent[task.number] = task
            assigned.setdefault(index, []).append(task)
            if load + 1 < slot.depth:
                heapq.heapreplace(candidates, (deaf, load + 1, index))
            else:
                heapq.heappop(candidates)
        return list(assigned.items())

    def _keep(self) -> None:
        """Keeps slots with room for the solo tasks that wait, the least loaded first."""
        fit = [
            (slot.deaf, len(slot.sent), index)
            for index, slot in enumerate(self._slots)
            if slot.stage is Stage.READY and slot.room
        ]
        for _, _, index in sorted(fit)[: len(self._solo)]:
            self._kept[index] = self._solo.popleft()
            self._slots[index].alone = True

    def _keep_no_more(self, index: int) -> None:
        task = self._kept.pop(index, None)
        if task is not None:
            self._claiming.discard(index)
            self._slots[index].alone = False
            self._solo.appendleft(task)

    def to_claim(self) -> list[tuple[int, Task]]:
        """Slots that are idle and kept for a task, which is to be claimed now; each is told once."""
        if not self._kept:
            return []
        found = [
            (index, task)
            for index, task in self._kept.items()
            if index not in self._claiming and not self._slots[index].sent
        ]
        self._claiming.update(index for index, _ in found)
        return found

    def claiming(self, index: int) -> Task | None:
        """The task that is being claimed for a slot."""
        return self._kept.get(index) if index in self._claiming else None

    def claimed(self, index: int, now: int) -> Task:
        """The task that is being claimed for a slot is ours: counts as sent there."""
        task = self._kept.pop(index)
        self._claiming.discard(index)
        slot = self._slots[index]
        slot.head_since = now
        slot.long = False
        slot.sent[task.number] = task
        return task

    def refused(self, index: int, tasks: Collection[Task]) -> None:
        """The slot's socket had no room for these, the last ones assigned to it."""
        slot = self._slots[index]
        for task in tasks:
            del slot.sent[task.number]
        slot.blocked = bool(slot.sent)
        self._return(slot, tasks)

    def _return(self, slot: Slot, tasks: Collection[Task]) -> None:
        """Puts tasks that a slot was sent back to where they were."""
        for task in reversed(list(tasks)):
            if task.solo:
                slot.alone = False
                self._solo.appendleft(task)
            else:
                self._backlog.appendleft(task)

    def ready(self, index: int) -> None:
        """The slot's child can take tasks."""
        slot = self._slots[index]
        slot.stage = Stage.READY
        slot.reset()

    def answered(self, index: int, number: int, now: int) -> Task | None:
        """The child has finished a task; None when it was never sent there."""
        slot = self._slots[index]
        task = slot.sent.pop(number, None)
        if task is None:
            return None
        if not slot.long and now - slot.head_since <= LONG_RUN_NS:
            slot.depth = min(DEPTH_MAX, slot.depth * 2)
        else:
            slot.depth = 1
        if slot.alone and task.solo:
            # One that could not stand behind it: the next may be solo too.
            slot.alone = False
            slot.depth = 1
        if slot.mark is not None and slot.mark.number != number and slot.mark.signal != signal.SIGKILL:
            # It has survived a signal in one task and then another one.
            slot.mark = None
        slot.head_since = now
        slot.long = slot.blocked = slot.deaf = slot.answering = False
        slot.begun = True
        return task

    def overdue(self, now: int) -> list[int]:
        """Slots whose first task has run for longer than LONG_RUN_NS and is not known to be long yet, or
        for longer than its limit."""
        return [
            index
            for index, slot in enumerate(self._slots)
            if slot.sent and (at := slot.look_at()) is not None and now >= at
        ]

    def next_check(self) -> int | None:
        """When `overdue` may next have something to say; None while no slot waits for that."""
        return min(
            (at for slot in self._slots if slot.sent and (at := slot.look_at()) is not None), default=None
        )

    def took_back(self, index: int, numbers: Collection[int], now: int) -> Task | None:
        """These packets were unread and are ours again; the task that runs there, if one does.

        To be called with all that lie unread there, once the child's answers are read.
        """
        slot = self._slots[index]
        tasks = [slot.sent.pop(number) for number in numbers if number in slot.sent]
        slot.blocked = False
        self._return(slot, tasks)
        over = bool(tasks or slot.sent) and now - slot.head_since > LONG_RUN_NS
        head = slot.head
        if over:
            slot.depth = 1
            slot.deaf = head is None
            self._keep_no_more(index)
        if head is not None:
            slot.begun = True
            slot.long = over
        else:
            slot.answering = False
        return head

    def surplus(self) -> list[Task]:
        """Tasks that no slot is going to take soon: to be released. They are no longer held."""
        if self._draining:
            for index in list(self._kept):
                self._keep_no_more(index)
        if not (self._backlog or self._solo):
            return []
        keep = 0 if self._draining else sum(slot.room for slot in self._slots)
        excess = len(self._backlog) + len(self._solo) - keep
        released: list[Task] = []
        for waiting in (self._backlog, self._solo):
            while waiting and len(released) < excess:
                released.append(waiting.pop())
        released.reverse()
        return released

    def withdraw(self, numbers: Collection[int]) -> list[Task]:
        """Takes these out of what no child was sent; they are no longer held."""
        gone = [task for task in self.unstarted() if task.number in numbers]
        self._backlog = deque(task for task in self._backlog if task.number not in numbers)
        for index, task in list(self._kept.items()):
            if task.number in numbers:
                self._keep_no_more(index)
        self._solo = deque(task for task in self._solo if task.number not in numbers)
        return gone

    def died(self, index: int, unread: Collection[int], now: int) -> Death:
        """The slot's child is gone; its answers were all read before, `unread` are the packets it left."""
        slot = self._slots[index]
        self.took_back(index, unread, now)
        self._keep_no_more(index)
        lost = list(slot.sent.values())
        mark = slot.mark
        slot.sent.clear()
        slot.depth = 1
        if slot.begun or lost:
            slot.failures = 0
            delay = 0
        else:
            delay = min(RESPAWN_MAX_NS, RESPAWN_FIRST_NS << min(slot.failures, 16))
            slot.failures += 1
        slot.stage = Stage.DOWN if delay else Stage.STARTING
        slot.reset()
        return Death(lost, mark, delay)

    def starting(self, index: int) -> None:
        """A new child of this slot is being made."""
        self._slots[index].stage = Stage.STARTING

    def credit(self) -> int:
        """How many tasks may have been delivered on this connection in all (protocol.md, CREDIT)."""
        if self._draining:
            return self._delivered
        room = sum(slot.room for slot in self._slots) - len(self._backlog) - len(self._solo)
        return self._delivered + max(0, room)

    def drain(self) -> None:
        """From here on nothing new is taken; what is not with a child is surplus."""
        self._draining = True

    def new_connection(self) -> None:
        """The session goes on, on another connection: claims are made anew, deliveries count from 0."""
        self._delivered = 0
        self._claiming.clear()

    def new_session(self) -> int:
        """The leases of everything held are gone: forgets what no child has begun; how many those were.

        Call it after everything unread was taken back. Running tasks go on; see Task.session.
        """
        self.new_connection()
        for index in list(self._kept):
            self._keep_no_more(index)
        dropped = len(self._backlog) + len(self._solo)
        self._backlog.clear()
        self._solo.clear()
        self.session += 1
        return dropped
