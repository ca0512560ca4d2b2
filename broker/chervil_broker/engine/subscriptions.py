"""What sessions say they consume. Names come from outside: all together take a part of the memory limit."""

from chervil_broker.engine.charges import FREE_BYTES, KNOWN_BYTES, LINE_BYTES, Charges, text_bytes
from chervil_broker.engine.consumers import Session

#: The part of the memory limit that subscriptions may take: a thousand workers of an application share one
#: set of task names. A full broker must not turn workers away, so tasks do not count here.
MEMORY_PART = 8


class _Known:
    """A set of task names, and how many sessions know just these."""

    __slots__ = ("bytes", "members", "names")

    def __init__(self, names: frozenset[str], size: int) -> None:
        self.names = names
        self.bytes = size
        self.members = 0


class Subscriptions:
    """Queues and task names by session."""

    __slots__ = ("_charges", "_known", "bytes", "limit")

    def __init__(self, memory_limit: int, charges: Charges) -> None:
        self.limit = _part_of(memory_limit)
        self.bytes = 0
        self._charges = charges
        self._known: dict[frozenset[str], _Known] = {}

    def resize(self, memory_limit: int) -> None:
        """Takes its part of another memory limit from now on; those that there are stay."""
        self.limit = _part_of(memory_limit)

    def admit(self, session: Session, queues: list[str], tasks: list[str] | None) -> bool:
        """Whether there is room for a subscription in place of the session's present one."""
        weight = _queues_bytes(queues)
        if tasks is not None and frozenset(tasks) not in self._known:
            weight += _names_bytes(tasks)
        return self.bytes - _queues_bytes(session.queues) + weight <= self.limit

    def add(self, session: Session, queues: list[str], tasks: list[str] | None) -> None:
        """Notes the subscription of a session that has none; queues are named once."""
        session.queues = queues
        weight = _queues_bytes(queues)
        if tasks is not None:
            names = frozenset(tasks)
            known = self._known.get(names)
            if known is None:
                known = self._known[names] = _Known(names, _names_bytes(tasks))
                weight += known.bytes
            known.members += 1
            session.known = known.names
        self._take(weight)

    def remove(self, session: Session) -> None:
        """A session consumes nothing any more."""
        weight = _queues_bytes(session.queues)
        if session.known is not None:
            known = self._known[session.known]
            known.members -= 1
            if not known.members:
                del self._known[session.known]
                weight += known.bytes
        session.queues = []
        session.known = None
        self._take(-weight)

    def _take(self, weight: int) -> None:
        self.bytes += weight
        self._charges.bytes += weight


def _part_of(memory_limit: int) -> int:
    return max(FREE_BYTES, memory_limit // MEMORY_PART)


def _queues_bytes(queues: list[str]) -> int:
    return sum([LINE_BYTES + text_bytes(name) for name in queues])


def _names_bytes(names: list[str]) -> int:
    return sum([KNOWN_BYTES + text_bytes(name) for name in dict.fromkeys(names)])
