"""Heartbeats, silence, peers that do not read, idle garbage collection."""

import asyncio
import errno
import gc

from chervil.protocol import Code
from chervil.protocol.limits import HEARTBEAT_MS
from chervil.protocol.messages import (
    Confirm,
    Error,
    Grow,
    Heartbeat,
    Ok,
    Publish,
    Query,
    Report,
    Resume,
    Stats,
    Subscribe,
)
from chervil_broker import broker as broker_module
from chervil_broker import refusals as refusals_module
from chervil_broker import upkeep as upkeep_module
from chervil_broker.upkeep import Upkeep
from tests.broker.talk import play, task


def test_heartbeats_are_owed_by_and_to_workers(monkeypatch):
    monkeypatch.setattr(upkeep_module, "SWEEP_SECONDS", 0.005)
    monkeypatch.setattr(upkeep_module, "HEARTBEAT_MS", 20)

    async def scenario(house):
        sweeper = asyncio.create_task(Upkeep(house.broker).run())
        worker = await house.guest()
        worker.send(Subscribe(1, ["default"]))
        await worker.expect(Ok)
        await worker.expect(Heartbeat)
        await worker.expect(Heartbeat)
        sweeper.cancel()

    play(scenario)


def test_a_silent_worker_is_taken_for_lost(monkeypatch, caplog):
    monkeypatch.setattr(upkeep_module, "SWEEP_SECONDS", 0.005)
    monkeypatch.setattr(upkeep_module, "SILENCE_SECONDS", 0.02)

    async def scenario(house):
        sweeper = asyncio.create_task(Upkeep(house.broker).run())
        publisher, worker = await house.guest("publisher"), await house.guest("silent@here")
        worker.send(Subscribe(1, ["default"]))
        await worker.expect(Ok)
        assert (await worker.expect(Error)).code == Code.SLOW
        assert await worker.ended()
        publisher.send(Publish(1, [task()]))
        await publisher.expect(Confirm)
        sweeper.cancel()

    caplog.set_level("WARNING")
    play(scenario)
    assert "silent@here refused: SLOW: it was silent" in caplog.text


def test_an_idle_broker_collects_garbage(monkeypatch):
    monkeypatch.setattr(upkeep_module, "SWEEP_SECONDS", 0.001)
    monkeypatch.setattr(upkeep_module, "COLLECT_SECONDS", 0)
    collected = asyncio.Event()
    monkeypatch.setattr(gc, "collect", collected.set)

    async def scenario(house):
        monkeypatch.setattr(house.broker, "wake", lambda vhost: None)
        sweeper = asyncio.create_task(Upkeep(house.broker).run())
        assert await asyncio.wait_for(collected.wait(), 5)
        sweeper.cancel()

    play(scenario)


def test_a_broker_that_was_stopped_itself_takes_nobody_for_lost():
    async def scenario(house):
        worker = await house.guest("worker")
        worker.send(Subscribe(1, ["default"]))
        await worker.expect(Ok)
        (peer,) = house.broker.peers.values()
        awake = peer.heard + 100
        upkeep = Upkeep(house.broker)
        list(upkeep.look_after_peers(awake))
        assert await answers(worker)
        peer.heard = awake - upkeep_module.SILENCE_SECONDS - 1
        list(upkeep.look_after_peers(awake + upkeep_module.SWEEP_SECONDS))
        assert (await worker.expect(Error)).code == Code.SLOW
        assert await worker.ended()

    async def answers(worker):
        worker.send(Stats(2))
        return await worker.expect(Report)

    play(scenario)


def test_a_silent_workers_session_is_kept_for_longer(monkeypatch, caplog):
    monkeypatch.setattr(broker_module, "GRACE_CLOSED_MS", 0)

    async def scenario(house):
        row = task()
        worker = await house.worker(row)
        (peer,) = house.broker.peers.values()
        list(Upkeep(house.broker).look_after_peers(peer.heard))
        peer.heard -= upkeep_module.SILENCE_SECONDS + 1
        list(Upkeep(house.broker).look_after_peers(house.broker.seconds()))
        assert await worker.talker.expect(Error) == Error(
            None, Code.SLOW, "it was silent for 21 s: taken for lost"
        )
        assert await worker.talker.ended()
        back = await house.back(worker.welcome)
        back.talker.send(Resume(1, [[row[0], 1, 1]], 0))
        assert await back.talker.expect(Ok) == Ok(1, 1)

    caplog.set_level("INFO")
    play(scenario)
    assert "worker worker@1 is gone; what it has is kept for it for 30 s" in caplog.text


def test_a_worker_that_packets_do_not_reach_has_as_long_as_a_silent_one(monkeypatch, caplog):
    monkeypatch.setattr(broker_module, "GRACE_CLOSED_MS", 0)

    async def scenario(house):
        await house.worker(task())
        (peer,) = house.broker.peers.values()
        peer.connection_lost(OSError(errno.EHOSTUNREACH, "No route to host"))
        assert not house.broker.peers

    caplog.set_level("INFO")
    play(scenario)
    assert "what it has is kept for it for 30 s: nothing came through" in caplog.text


def test_where_too_much_waits_for_all_together_the_slowest_is_cut_off(caplog):
    async def scenario(house):
        slow, quick = await house.guest("slow"), await house.guest("quick")
        slow.writer.transport.pause_reading()
        ids = [number.to_bytes(16, "big") for number in range(8000)]
        slow.send(*[Query(n, ids) for n in range(16)])
        peers = house.broker.peers
        await house.until(lambda: peers[1].held_up)
        house.broker.unsent.limit = peers[1].unsent - 1
        list(Upkeep(house.broker).look_after_peers(house.broker.seconds()))
        await house.until(lambda: 1 not in peers)
        assert house.broker.unsent.total == 0
        quick.send(Stats(1))
        counters = (await quick.expect(Report)).report["counters"]
        assert counters["refused_slow"] == 1

    caplog.set_level("WARNING")
    play(scenario)
    assert "slow refused: SLOW: it does not read fast enough" in caplog.text


def test_a_worker_is_lost_after_two_heartbeats_of_silence_and_before_a_third():
    async def scenario(house):
        worker = await house.worker()
        (peer,) = house.broker.peers.values()
        upkeep = Upkeep(house.broker)
        heard = peer.heard
        for heartbeats in (1.0, 1.25, 1.5, 1.75, 2.0):
            list(upkeep.look_after_peers(heard + heartbeats * HEARTBEAT_MS / 1000))
            assert peer.in_session
        list(upkeep.look_after_peers(heard + 2.25 * HEARTBEAT_MS / 1000))
        assert not peer.in_session
        assert (await worker.talker.expect(Error)).code == Code.SLOW

    play(scenario)


def test_refusals_that_repeat_themselves_are_logged_by_and_by(monkeypatch, caplog):
    monkeypatch.setattr(upkeep_module, "SWEEP_SECONDS", 0.001)
    monkeypatch.setattr(refusals_module, "QUIET_SECONDS", 0.01)

    async def scenario(house):
        peer = await house.guest("web-1")
        upkeep = asyncio.create_task(Upkeep(house.broker).run())
        peer.send(*[Grow(n, b"i" * 16, 1) for n in range(50)])
        for _ in range(50):
            await peer.expect(Error)
        await house.until(lambda: len(caplog.messages) == 2)
        upkeep.cancel()

    caplog.set_level("WARNING")
    play(scenario)
    assert caplog.messages[0].startswith("web-1 refused: NOT_IMPLEMENTED: GROW is for a later release")
    assert "(49 more in" in caplog.messages[1]
