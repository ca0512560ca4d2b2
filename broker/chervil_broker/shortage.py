"""The log's lines on memory: that publishers wait, why and what helps; and that they go on."""

import logging

log = logging.getLogger("chervil.broker")

#: Seconds between two lines: where workers are about as fast as publishers, memory is short and is not
#: several times a second.
QUIET_SECONDS = 60.0


class Shortage:
    """Writes a line when publishers begin to wait, and one when they go on."""

    __slots__ = ("_said", "_said_at", "_times", "_who", "waiting")

    def __init__(self, who: str = "publishers") -> None:
        """`who` they are, for the line."""
        self._who = who
        #: Whether publishers wait, and whether the log says so.
        self.waiting = False
        self._said = False
        self._said_at = float("-inf")
        #: How often they began to since the last line.
        self._times = 0

    def is_news(self, now: float, *, waiting: bool) -> bool:
        """Notes how it is; whether a line is due that says so. `now` is in seconds."""
        if waiting and not self.waiting:
            self._times += 1
        self.waiting = waiting
        return waiting != self._said and now - self._said_at >= QUIET_SECONDS

    def tell(self, now: float, memory: str, remedy: str, warnings: list[str]) -> None:
        """Writes the line: `memory` is what tasks may take, `remedy` how there is more of it.

        `warnings` is what is known to be amiss.
        """
        often = f" (it began {self._times} times since the last line)" if self._times > 1 else ""
        if self.waiting:
            log.warning(
                "%s wait: tasks take most of their %s%s; start more workers, throw away what is not "
                "wanted (chervil purge -Q QUEUE), or %s%s",
                self._who,
                memory,
                often,
                remedy,
                "".join(f"; {warning}" for warning in warnings),
            )
        else:
            log.info("%s go on: there is room for tasks again%s", self._who, often)
        self._said, self._said_at, self._times = self.waiting, now, 0
