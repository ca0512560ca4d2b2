"""A task as the engine keeps it, and as it is shown to whoever asks."""

from typing import Any, NamedTuple

from chervil.protocol import Stage, TaskOption, WireId
from chervil.protocol.vocabulary import DELIVERY_LIMIT_DEFAULT

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
#: Measured at 1,000,000 queued tasks: 225 to 275 for the engine's record and tables, 81 for the id and
#: the handle, the rest is the rim's entry for the body.
TASK_OVERHEAD = 450


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


class Task:
    """One task, from its publish until its result is forgotten.

    20 slots and no dictionary: a million of them are held in memory. `queue` is a name and `owner` a
    number, so that no task takes part in a reference cycle.
    """

    __slots__ = (
        "attempts",
        "handle",
        "id",
        "lease",
        "name",
        "options",
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
        "worker",
    )

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
    ) -> None:
        self.id = id_
        self.name = name
        self.queue = queue
        self.priority = priority
        #: The wire's map; never changed in place, for the publisher's batch may still be read.
        self.options = options
        #: The body, kept by the rim, and its bytes; NO_HANDLE once it is freed.
        self.handle = handle
        self.size = size
        #: Its place in the queue: lower ones of the same priority come first.
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
        #: The result, or the failure record of the last retry.
        self.result = NO_HANDLE
        self.result_size = 0
        #: Whether anybody was given the result.
        self.read = False

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
    #: (kind, message) of a failure that the broker writes itself: `expired`, `revoked` or `lost`. When
    #: the message is None it is the text, UTF-8, behind `handle`.
    failure: tuple[str, str | None] | None
    #: The task's name; None for an unknown id.
    name: str | None
    #: Info keys of protocol.md; None in a RESULT push and for an unknown id.
    info: dict[int, Any] | None
