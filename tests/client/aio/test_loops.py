import asyncio
import gc
import os
from asyncio import run

import pytest

from chervil.client import Client
from chervil.conversation import ClientClosed
from chervil.protocol import messages as m


def row(id_="a"):
    return [id_, "t", "default", 0, None, None, "json", b"[[],{}]"]


async def publish(client, id_):
    await client.aio.publish([row(id_)])
    return client.aio


def test_each_loop_has_its_own_connection_and_a_closed_ones_is_dropped(client, broker):
    first = run(publish(client, "a"))
    second = run(publish(client, "b"))
    assert first is not second
    assert len(broker.hellos) == 2
    broker.wait_for(lambda: len(broker.peers) == 1)
    assert list(client._loops._clients.values()) == [second]
    client.close()
    assert client._loops._clients == {}
    broker.wait_for(lambda: not broker.peers)


def test_one_loop_has_one_client_until_it_is_closed(client, broker):
    async def main():
        one = client.aio
        assert client.aio is one
        await client.aleave()
        await client.aleave()
        assert client.aio is not one
        await client.aio.publish([row()])
        await client.aleave()

    run(main())
    broker.wait_for(lambda: broker.counts["Goodbye"] == 1)


def test_close_ends_the_connection_of_the_running_loop_and_of_another_threads(client, broker):
    broker.rows["a"] = []
    there = asyncio.Event()

    async def wait_elsewhere():
        waiting = asyncio.create_task(client.aio.wait(["a"]))
        await asyncio.to_thread(broker.wait_for, lambda: broker.counts["Watch"] == 1)
        loop.call_soon_threadsafe(there.set)
        with pytest.raises(ClientClosed):
            await waiting

    async def main():
        nonlocal loop
        loop = asyncio.get_running_loop()
        elsewhere = asyncio.create_task(asyncio.to_thread(run, wait_elsewhere()))
        await there.wait()
        await client.aio.publish([row("b")])
        client.close()
        await elsewhere
        await client.aio.publish([row("c")])
        await client.aleave()

    loop = None
    run(main())
    assert len(broker.hellos) == 3
    broker.wait_for(lambda: not broker.peers)


def test_there_is_none_without_a_running_loop(client):
    with pytest.raises(RuntimeError, match="no running event loop"):
        _ = client.aio


def test_a_forked_child_has_connections_of_its_own(client, broker):
    async def main():
        await client.aio.publish([row("parent")])
        pid = os.fork()
        if pid == 0:
            try:
                # The parent's loop is not running here: asyncio says so itself.
                assert asyncio._get_running_loop() is None
                run(publish(client, "child"))
                os._exit(0)
            except BaseException:
                os._exit(1)
        assert (await asyncio.to_thread(os.waitpid, pid, 0))[1] == 0
        await client.aio.publish([row("parent again")])
        await client.aleave()

    run(main())
    assert list(broker.rows) == ["parent", "child", "parent again"]
    assert len(broker.hellos) == 2


def test_a_client_that_nobody_closed_is_collected_without_a_warning(broker):
    client = Client(broker.found)
    client.publish([row("sync")])
    run(publish(client, "a"))
    del client
    gc.collect()
    broker.wait_for(lambda: not broker.peers)
    assert broker.counts["Goodbye"] == 0


def test_blocking_calls_go_on_beside_the_loop(client, broker):
    async def main():
        await client.aio.publish([row("a")])
        client.publish([row("b")])
        await client.aleave()

    run(main())
    assert broker.counts["Publish"] == 2
    assert isinstance(broker.hellos[1], m.Hello)
