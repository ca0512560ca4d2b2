"""One slot and its child: what was sent there, and when the link has to look again. No I/O, no clock."""

import signal
from enum import Enum

from chervil_worker.endings import Mark
from chervil_worker.tasks import Task

#: A run longer than this is a long one: its slot gets one task at a time, and the broker is told that it
#: started. Shorter ones are worth queueing behind, as handing them out costs about as much as they do.
LONG_RUN_NS = 5_000_000

#: How long a task may go on after the signal that is to end it (CANCEL), as it may ignore or handle any but
#: SIGKILL: time to tidy up, as long as `docker stop` gives. Then its process is killed.
TERMINATE_GRACE_NS = 10_000_000_000


class Stage(Enum):
    """Where a slot's child is."""

    STARTING = "starting"
    READY = "ready"
    DOWN = "down"


class Slot:
    """What is known of one slot and its child; `Slots` keeps it."""

    __slots__ = (
        "alone",
        "answering",
        "begun",
        "blocked",
        "deaf",
        "depth",
        "failures",
        "head_since",
        "long",
        "mark",
        "marked_at",
        "sent",
        "stage",
    )

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
        #: Part of its answer has come, so that one is over; the rest comes as the link reads it.
        self.answering = False
        #: The child has taken a task.
        self.begun = False
        #: It is kept for a solo task, or runs one: nothing else is sent.
        self.alone = False
        #: The signal that the child was sent last, while it may still die of it in a task.
        self.mark: Mark | None = None
        #: When the task that this is meant for was sent its first signal.
        self.marked_at = 0

    @property
    def head(self) -> Task | None:
        """The task that runs, or is about to."""
        return next(iter(self.sent.values()), None)

    @property
    def room(self) -> int:
        """How many more tasks it should have."""
        return 0 if self.alone or self.stage is Stage.DOWN else max(0, self.depth - len(self.sent))

    def look_at(self) -> int | None:
        """When the task that runs has done so for too long: to be a short one, for its limit, or for one that
        is to end. None: never, or it is over, or its child was killed and nothing is left to be done.

        Counted from when it became the first here: it was sent to an idle child, or the answer before it was
        read. The child may have begun it earlier by the time that an answer waits to be read, and later by
        the time that it needs to wake up: both are under a millisecond, unless the machine is overloaded.
        A limit under LONG_RUN_NS is looked at after LONG_RUN_NS.
        """
        head = self.head
        if head is None:
            return None
        if not self.long:
            return self.head_since + LONG_RUN_NS + 1
        if self.answering or (self.mark is not None and self.mark.signal == signal.SIGKILL):
            return None
        due = [at for at in (self._limit_at(head), self._grace_over_at(head)) if at is not None]
        return min(due) + 1 if due else None

    def over_limit(self, now: int) -> bool:
        """Whether the task that runs has done so for longer than its limit."""
        head = self.head
        at = None if head is None or self.answering else self._limit_at(head)
        return at is not None and now > at

    def outlived(self, now: int) -> bool:
        """Whether the task that runs was sent a signal to end, and has gone on for longer than it may."""
        head = self.head
        at = None if head is None or self.answering else self._grace_over_at(head)
        return at is not None and now > at

    def signalled(self, mark: Mark, now: int) -> None:
        """The child is sent a signal."""
        if self.mark is None or self.mark.number != mark.number:
            self.marked_at = now
        self.mark = mark
        self.depth = 1

    def _limit_at(self, head: Task) -> int | None:
        limit = head.terms.hard_ms
        return None if limit is None else self.head_since + limit * 1_000_000

    def _grace_over_at(self, head: Task) -> int | None:
        if self.mark is None or self.mark.number != head.number:
            return None
        return self.marked_at + TERMINATE_GRACE_NS
