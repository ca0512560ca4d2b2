"""Which task goes to which child, and how many the broker may send: decided here, without any I/O.

The link tells what happened and when (nanoseconds of a clock that never goes back), asks what follows,
and does it. Every task that was delivered leaves in exactly one way: `answered`, `died` (as lost),
`surplus` (to be released), or dropped with its session.

    delivered ──▶ backlog ──assign──▶ sent to a slot ──answered──▶ done
                     ▲                    │ │
                     └── taken back ──────┘ └── died: the one that ran is lost
    backlog ──surplus──▶ released
"""

import heapq
from collections import deque
from collections.abc import Collection, Iterable
from enum import Enum
from itertools import islice

from chervil.protocol import WireId

#: A run longer than this is a long one: its slot gets one task at a time, and the broker is told that it
#: started. Shorter ones are worth queueing behind, as handing them out costs about as much as they do.
LONG_RUN_NS = 5_000_000

#: How many tasks a slot may be sent at once, the one that runs included: enough to keep a child of no-op
#: tasks busy for a round trip to the broker, few enough to be taken back in a fraction of a millisecond.
DEPTH_MAX = 32

#: Waiting time before a child that died without having taken a task is replaced, in nanoseconds:
#: doubling from the first to the second. One that took a task is replaced at once.
RESPAWN_FIRST_NS = 1_000_000_000
RESPAWN_MAX_NS = 30_000_000_000


class Task:
    """A delivered task: what its row says, and the payload of the packet that a child is sent."""

    __slots__ = ("attempt", "id", "lease", "name", "number", "payload", "session")

    def __init__(self, task_id: WireId, lease: int, name: str, payload: bytes, attempt: int = 1) -> None:
        self.id = task_id
        self.lease = lease
        self.name = name
        self.payload = payload
        #: Which attempt this is, as the broker counts them.
        self.attempt = attempt
        #: Names its packet; given by `Slots.deliver`, never used again.
        self.number = 0
        #: The session that its lease belongs to, as `Slots.session` counts them.
        self.session = 0


class Stage(Enum):
    """Where a slot's child is."""

    STARTING = "starting"
    READY = "ready"
    DOWN = "down"


class _Slot:
    __slots__ = ("begun", "blocked", "deaf", "depth", "failures", "head_since", "long", "sent", "stage")

    def __init__(self) -> None:
        self.stage = Stage.STARTING
        #: Number -> task, in the order sent. The first one runs, or is about to.
        self.sent: dict[int, Task] = {}
        self.depth = 1
        self.failures = 0
        self.reset()

    def reset(self) -> None:
        """A new child: nothing is known of it."""
        #: When the first of `sent` became the first.
        self.head_since = 0
        #: That one has run for longer than LONG_RUN_NS, and that was dealt with.
        self.long = False
        #: The socket took no more; nothing is sent until the child has answered.
        self.blocked = False
        #: The child did not even begin a task in LONG_RUN_NS: others come first.
        self.deaf = False
        #: The child has taken a task.
        self.begun = False

    @property
    def room(self) -> int:
        """How many more tasks it should have."""
        return 0 if self.stage is Stage.DOWN else max(0, self.depth - len(self.sent))


