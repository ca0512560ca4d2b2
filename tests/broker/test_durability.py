"""A data folder under a broker: opened, written, closed in order; and what happens when it fails."""

import asyncio
import contextlib
import errno
import os
from unittest import mock

import pytest

from chervil.protocol import Stage
from chervil.protocol.messages import Confirm, Goodbye, Publish
from chervil.statedir import NotPrivate
from chervil_broker import journal_care
from chervil_broker.clock import Clock
from chervil_broker.durability import Durability, JournalFailed
from chervil_broker.journal.files import OSFile, OSFiles
from chervil_broker.journal.lock import FolderInUse
from chervil_broker.journal.opening import open_folder
from chervil_broker.journal.reader import Reader
from chervil_broker.journal.records import Close, Tick, decode
from chervil_broker.options import BrokerOptions
from tests.broker.journaled import journaled, play
from tests.broker.talk import DEADLINE, task


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "data"


def options_for(folder):
    return BrokerOptions(data=str(folder), max_memory=64 << 20)


def records(folder):
    return [decode(record) for found in Reader(OSFiles(folder)) for record in found.records]


class Disk:
    """Has every sync fail while it is told to."""

    def __init__(self, monkeypatch):
        self.error = None
        real_sync = OSFile.sync

        def sync(file):
            if self.error is not None:
                raise OSError(self.error, os.strerror(self.error))
            real_sync(file)

        monkeypatch.setattr(OSFile, "sync", sync)


async def confirms(talker):
    """How many come before the connection ends."""
    count = 0
    with contextlib.suppress(EOFError):
        while True:
            count += isinstance(await talker.next(), Confirm)
    return count


def test_what_was_confirmed_is_there_when_it_is_opened_again(folder):
    ids = [os.urandom(16) for _ in range(3)]

    async def publish(house):
        guest = await house.guest()
        guest.send(Publish(1, [task(id_) for id_ in ids]))
        assert (await guest.expect(Confirm)).accepted == 3
        assert house.broker.store.durability == "always"

    async def ask(house):
        assert await house.stages(*ids) == [Stage.QUEUED] * 3

    play(folder, publish, ask, ask)


def test_the_end_in_order_is_the_last_thing_that_is_written(folder):
    async def publish(house):
        guest = await house.guest()
        guest.send(*[Publish(request, [task()]) for request in range(50)])
        await guest.expect(Confirm)

    play(folder, publish)
    told = records(folder)
    assert type(told[-1]) is Close
    assert sum(type(record) is Close for record in told) == 1


def test_what_is_decided_when_the_end_comes_is_durable_and_told(folder):
    """The broker is told to stop in the same turn of the loop in which a publish came."""
    id_ = os.urandom(16)

    async def scenario():
        async with asyncio.timeout(DEADLINE):
            async with journaled(folder) as house:
                guest = await house.guest()
                peer = next(iter(house.broker.served.values()))
                peer.data_received(guest.connection.send(Publish(7, [task(id_)])))
                await house.broker.stop(DEADLINE)
                assert (await guest.expect(Confirm)).request == 7
            async with journaled(folder) as house:
                assert await house.stages(id_) == [Stage.QUEUED]

    asyncio.run(scenario())


def test_what_comes_after_the_end_was_asked_for_is_not_written_behind_it(folder):
    async def scenario():
        async with asyncio.timeout(DEADLINE), journaled(folder) as house:
            guest = await house.guest()
            peer = next(iter(house.broker.served.values()))
            closing = asyncio.create_task(house.durability.close())
            await asyncio.sleep(0)
            while not closing.done():
                peer.data_received(guest.connection.send(Publish(1, [task()])))
                await asyncio.sleep(0)
            await closing
            house.durability.close = mock.AsyncMock()

    asyncio.run(scenario())
    assert type(records(folder)[-1]) is Close


def test_nothing_leaves_when_a_sync_has_failed_and_the_broker_is_told_to_stop(folder, monkeypatch):
    async def scenario():
        async with asyncio.timeout(DEADLINE), journaled(folder) as house:
            guest = await house.guest()
            guest.send(Publish(1, [task()]))
            await guest.expect(Confirm)
            disk = Disk(monkeypatch)
            disk.error = errno.EIO
            guest.send(Publish(2, [task()]), Publish(3, [task()]))
            await house.failed.wait()
            disk.error = None
            guest.send(Publish(4, [task()]))
            await house.broker.stop(0.1)
            assert await confirms(guest) == 0
            with pytest.raises(JournalFailed, match=r"Input/output error.*Look after the disk"):
                house.durability.raise_if_failed()
            with pytest.raises(JournalFailed):
                await house.durability.close()
            house.durability.close = mock.AsyncMock()

    asyncio.run(scenario())


