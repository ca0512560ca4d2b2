"""Ids that outlive their tasks: of tasks that were forgotten, and those revoked before they came."""

from collections import OrderedDict, deque
from collections.abc import Iterable

from chervil.protocol import WireId

#: What a remembered id takes, in bytes. Measured at 1,000,000 ids of 16 bytes: 49 for the id, 53 for its
#: entry in the table, 8 for its place in the line.
ID_BYTES = 110


class Forgotten:
    """Ids of tasks that were forgotten, the newest `limit` of them: publishing one again makes nothing."""

    __slots__ = ("_line", "limit", "times")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        #: When each was forgotten, in broker time: one int for all of the same moment. Looked into
        #: directly where every task that is published comes by: a method costs a tenth of all that.
        self.times: dict[WireId, int] = {}
        #: The ids, oldest first: a dictionary alone would be searched for its first entry.
        self._line: deque[WireId] = deque()

    def __contains__(self, id_: WireId) -> bool:
        return id_ in self.times

    def __len__(self) -> int:
        return len(self.times)

    def add(self, ids: Iterable[WireId], now: int) -> None:
        """Remembers ids that it does not hold."""
        for id_ in ids:
            self.times[id_] = now
            self._line.append(id_)
        while len(self._line) > self.limit:
            del self.times[self._line.popleft()]

    def horizon(self, now: int) -> int:
        """How long ago the oldest was forgotten, in nanoseconds; 0 when there is none."""
        return now - self.times[self._line[0]] if self._line else 0


class RevokedIds:
    """Ids that were revoked and that nothing was published under yet, the newest `limit` of them."""

    __slots__ = ("by", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        #: Who revoked each. An OrderedDict, as its first entry is found at once.
        self.by: OrderedDict[WireId, str] = OrderedDict()

    def __contains__(self, id_: WireId) -> bool:
        return id_ in self.by

    def __len__(self) -> int:
        return len(self.by)

    def add(self, id_: WireId, by: str) -> None:
        """Remembers an id, or remembers it anew."""
        self.by[id_] = by
        self.by.move_to_end(id_)
        if len(self.by) > self.limit:
            self.by.popitem(last=False)

    def take(self, id_: WireId) -> str:
        """Who revoked an id that it holds; it is published now, and no longer remembered."""
        return self.by.pop(id_)
