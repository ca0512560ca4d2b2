"""Every refusal is counted by its code and logged; what repeats itself is logged once in a while.

A client that is refused a million tasks must not write a million lines into the log.
"""

import logging
from collections import Counter
from collections.abc import Iterator

log = logging.getLogger("chervil.broker")

#: Seconds in which refusals of one code to one peer share a line.
QUIET_SECONDS = 10.0
#: Peers and codes that are told apart here: a stranger can come from any number of addresses.
TOLD_APART_MAX = 4_096
_OTHERS = ("others", "")


class _Repeated:
    """What was refused to one peer with one code and is not logged yet."""

    __slots__ = ("count", "message", "name", "said_at")

    def __init__(self, name: str, said_at: float) -> None:
        self.name = name
        self.said_at = said_at
        self.count = 0
        self.message = ""


class Refusals:
    """Counts refusals, and writes their log lines."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._repeated: dict[tuple[str, str], _Repeated] = {}

    def refuse(  # noqa: PLR0917 -- what a line says, in its order
        self, now: float, key: str, name: str, code: str, message: str, count: int = 1
    ) -> None:
        """Notes that `count` requests, rows or connections of a peer were refused.

        `key` tells peers apart, `name` is what the log calls this one; `now` is in seconds.
        """
        self.counts[code] += count
        repeated = self._repeated.get((key, code))
        if repeated is None:
            at = (key, code)
            if len(self._repeated) >= TOLD_APART_MAX:
                at, name = _OTHERS, "others"
                repeated = self._repeated.get(at)
            if repeated is None:
                self._repeated[at] = _Repeated(name, now)
                log.warning("%s refused: %s: %s%s", name, code, message, _times(count))
                return
        repeated.count += count
        repeated.message = f"{code}: {message}"

    def look(self, now: float) -> None:
        """Writes a line for what has repeated itself long enough, and forgets what has not."""
        for at, repeated in self._due(now):
            if repeated.count:
                log.warning(
                    "%s refused: %s (%d more in %.0f s)",
                    repeated.name,
                    repeated.message,
                    repeated.count,
                    now - repeated.said_at,
                )
                repeated.count = 0
                repeated.said_at = now
            else:
                del self._repeated[at]

    def _due(self, now: float) -> Iterator[tuple[tuple[str, str], _Repeated]]:
        for at, repeated in list(self._repeated.items()):
            if now - repeated.said_at >= QUIET_SECONDS:
                yield at, repeated


def _times(count: int) -> str:
    return f" ({count} times)" if count > 1 else ""
