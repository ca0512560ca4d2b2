"""The pump, the timers, heartbeats, and the end."""

import asyncio

from chervil.protocol import Stage
from chervil.protocol.messages import (
    Complete,
    Confirm,
    Credit,
    Deliver,
    Goodbye,
    Ok,
    Publish,
    Report,
    Result,
    Stats,
    Status,
    Subscribe,
    Watch,
)
from chervil_broker import pump as pump_module
from tests.broker.talk import play, task


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


def test_answers_that_wait_for_company_are_sent_before_the_end(monkeypatch):
    monkeypatch.setattr(pump_module, "UNHURRIED_SECONDS", 60)

    async def scenario(house):
        peer = await house.guest()
        row = task()
        peer.send(Publish(1, [row]))
        await peer.expect(Confirm)
        peer.send(Watch(2, [row[0]]))
        waiter = house.broker.peers[1]
        await house.until(lambda: bool(house.broker.default.engine._state.watchers) and not waiter.watches)
        ending = asyncio.create_task(house.broker.stop(1.0))
        answer, end = await peer.next(), await peer.next()
        assert (type(answer), answer.request, type(end)) == (Status, 2, Goodbye)
        peer.writer.close()
        await ending

    play(scenario)


def test_what_nobody_has_decided_on_yet_is_answered_before_the_end():
    async def scenario(house):
        peer = await house.guest()
        house.broker.default.engine.publish(house.broker.peers[1].session, 7, [])
        ending = asyncio.create_task(house.broker.stop(1.0))
        answer, end = await peer.next(), await peer.next()
        assert (type(answer), answer.request, type(end)) == (Confirm, 7, Goodbye)
        peer.writer.close()
        await ending

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
