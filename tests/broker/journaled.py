"""A broker with a journal in this process, with segments so small that a test fills many of them."""

import asyncio
import contextlib
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any
from unittest import mock

from chervil_broker.access import Access
from chervil_broker.broker import Broker
from chervil_broker.clock import Clock
from chervil_broker.durability import Durability, JournalFailed
from chervil_broker.engine import Engine
from chervil_broker.engine.restoring import RestoredSession
from chervil_broker.journal import opening
from chervil_broker.journal.opening import open_folder
from chervil_broker.journal.records import Tick, pack
from chervil_broker.journal.spares import PAGE, Spares
from chervil_broker.journal_care import JournalCare
from chervil_broker.options import BrokerOptions
from chervil_broker.users import UsersFile
from tests.broker.journal.recorded import assert_alike, picture
from tests.broker.talk import DEADLINE, House

FIRST, LARGEST = PAGE, 4 * PAGE


class DurableHouse(House):
    """A broker, its journal, and the event that a failure of that sets."""

    def __init__(
        self, broker: Broker, path: Path, folder: Path, durability: Durability, failed: asyncio.Event
    ) -> None:
        super().__init__(broker, path)
        self.folder = folder
        self.durability = durability
        self.store = durability.store
        self.failed = failed

    def care(self, disk_min: int = 0) -> JournalCare:
        """Compaction as it suits a test: nothing looks by itself."""
        return JournalCare(self.broker, self.store, self.durability.files, disk_min)

    async def at_rest(self) -> None:
        """Until all that was decided is durable, and all that a compaction has written."""
        self.broker.pump.settle()
        now, wall = self.broker.clock.now(), self.broker.clock.wall()
        await self.broker.pump.when_durable(self.store.append([pack(Tick(now, wall))]))

    def killed(self, name: str = "killed") -> Path:
        """What a broker that is killed now leaves; the house is to be at rest."""
        copy = self.folder.with_name(name)
        copy.mkdir(mode=0o700)
        for file in self.folder.iterdir():
            if file.is_file():
                shutil.copyfile(file, copy / file.name)
        return copy

    def pictures(self) -> dict[str, Any]:
        """What the engines know, by vhost."""
        return {
            name: picture(vhost.engine, self.broker.bodies, self._kept())
            for name, vhost in self.broker.vhosts.items()
        }

    def _kept(self) -> list[int]:
        numbers = self.broker.sessions.numbers()
        return [number for number in numbers if self.broker.sessions.record_of(number)]


def recovered(folder: Path, live: "DurableHouse") -> dict[str, Any]:
    """What engines would know that began with a folder, by vhost; those of `live` lend their limits."""
    with small_segments():
        opened = open_folder(folder, "always", Clock())
    opened.writer.close()
    opened.lock.release()
    replay = opened.replay
    pictures = {}
    for name, known in replay.vhosts.items():
        engine = Engine(live.broker.vhosts[name].engine._state.config)
        engine.tick(replay.now, replay.wall)
        sessions = [
            RestoredSession(each.number, each.name, each.sequence) for each in replay.sessions.values()
        ]
        engine.restore(known, sessions, 1)
        pictures[name] = picture(engine, opened.bodies, replay.sessions)
    return pictures


def assert_recovered(
    folder: Path, live: "DurableHouse", *, copied: bool = False, earlier: bool = False
) -> None:
    """Fails where a broker that began with this folder would know something else.

    `copied`: something was compacted; `earlier`: since this was left, something has been.
    """
    pictures = live.pictures()
    found = recovered(folder, live)
    for name, told in found.items():
        # The newest segment's opening record tells a newer time than the engine has seen.
        del told["now"], pictures[name]["now"]
        for id_, task in told["tasks"].items():
            # The loop learns of a new segment after the thread that writes to it.
            home = pictures[name]["tasks"][id_].pop("home")
            assert earlier | (home <= task.pop("home"))
        assert_alike(pictures[name], told, copied=copied)
    assert not any(pictures[name]["tasks"] for name in pictures.keys() - found.keys())


def small_segments() -> Any:
    return mock.patch.object(
        opening, "Spares", lambda files, least: Spares(files, first=FIRST, largest=LARGEST)
    )


@contextlib.asynccontextmanager
async def journaled(
    folder: Path, clock: Clock | None = None, *, needs_token: bool = False, **options: Any
) -> AsyncIterator[DurableHouse]:
    clock = clock or Clock()
    given = BrokerOptions(**{"data": str(folder), "max_memory": 64 << 20, **options})
    with tempfile.TemporaryDirectory() as place, small_segments():
        path = Path(place) / "b.sock"
        durability = Durability(given, clock)
        access = Access(UsersFile(folder / "users.json"), local_token_hash=None, ask=needs_token)
        broker = Broker(given, durability.store, access, clock, durability.recovered)
        failed = asyncio.Event()
        server = await asyncio.get_running_loop().create_unix_server(
            lambda: broker.new_peer(needs_token=needs_token), str(path)
        )
        durability.start(failed)
        house = DurableHouse(broker, path, folder, durability, failed)
        try:
            yield house
        finally:
            for talker in house.talkers:
                talker.writer.close()
            server.close()
            await broker.stop(1.0)
            with contextlib.suppress(JournalFailed):
                await durability.close()
            for talker in house.talkers:
                with contextlib.suppress(ConnectionError):
                    await talker.writer.wait_closed()


def play(folder: Path, *scenarios: Callable[[DurableHouse], Awaitable[None]], **options: Any) -> None:
    """Runs each scenario against a broker that goes on where the one before ended in order."""

    async def run() -> None:
        for scenario in scenarios:
            async with asyncio.timeout(DEADLINE), journaled(folder, **options) as house:
                await scenario(house)

    asyncio.run(run())
