"""A proxy between clients and a broker that does to their connections what networks do.

It runs in a thread of its own, with a loop; its methods may be called from any other. An address is a
Unix socket's path, or (host, port) for TCP, where port 0 takes any.
"""

import asyncio
import contextlib
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from enum import Enum
from typing import Any, TypeVar

T = TypeVar("T")

Address = str | tuple[str, int]

#: Bytes taken in one read; smaller than most batches, so that a cut falls into the middle of frames.
CHUNK = 16 * 1024
#: Seconds that a call waits for the proxy's thread.
CALL_SECONDS = 30.0


class Direction(Enum):
    """Which way bytes go."""

    TO_BROKER = 0
    TO_CLIENT = 1


class _Pair:
    """A client's connection and the one to the broker that belongs to it."""

    def __init__(self, client: asyncio.StreamWriter, broker: asyncio.StreamWriter) -> None:
        self.ends = (broker, client)  # by direction: where its bytes go
        self.stalled: set[Direction] = set()
        #: Bytes that may still pass before it is cut.
        self.left: int | None = None
        #: Ways whose end has come and was not passed on, because they are stalled.
        self.unheard: set[Direction] = set()
        self.over = asyncio.Event()

    def cut(self, reset: bool) -> None:
        """Ends both connections at once: with a reset, or as if the other side had closed."""
        self.over.set()
        for end in self.ends:
            sock = end.get_extra_info("socket")
            if reset and sock is not None and sock.family != socket.AF_UNIX:
                with contextlib.suppress(OSError):  # this end is closed already
                    # Linger of zero seconds: the kernel sends RST and drops what is under way.
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            end.transport.abort()