class Slots:
    """The slots of one worker."""

    def __init__(self, count: int) -> None:
        self._slots = [_Slot() for _ in range(count)]
        self._backlog: deque[Task] = deque()
        self._next_number = 1
        self._delivered = 0
        self._draining = False
        #: Counts sessions: a task of an earlier one has no lease any more.
        self.session = 0

    @property
    def running(self) -> int:
        """How many tasks are with the children."""
        return sum(len(slot.sent) for slot in self._slots)

    def load(self, index: int) -> int:
        """How many tasks are with the child of a slot."""
        return len(self._slots[index].sent)

    @property
    def capacity(self) -> int:
        """How many tasks all slots together should have at present."""
        return sum(slot.depth for slot in self._slots if slot.stage is not Stage.DOWN)

    @property
    def draining(self) -> bool:
        """Whether `drain` was called."""
        return self._draining

    @property
    def idle(self) -> bool:
        """Whether nothing is held at all."""
        return not self._backlog and not self.running

    def deliver(self, tasks: Iterable[Task]) -> None:
        """The broker has delivered these."""
        number = self._next_number
        first = number
        for task in tasks:
            task.number = number
            task.session = self.session
            number += 1
            self._backlog.append(task)
        self._next_number = number
        self._delivered += number - first

    def assign(self, now: int) -> list[tuple[int, list[Task]]]:
        """What to send to which slot: least loaded first. Counts as sent; see `refused`."""
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

    def refused(self, index: int, tasks: Collection[Task]) -> None:
        """The slot's socket had no room for these, the last ones assigned to it."""
        slot = self._slots[index]
        for task in tasks:
            del slot.sent[task.number]
        slot.blocked = bool(slot.sent)
        self._backlog.extendleft(reversed(list(tasks)))

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
        slot.head_since = now
        slot.long = slot.blocked = slot.deaf = False
        slot.begun = True
        return task

    def overdue(self, now: int) -> list[int]:
        """Slots whose first task has run for longer than LONG_RUN_NS, and is not known to be long yet."""
        return [
            index
            for index, slot in enumerate(self._slots)
            if slot.sent and not slot.long and now - slot.head_since > LONG_RUN_NS
        ]

    def next_check(self) -> int | None:
        """When `overdue` may next have something to say; None while no slot waits for that."""
        waiting = [slot.head_since for slot in self._slots if slot.sent and not slot.long]
        return min(waiting) + LONG_RUN_NS + 1 if waiting else None

    def took_back(self, index: int, numbers: Collection[int], now: int) -> Task | None:
        """These packets were unread and are ours again; the task that runs there, if one does.

        For a slot that is overdue, or when everything unstarted is to be given up.
        """
        slot = self._slots[index]
        tasks = [slot.sent.pop(number) for number in numbers if number in slot.sent]
        slot.deaf = bool(tasks) and not slot.sent
        slot.depth = 1
        slot.blocked = False
        self._backlog.extendleft(reversed(tasks))
        head = next(iter(slot.sent.values()), None)
        if head is not None:
            slot.begun = True
            slot.long = now - slot.head_since > LONG_RUN_NS
        return head

    def surplus(self) -> list[Task]:
        """Tasks that no slot is going to take soon: to be released. They are no longer held."""
        keep = 0 if self._draining else sum(slot.room for slot in self._slots)
        if len(self._backlog) <= keep:
            return []
        released = list(islice(self._backlog, keep, None))
        while len(self._backlog) > keep:
            self._backlog.pop()
        return released

    def died(self, index: int, unread: Collection[int], now: int) -> tuple[list[Task], int]:
        """The slot's child is gone; its answers were all read before, `unread` are the packets it left.

        Returns the tasks that it had taken and not answered (at most one, as a child answers before it
        takes the next) and how long to wait until it is replaced, in nanoseconds.
        """
        slot = self._slots[index]
        self.took_back(index, unread, now)
        lost = list(slot.sent.values())
        slot.sent.clear()
        if slot.begun or lost:
            slot.failures = 0
            delay = 0
        else:
            delay = min(RESPAWN_MAX_NS, RESPAWN_FIRST_NS << min(slot.failures, 16))
            slot.failures += 1
        slot.stage = Stage.DOWN if delay else Stage.STARTING
        slot.reset()
        return lost, delay

    def starting(self, index: int) -> None:
        """A new child of this slot is being made."""
        self._slots[index].stage = Stage.STARTING

    def credit(self) -> int:
        """How many tasks may have been delivered in this session in all (protocol.md, CREDIT)."""
        if self._draining:
            return self._delivered
        room = sum(slot.room for slot in self._slots) - len(self._backlog)
        return self._delivered + max(0, room)

    def drain(self) -> None:
        """From here on nothing new is taken; what is not with a child is surplus."""
        self._draining = True

    def new_session(self) -> int:
        """The leases of everything held are gone: forgets what no child has begun; how many those were.

        Call it after everything unread was taken back. Running tasks go on; see Task.session.
        """
        dropped = len(self._backlog)
        self._backlog.clear()
        self._delivered = 0
        self.session += 1
        return dropped
