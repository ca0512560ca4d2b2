import asyncio
from asyncio import run

import pytest

from chervil.aio.client import AsyncClient
from chervil.exceptions import PublishRefused
from chervil.protocol import messages as m


def row(id_="a"):
    return [id_, "t", "default", 0, None, None, "json", b"[[],{}]"]


def with_client(broker, use):
    async def main():
        client = AsyncClient(broker.addresses, None, 5.0)
        await use(client)
        await client.aclose()

    run(main())


def test_publishes_of_one_turn_leave_in_one_frame(broker):
    async def use(client):
        await asyncio.gather(*[client.publish([row(str(n))]) for n in range(100)])
        await client.publish([row("later")])

    with_client(broker, use)
    assert (broker.counts["Publish"], len(broker.rows)) == (2, 101)


def test_other_terms_are_another_frame(broker):
    async def use(client):
        await asyncio.gather(
            client.publish([row("a")], 10.0),
            client.publish([row("b")], 5.0),
            client.publish([row("c")], 10.0, wait=False),
            client.publish([row("d"), row("e")], 10.0),
        )

    with_client(broker, use)
    assert broker.counts["Publish"] == 3
    assert sorted(broker.rows) == ["a", "b", "c", "d", "e"]


def test_one_that_is_refused_is_refused_alone(broker):
    def refuse(peer, message):
        index = [task[0] for task in message.tasks].index("b")
        broker.store(message)
        peer.send(m.Confirm(message.request, 2, [[index, "BAD_TASK", "no"]]))
        return True

    broker.scripts[m.Publish] = refuse
    told = []

    async def use(client):
        told.extend(
            await asyncio.gather(*[client.publish([row(id_)]) for id_ in "abc"], return_exceptions=True)
        )

    with_client(broker, use)
    assert told[0] is told[2] is None
    assert isinstance(told[1], PublishRefused)
    assert told[1].task_ids == ["b"]


@pytest.mark.parametrize("turns", range(8))
def test_cancelled_at_any_turn_of_the_loop_one_takes_no_other_with_it(broker, turns):
    async def use(client):
        tasks = [asyncio.create_task(client.publish([row(str(n))])) for n in range(3)]
        for _ in range(turns):
            await asyncio.sleep(0)
        tasks[1].cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert outcomes[0] is outcomes[2] is None
        assert outcomes[1] is None or isinstance(outcomes[1], asyncio.CancelledError)
        await client.publish([row("after")])

    with_client(broker, use)
    assert {"0", "2", "after"} <= set(broker.rows)
    assert len(broker.hellos) == 1


def test_a_timeout_around_it_is_a_timeout(broker):
    broker.scripts[m.Publish] = lambda peer, message: True

    async def use(client):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await client.publish([row()], 0.2)

    with_client(broker, use)


def test_a_mistake_of_ours_is_told_to_all_who_wait(broker):
    told = []

    async def use(client):
        calls = [client.publish([row("a")], "soon"), client.publish([row("b")], "soon")]
        told.extend(await asyncio.gather(*calls, return_exceptions=True))

    with_client(broker, use)
    assert [type(error) for error in told] == [TypeError, TypeError]


def test_a_task_group_that_fails_cancels_what_is_published_in_it(broker):
    broker.scripts[m.Publish] = lambda peer, message: True

    async def use(client):
        async def fail():
            raise KeyError("mine")

        async def both():
            async with asyncio.TaskGroup() as group:
                group.create_task(client.publish([row()], 0.2))
                group.create_task(fail())

        with pytest.raises(ExceptionGroup) as caught:
            await both()
        assert [type(error) for error in caught.value.exceptions] == [KeyError]

    with_client(broker, use)
