"""A task as the engine keeps it, and as it is shown to whoever asks."""

from typing import Any, NamedTuple

from chervil.protocol import Stage, TaskOption, WireId
from chervil.protocol.vocabulary import DELIVERY_LIMIT_DEFAULT, DELIVERY_LIMIT_MAX

# Stages as plain integers: the hot loops compare them a dozen times a task, and they go on the wire as such.
UNKNOWN = Stage.UNKNOWN.value
SCHEDULED = Stage.SCHEDULED.value
QUEUED = Stage.QUEUED.value
LEASED = Stage.LEASED.value
STARTED = Stage.STARTED.value
RETRY = Stage.RETRY.value
SUCCESS = Stage.SUCCESS.value
FAILURE = Stage.FAILURE.value
DEAD = Stage.DEAD.value
REVOKED = Stage.REVOKED.value
EXPIRED = Stage.EXPIRED.value
EVICTED = Stage.EVICTED.value

#: Nanoseconds in a millisecond: the wire counts the one, the engine the other.
MS = 1_000_000
#: In place of a body's or a result's handle: there is none.
NO_HANDLE = -1
#: In place of a session's number: nobody holds the task.
NOBODY = -1
#: In place of a session's number in a final task: the lease it carries is the one that completed it.
COMPLETED = -2
#: What a task is charged besides its body, in bytes: its record, its id, the tables' share of both sides.
#: Measured at 1,000,000 queued tasks with bodies of 100 bytes, 687 in all: 240 for the record, 64 for the id,
#: 64 for its numbers, 52 for the engine's tables, 167 for the rim's entry and the body's own head.
TASK_OVERHEAD = 600


#: In place of the second in which a final record is dropped: Results does not have it.
NOT_KEPT = -1
#: Longest text that says why something happened to a task, in characters.
REASON_MAX = 200
#: What an event of a task's history is charged, in bytes, and what more if it has a reason. Measured: 112
#: for a tuple, 32 for a time, and a half of 112 for the record of few events; 249 for REASON_MAX characters.
EVENT_BYTES = 200
REASON_BYTES = 250
#: The options of finished tasks, by delivery limit: shared by all of them.
_LIMIT_ONLY: dict[int, dict[int, Any]] = {
    limit: {TaskOption.DELIVERY_LIMIT.value: limit} for limit in range(1, DELIVERY_LIMIT_MAX + 1)
}
#: Stages whose reason is the task's own and not shared with all that one command ended.
_OWN_ENDING = (FAILURE, DEAD)


class Times:
    """When a task is due and when it expires, for the few tasks that have either."""

    __slots__ = ("due", "due_timer", "due_wall", "expires", "expires_timer", "expires_wall")

    def __init__(self) -> None:
        #: Deadlines in nanoseconds, of the wall clock where `..._wall` says so, else of broker time.
        self.due: int | None = None
        self.due_wall = False
        #: The timer that is set for it; 0 is none.
        self.due_timer = 0
        self.expires: int | None = None
        self.expires_wall = False
        self.expires_timer = 0


class Ending(NamedTuple):
    """How a task ended that did not succeed; tasks that ended alike in one command share one."""

    #: Its final stage; once its result is dropped the task's own is EVICTED.
    stage: int
    #: The kind of the failure that the broker writes itself; None: the worker brought a record.
    kind: str | None
    #: Why, for people, at most REASON_MAX characters.
    reason: str | None


def called_off(by: str) -> Ending:
    """The ending of a task that somebody revoked."""
    return Ending(REVOKED, "revoked", f"called off by {by}"[:REASON_MAX])


class CalledOff(NamedTuple):
    """Somebody revoked a task that a worker has."""

    by: str
    #: Which signal its process is sent; None: it may finish.
    signal: int | None


class Unusual:
    """What few tasks have: events of their past, a claim at most once, a wish to call them off."""

    __slots__ = ("bytes", "called_off", "dropped", "early", "events", "sent_back")

    def __init__(self) -> None:
        #: (wall clock in ms, event, what belongs to it); see history.py. `dropped` are no longer there.
        self.events: list[tuple[Any, ...]] = []
        self.dropped = 0
        #: What the events are charged.
        self.bytes = 0
        #: Whether the present lease was claimed at most once: it must never run again.
        self.early = False
        self.called_off: CalledOff | None = None
        #: How often a worker rejected it to have it queued again.
        self.sent_back = 0


