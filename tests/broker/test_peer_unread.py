"""Peers that do not read what is written to them, or not fast enough."""

import asyncio
import contextlib
import gc
import weakref
from types import SimpleNamespace

import pytest

from chervil.protocol.limits import FRAME_BATCH
from chervil.protocol.messages import (
    Complete,
    Completed,
    Confirm,
    Credit,
    Deliver,
    Goodbye,
    Heartbeat,
    Publish,
    Query,
    Report,
    Stats,
    Status,
    Subscribe,
    Watch,
)
from chervil_broker import peer as peer_module
from chervil_broker import upkeep as upkeep_module
from chervil_broker.unsent import Unsent
from chervil_broker.upkeep import Upkeep
from tests.broker.talk import play, task


def test_a_peer_that_does_not_read_is_cut_off(monkeypatch, caplog):
    monkeypatch.setattr(peer_module, "SLOW_SECONDS", 0.02)
    monkeypatch.setattr(upkeep_module, "SWEEP_SECONDS", 0.005)

    async def scenario(house):
        guest = await house.guest()
        guest.writer.transport.pause_reading()
        ids = [number.to_bytes(16, "big") for number in range(8000)]
        for request in range(40):
            guest.send(Query(request, ids))
        upkeep = asyncio.create_task(Upkeep(house.broker).run())
        await house.broker.all_gone.wait()
        upkeep.cancel()
        assert house.broker.default.counters["refused_slow"] == 1

    caplog.set_level("WARNING")
    play(scenario)
    assert "does not read" in caplog.text


def test_a_peer_that_reads_slowly_gets_everything(monkeypatch):
    monkeypatch.setattr(peer_module, "UNSENT_MAX", 1 << 18)

    async def scenario(house):
        guest = await house.guest()
        ids = [number.to_bytes(16, "big") for number in range(8000)]
        for request in range(30):
            guest.send(Query(request, ids))
        answered = []
        while len(answered) < 30:
            part = await guest.expect(Status)
            if not part.more:
                answered.append(part.request)
        assert answered == list(range(30))

    play(scenario)


def test_who_says_goodbye_and_reads_slowly_still_gets_everything(monkeypatch):
    monkeypatch.setattr(peer_module, "UNSENT_MAX", 1 << 18)

    async def scenario(house):
        guest = await house.guest()
        guest.writer.transport.pause_reading()
        ids = [number.to_bytes(16, "big") for number in range(8000)]
        guest.send(*[Query(request, ids) for request in range(30)], Goodbye("DONE"))
        await house.until(lambda: house.broker.peers[1].held_up)
        guest.writer.transport.resume_reading()
        came = []
        with contextlib.suppress(EOFError):
            while True:
                came.append(await guest.next())
        assert type(came.pop()) is Goodbye
        assert sum(len(status.tasks) for status in came) == 30 * len(ids)

    play(scenario)


def test_what_is_said_to_a_peer_that_does_not_read_waits_its_turn(monkeypatch):
    monkeypatch.setattr(peer_module, "UNSENT_MAX", 1 << 16)

    async def scenario(house):
        unsent = house.broker.unsent = Unsent(house.broker.peers, 1 << 40)
        reader = await house.guest("reader")
        rows = [task(body=b"x" * 100_000) for _ in range(50)]
        for request, row in enumerate(rows):
            reader.send(Publish(request, [row]))
            await reader.expect(Confirm)
        reader.writer.transport.pause_reading()
        reader.send(Subscribe(1, ["default"]), Credit(1000))
        peer = house.broker.peers[1]
        await house.until(lambda: len(peer.outbox) > 0)
        peer.beat()
        reader.writer.transport.resume_reading()
        delivered = 0
        while type(message := await reader.next()) is not Heartbeat:
            delivered += len(message.tasks) if type(message) is Deliver else 0
        assert delivered == len(rows)
        assert unsent.added > len(rows) * 100_000  # each frame was counted as it was made

    play(scenario, max_memory=256 << 20)


