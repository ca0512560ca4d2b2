"""Ids that outlive their tasks: of tasks that were forgotten, and those revoked before they came."""

from collections import OrderedDict, deque
from collections.abc import Iterable

from chervil.protocol import WireId
from chervil_broker.engine.charges import FREE_BYTES, Charges, id_bytes, text_bytes

#: What a remembered id takes, in bytes. Measured at 1,000,000 ids of 16 bytes: 49 for the id, 53 for its
#: entry in the table, 8 for its place in the line. Longer ones count for what they take.
ID_BYTES = 110
#: And one that was revoked, besides who did that: an entry in an ordered table.
REVOKED_ID_BYTES = 260
#: The part of the memory limit that revoked ids may take.
REVOKED_PART = 8


class Forgotten:
    """Ids of tasks that were forgotten, the newest `limit` of them: publishing one again makes nothing.

    Fewer where they are long: they take no more than so many of 16 bytes would.
    """

    __slots__ = ("_bytes", "_line", "limit", "times")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        #: When each was forgotten, in broker time: one int for all of the same moment. Looked into
        #: directly where every task that is published comes by: a method costs a tenth of all that.
        self.times: dict[WireId, int] = {}
        #: The ids, oldest first: a dictionary alone would be searched for its first entry.
        self._line: deque[WireId] = deque()
        self._bytes = 0

    def __contains__(self, id_: WireId) -> bool:
        return id_ in self.times

    def __len__(self) -> int:
        return len(self.times)

    def add(self, ids: Iterable[WireId], now: int) -> None:
        """Remembers ids that it does not hold."""
        for id_ in ids:
            self.times[id_] = now
            self._line.append(id_)
            self._bytes += ID_BYTES + id_bytes(id_)
        self._keep_within()

    def resize(self, limit: int) -> None:
        """Remembers up to another number from now on."""
        self.limit = limit
        self._keep_within()

    def _keep_within(self) -> None:
        while self._bytes > self.limit * ID_BYTES:
            oldest = self._line.popleft()
            del self.times[oldest]
            self._bytes -= ID_BYTES + id_bytes(oldest)

    def horizon(self, now: int) -> int:
        """How long ago the oldest was forgotten, in nanoseconds; 0 when there is none."""
        return now - self.times[self._line[0]] if self._line else 0


class RevokedIds:
    """Ids that were revoked and that nothing was published under yet, the newest `limit` of them.

    Fewer where they would take more than their part of the memory limit.
    """

    __slots__ = ("_bytes_limit", "_charges", "by", "bytes", "limit")

    def __init__(self, limit: int, memory_limit: int, charges: Charges) -> None:
        self.limit = limit
        #: What they take.
        self.bytes = 0
        self._bytes_limit = _part_of(memory_limit)
        self._charges = charges
        #: Who revoked each. An OrderedDict, as its first entry is found at once.
        self.by: OrderedDict[WireId, str] = OrderedDict()

    def __contains__(self, id_: WireId) -> bool:
        return id_ in self.by

    def __len__(self) -> int:
        return len(self.by)

    def add(self, id_: WireId, by: str) -> None:
        """Remembers an id, or remembers it anew."""
        if id_ in self.by:
            self.take(id_)
        self.by[id_] = by
        self._charge(_revoked_bytes(id_, by))
        self._keep_within()

    def resize(self, memory_limit: int) -> None:
        """Takes its part of another memory limit from now on."""
        self._bytes_limit = _part_of(memory_limit)
        self._keep_within()

    def _keep_within(self) -> None:
        while len(self.by) > self.limit or self.bytes > self._bytes_limit:
            self.take(next(iter(self.by)))

    def take(self, id_: WireId) -> str:
        """Who revoked an id that it holds; it is published now, and no longer remembered."""
        by = self.by.pop(id_)
        self._charge(-_revoked_bytes(id_, by))
        return by

    def _charge(self, weight: int) -> None:
        self.bytes += weight
        self._charges.bytes += weight


def _part_of(memory_limit: int) -> int:
    return max(FREE_BYTES, memory_limit) // REVOKED_PART


def _revoked_bytes(id_: WireId, by: str) -> int:
    return REVOKED_ID_BYTES + id_bytes(id_) + text_bytes(by)