class Proxy:
    """Passes bytes both ways until it is told to do otherwise."""

    def __init__(self, listen: Address, target: Address, seed: int = 0) -> None:
        self._listen = listen
        self._target = target
        self._random = random.Random(seed)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault proxy", daemon=True)
        self._server: asyncio.Server | None = None
        #: Holds a TCP port for as long as nobody listens there: another process may not have it then.
        self._place: socket.socket | None = None
        self._pairs: list[_Pair] = []
        self._delay = 0.0
        self._timers: set[asyncio.TimerHandle] = set()
        self._handlers: set[asyncio.Task[None]] = set()
        #: What was done: "cut", "cut mid-frame", "stalled", "refused", the "connections" that came, and the
        #: reads of stalled ones that were "swallowed".
        self.counts: Counter[str] = Counter()
        #: When it has ended or stalled connections, or taken none, in nanoseconds of the monotonic clock.
        self.disturbed_at: list[int] = []
        self._thread.start()
        self._wait(self._open())

    @property
    def address(self) -> Address:
        """Where it listens."""
        return self._listen

    @property
    def url(self) -> str:
        """The same for clients."""
        if isinstance(self._listen, str):
            return f"chervil+unix://{self._listen}"
        return "chervil://{}:{}".format(*self._listen)

    @property
    def connections(self) -> int:
        return len(self._pairs)

    def cut(self, *, all_: bool = False, reset: bool = True) -> int:
        """Ends one connection, drawn by lot, or all of them; how many there were."""
        return self._call(lambda: self._on_some(all_, "cut", lambda pair: pair.cut(reset)))

    def cut_after(self, count: int, *, all_: bool = False) -> int:
        """Lets `count` more bytes pass, both ways taken together, and then cuts: in the middle of a frame."""

        def limit(pair: _Pair) -> None:
            pair.left = count

        return self._call(lambda: self._on_some(all_, "cut mid-frame", limit))

    def stall(self, *directions: Direction, all_: bool = False) -> int:
        """Half-open: what goes these ways (both, if none is named) vanishes from now on; nobody is told."""

        def stall(pair: _Pair) -> None:
            pair.stalled.update(directions or Direction)

        return self._call(lambda: self._on_some(all_, "stalled", stall))

    def cut_stalled(self) -> int:
        """Ends all half-open connections."""

        def cut() -> int:
            stalled = [pair for pair in self._pairs if pair.stalled]
            for pair in stalled:
                pair.cut(reset=True)
            self._disturbed()
            return len(stalled)

        return self._call(cut)

    def delay(self, seconds: float) -> None:
        """Holds every read for so long before it goes on; 0 ends it."""
        self._delay = seconds

    def refuse(self, seconds: float) -> None:
        """Takes no new connections for so long; those that are there go on."""
        self._call(lambda: self._refuse(seconds))

    def close(self) -> None:
        """Ends all connections and the thread."""
        self._wait(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(CALL_SECONDS)
        self._loop.close()

    def __enter__(self) -> "Proxy":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # In the loop's thread

    async def _open(self) -> None:
        if isinstance(self._listen, str):
            self._server = await asyncio.start_unix_server(self._accepted, self._listen)
        else:
            if self._place is None:
                self._place = socket.socket()
                self._place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                self._place.bind(self._listen)
                self._listen = self._place.getsockname()
            self._server = await asyncio.start_server(self._accepted, *self._listen)

    async def _close(self) -> None:
        for timer in self._timers:
            timer.cancel()
        if self._server is not None:
            self._server.close()
        for pair in list(self._pairs):
            pair.cut(reset=False)
        if self._handlers:
            await asyncio.wait(self._handlers, timeout=CALL_SECONDS)
        if self._place is not None:
            self._place.close()

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.counts["connections"] += 1
        handler = self._loop.create_task(self._connected(reader, writer))
        self._handlers.add(handler)
        handler.add_done_callback(self._handlers.discard)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if isinstance(self._target, str):
                from_broker, to_broker = await asyncio.open_unix_connection(self._target)
            else:
                from_broker, to_broker = await asyncio.open_connection(*self._target)
        except OSError:  # no broker there: the client is told in the same way
            writer.transport.abort()
            return
        pair = _Pair(writer, to_broker)
        self._pairs.append(pair)
        try:
            await asyncio.gather(
                self._pump(reader, pair, Direction.TO_BROKER),
                self._pump(from_broker, pair, Direction.TO_CLIENT),
            )
        finally:
            self._pairs.remove(pair)
            pair.cut(reset=False)

    async def _pump(self, reader: asyncio.StreamReader, pair: _Pair, direction: Direction) -> None:
        """Passes bytes one way until either side ends; the other way then ends too."""
        out = pair.ends[direction.value]
        with contextlib.suppress(OSError):
            while data := await reader.read(CHUNK):
                if self._delay:
                    await asyncio.sleep(self._delay)
                if direction in pair.stalled:
                    self.counts["swallowed"] += 1
                    continue
                if pair.left is not None:
                    data, pair.left = data[: pair.left], max(0, pair.left - len(data))
                out.write(data)
                await out.drain()
                if pair.left == 0:
                    self._disturbed()
                    break
        if direction in pair.stalled:
            # The end of a half-open connection is not heard of either, until both sides have given up.
            pair.unheard.add(direction)
            if len(pair.unheard) < len(Direction):
                await pair.over.wait()
        pair.over.set()
        for end in pair.ends:
            with contextlib.suppress(OSError):
                end.close()

    def _on_some(self, all_: bool, what: str, do: Callable[[_Pair], None]) -> int:
        pairs = list(self._pairs)
        if not all_ and pairs:
            pairs = [self._random.choice(pairs)]
        for pair in pairs:
            do(pair)
        self._disturbed()
        self.counts[what] += len(pairs)
        return len(pairs)

    def _refuse(self, seconds: float) -> None:
        if self._server is None:
            return  # refusing already
        self.counts["refused"] += 1
        self._disturbed()
        self._server.close()
        self._server = None

        def again() -> None:
            self._timers.discard(timer)
            task = self._loop.create_task(self._open())
            self._handlers.add(task)
            task.add_done_callback(self._handlers.discard)

        timer = self._loop.call_later(seconds, again)
        self._timers.add(timer)

    def _disturbed(self) -> None:
        self.disturbed_at.append(time.monotonic_ns())

    def _wait(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(CALL_SECONDS)

    def _call(self, function: Callable[[], T]) -> T:
        async def run() -> T:
            return function()

        return self._wait(run())
