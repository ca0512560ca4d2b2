import asyncio
import gc
import os
import socket
from asyncio import run
from collections import Counter

import pytest

from chervil import exceptions
from chervil.aio import client as client_module
from chervil.aio.client import AsyncClient
from chervil.asking import REQUEST_SECONDS
from chervil.client import Client
from chervil.conversation import ClientClosed, LineBroken
from chervil.exceptions import AccessRefused, OperationalError, PublishUnconfirmed
from chervil.protocol import Code, Stage
from chervil.protocol import messages as m


def row(id_="a"):
    return [id_, "t", "default", 0, None, None, "json", b"[[],{}]"]


def made(broker, connect_timeout=5.0):
    return AsyncClient(broker.addresses, None, connect_timeout)


def test_many_publish_and_wait_over_one_connection(broker):
    async def main():
        client = made(broker)
        await asyncio.gather(*[client.publish([row(str(n))]) for n in range(50)])
        waits = [asyncio.create_task(client.wait([str(n)])) for n in range(50)]
        await broker.happens(lambda: broker.counts["Watch"] == 50)
        for n in range(50):
            broker.finish(str(n), Stage.SUCCESS)
        found = await asyncio.gather(*waits)
        assert [statuses[0].id for statuses in found] == [str(n) for n in range(50)]
        await client.aclose()

    run(main())
    assert len(broker.hellos) == 1
    assert broker.hellos[0].name == f"{os.getpid()}@{socket.gethostname()}"
    broker.wait_for(lambda: broker.counts["Goodbye"] == 1)


@pytest.mark.usefixtures("leisurely")
def test_a_timeout_returns_what_is_known_and_watches_no_more(broker):
    broker.rows["a"] = []

    async def main():
        client = made(broker)
        (status,) = await client.wait(["a"], 0.05)
        assert status.stage is Stage.QUEUED
        await broker.happens(lambda: broker.counts["Unwatch"] == 1)
        await client.aclose()

    run(main())


def test_a_lost_connection_is_made_anew_and_everybody_goes_on(broker):
    for n in range(3):
        broker.rows[str(n)] = []
    lost = []

    async def main():
        client = made(broker)
        waits = [asyncio.create_task(client.wait([str(n)], on_lost=lost.append)) for n in range(3)]
        await broker.happens(lambda: broker.counts["Watch"] == 3)
        await asyncio.to_thread(broker.cut_all)
        await broker.happens(lambda: broker.counts["Watch"] == 6)
        for n in range(3):
            broker.finish(str(n), Stage.SUCCESS)
        await asyncio.gather(*waits)
        await client.aclose()

    run(main())
    assert len(broker.hellos) == 2
    assert lost == [f"lost the broker at {broker.url}; trying again until it is back"]


def test_what_was_under_way_is_published_again(broker):
    def once(peer, message):
        broker.store(message)
        broker.scripts.clear()
        peer.cut()
        return True

    broker.scripts[m.Publish] = once

    async def main():
        client = made(broker)
        await asyncio.gather(*[client.publish([row(str(n))]) for n in range(5)])
        await client.aclose()

    run(main())
    assert (broker.counts["Publish"], len(broker.rows)) == (2, 5)


@pytest.mark.parametrize("turns", range(4))
@pytest.mark.parametrize("received", [{}, {"Hello": 1}, {"Watch": 1}, {"Watch": 2}], ids=str)
def test_cancelled_at_any_time_a_wait_leaves_the_connection_and_the_others(broker, received, turns):
    """Some turns of the loop after the broker has received so much."""
    broker.rows["a"] = []

    async def main():
        client = made(broker)
        stays = asyncio.create_task(client.wait(["a"]))
        leaves = asyncio.create_task(client.wait(["a"]))
        await broker.happens(lambda: broker.counts >= Counter(received))
        for _ in range(turns):
            await asyncio.sleep(0)
        leaves.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaves
        await broker.happens(lambda: broker.counts["Watch"] >= 1)
        broker.finish("a", Stage.SUCCESS)
        ((status,),) = await asyncio.gather(stays)
        assert status.stage is Stage.SUCCESS
        await client.publish([row("after")])
        line = client.lines._line
        assert line.exchange._watched == {}
        assert line.exchange._replies == {}
        await client.aclose()

    run(main())
    assert len(broker.hellos) == 1


