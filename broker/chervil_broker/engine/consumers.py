"""Sessions, their credit, and the lines in which consumers of a queue wait for tasks."""

from collections import deque

from chervil.protocol import WireId
from chervil_broker.engine.task import Task


class Session:
    """One peer, from its HELLO until it is gone."""

    __slots__ = (
        "concurrency",
        "delivered",
        "grace",
        "held",
        "inventory",
        "known",
        "leases",
        "limit",
        "name",
        "number",
        "opened",
        "origin",
        "pid",
        "queues",
        "room",
        "sequence",
        "suspended",
        "turn",
        "watching",
    )

    def __init__(self, number: int, name: str, opened: int, inventory: int, room: int) -> None:
        self.number = number
        self.name = name
        self.opened = opened
        #: The newest `origin` of its tasks.
        self.origin = name, 0
        self.concurrency = 0
        self.pid = 0
        #: Names of the queues it consumes; empty for a publisher.
        self.queues: list[str] = []
        #: Task names it knows; None: all.
        self.known: frozenset[str] | None = None
        #: The highest sequence of a COMPLETE.
        self.sequence = 0
        #: Whether it has no connection, and the broker time at which it is then closed.
        self.suspended = False
        self.grace = 0
        #: Whether its peer does not read.
        self.held = False
        #: Leases that it may hold.
        self.inventory = inventory
        #: Bytes of bodies that it may still be given in this pump.
        self.room = room
        #: Tasks that may have been, and have been, delivered on its connection.
        self.limit = 0
        self.delivered = 0
        self.leases: dict[WireId, Task] = {}
        #: Ids it waits for.
        self.watching: dict[WireId, None] = {}
        #: The queue that is served first next time.
        self.turn = 0

    def origin_at(self, wall_ms: int) -> tuple[str, int]:
        """What tells of tasks published now who published them, and when; one for all of a millisecond."""
        if self.origin[1] != wall_ms:
            self.origin = self.name, wall_ms
        return self.origin

    def spare(self) -> int:
        """How many tasks it may be given now."""
        if self.held or self.room <= 0:
            return 0
        return min(self.limit - self.delivered, self.inventory - len(self.leases))

    def queues_in_turn(self) -> list[str]:
        """Its queues, another one first each time."""
        turn = self.turn % len(self.queues) if self.queues else 0
        self.turn += 1
        return self.queues[turn:] + self.queues[:turn]


class Line:
    """Consumers of one queue that know the same task names; those with credit wait in `waiting`.

    A consumer whose credit is used up leaves, here or when its turn comes, and joins again with new
    credit: so busy ones are not visited.
    """

    __slots__ = ("_parked", "known", "members", "waiting")

    def __init__(self, known: frozenset[str] | None) -> None:
        self.known = known
        self.members = 0
        self.waiting: deque[Session] = deque()
        #: Numbers of the sessions in `waiting`.
        self._parked: set[int] = set()

    def park(self, session: Session) -> None:
        """Lets a session with credit wait for tasks, at the end unless it waits already."""
        if session.number not in self._parked:
            self._parked.add(session.number)
            self.waiting.append(session)

    def leave(self, session: Session) -> None:
        """A member is no consumer of this queue any more."""
        self.members -= 1
        if session.number in self._parked:
            self._parked.remove(session.number)
            self.waiting.remove(session)

    def next(self) -> Session | None:
        """The session whose turn it is; it stays in its place."""
        waiting = self.waiting
        while waiting:
            session = waiting[0]
            if session.spare() > 0:
                return session
            waiting.popleft()
            self._parked.remove(session.number)
        return None

    def served(self) -> None:
        """The session whose turn it was has been given tasks: to the end with it, or out of the line."""
        session = self.waiting.popleft()
        if session.spare() > 0:
            self.waiting.append(session)
        else:
            self._parked.remove(session.number)
