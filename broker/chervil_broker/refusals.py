"""Every refusal is logged; what repeats itself is logged once in a while, counted by reason.

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
#: Reasons that a line tells, and characters of each: of what a stranger sends nothing piles up here.
REASONS_MAX = 4
REASON_MAX = 400
_OTHERS = ("others", "")
_OTHERWISE = "other reasons"


class _Repeated:
    """What was refused to one peer with one code and is not logged yet, by reason."""

    __slots__ = ("_reasons", "name", "said_at")

    def __init__(self, name: str, said_at: float) -> None:
        self.name = name
        self.said_at = said_at
        self._reasons: Counter[str] = Counter()

    def add(self, reason: str, count: int) -> None:
        reason = reason[:REASON_MAX]
        if reason not in self._reasons and len(self._reasons) >= REASONS_MAX:
            reason = _OTHERWISE
        self._reasons[reason] += count

    def told(self, now: float) -> str:
        """What a line says of them; empty where there is nothing. They are told then."""
        reasons, self._reasons = self._reasons, Counter()
        if not reasons:
            return ""
        times = f"({reasons.total()} more in {now - self.said_at:.0f} s)"
        self.said_at = now
        if len(reasons) == 1:
            return f"{next(iter(reasons))} {times}"
        return f"{'; '.join(f'{reason} ({count})' for reason, count in reasons.items())} {times}"


class Refusals:
    """Writes the log lines of refusals."""

    def __init__(self) -> None:
        self._repeated: dict[tuple[str, str], _Repeated] = {}

    def refuse(  # noqa: PLR0917 -- what a line says, in its order
        self, now: float, key: str, name: str, code: str, message: str, count: int = 1
    ) -> None:
        """Notes that `count` requests, rows or connections of a peer were refused.

        `key` tells peers apart, `name` is what the log calls this one; `now` is in seconds.
        """
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
        repeated.add(f"{code}: {message}", count)

    def look(self, now: float) -> None:
        """Writes a line for what has repeated itself long enough, and forgets what has not."""
        for at, repeated in self._due(now):
            told = repeated.told(now)
            if told:
                log.warning("%s refused: %s", repeated.name, told)
            else:
                del self._repeated[at]

    def _due(self, now: float) -> Iterator[tuple[tuple[str, str], _Repeated]]:
        for at, repeated in list(self._repeated.items()):
            if now - repeated.said_at >= QUIET_SECONDS:
                yield at, repeated


def _times(count: int) -> str:
    return f" ({count} times)" if count > 1 else ""