def test_no_broker_is_told_to_each_who_asked(tmp_path, broker):
    async def main():
        client = made(broker)
        await asyncio.to_thread(broker.close)
        errors = await asyncio.gather(
            *[client.publish([row(str(n))]) for n in range(3)], client.wait(["a"]), return_exceptions=True
        )
        assert [type(error) for error in errors] == [OperationalError] * 4
        assert len({id(error) for error in errors}) == 4
        assert "cannot reach the broker" in str(errors[0])
        await client.aclose()

    run(main())


def test_access_refused_is_access_refused(broker):
    broker.token = "right"

    async def main():
        client = made(broker)
        with pytest.raises(AccessRefused):
            await client.wait(["a"])
        await client.aclose()

    run(main())


def test_a_broker_that_does_not_greet_keeps_nobody_beyond_his_deadline(broker):
    broker.scripts[m.Hello] = lambda peer, message: True

    async def main():
        client = made(broker)
        with pytest.raises(OperationalError, match="no connection to the broker"):
            await client.publish([row()], 0.05)
        with pytest.raises(exceptions.TimeoutError, match="did not answer within"):
            await client.wait(["a"], 0.05)
        await client.aclose()

    run(main())
    broker.wait_for(lambda: not broker.peers)


def test_a_publish_that_is_not_answered_is_unconfirmed_and_others_keep_the_connection(broker):
    broker.scripts[m.Publish] = lambda peer, message: True
    broker.finish("a", Stage.SUCCESS)

    async def main():
        client = made(broker)
        await client.wait(["a"])
        with pytest.raises(PublishUnconfirmed):
            await client.publish([row()], 0.05)
        await client.wait(["a"])
        await client.aclose()

    run(main())
    assert len(broker.hellos) == 1


def test_a_line_that_is_silent_for_long_is_left(broker, monkeypatch):
    monkeypatch.setattr(client_module, "REQUEST_SECONDS", 0.05 + client_module.DEADLINE_LEAD)
    assert REQUEST_SECONDS == 10.0

    async def main():
        client = made(broker)
        await client.publish([row()])
        broker.scripts[m.Publish] = lambda peer, message: True
        with pytest.raises(PublishUnconfirmed):
            await client.publish([row()], 0.1)
        broker.scripts.clear()
        await client.publish([row()])
        await client.aclose()

    run(main())
    assert len(broker.hellos) == 2


def test_a_line_that_owes_too_many_answers_is_left(broker, monkeypatch):
    monkeypatch.setattr("chervil.exchange.ABANDONED_MAX", 1)
    broker.scripts[m.Watch] = lambda peer, message: True

    async def main():
        client = made(broker)
        await client.publish([row("other")])
        for _ in range(2):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await client.wait(["a"])
        broker.scripts.clear()
        await client.wait(["a"])
        await client.aclose()

    run(main())
    assert len(broker.hellos) == 2


def test_at_the_end_whoever_waits_is_told(broker):
    broker.rows["a"] = []

    async def main():
        client = made(broker)
        waiting = asyncio.create_task(client.wait(["a"]))
        await broker.happens(lambda: broker.counts["Watch"] == 1)
        await client.aclose()
        with pytest.raises(ClientClosed, match="closed by its owner"):
            await waiting
        with pytest.raises(ClientClosed):
            await client.publish([row()])

    run(main())


def test_what_is_being_published_is_waited_for_at_the_end(broker):
    async def main():
        client = made(broker)
        publishing = asyncio.create_task(client.publish([row()]))
        await asyncio.sleep(0)
        await client.aclose()
        await publishing

    run(main())
    assert list(broker.rows) == ["a"]


