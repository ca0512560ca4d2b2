"""An open journal is cared for: compaction, the clocks, a full disk."""

import asyncio
import errno
import logging
import os
import threading
from types import SimpleNamespace

import pytest

from chervil.protocol import Code, Outcome, Stage
from chervil.protocol.messages import Complete, Confirm, Forget, Ok, Publish, Revoke, Window
from chervil_broker import journal_care
from chervil_broker.journal import commit, housekeeping
from chervil_broker.journal.files import OSFile, OSFiles
from chervil_broker.journal.reader import Reader
from chervil_broker.journal.records import Forgotten, Tick, decode
from chervil_broker.users import Quotas, changing
from tests.broker.journaled import assert_recovered, journaled
from tests.broker.talk import DEADLINE, task


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "data"


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(commit, "RETRY_SECONDS", 0.01)
    monkeypatch.setattr(housekeeping, "RETRY_SECONDS", 0.01)


def run(folder, scenario, **options):
    async def within_the_deadline():
        async with asyncio.timeout(DEADLINE), journaled(folder, **options) as house:
            await scenario(house)

    asyncio.run(within_the_deadline())


async def publish(house, guest, *tasks):
    guest.send(Publish(1, list(tasks)))
    return await guest.expect(Confirm)


async def churn(house, size=200, batches=60):
    """Tasks that come, are done and are forgotten: nothing of them is alive in the end."""
    guest = await house.guest()
    for _ in range(batches):
        ids = [os.urandom(16) for _ in range(5)]
        await publish(house, guest, *[task(id_, queue="churn", body=b"x" * size) for id_ in ids])
        guest.send(Revoke(2, ids, False), Forget(3, ids))
        for _ in range(2):
            await guest.expect(Ok)
    await house.at_rest()


def test_what_is_alive_outlives_its_segment_and_the_rest_goes(folder):
    async def scenario(house):
        worker = await house.worker(task(b"1" * 16, body=b"old" * 500), task(b"2" * 16))
        worker.talker.send(Complete(1, [[*worker.leases[1], Outcome.SUCCESS, "json", b"result"]]))
        guest = await house.guest()
        guest.send(Revoke(9, [b"r" * 16], False))
        await guest.expect(Ok)
        await churn(house)
        before = house.store.committed.disk
        care = house.care()
        old = house.store.segments()[:-1]
        while house.store.segments()[0] in old:
            await care._compact_oldest()
        assert house.store.committed.disk < 0.75 * before
        await house.at_rest()
        assert_recovered(house.killed(), house, copied=True)
        assert house.broker.default.engine.tasks[b"1" * 16].home > old[-1].number

    run(folder, scenario, dedup_ids=20)


def test_the_look_compacts_until_it_is_enough(folder):
    async def scenario(house):
        await churn(house)
        before = len(house.store.segments())
        await house.care(disk_min=1 << 30).look()
        assert len(house.store.segments()) == before
        disk_min = house.store.committed.disk * 3 // 4
        await house.care(disk_min).look()
        assert house.store.committed.disk <= disk_min
        assert 1 < len(house.store.segments()) < before

    run(folder, scenario, dedup_ids=20)


def test_a_journal_that_can_not_be_smaller_is_not_rewritten_for_ever(folder, monkeypatch):
    async def scenario(house):
        guest = await house.guest()
        for n in range(30):
            await publish(house, guest, task(b"%016d" % n, body=os.urandom(1500)))
        monkeypatch.setattr(type(house.broker), "live_bytes", lambda broker: 0)
        before = house.store.committed.written
        care = house.care()
        await care.look()
        once = house.store.committed.written
        assert once > before
        await care.look()
        assert house.store.committed.written == once

    run(folder, scenario)


def test_every_moment_of_a_compaction_recovers_to_what_is_alive(folder, monkeypatch):
    """A copy of the folder is taken at each removal of a segment, before and after it."""

    async def scenario(house):
        worker = await house.worker(*[task(body=os.urandom(300)) for _ in range(40)])
        for sequence, lease in enumerate(worker.leases[:20], 1):
            worker.talker.send(Complete(sequence, [[*lease, Outcome.SUCCESS, "json", b"r" * 100]]))
        await house.until(lambda: house.broker.default.engine.stats()["tasks"].get("SUCCESS") == 20)
        await churn(house, batches=20)
        remove, taken = OSFiles.remove, []

        def removing(files, name):
            for _ in range(2):
                taken.append(house.killed(f"killed{len(taken)}"))
                if len(taken) % 2:
                    remove(files, name)

        monkeypatch.setattr(OSFiles, "remove", removing)
        care = house.care()
        old = house.store.segments()[:-1]
        while house.store.segments()[0] in old:
            await care._compact_oldest()
        monkeypatch.undo()
        assert len(taken) == 2 * len(old)
        for copy in taken:
            assert_recovered(copy, house, copied=True, earlier=True)

    run(folder, scenario, dedup_ids=20)


