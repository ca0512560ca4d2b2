"""A broker in this process, and clients that talk to it message by message over a Unix socket."""

import asyncio
import contextlib
import os
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

from chervil.protocol import Connection, Message, Side
from chervil.protocol.messages import Hello, Welcome
from chervil_broker.broker import Broker
from chervil_broker.options import BrokerOptions
from chervil_broker.store import MemoryStore

DEADLINE = 10.0
M = TypeVar("M")


class Talker:
    """One client's end: sends messages, or raw bytes, and takes the broker's answers one by one."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connection = Connection(Side.CLIENT)
        self.reader, self.writer = reader, writer
        self._came: list[Message] = []

    def send(self, *messages: Message) -> None:
        self.writer.write(b"".join(self.connection.send(message) for message in messages))

    def send_raw(self, data: bytes) -> None:
        self.writer.write(data)

    async def next(self) -> Message:
        """The next message; raises EOFError at the end of the connection."""
        while not self._came:
            await self._read()
        return self._came.pop(0)

    async def expect(self, kind: type[M]) -> M:
        """The next message of a kind; others wait, for answers to several requests come in any order."""
        while True:
            for at, message in enumerate(self._came):
                if isinstance(message, kind):
                    del self._came[at]
                    return message
            try:
                await self._read()
            except EOFError:
                raise AssertionError(f"no {kind.__name__} came, but {self._came}") from None

    async def _read(self) -> None:
        data = await asyncio.wait_for(self.reader.read(1 << 20), DEADLINE)
        if not data:
            raise EOFError
        self._came += self.connection.receive(data)

    async def ended(self) -> bool:
        """Whether the broker closes without saying more."""
        try:
            message = await self.next()
        except (EOFError, ConnectionError):
            return True
        raise AssertionError(message)

    async def hello(self, name: str = "talker", **more: Any) -> Welcome:
        self.send(Hello(1, 1, [], name, **more))
        return await self.expect(Welcome)


class House:
    """The broker, and the socket that it listens on."""

    def __init__(self, broker: Broker, path: Path) -> None:
        self.broker, self.path = broker, path
        self.talkers: list[Talker] = []

    async def connect(self) -> Talker:
        talker = Talker(*await asyncio.open_unix_connection(str(self.path)))
        self.talkers.append(talker)
        return talker

    async def guest(self, name: str = "talker") -> Talker:
        """A client that has said HELLO."""
        talker = await self.connect()
        await talker.hello(name)
        return talker


@contextlib.asynccontextmanager
async def house(
    *, token_hash: bytes | None = None, needs_token: bool = False, **options: Any
) -> AsyncIterator[House]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "b.sock"
        given = {"memory": True, "max_memory": 64 << 20, **options}
        broker = Broker(BrokerOptions(**given), MemoryStore(), token_hash)
        server = await asyncio.get_running_loop().create_unix_server(
            lambda: broker.new_peer(needs_token=needs_token), str(path)
        )
        place = House(broker, path)
        try:
            yield place
        finally:
            for talker in place.talkers:
                talker.writer.close()
            server.close()
            await broker.stop(DEADLINE)
            for talker in place.talkers:
                with contextlib.suppress(ConnectionError):
                    await talker.writer.wait_closed()


def play(scenario: Callable[[House], Awaitable[None]], **options: Any) -> None:
    """Runs a scenario against a fresh broker, within a deadline."""

    async def run() -> None:
        async with house(**options) as place, asyncio.timeout(DEADLINE):
            await scenario(place)

    asyncio.run(run())


def task(id_: bytes | None = None, name: str = "tasks.add", queue: str = "default", **more: Any) -> list[Any]:
    """A task row."""
    row: dict[str, Any] = {
        "priority": 0,
        "options": None,
        "headers": None,
        "codec": "json",
        "body": b"[[2,3],{}]",
    } | more
    return [id_ or os.urandom(16), name, queue, *row.values()]
