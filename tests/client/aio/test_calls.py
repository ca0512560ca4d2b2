"""What users write: `await task.adelay(...)`, `await result`, `async with app`."""

import asyncio
import gc
import logging
from asyncio import run
from itertools import pairwise

import pytest

from chervil import AsyncResult, EagerResult, exceptions
from chervil.exceptions import EncodeError, PublishRefused, UnknownTask
from chervil.failure import failure_body
from chervil.protocol import FAILURE_CODEC, Outcome, Stage, TaskOption, to_wire
from chervil.protocol import messages as m
from tests.client import deliveries


@pytest.fixture
def add(app):
    @app.task
    def add(x, y=1):
        return x + y

    return add


def rows(broker):
    return [(row[1], row[7]) for row in broker.rows.values()]


def test_adelay_publishes_a_call_and_gives_its_result(app, broker, add):
    async def main():
        async with app:
            result = await add.adelay(2, y=3)
            assert type(result) is AsyncResult
            broker.finish(to_wire(result.id), Stage.SUCCESS, "json", b"5")
            assert await result == 5
            assert await result.aget(timeout=1) == 5

    run(main())
    assert rows(broker) == [(add.name, b'[[2],{"y":3}]')]
    # What was once final is kept, so it was asked for once.
    assert broker.counts["Watch"] == 1
    broker.wait_for(lambda: broker.counts["Goodbye"] == 1)


def test_aapply_async_takes_options(app, broker, add):
    async def main():
        async with app:
            result = await add.aapply_async((1,), {"y": 2}, queue="q", priority=3, task_id="mine")
            assert result.id == "mine"
            with pytest.raises(TypeError, match="countdwn"):
                await add.aapply_async((1,), countdwn=5)
            with pytest.raises(TypeError, match="args"):
                await add.aapply_async("ab")

    run(main())
    assert [row[:4] for row in broker.rows.values()] == [["mine", add.name, "q", 3]]


def test_adelay_many_goes_in_one_frame(app, broker, add):
    async def main():
        async with app:
            results = await add.adelay_many([(1, 2), (3,)], queue="q")
            assert [to_wire(result.id) for result in results] == list(broker.rows)
            assert await add.adelay_many([]) == []
            with pytest.raises(TypeError, match="call 2 of 2"):
                await add.adelay_many([(1, 2), (3, 4, 5)])

    run(main())
    assert rows(broker) == [(add.name, b"[[1,2],{}]"), (add.name, b"[[3],{}]")]
    assert broker.counts["Publish"] == 1


def test_wrong_arguments_are_told_before_anything_is_sent(app, broker, add):
    async def main():
        async with app:
            with pytest.raises(TypeError, match="add"):
                await add.adelay(1, 2, 3)
            with pytest.raises(EncodeError):
                await add.adelay(object())

    run(main())
    assert broker.hellos == []


def test_many_at_once_share_a_frame_and_one_connection(app, broker, add):
    async def main():
        async with app:
            results = await asyncio.gather(*[add.adelay(n) for n in range(100)])
            for result in results:
                broker.finish(to_wire(result.id), Stage.SUCCESS, "json", b"1")
            assert await asyncio.gather(*results) == [1] * 100

    run(main())
    assert (len(broker.hellos), broker.counts["Publish"]) == (1, 1)


def test_a_tasks_exception_comes_out_of_await(app, broker):
    result = app.AsyncResult("a")
    broker.finish("a", Stage.FAILURE, FAILURE_CODEC, failure_body(KeyError("k"), "a", "t"))

    async def main():
        async with app:
            with pytest.raises(KeyError, match="k"):
                await result
            assert isinstance(await result.aget(propagate=False), KeyError)
            with pytest.raises(UnknownTask):
                await app.AsyncResult("nobody")

    run(main())


@pytest.mark.usefixtures("leisurely")
def test_a_timeout_says_where_the_task_is(app, broker):
    broker.rows["a"] = []

    async def main():
        async with app:
            with pytest.raises(
                exceptions.TimeoutError, match=r"task a did not finish within 0\.05 s: queued"
            ):
                await app.AsyncResult("a").aget(timeout=0.05)
            with pytest.raises(asyncio.TimeoutError):
                async with asyncio.timeout(0.05):
                    await app.AsyncResult("a")

    run(main())