def test_requests_are_not_answered_faster_than_they_are_read(monkeypatch):
    monkeypatch.setattr(peer_module, "UNSENT_MAX", 1 << 18)

    async def scenario(house):
        guest, other = await house.guest(), await house.guest()
        peer = house.broker.peers[1]
        guest.writer.transport.pause_reading()
        asked = [Stats(number) for number in range(20_000)]
        guest.send(*asked)
        await house.until(lambda: peer.held_up)
        for number in range(20):  # the broker goes on with others, and takes nothing more from this one
            other.send(Publish(number, [task()]))
            await other.expect(Confirm)
        assert peer.unsent < 1 << 20
        assert len(peer.outbox) < 10
        guest.writer.transport.resume_reading()
        assert [(await guest.expect(Report)).request for _ in asked] == list(range(20_000))

    play(scenario)


@pytest.mark.parametrize("size", [100, 100_000])
def test_a_consumer_with_endless_credit_that_does_not_read_costs_no_second_copy(size, monkeypatch):
    monkeypatch.setattr(peer_module, "UNSENT_MAX", 1 << 20)
    rows = (20 << 20) // size if size > 1000 else 20_000

    async def scenario(house):
        publisher, reader = await house.guest(), await house.guest("worker")
        for start in range(0, rows, 500):
            for row in range(start, min(start + 500, rows)):
                publisher.send(Publish(row, [task(body=b"x" * size)]))
            for _ in range(start, min(start + 500, rows)):
                await publisher.expect(Confirm)
        reader.writer.transport.pause_reading()
        reader.send(Subscribe(1, ["default"]), Credit(2**63 - 1))
        await house.until(lambda: house.broker.default.engine.stats()["counters"]["delivered"] > 0)
        publisher.send(Publish(9, [task()]))
        await publisher.expect(Confirm)
        peer = house.broker.peers[2]
        assert peer.held_up
        delivered = house.broker.default.engine.stats()["counters"]["delivered"]
        assert peer.unsent <= (2 << 20) + FRAME_BATCH
        publisher.send(Publish(10, [task()]))
        await publisher.expect(Confirm)
        assert house.broker.default.engine.stats()["counters"]["delivered"] == delivered
        reader.writer.transport.resume_reading()
        got = 0
        while got < rows + 2:
            got += len((await reader.expect(Deliver)).tasks)

    play(scenario, max_memory=256 << 20)


def test_a_long_answer_is_built_no_faster_than_its_peer_reads(monkeypatch):
    monkeypatch.setattr(peer_module, "UNSENT_MAX", 1 << 18)

    async def scenario(house):
        rows = [task() for _ in range(100)]
        worker = await house.worker(*rows)
        for index, row in enumerate(rows):
            worker.talker.send(Complete(index + 1, [[row[0], 1, 1, "json", b"r" * 100_000]]))
        for _ in rows:
            await worker.talker.expect(Completed)
        reader = await house.guest("reader")
        reader.writer.transport.pause_reading()
        ids = [row[0] for row in rows]
        reader.send(Query(1, ids))
        peer = house.broker.peers[2]
        await house.until(lambda: peer.held_up)
        worker.talker.send(Stats(1))
        await worker.talker.expect(Report)
        assert 0 < peer.unsent <= (1 << 20) + 100_000
        reader.writer.transport.resume_reading()
        answered = []
        while len(answered) < len(ids):
            part = await reader.expect(Status)
            assert part.request == 1
            answered += [row[0] for row in part.tasks]
            assert bool(part.more) == (len(answered) < len(ids))
        assert answered == ids

    play(scenario, max_memory=256 << 20)


@pytest.mark.parametrize("readers", [1, 40])
def test_those_who_read_nothing_share_a_limit_at_every_moment(readers, monkeypatch, caplog):
    monkeypatch.setattr(peer_module, "UNSENT_MAX", 1 << 17)
    size, limit = 100_000, 4 << 20
    most = 0

    async def scenario(house):
        nonlocal most
        house.broker.unsent = Unsent(house.broker.peers, limit)
        enforce = Unsent.enforce

        def watched(account, now):
            nonlocal most
            enforce(account, now)
            most = max(most, sum(peer.unsent for peer in house.broker.peers.values()))

        monkeypatch.setattr(Unsent, "enforce", watched)
        rows = [task() for _ in range(8)]
        worker = await house.worker(*rows)
        for index, row in enumerate(rows):
            worker.talker.send(Complete(index + 1, [[row[0], 1, 1, "json", b"r" * size]]))
        for _ in rows:
            await worker.talker.expect(Completed)
        guests = [await house.guest(f"slow-{number}") for number in range(readers)]
        for guest in guests:
            guest.writer.transport.pause_reading()
            guest.send(*[Query(number, [row[0] for row in rows]) for number in range(9)])
        await house.until(
            lambda: all(peer.held_up for peer in house.broker.peers.values() if peer.name != "worker@1")
        )
        worker.talker.send(Stats(1))
        await worker.talker.expect(Report)
        assert len(house.broker.peers) == 2 if readers == 1 else 2 < len(house.broker.peers) < readers

    caplog.set_level("WARNING")
    play(scenario, max_memory=256 << 20)
    # A part of a request, and what is not counted yet.
    assert 0 < most <= limit + limit // 16 + 8 * size
    assert ("refused: SLOW: it does not read fast enough" in caplog.text) == (readers > 1)


