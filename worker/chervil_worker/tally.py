"""How many tasks something happened to, and which were the first: for a line of the log."""

from collections.abc import Iterable

from chervil.protocol import WireId, to_text

#: Ids that a line names: enough to look one up, and few enough for one line.
NAMED_MAX = 3


class Tally:
    """A count, with the first ids; as text `5 (id, id, id, ...)`."""

    __slots__ = ("_first", "count")

    def __init__(self, ids: Iterable[WireId] = ()) -> None:
        self.count = 0
        self._first: list[WireId] = []
        for id_ in ids:
            self.add(id_)

    def add(self, id_: WireId) -> None:
        self.count += 1
        if len(self._first) < NAMED_MAX:
            self._first.append(id_)

    def __bool__(self) -> bool:
        return self.count > 0

    def __str__(self) -> str:
        if not self.count:
            return "0"
        more = ", ..." if self.count > len(self._first) else ""
        return f"{self.count} ({', '.join(map(to_text, self._first))}{more})"