class Task:
    """One task, from its publish until its result is forgotten.

    28 slots and no dictionary: a million of them are held in memory. `queue` is a name and `owner` a
    number, so that no task takes part in a reference cycle.
    """

    __slots__ = (
        "attempts",
        "delivered",
        "ended",
        "ending",
        "handle",
        "home",
        "id",
        "kept",
        "lease",
        "name",
        "options",
        "origin",
        "overhead",
        "owner",
        "priority",
        "queue",
        "read",
        "redelivered",
        "result",
        "result_size",
        "retries",
        "sequence",
        "since",
        "size",
        "stage",
        "times",
        "unusual",
        "worker",
    )

    # Set when it is final, and not before: setting them for every task costs a twentieth of a publish.
    #: Wall clock in ms of its end.
    ended: int
    ending: Ending | None
    #: The second in which its final record is dropped; NOT_KEPT while Results does not have it.
    kept: int

    def __init__(  # noqa: PLR0917 -- made for every task: naming the fields costs a tenth
        self,
        id_: WireId,
        name: str,
        queue: str,
        priority: int,
        options: dict[int, Any] | None,
        handle: int,
        size: int,
        sequence: int,
        since: int,
        origin: tuple[str, int],
        overhead: int = TASK_OVERHEAD,
    ) -> None:
        self.id = id_
        self.name = name
        self.queue = queue
        self.priority = priority
        #: The wire's map; never changed in place, for the publisher's batch may still be read.
        self.options = options
        #: The body, kept by the rim, and what it is charged for it with its headers and the options;
        #: NO_HANDLE once it is freed.
        self.handle = handle
        self.size = size
        #: Its place in the queue: lower ones of the same priority come first. Once it is parked, its place
        #: among the dead letters.
        self.sequence = sequence
        #: Broker time at which it came into its stage.
        self.since = since
        self.stage = QUEUED
        self.lease = 0
        self.redelivered = False
        self.attempts = 0
        self.retries = 0
        #: The session that holds it, or NOBODY, or COMPLETED.
        self.owner = NOBODY
        #: The name of the worker that has it or ran it last.
        self.worker: str | None = None
        self.times: Times | None = None
        #: (who published it, wall clock in ms): one for all that a session publishes at a time.
        self.origin = origin
        #: What it is charged besides: TASK_OVERHEAD, and more for long names.
        self.overhead = overhead
        #: Wall clock in ms of the newest delivery, while history.py has not noted it.
        self.delivered: int | None = None
        self.unusual: Unusual | None = None
        #: The result, or the failure record of the last retry.
        self.result = NO_HANDLE
        self.result_size = 0
        #: Whether anybody was given the result.
        self.read = False
        #: The number of the newest journal segment as its newest whole record was made; the journal's own.
        self.home = 0

    def anew(self) -> "Task":
        """This task as another object, to run again.

        What is final may still lie in a queue, as a tombstone: it must not come alive there.
        """
        other = Task.__new__(Task)
        for slot in Task.__slots__:
            setattr(other, slot, getattr(self, slot))
        self.unusual = None
        return other

    def shed_options(self) -> None:
        """Keeps no option of a task that will not run again but its delivery limit, which is told."""
        if self.options is not None:
            self.options = _LIMIT_ONLY[self.delivery_limit()]

    def weight(self) -> int:
        """What it is charged, in bytes."""
        weight = self.overhead + self.size + self.result_size
        if self.unusual is not None:
            weight += self.unusual.bytes
        if self.stage >= SUCCESS:
            ending = self.ending
            if ending is not None and ending.reason is not None and ending.stage in _OWN_ENDING:
                weight += EVENT_BYTES + REASON_BYTES
        return weight

    def delivery_limit(self) -> int:
        """Lost attempts after which it is DEAD."""
        limit = DELIVERY_LIMIT_DEFAULT
        if self.options is not None:
            limit = self.options.get(TaskOption.DELIVERY_LIMIT.value, limit)
        return limit

    def remaining_ms(self, now: int, wall: int) -> int | None:
        """Milliseconds until it expires, at least 0; None when it does not."""
        times = self.times
        if times is None or times.expires is None:
            return None
        return max(0, (times.expires - (wall if times.expires_wall else now)) // MS)


class View(NamedTuple):
    """A task's state for a STATUS or RESULT row."""

    id: WireId
    stage: int
    #: The result's handle, None where there is no result.
    handle: int | None
    #: (kind, message) of a failure that the broker writes itself: `expired`, `revoked`, `lost` or
    #: `rejected`. When the message is None it is the text, UTF-8, behind `handle`.
    failure: tuple[str, str | None] | None
    #: The task's name; None for an unknown id.
    name: str | None
    #: Info keys of protocol.md; None in a RESULT push and for an unknown id.
    info: dict[int, Any] | None