def test_closing_while_connecting_ends_the_attempt(broker):
    broker.scripts[m.Hello] = lambda peer, message: True

    async def main():
        client = made(broker)
        waiting = asyncio.create_task(client.wait(["a"]))
        await broker.happens(lambda: broker.counts["Hello"] == 1)
        await client.aclose()
        with pytest.raises(ClientClosed):
            await waiting

    run(main())


@pytest.mark.parametrize("greets", [True, False])
def test_a_loop_that_ends_under_everything_leaves_no_noise(broker, greets):
    """Warnings, of tasks that were destroyed and of sockets left open too, fail this test."""
    broker.rows["a"] = []
    if not greets:
        broker.scripts[m.Hello] = lambda peer, message: True

    async def main():
        client = made(broker)
        kept = [asyncio.create_task(client.wait(["a"])), asyncio.create_task(client.publish([row("b")]))]
        await broker.happens(lambda: broker.counts["Watch" if greets else "Hello"] >= 1)
        return kept

    tasks = run(main())
    assert tasks[0].cancelled()
    del tasks
    gc.collect()
    broker.wait_for(lambda: not broker.peers)


def test_a_refusal_does_not_end_the_line(broker):
    def refuse(peer, message):
        peer.send(m.Error(message.request, Code.FORBIDDEN, "not yours"))
        return True

    broker.scripts[m.Watch] = refuse

    async def main():
        client = made(broker)
        with pytest.raises(AccessRefused, match=r"does not allow this: not yours$"):
            await client.wait(["a"])
        await client.publish([row()])
        await client.aclose()

    run(main())
    assert len(broker.hellos) == 1


def test_only_what_says_something_about_the_line_drops_it(broker):
    async def main():
        client = made(broker)
        await client.publish([row()])
        line = client.lines._line
        for error in (KeyError("x"), asyncio.CancelledError(), LineBroken("x"), TimeoutError("x")):
            client.lines.drop(line, error)
        assert line.usable
        await client.aclose()

    run(main())


def test_broker_that_a_blocking_client_has_reached_may_come_back(broker, monkeypatch):
    # It is tried once, and the time that is left is for a busy machine.
    monkeypatch.setattr("chervil.watching.PAUSE_FIRST", 60.0)
    client = Client(broker.addresses.found)
    client.publish([row()])
    broker.close()

    async def main():
        with pytest.raises(exceptions.TimeoutError, match="did not answer within 30 s"):
            await client.aio.wait(["a"], 30)
        # Later ones have time for a second attempt.
        monkeypatch.setattr("chervil.watching.PAUSE_FIRST", 0.05)
        lost = []
        for _ in range(2):
            with pytest.raises(exceptions.TimeoutError, match="out of reach"):
                await client.aio.wait(["a"], 0.3, on_lost=lost.append)
        assert lost == [f"lost the broker at {broker.url}; trying again until it is back"]

    run(main())
    client.close()


def test_a_wait_whose_connection_died_unnoticed_outlasts_failed_attempts_to_make_another(broker, monkeypatch):
    monkeypatch.setattr("chervil.watching.REQUEST_SECONDS", 0.2)
    monkeypatch.setattr(client_module, "REQUEST_SECONDS", 0.2 + client_module.DEADLINE_LEAD)
    lost = []

    def away(peer, message):
        if broker.counts["Hello"] > 3:
            broker.scripts.clear()
            broker.finish("a", Stage.SUCCESS)
            return False
        peer.cut()
        return True

    async def main():
        client = made(broker)
        await client.publish([row()])
        broker.scripts |= {m.Watch: lambda peer, message: True, m.Hello: away}
        (status,) = await client.wait(["a"], 30, on_lost=lost.append)
        assert status.stage is Stage.SUCCESS
        await client.aclose()

    run(main())
    assert lost == [f"lost the broker at {broker.url}; trying again until it is back"]
