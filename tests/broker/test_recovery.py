"""What a broker begins with that another one left: tasks, results, sessions, and whose they may be."""

import asyncio
import logging
import os

import pytest

from chervil.protocol import Outcome, Stage
from chervil.protocol.messages import (
    Complete,
    Completed,
    Confirm,
    Credit,
    Deliver,
    Publish,
    Query,
    Resume,
    Started,
    Status,
    Subscribe,
)
from chervil_broker.journal.files import OSFiles
from chervil_broker.journal.opening import RESTORED
from chervil_broker.journal.reader import Reader
from chervil_broker.journal.records import SessionEnded, SessionOpened, decode
from chervil_broker.users import Quotas, changing
from tests.broker.journaled import assert_recovered, journaled, play
from tests.broker.talk import DEADLINE, task
from tests.broker.test_completions import record


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "data"


def records(folder):
    return [decode(record) for found in Reader(OSFiles(folder)) for record in found.records]


def run(scenario):
    async def within_the_deadline():
        async with asyncio.timeout(DEADLINE):
            await scenario()

    asyncio.run(within_the_deadline())


def test_the_log_says_what_was_recovered(folder, caplog):
    caplog.set_level(logging.INFO, "chervil.broker")
    ids = [os.urandom(16) for _ in range(5)]

    async def before(house):
        assert "recovered" not in caplog.text
        worker = await house.worker(*map(task, ids), credit=3)
        worker.talker.send(Complete(1, [[*worker.leases[0], Outcome.SUCCESS, "json", b"5"]]))
        await worker.talker.expect(Completed)
        worker.talker.vanish()

    async def after(house):
        assert (
            f"recovered 5 tasks in 0.0 s from {folder}: 4 not finished, of which workers had" in caplog.text
        )

    play(folder, before, after)


def test_a_torn_end_is_told(folder, caplog):
    async def scenario():
        async with journaled(folder) as house:
            copy = house.killed()
        segment = max(copy.glob("seg-*"))
        data = segment.read_bytes()
        end = len(data.rstrip(b"\0")) + 16
        segment.write_bytes(data[:end] + b"torn" + data[end + 4 :])
        async with journaled(copy):
            pass
        assert f"put into {copy / 'aside'}: " in caplog.text

    run(scenario)


def test_a_broker_that_is_killed_knows_everything_when_it_is_back(folder):
    """Tasks in most stages, results, forgotten and revoked ids, sessions: as the live broker has them."""

    async def scenario():
        async with journaled(folder) as house:
            worker = await house.worker(*[task() for _ in range(6)])
            (first, second, third, fourth, *_) = worker.leases
            worker.talker.send(
                Started([list(first), list(second)]),
                Complete(
                    1,
                    [
                        [*first, Outcome.SUCCESS, "json", b"5"],
                        [*second, Outcome.FAILURE, "failure", record()],
                    ],
                ),
                Complete(
                    2,
                    [
                        [*third, Outcome.RETRY, "failure", record(kind="retry"), {2: 60_000}],
                        [*fourth, Outcome.REJECT],
                    ],
                ),
            )
            for _ in range(2):
                await worker.talker.expect(Completed)
            guest = await house.guest()
            guest.send(Publish(1, [task(queue="other", options={2: 50_000}), task(queue="other")]))
            await guest.expect(Confirm)
            await house.at_rest()
            assert_recovered(house.killed(), house)

    run(scenario)


def test_a_worker_takes_up_its_session_after_a_restart_and_completes_what_it_has(folder):
    async def scenario():
        async with journaled(folder) as house:
            worker = await house.worker(task(b"1" * 16), task(b"2" * 16))
            worker.talker.send(Complete(7, [[*worker.leases[0], Outcome.SUCCESS, "json", b"5"]]))
            await worker.talker.expect(Completed)
            await house.at_rest()
            copy = house.killed()
        async with journaled(copy) as house:
            back = await house.back(worker.welcome)
            assert back.welcome.session == worker.welcome.session
            rows = [[*worker.leases[1], Outcome.SUCCESS, "json", b"6"]]
            inventory = [[*lease, 0] for lease in worker.leases[1:]]
            back.talker.send(Resume(1, inventory, 7), Complete(7, rows), Complete(8, rows))
            assert [(await back.talker.expect(Completed)).sequence for _ in range(2)] == [7, 8]
            assert await house.stages(b"1" * 16, b"2" * 16) == [Stage.SUCCESS] * 2

    run(scenario)


async def of_bob(house, token):
    """A worker of the user bob, which has the task 1."""
    talker = await house.connect()
    welcome = await talker.hello("worker@bob", token=token)
    talker.send(Publish(1, [task(b"1" * 16)]), Subscribe(2, ["default"]), Credit(1))
    await talker.expect(Deliver)
    await house.at_rest()
    return welcome


