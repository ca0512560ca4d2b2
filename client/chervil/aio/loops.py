"""Which event loop has which client: a connection is bound to the loop that it was made on."""

import asyncio
import contextlib
import os
from collections.abc import Callable
from weakref import WeakSet

from chervil.aio.client import AsyncClient

_all: "WeakSet[Loops]" = WeakSet()


class Loops:
    """The asyncio clients of one blocking client, by loop."""

    def __init__(self, make: Callable[[], AsyncClient]) -> None:
        self._make = make
        self._clients: dict[asyncio.AbstractEventLoop, AsyncClient] = {}
        _all.add(self)

    def client(self) -> AsyncClient:
        """The running loop's client; made at its first use. Those of closed loops are dropped then."""
        loop = asyncio.get_running_loop()
        client = self._clients.get(loop)
        if client is None:
            self.drop_closed()
            client = self._clients[loop] = self._make()
        return client

    async def leave(self) -> None:
        """Ends a block that entered the running loop's client; the last one to leave closes it."""
        loop = asyncio.get_running_loop()
        client = self._clients.get(loop)
        if client is not None:
            client.entered -= 1
            if client.entered <= 0:
                del self._clients[loop]
                await client.aclose()

    def close(self) -> None:
        """Closes all clients, each on its own loop; whoever waits on one is told so."""
        clients, self._clients = self._clients, {}
        here = asyncio._get_running_loop()
        for loop, client in clients.items():
            if loop is here:
                client.lines.close()
            elif loop.is_closed():
                client.forget()
            else:
                # Another thread's loop; it may end at this very moment.
                with contextlib.suppress(RuntimeError):
                    loop.call_soon_threadsafe(client.lines.close)

    def drop_closed(self) -> None:
        """Drops the connections of loops that are closed."""
        for loop in [loop for loop in self._clients if loop.is_closed()]:
            self._clients.pop(loop).forget()

    def forget(self) -> None:
        """After a fork, in the child: the loops and their connections are the parent's."""
        clients, self._clients = self._clients, {}
        for client in clients.values():
            client.forget()


def _forget_all() -> None:
    for loops in list(_all):
        loops.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)