def test_one_result_that_many_wait_for_is_no_frame_for_all_of_them_at_once():
    async def scenario(house):
        row = task()
        worker = await house.worker(row)
        house.broker.unsent = Unsent(house.broker.peers, 8 << 20)
        guests = [await house.guest(f"waiter-{number}") for number in range(30)]
        for guest in guests:
            guest.writer.transport.pause_reading()
            guest.send(Watch(1, [row[0]]))
        waiters = [peer for peer in house.broker.peers.values() if peer.name != "worker@1"]
        await house.until(
            lambda: (
                len(house.broker.default.engine._state.watchers.get(row[0], ())) == 30
                and not any(peer.watches for peer in waiters)
            )
        )
        worker.talker.send(Complete(1, [[row[0], 1, 1, "json", b"r" * 1_000_000]]))
        await worker.talker.expect(Completed)
        left = [peer for peer in house.broker.peers.values() if peer in waiters]
        assert 5 <= len(left) <= 10
        assert sum(peer.unsent for peer in left) <= 9 << 20

    play(scenario, max_memory=256 << 20)


def test_results_that_are_pushed_to_who_does_not_read_count_at_once(caplog):
    async def scenario(house):
        rows = [task() for _ in range(40)]
        worker = await house.worker(*rows)
        house.broker.unsent = Unsent(house.broker.peers, 2 << 20)
        reader = await house.guest("reader")
        reader.send(Watch(1, [row[0] for row in rows]))
        while (await reader.expect(Status)).more:
            pass
        peer = house.broker.peers[2]
        peer.pause_writing()
        for index, row in enumerate(rows[:19]):
            worker.talker.send(Complete(index + 1, [[row[0], 1, 1, "json", b"r" * 100_000]]))
            await worker.talker.expect(Completed)
        assert (peer.in_session, peer.unsent) == (True, 19 * 100_000)
        for index, row in enumerate(rows[19:]):
            worker.talker.send(Complete(index + 20, [[row[0], 1, 1, "json", b"r" * 100_000]]))
            await worker.talker.expect(Completed)
        assert (peer.in_session, peer.unsent) == (False, 0)

    caplog.set_level("WARNING")
    play(scenario, max_memory=256 << 20)
    assert "reader refused: SLOW: it does not read fast enough: 2200000 bytes wait for it" in caplog.text


def test_what_waited_for_a_peer_that_is_cut_off_counts_no_more(monkeypatch):
    async def scenario(house):
        await house.guest()
        peer = house.broker.peers[1]
        transport = peer._transport
        # uvloop keeps what was not written until its next turn.
        monkeypatch.setattr(
            peer, "_transport", SimpleNamespace(get_write_buffer_size=lambda: 1000, abort=transport.abort)
        )
        assert peer.unsent == 1000
        peer.abort()
        assert peer.unsent == 0
        await house.broker.all_gone.wait()

    play(scenario)


def test_a_peer_that_is_gone_in_the_middle_of_a_request_leaves_nothing(monkeypatch):
    monkeypatch.setattr(peer_module, "UNSENT_MAX", 1 << 16)

    async def scenario(house):
        guest = await house.guest()
        guest.writer.transport.pause_reading()
        ids = [number.to_bytes(16, "big") for number in range(8000)]
        guest.send(*[Query(request, ids) for request in range(20)])
        await house.until(lambda: house.broker.peers[1].held_up)
        peer = weakref.ref(house.broker.peers[1])
        gc.disable()
        try:
            guest.vanish()
            await house.broker.all_gone.wait()
            await house.until(lambda: peer() is None)
        finally:
            gc.enable()

    play(scenario)