def test_what_was_passed_over_as_forgotten_is_forgotten_durably_before_its_segment_goes(folder, monkeypatch):
    """The engine has forgotten a task, the journal does not say so yet, and nothing needs to be written again."""
    id_ = b"1" * 16

    async def scenario(house):
        guest = await house.guest()
        await publish(house, guest, task(id_, body=b"x" * 3000))
        guest.send(Revoke(2, [id_], False))
        await guest.expect(Ok)
        await publish(house, guest, task(body=b"x" * 5000))
        await house.at_rest()
        care = house.care()
        (session,) = house.broker.sessions.numbers()
        next_needed = care._next_needed

        def forget_and_look(frames, oldest):
            house.broker.default.engine.forget(session, 9, [id_])
            house.broker.wake(house.broker.default)
            return next_needed(frames, oldest)

        async def in_the_loop(call, *args):
            return call(*args)

        monkeypatch.setattr(asyncio, "to_thread", in_the_loop)
        monkeypatch.setattr(care, "_next_needed", forget_and_look)
        removed, gone = [], threading.Event()
        remove, write = OSFiles.remove, OSFile.write

        def writing(file, data, offset):
            """So slowly that a removal that waits for nothing comes first."""
            gone.wait(0.2)
            write(file, data, offset)

        monkeypatch.setattr(OSFile, "write", writing)

        def removing(files, name):
            remove(files, name)
            removed.append(house.killed(f"killed{len(removed)}"))
            gone.set()

        monkeypatch.setattr(OSFiles, "remove", removing)
        await care._compact_oldest()
        monkeypatch.undo()
        told = [decode(record) for found in Reader(OSFiles(removed[0])) for record in found.records]
        assert [record.ids for record in told if type(record) is Forgotten] == [[id_]]

    run(folder, scenario)


def test_work_goes_on_while_a_segment_is_compacted(folder):
    async def scenario(house):
        guest = await house.guest()
        for n in range(60):
            await publish(house, guest, task(b"%016d" % n, body=os.urandom(300)))
        care = house.care()
        old = house.store.segments()[:-1]

        async def compact():
            while house.store.segments()[0] in old:
                await care._compact_oldest()

        compacting = asyncio.create_task(compact())
        count = 0
        while not compacting.done():
            guest.send(Publish(1, [task(b"new%013d" % count)]), Revoke(2, [b"%016d" % (count % 60)], False))
            await guest.expect(Confirm)
            await guest.expect(Ok)
            count += 1
        await compacting
        assert count
        await house.at_rest()
        assert_recovered(house.killed(), house, copied=True)

    run(folder, scenario)


def test_a_segment_that_can_not_be_read_is_written_again_from_memory(folder, caplog):
    async def scenario(house):
        guest = await house.guest()
        for n in range(30):
            await publish(house, guest, task(b"%016d" % n, body=os.urandom(300)))
        oldest = house.store.segments()[0]
        path = folder / oldest.name
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
        await house.care()._compact_oldest()
        assert oldest not in house.store.segments()
        assert f"{oldest.name}, can not be read" in caplog.text
        await house.at_rest()
        assert_recovered(house.killed(), house, copied=True)

    run(folder, scenario)


def test_the_loop_is_held_for_no_longer_than_a_slice_by_a_large_batch(folder, monkeypatch):
    async def scenario(house):
        guest = await house.guest()
        await publish(house, guest, *[task(body=b"x" * 100) for _ in range(1500)])
        await publish(house, guest, task(body=b"x" * 5000))
        clock = iter(range(10**9))
        monkeypatch.setattr(journal_care, "time", SimpleNamespace(monotonic=lambda: next(clock)))
        sizes = []
        append = house.store.append
        monkeypatch.setattr(
            house.store, "append", lambda records: (sizes.append(len(records)), append(records))[1]
        )
        monkeypatch.setattr(journal_care, "SLICE_SECONDS", 100)
        monkeypatch.setattr(journal_care, "PAUSE_SECONDS", 0)
        for _ in range(2):  # the first has no more than the opening record
            await house.care()._compact_oldest()
        assert set(sizes[:-1]) == {100}
        assert sum(sizes) >= 1500

    run(folder, scenario)


