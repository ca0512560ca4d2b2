"""The pump, the timers, heartbeats, and the end."""

import asyncio
import gc
import time

from chervil.protocol import Code, Stage
from chervil.protocol.messages import (
    Complete,
    Completed,
    Confirm,
    Credit,
    Deliver,
    Error,
    Goodbye,
    Heartbeat,
    Ok,
    Publish,
    Report,
    Result,
    Stats,
    Status,
    Subscribe,
    Watch,
)
from chervil_broker import broker as broker_module
from tests.broker.talk import play, task


def test_a_delayed_task_is_delivered_when_it_is_due():
    async def scenario(house):
        peer = await house.guest()
        begin = house.broker.seconds()
        rows = [task(options={2: 60}), task(options={2: 30})]
        peer.send(Publish(1, rows), Subscribe(2, ["default"]), Credit(5))
        await peer.expect(Confirm)
        await peer.expect(Ok)
        first = (await peer.expect(Deliver)).tasks[0]
        second = (await peer.expect(Deliver)).tasks[0]
        assert [first[0], second[0]] == [rows[1][0], rows[0][0]]
        assert house.broker.seconds() - begin >= 0.06

    play(scenario)


def test_a_due_time_follows_the_wall_clock():
    async def scenario(house):
        peer = await house.guest()
        due_at = time.time_ns() // 1_000_000 + 50
        peer.send(Publish(1, [task(options={4: due_at})]), Subscribe(2, ["default"]), Credit(5))
        await peer.expect(Confirm)
        await peer.expect(Ok)
        await peer.expect(Deliver)
        assert time.time_ns() // 1_000_000 >= due_at

    play(scenario)


def test_answers_that_fit_no_single_frame_go_on_in_another():
    async def scenario(house):
        peer = await house.guest()
        rows = [task(body=b"x" * 1000) for _ in range(300)]
        peer.send(Publish(1, rows[:150]), Publish(2, rows[150:]), Subscribe(3, ["default"]), Credit(300))
        got = []
        while len(got) < 300:
            message = await peer.next()
            if isinstance(message, Deliver):
                got += [row[0] for row in message.tasks]
                assert len(message.tasks) < 300
        assert sorted(got) == sorted(row[0] for row in rows)
        peer.send(Complete(1, [[id_, 1, 1, "json", b"r" * 900] for id_ in got[:140]]))
        peer.send(Complete(2, [[id_, 1, 1, "json", b"r" * 900] for id_ in got[140:]]))
        peer.send(Watch(9, got))
        answered, more = [], True
        while more:
            message = await peer.next()
            if isinstance(message, Status):
                assert message.request == 9
                answered += [row[0] for row in message.tasks]
                more = bool(message.more)
        assert answered == got

    play(scenario)


def test_nobody_answers_a_peer_that_left(caplog):
    async def scenario(house):
        client, worker = await house.guest(), await house.guest()
        row = task()
        client.send(Publish(1, [row]), Watch(2, [row[0]]))
        await client.expect(Confirm)
        await client.expect(Status)
        client.writer.transport.abort()
        worker.send(Subscribe(1, ["default"]), Credit(1))
        await worker.expect(Ok)
        await worker.expect(Deliver)
        worker.send(Complete(1, [[row[0], 1, 1, None, None]]))
        await worker.expect(Completed)

    play(scenario)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_heartbeats_are_owed_by_and_to_workers(monkeypatch):
    monkeypatch.setattr(broker_module, "SWEEP_SECONDS", 0.005)
    monkeypatch.setattr(broker_module, "HEARTBEAT_MS", 20)

    async def scenario(house):
        sweeper = asyncio.create_task(house.broker.sweep())
        worker = await house.guest()
        worker.send(Subscribe(1, ["default"]))
        await worker.expect(Ok)
        await worker.expect(Heartbeat)
        await worker.expect(Heartbeat)
        sweeper.cancel()

    play(scenario)


def test_a_silent_worker_is_taken_for_lost(monkeypatch, caplog):
    monkeypatch.setattr(broker_module, "SWEEP_SECONDS", 0.005)
    monkeypatch.setattr(broker_module, "SILENCE_SECONDS", 0.02)

    async def scenario(house):
        sweeper = asyncio.create_task(house.broker.sweep())
        publisher, worker = await house.guest("publisher"), await house.guest("silent@here")
        worker.send(Subscribe(1, ["default"]))
        await worker.expect(Ok)
        assert await worker.ended()
        publisher.send(Publish(1, [task()]))
        await publisher.expect(Confirm)
        sweeper.cancel()

    caplog.set_level("WARNING")
    play(scenario)
    assert "silent@here was silent" in caplog.text