def test_a_wait_in_vain_and_a_lost_broker_are_warned_of(app, broker, caplog, monkeypatch):
    monkeypatch.setattr("chervil.watching.ASK_WHY_AFTER", 0.02)
    info = {9: "no_consumer", 3: "default"}
    broker.rows["a"] = []
    broker.statuses["a"] = ["a", int(Stage.QUEUED), None, None, info]

    async def main():
        async with app:
            waiting = asyncio.create_task(app.AsyncResult("a").aget())
            await broker.happens(lambda: broker.counts["Query"] == 1)
            await asyncio.to_thread(broker.cut_all)
            await broker.happens(lambda: broker.counts["Watch"] == 2)
            broker.finish("a", Stage.SUCCESS)
            assert await waiting is None

    with caplog.at_level(logging.WARNING, "chervil"):
        run(main())
    assert "no worker consumes 'default'" in caplog.text
    assert "lost the broker" in caplog.text


def test_asyncio_run_twice_needs_no_closing(app, broker, add):
    """Warnings of sockets left open fail this test."""

    async def main():
        return (await add.adelay(1)).id

    assert run(main()) != run(main())
    gc.collect()
    assert len(broker.hellos) == 2
    app.close()
    broker.wait_for(lambda: not broker.peers)


def test_an_app_may_be_entered_again(app, broker, add):
    async def main():
        for _ in range(2):
            async with app as entered:
                assert entered is app
                await add.adelay(1)
        async with app:
            pass

    run(main())
    assert len(broker.hellos) == 2


def test_blocks_on_one_loop_share_its_connection_and_the_last_one_closes_it(app, broker, add):
    async def handler(turn, done):
        async with app:
            await turn.wait()
            await add.adelay(1)
        done.set()

    async def main():
        turns = [asyncio.Event() for _ in range(6)]
        turns[0].set()
        await asyncio.gather(*[handler(turn, done) for turn, done in pairwise(turns)])

    run(main())
    assert (len(broker.hellos), broker.counts["Publish"]) == (1, 5)
    broker.wait_for(lambda: broker.counts["Goodbye"] == 1)


def test_a_broker_that_is_full_is_waited_for(app, broker, add):
    def full_once(peer, message):
        broker.scripts.clear()
        peer.send(m.Confirm(message.request, 0, [[0, "FULL", "no room"]]))
        return True

    broker.scripts[m.Publish] = full_once

    async def main():
        async with app:
            await add.adelay(1)

    run(main())
    assert broker.counts["Publish"] == 2


def test_inside_a_task_a_full_broker_refuses_at_once(app, broker, add):
    """Its own end may be what makes room. What it publishes has it as its parent."""

    def full(peer, message):
        broker.store(message)
        peer.send(m.Confirm(message.request, 0, [[0, "FULL", "no room"]]))
        return True

    broker.scripts[m.Publish] = full

    @app.task
    async def outer():
        async with app:
            await add.adelay(1)

    finished = deliveries.run(outer)
    assert finished.outcome is Outcome.FAILURE
    assert isinstance(finished.exception, PublishRefused)
    assert "made no room" not in str(finished.exception)
    assert broker.counts["Publish"] == 1
    (row,) = broker.rows.values()
    assert row[4][TaskOption.PARENT_ID] == "id"


def test_an_eager_app_runs_tasks_at_the_call(app, broker, add):
    app.conf.task_always_eager = True

    async def main():
        result = await add.adelay(2, 3)
        assert type(result) is EagerResult
        assert await result == 5
        assert [await each for each in await add.adelay_many([(1, 1), (2, 2)])] == [2, 4]

    run(main())
    assert broker.hellos == []


def test_nothing_of_it_is_loaded_before_the_first_call():
    from tests.client.test_light_import import loaded_by

    code = "import chervil, chervil.client, chervil.publishing; app = chervil.Chervil('x'); app.client"
    assert loaded_by(code) & {"asyncio", "chervil.aio"} == set()
