"""Publishers' windows: who may publish how much while memory is short (protocol.md, WINDOW).

No I/O: the broker says how the engine's memory stands, and sends what comes back. While there is
room enough nobody has a window and nothing is done here.
"""

from collections.abc import Mapping

from chervil.protocol.limits import UINT_MAX

#: A window that does not limit.
NO_LIMIT = UINT_MAX
#: The least that an opening window lets through: a frame's worth would make small publishers wait for
#: one another, less would cost a WINDOW for every few tasks.
SHARE_MIN = 65_536
#: With so much of the memory limit free before windows close again (at 80 %), they are lifted: at 50 %.
FREE_TO_LIFT = 0.3


class Window:
    """What one connection has published since WELCOME, and how much it may; in bytes."""

    __slots__ = ("asks_at", "limit", "published")

    def __init__(self) -> None:
        self.published = 0
        self.limit = NO_LIMIT
        #: Where it has used half of its last share; while it is to get none, never.
        self.asks_at = NO_LIMIT

    def close(self) -> None:
        self.limit = self.published
        self.asks_at = NO_LIMIT

    def open(self, share: int) -> None:
        self.limit = self.published + share
        self.asks_at = self.published + share // 2

    def lift(self) -> None:
        self.limit = self.asks_at = NO_LIMIT


class Windows:
    """The windows of all connections that are not without limit, by the connection's number."""

    def __init__(self, memory_limit: int) -> None:
        self._room_to_lift = int(memory_limit * FREE_TO_LIFT)
        self._narrow: dict[int, Window] = {}
        #: Those that used half of their share, and those that were refused FULL out of turn.
        self._asking: dict[int, Window] = {}
        self._refused: dict[int, Window] = {}
        #: Memory ran short: every connection has a window, closed or opening.
        self._short = False
        self._closed = False

    @property
    def closed(self) -> bool:
        """Memory is short: publishers wait."""
        return self._closed

    def limit(self, memory_limit: int) -> None:
        """The memory is another one from now on."""
        self._room_to_lift = int(memory_limit * FREE_TO_LIFT)

    @property
    def idle(self) -> bool:
        """Nobody has a window: while memory is not short there is nothing to do."""
        return not self._narrow

    def welcome(self, number: int, window: Window) -> bool:
        """Gives a new connection the window that others have; whether it is to be told of one."""
        if not self._short:
            return False
        window.close()
        self._narrow[number] = window
        if not self._closed:
            self._asking[number] = window
        return True

    def leave(self, number: int) -> None:
        """The connection is gone."""
        for table in (self._narrow, self._asking, self._refused):
            table.pop(number, None)

    def count(self, number: int, window: Window, size: int) -> None:
        """`size` bytes were published there."""
        window.published += size
        if window.published >= window.asks_at:
            window.asks_at = NO_LIMIT
            self._asking[number] = window

    def refused(self, number: int, window: Window) -> bool:
        """It was refused FULL; whether it is to be told of a window that this has closed.

        While memory as a whole is not short, its window is opened again by `reopen`.
        """
        if window.limit <= window.published:
            return False
        window.close()
        self._narrow[number] = window
        self._asking.pop(number, None)
        self._refused[number] = window
        return True

    def reopen(self) -> list[tuple[int, Window]]:
        """Lets those try again that were refused FULL though memory was not short; to be told."""
        if self._closed or not self._refused:
            return []
        changed = list(self._refused.items())
        self._refused.clear()
        for number, window in changed:
            if self._short:
                window.open(SHARE_MIN)
            else:
                window.lift()
                del self._narrow[number]
        return changed

    def follow(self, room: int, everyone: Mapping[int, Window], *, closed: bool) -> list[tuple[int, Window]]:
        """Opens and closes windows as memory goes; returns those that are to be told.

        `closed` is whether publishers are to wait, `room` how many bytes may be published until they
        are, and `everyone` holds the window of each connection, by its number.
        """
        # A row that is too large for half of the memory is its publisher's affair (`refused`).
        if closed and room < self._room_to_lift:
            return [] if self._closed else self._close(everyone)
        if not self._short:
            return []
        if room >= self._room_to_lift:
            return self._lift()
        share = max(SHARE_MIN, room // len(self._narrow)) if self._narrow else SHARE_MIN
        if self._closed:
            self._closed = False
            opened = list(self._narrow.items())
        else:
            opened = list(self._asking.items())
        self._asking.clear()
        for _, window in opened:
            window.open(share)
        return opened

    def _close(self, everyone: Mapping[int, Window]) -> list[tuple[int, Window]]:
        self._short = self._closed = True
        self._asking.clear()
        self._refused.clear()
        told = [(number, window) for number, window in everyone.items() if window.limit > window.published]
        for _, window in told:
            window.close()
        self._narrow = dict(everyone)
        return told

    def _lift(self) -> list[tuple[int, Window]]:
        self._short = self._closed = False
        self._asking.clear()
        self._refused.clear()
        lifted = list(self._narrow.items())
        self._narrow.clear()
        for _, window in lifted:
            window.lift()
        return lifted