def test_an_idle_broker_collects_garbage(monkeypatch):
    monkeypatch.setattr(broker_module, "SWEEP_SECONDS", 0.001)
    monkeypatch.setattr(broker_module, "COLLECT_SECONDS", 0)
    collected = asyncio.Event()
    monkeypatch.setattr(gc, "collect", collected.set)

    async def scenario(house):
        monkeypatch.setattr(house.broker, "wake", lambda: None)
        sweeper = asyncio.create_task(house.broker.sweep())
        assert await asyncio.wait_for(collected.wait(), 5)
        sweeper.cancel()

    play(scenario)


def test_the_end_is_said_to_everybody():
    async def scenario(house):
        peer = await house.guest()
        peer.send(Publish(1, [task()]))
        await peer.expect(Confirm)
        assert house.broker.unfinished() == 1
        ending = asyncio.create_task(house.broker.stop(1.0))
        assert (await peer.expect(Goodbye)).code == "SHUTDOWN"
        peer.writer.close()
        await ending
        assert house.broker.peers == {}

    play(scenario)


def test_stats_report_the_broker():
    async def scenario(house):
        peer = await house.guest()
        peer.send(Publish(1, [task(queue="mail")]), Stats(2))
        await peer.expect(Confirm)
        report = (await peer.expect(Report)).report
        assert report["durability"] == "memory"
        assert report["connections"] == 1
        assert report["tasks"]["QUEUED"] == 1
        assert report["queues"][0]["name"] == "mail"
        assert report["queues"][0]["waiting_for"] == "no_consumer"
        assert report["instance"] == house.broker.instance.hex()

    play(scenario)


def test_a_task_that_no_worker_knows_is_warned_of_at_once(caplog):
    async def scenario(house):
        peer = await house.guest()
        peer.send(Subscribe(1, ["default"], ["tasks.other"]), Publish(2, [task()]))
        await peer.expect(Ok)
        await peer.expect(Confirm)

    caplog.set_level("WARNING")
    play(scenario)
    assert "no worker of this queue knows that name" in caplog.text


def test_answers_that_nobody_waits_for_go_along_with_the_next_frame():
    async def scenario(house):
        peer = await house.guest()
        row = task()
        peer.send(Publish(1, [row]), Watch(2, [row[0]]), Stats(3))
        first = [type(await peer.next()) for _ in range(3)]
        assert first.index(Status) < first.index(Report)

    play(scenario)


def test_answers_that_nobody_waits_for_come_by_themselves_soon(monkeypatch):
    monkeypatch.setattr(broker_module, "UNHURRIED_SECONDS", 0.001)

    async def scenario(house):
        peer = await house.guest()
        for request in range(20):
            row = task()
            peer.send(Publish(request, [row]))
            await peer.expect(Confirm)
            peer.send(Watch(100 + request, [row[0]]))
            assert (await peer.expect(Status)).request == 100 + request

    play(scenario)


def test_an_answer_that_no_frame_can_hold_harms_nobody_else(monkeypatch, caplog):
    async def scenario(house):
        asker, other = await house.guest("asker"), await house.guest("other")
        monkeypatch.setattr(house.broker, "stats", lambda: {"queues": "x" * (17 << 20)})
        asker.send(Stats(1))
        other.send(Publish(2, [task()]))
        assert (await other.expect(Confirm)).accepted == 1
        assert (await asker.expect(Error)).code == Code.TOO_MANY
        assert await asker.ended()
        other.send(Publish(3, [task()]))
        assert (await other.expect(Confirm)).accepted == 1

    caplog.set_level("WARNING")
    play(scenario)
    assert "asker cannot be answered" in caplog.text


def test_a_broker_that_was_stopped_itself_takes_nobody_for_lost():
    async def scenario(house):
        worker = await house.guest("worker")
        worker.send(Subscribe(1, ["default"]))
        await worker.expect(Ok)
        (peer,) = house.broker.peers.values()
        awake = peer.heard + 100
        house.broker.look_after_peers(awake)
        assert await answers(worker)
        peer.heard = awake - broker_module.SILENCE_SECONDS - 1
        house.broker.look_after_peers(awake + broker_module.SWEEP_SECONDS)
        assert await worker.ended()

    async def answers(worker):
        worker.send(Stats(2))
        return await worker.expect(Report)

    play(scenario)


def test_results_reach_everybody_who_waits():
    async def scenario(house):
        waiters = [await house.guest() for _ in range(3)]
        worker = await house.guest()
        row = task()
        worker.send(Publish(1, [row]))
        await worker.expect(Confirm)
        for waiter in waiters:
            waiter.send(Watch(1, [row[0]]))
            await waiter.expect(Status)
        worker.send(Subscribe(2, ["default"]), Credit(1))
        await worker.expect(Ok)
        await worker.expect(Deliver)
        worker.send(Complete(1, [[row[0], 1, 1, "json", b"5"]]))
        for waiter in waiters:
            assert (await waiter.expect(Result)).tasks[0][:4] == [row[0], Stage.SUCCESS, "json", b"5"]

    play(scenario)
