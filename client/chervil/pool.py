"""Lines kept for reuse: the newest first, one for each call, safe across threads and forks."""

import os
import threading
from collections.abc import Callable
from time import monotonic, sleep
from weakref import WeakSet

from chervil.address import Addresses
from chervil.conversation import jittered
from chervil.exceptions import OperationalError
from chervil.line import Line

_pools: "WeakSet[Pool]" = WeakSet()


class Pool:
    """`conversation.Lines` of blocking calls: one line for each, and coroutines that never suspend.

    At most `limit` are used by publishing calls at once, others wait their turn; at most `limit` idle ones
    are kept. A call that waits for results takes a line beside that limit: else a few waiting threads
    would stop the others from publishing what they wait for.

    All lead to one broker as far as that can be: once a new line leads elsewhere, those that lead to where it
    was before are taken for no further call.
    """

    now = staticmethod(monotonic)

    def __init__(self, addresses: Addresses, connect: Callable[[float | None], Line], limit: int) -> None:
        """`connect` makes a line to one of the addresses."""
        self._addresses = addresses
        self._connect = connect
        self._limit = limit
        self._reset()
        _pools.add(self)

    @property
    def reached(self) -> bool:
        return self._addresses.reached

    def _reset(self) -> None:
        # The lock itself is used where nobody is to be woken: a condition's `with` is a Python call.
        self._lock = threading.Lock()
        self._free = threading.Condition(self._lock)
        self._waiting = 0
        self._idle: list[Line] = []
        self._in_use = 0

    async def take(self, end: float | None) -> Line:
        """A line for a short call; raises OperationalError when none can be had before `end`."""
        with self._lock:
            if self._in_use >= self._limit:
                self._wait_for_one(end)
            self._in_use += 1
        try:
            return await self.take_beside(end)
        except BaseException:
            self._release()
            raise

    def idle(self) -> Line | None:
        """A line for a short call if that takes no waiting: one that is idle and can be used."""
        with self._lock:
            if not self._idle or self._in_use >= self._limit:
                return None
            line = self._idle.pop()
            self._in_use += 1
        if self._usable(line):
            return line
        self._release()
        return None

    async def take_beside(self, end: float | None) -> Line:
        """A line that does not count, for a call that waits long; give it back with `give_beside`."""
        while True:
            with self._lock:
                line = self._idle.pop() if self._idle else None
            if line is None:
                return self._connect(end)
            if self._usable(line):
                return line

    def _usable(self, line: Line) -> bool:
        """Whether an idle line can be used; one that cannot is closed."""
        if line.url is not self._addresses.current:
            line.close()
            return False
        if line.fresh():
            return True
        self._addresses.broke(line.url)
        line.socket.close()
        return False

    def give(self, line: Line) -> None:
        """Takes a line back after a short call."""
        with self._lock:
            self._in_use -= 1
            if self._waiting:
                self._free.notify()
            if len(self._idle) < self._limit and line.url is self._addresses.current:
                self._idle.append(line)
                return
        line.close()

    def give_beside(self, line: Line) -> None:
        """Takes a line back after a call that waited long."""
        with self._lock:
            if len(self._idle) < self._limit and line.url is self._addresses.current:
                self._idle.append(line)
                return
        line.close()

    def drop(self, line: Line, error: BaseException) -> None:
        """Closes a line whose short call failed: what is still to come would be taken for the next call's."""
        self.drop_beside(line, error)
        self._release()

    def drop_beside(self, line: Line, error: BaseException) -> None:
        self._addresses.broke(line.url)
        line.socket.close()

    async def pause(self, seconds: float) -> None:
        sleep(jittered(seconds))  # noqa: ASYNC251  # no event loop runs it: see conversation.run

    def close(self) -> None:
        """Says goodbye on the idle lines."""
        with self._lock:
            idle, self._idle = self._idle, []
        for line in idle:
            line.close()

    renew = close

    def _wait_for_one(self, end: float | None) -> None:
        self._waiting += 1
        try:
            while self._in_use >= self._limit:
                if not self._free.wait(None if end is None else max(0.0, end - monotonic())):
                    raise OperationalError(
                        f"all {self._limit} connections to the broker are in use; raise broker_pool_limit"
                    )
        finally:
            self._waiting -= 1

    def _release(self) -> None:
        with self._lock:
            self._in_use -= 1
            self._free.notify()

    def forget(self) -> None:
        """After a fork, in the child: the lines are the parent's, and its threads are gone."""
        idle = self._idle
        self._reset()
        for line in idle:
            # Closed, not said goodbye to: the parent goes on using the connection.
            line.socket.close()


def _forget_all() -> None:
    for pool in list(_pools):
        pool.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)