def test_care_that_is_ended_in_the_middle_of_a_compaction_leaves_the_segment(folder):
    async def scenario(house):
        guest = await house.guest()
        for n in range(30):
            await publish(house, guest, task(b"%016d" % n, body=os.urandom(300)))
        before = house.store.segments()
        for steps in range(1, 12):
            compacting = asyncio.create_task(house.care()._compact_oldest())
            for _ in range(steps):
                await asyncio.sleep(0)
            if compacting.done():
                break
            compacting.cancel()
            await asyncio.wait([compacting])
        assert house.store.segments()[0] == before[0]
        await house.at_rest()
        assert_recovered(house.killed(), house, copied=True)

    run(folder, scenario)


def test_the_clocks_are_written_now_and_then(folder, monkeypatch):
    def ticks():
        told = [decode(record) for found in Reader(OSFiles(folder)) for record in found.records]
        return [record for record in told if type(record) is Tick]

    async def scenario(house):
        care = house.care(disk_min=1 << 30)
        await care.look()
        await publish(house, await house.guest(), task())
        assert not ticks()
        monkeypatch.setattr(journal_care, "TICK_SECONDS", 0.0)
        await care.look()
        monkeypatch.setattr(journal_care, "TICK_SECONDS", 60.0)
        await care.look()
        await publish(house, await house.guest(), task())
        (tick,) = ticks()
        assert 0 < tick.now <= house.broker.clock.now()

    run(folder, scenario)


def test_it_looks_again_and_again_until_it_is_ended(folder, monkeypatch):
    monkeypatch.setattr(journal_care, "LOOK_SECONDS", 0.0)

    async def scenario(house):
        care = house.care()
        looks = asyncio.Semaphore(0)

        async def look():
            looks.release()

        monkeypatch.setattr(care, "look", look)
        running = asyncio.create_task(care.run())
        for _ in range(3):
            await looks.acquire()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    run(folder, scenario)


# A full disk.


async def fill_up(house, guest):
    """Publishes until the broker says that the disk is full; the ids of what was confirmed."""
    confirmed = []
    while True:
        id_ = os.urandom(16)
        confirm = await publish(house, guest, task(id_, body=os.urandom(1000)))
        if confirm.exceptions:
            ((_, code, message),) = confirm.exceptions
            assert code == Code.FULL
            assert "disk is full" in message
            return confirmed
        confirmed.append(id_)


class Room:
    """A disk on which new files find no room once it is full."""

    def __init__(self, monkeypatch):
        self.full = False
        create = OSFiles.create

        def creating(files, name, size):
            if self.full:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return create(files, name, size)

        monkeypatch.setattr(OSFiles, "create", creating)


def test_with_a_full_disk_publishes_are_refused_and_what_runs_is_completed(folder, monkeypatch, caplog):
    caplog.set_level(logging.INFO, "chervil.broker")
    room = Room(monkeypatch)

    async def scenario(house):
        care = house.care()
        worker = await house.worker(*[task(queue="running") for _ in range(5)], queue="running")
        publisher = await house.guest("publisher")
        confirmed = []
        for sequence, lease in enumerate(worker.leases, 1):
            room.full = True
            confirmed += await fill_up(house, publisher)
            assert (await publisher.expect(Window)).limit < 1 << 40, "it is to wait"
            worker.talker.send(Complete(sequence, [[*lease, Outcome.SUCCESS, "json", b"1"]]))
            await house.until(lambda: house.broker.pump.when_durable(house.broker.pump.sequence).done())
            room.full = False
            assert (await publisher.expect(Window)).limit > 1 << 40, "by itself"
            confirm = await publish(house, publisher, task())
            assert not confirm.exceptions
        assert await house.stages(*confirmed) == [Stage.QUEUED] * len(confirmed)
        await house.at_rest()
        assert_recovered(house.killed(), house)
        del care

    run(folder, scenario)
    assert "publishers wait" not in caplog.text, "as the disk is full, not memory"
    assert caplog.text.count("the disk is full: publishes are refused") == 5
    assert caplog.text.count("there is room on the disk again") == 5


def test_a_vhost_that_is_added_while_the_disk_is_full_takes_no_publishes_either(folder):
    async def scenario(house):
        house.care()
        house.store.on_short(True)
        with changing(folder / "users.json") as users:
            users.set_vhost("shop", Quotas(), new=True)
        house.broker.refresh_users()
        guest = await house.connect()
        await guest.hello(vhost="shop")
        ((_, code, _),) = (await publish(house, guest, task())).exceptions
        assert code == Code.FULL
        house.store.on_short(False)
        assert not (await publish(house, guest, task())).exceptions

    run(folder, scenario)
