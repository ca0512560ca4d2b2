"""A broker in this process, and clients that talk to it message by message over a Unix socket."""

import asyncio
import contextlib
import os
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

from chervil.protocol import Connection, Message, Side, Stage
from chervil.protocol.messages import (
    Confirm,
    Credit,
    Deliver,
    Goodbye,
    Hello,
    Ok,
    Publish,
    Query,
    Report,
    Stats,
    Status,
    Subscribe,
    Welcome,
)
from chervil_broker.access import Access
from chervil_broker.broker import Broker
from chervil_broker.options import BrokerOptions
from chervil_broker.store import MemoryStore
from chervil_broker.users import UsersFile

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

    def vanish(self) -> None:
        """Ends the connection without a word."""
        self.writer.transport.abort()


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

    async def worker(
        self, *rows: list[Any], name: str = "worker@1", credit: int = 100, queue: str = "default"
    ) -> "Worker":
        """A worker of one queue that has been delivered these tasks."""
        talker = await self.connect()
        welcome = await talker.hello(name)
        if rows:
            talker.send(Publish(1, list(rows)))
            await talker.expect(Confirm)
        talker.send(Subscribe(2, [queue]), Credit(credit))
        await talker.expect(Ok)
        worker = Worker(talker, welcome)
        while len(worker.leases) < min(len(rows), credit):
            await worker.delivered()
        return worker

    async def back(self, welcome: Welcome, name: str = "worker@1") -> "Worker":
        """The worker on a new connection, after its HELLO."""
        talker = await self.connect()
        return Worker(talker, await talker.hello(name, resume=[welcome.session, welcome.secret]))

    async def stages(self, *ids: bytes) -> list[Stage]:
        """What has become of tasks, asked by somebody else."""
        asker = await self.guest("asker")
        asker.send(Query(1, list(ids)))
        stages = [Stage(row[1]) for row in (await asker.expect(Status)).tasks]
        asker.send(Goodbye("DONE"))
        await asker.expect(Goodbye)
        return stages

    async def stats(self) -> dict[str, Any]:
        """What STATS reports."""
        asker = await self.guest("asker")
        asker.send(Stats(1))
        report = (await asker.expect(Report)).report
        asker.send(Goodbye("DONE"))
        await asker.expect(Goodbye)
        return report

    async def until(self, condition: Callable[[], bool]) -> None:
        """Lets the loop go on until something holds; the scenario's deadline is the limit."""
        while not condition():  # noqa: ASYNC110 -- nothing tells of what the broker holds inside
            await asyncio.sleep(0.001)


class Worker:
    """A consumer's connection, its session, and the leases it was delivered: (id, lease)."""

    def __init__(self, talker: Talker, welcome: Welcome) -> None:
        self.talker, self.welcome = talker, welcome
        self.leases: list[tuple[bytes, int]] = []

    async def delivered(self) -> list[list[Any]]:
        """The rows of the next DELIVER."""
        rows = (await self.talker.expect(Deliver)).tasks
        self.leases.extend((row[0], row[1]) for row in rows)
        return rows


@contextlib.asynccontextmanager
async def house(
    *, token_hash: bytes | None = None, needs_token: bool = False, users: Path | None = None, **options: Any
) -> AsyncIterator[House]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "b.sock"
        given = {"memory": True, "max_memory": 64 << 20, **options}
        file = UsersFile(users or Path(folder) / "users.json")
        access = Access(file, local_token_hash=token_hash, ask=token_hash is not None or users is not None)
        broker = Broker(BrokerOptions(**given), MemoryStore(), access)
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