def test_a_sync_that_fails_at_the_very_end_is_told(folder, monkeypatch):
    async def scenario():
        async with asyncio.timeout(DEADLINE), journaled(folder) as house:
            guest = await house.guest()
            guest.send(Publish(1, [task()]))
            await guest.expect(Confirm)
            await house.broker.stop(DEADLINE)
            house.durability.raise_if_failed()
            Disk(monkeypatch).error = errno.EIO
            with pytest.raises(JournalFailed, match="Input/output error"):
                await house.durability.close()
            house.durability.close = mock.AsyncMock()

    asyncio.run(scenario())
    monkeypatch.undo()
    open_folder(folder, "always", Clock()).lock.release()  # the lock was given back


def test_a_folder_that_can_not_be_used_is_one_message(tmp_path):
    (tmp_path / "file").write_text("")

    async def scenario():
        with pytest.raises(JournalFailed, match=f"the data folder {tmp_path}/file/data can not be used"):
            Durability(options_for(tmp_path / "file" / "data"), Clock())

    asyncio.run(scenario())


def test_a_folder_of_others_and_one_in_use_are_told_as_such(folder):
    async def scenario():
        durability = Durability(options_for(folder), Clock())
        with pytest.raises(FolderInUse):
            Durability(options_for(folder), Clock())
        durability.start(asyncio.Event())
        await durability.close()
        folder.chmod(0o777)
        with pytest.raises(NotPrivate):
            Durability(options_for(folder), Clock())

    asyncio.run(scenario())


def test_an_open_journal_is_cared_for_until_the_broker_ends(folder, monkeypatch):
    monkeypatch.setattr(journal_care, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(journal_care, "TICK_SECONDS", 0.0)

    async def scenario():
        async with asyncio.timeout(DEADLINE), journaled(folder) as house:
            caring = asyncio.create_task(house.durability.care_for(house.broker))
            await house.until(lambda: any(type(record) is Tick for record in records(folder)))
            caring.cancel()

    asyncio.run(scenario())


def test_an_error_in_the_pump_ends_the_broker_and_nothing_leaves_that_rests_on_it(folder, monkeypatch):
    """What the engines hold then is in no record: whatever was confirmed on top of it would be lost."""

    async def scenario():
        async with journaled(folder) as house:
            guest = await house.guest()
            guest.send(Publish(1, [task()]))
            assert (await guest.expect(Confirm)).accepted == 1
            with monkeypatch.context() as patched:
                patched.setattr(
                    "chervil_broker.journal.recording.Recorder.encode",
                    mock.Mock(side_effect=OverflowError("int too big to convert")),
                )
                lost = task()
                guest.send(Publish(2, [lost]))
                await house.failed.wait()
            guest.send(Publish(3, [lost]))
            with pytest.raises(JournalFailed, match=r"the broker's own, OverflowError: int too big"):
                house.durability.raise_if_failed()
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(guest.expect(Confirm), 0.1)
            copy = house.killed()
        async with journaled(copy) as house:
            assert await house.stages(lost[0]) == [Stage.UNKNOWN]

    async def within_the_deadline():
        async with asyncio.timeout(DEADLINE):
            await scenario()

    asyncio.run(within_the_deadline())


def test_an_answer_to_a_slow_reader_leaves_before_the_goodbye_that_came_after_it(folder, monkeypatch):
    held = asyncio.Event()

    async def scenario(house):
        guest = await house.guest()
        (peer,) = house.broker.served.values()
        hold = house.broker.pump._gate.open_to
        durable = []
        house.store.on_durable = durable.append
        peer.pause_writing()
        peer.data_received(guest.connection.send(Publish(1, [task()])))
        await house.until(lambda: durable)
        peer.resume_writing()
        peer.data_received(guest.connection.send(Goodbye("DONE")))
        await asyncio.sleep(0)
        house.store.on_durable = hold
        hold(durable[-1])
        assert [type(await guest.next()), type(await guest.next())] == [Confirm, Goodbye]
        held.set()

    play(folder, scenario)
    assert held.is_set()