def test_a_session_of_a_user_who_is_gone_is_over_and_its_tasks_go_to_others(folder):
    async def scenario():
        folder.mkdir(mode=0o700)
        with changing(folder / "users.json") as users:
            bob = users.add("bob", ["publish", "consume"], ["default"])
            ann = users.add("ann", ["publish", "consume"], ["default"])
        async with journaled(folder, needs_token=True) as house:
            welcome = await of_bob(house, bob)
            copy = house.killed()
        with changing(copy / "users.json") as users:
            users.remove("bob")
        async with journaled(copy, needs_token=True) as house:
            talker = await house.connect()
            again = await talker.hello("worker@ann", token=ann, resume=[welcome.session, welcome.secret])
            assert again.session != welcome.session
            talker.send(Subscribe(2, ["default"]), Credit(1))
            (row,) = (await talker.expect(Deliver)).tasks
            assert row[0] == b"1" * 16
        ended = {record.number for record in records(copy) if type(record) is SessionEnded}
        opened = [record.number for record in records(copy) if type(record) is SessionOpened]
        assert opened[0] in ended
        assert len(set(opened)) == len(opened), "numbers are not used again"

    run(scenario)


def test_a_session_is_there_again_for_a_user_who_is_still_named(folder):
    async def scenario():
        folder.mkdir(mode=0o700)
        with changing(folder / "users.json") as users:
            bob = users.add("bob", ["publish", "consume"], ["default"])
        async with journaled(folder, needs_token=True) as house:
            welcome = await of_bob(house, bob)
            copy = house.killed()
        async with journaled(copy, needs_token=True) as house:
            talker = await house.connect()
            again = await talker.hello("worker@bob", token=bob, resume=[welcome.session, welcome.secret])
            assert again.session == welcome.session

    run(scenario)


def test_what_a_vhost_holds_that_is_not_named_any_more_is_there_when_it_is_named_again(folder):
    async def scenario():
        folder.mkdir(mode=0o700)
        with changing(folder / "users.json") as users:
            users.set_vhost("shop", Quotas(), new=True)
        async with journaled(folder) as house:
            guest = await house.connect()
            await guest.hello(vhost="shop")
            guest.send(Publish(1, [task(b"1" * 16)]))
            await guest.expect(Confirm)
        with changing(folder / "users.json") as users:
            users.remove_vhost("shop")
        async with journaled(folder) as house:
            assert house.broker.vhosts["shop"].removed
            assert house.broker.vhosts["shop"].unfinished() == 1
        with changing(folder / "users.json") as users:
            users.set_vhost("shop", Quotas(), new=True)
        async with journaled(folder) as house:
            guest = await house.connect()
            await guest.hello(vhost="shop")
            guest.send(Query(1, [b"1" * 16]))
            assert (await guest.expect(Status)).tasks[0][1] == Stage.QUEUED

    run(scenario)


def test_a_vhost_that_is_not_named_at_one_start_keeps_dead_letters_and_results(folder):
    """However many: its share is not the smallest there is."""

    async def scenario():
        with changing(folder / "users.json") as users:
            users.set_vhost("shop", Quotas(), new=True)
        async with journaled(folder) as house:
            worker = await house.connect()
            await worker.hello("worker", vhost="shop")
            ids = [os.urandom(16) for _ in range(16)]
            worker.send(Subscribe(1, ["default"]), Credit(16))
            worker.send(*[Publish(n, [task(id_, body=b"x" * 90_000)]) for n, id_ in enumerate(ids, 2)])
            leases = (await worker.expect(Deliver)).tasks
            while len(leases) < 16:
                leases += (await worker.expect(Deliver)).tasks
            worker.send(Complete(1, [[row[0], row[1], Outcome.REJECT] for row in leases]))
            await worker.expect(Completed)
            await house.at_rest()
            copy = house.killed()
        with changing(copy / "users.json") as users:
            users.remove_vhost("shop")
        async with journaled(copy) as house:
            await house.at_rest()
            again = house.killed("again")
        with changing(again / "users.json") as users:
            users.set_vhost("shop", Quotas(), new=True)
        async with journaled(again) as house:
            stats = house.broker.vhosts["shop"].engine.stats()
            assert stats["tasks"] == {"DEAD": 16}

    run(scenario)


def test_a_restored_folder_is_told(folder, caplog):
    async def nothing(house):
        assert ("was restored or repaired" in caplog.text) == restored

    restored = False
    play(folder, nothing)
    (folder / RESTORED).write_bytes(b"")
    restored = True
    play(folder, nothing)
    caplog.clear()
    restored = False
    play(folder, nothing)
