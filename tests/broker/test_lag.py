"""How late the loop is, as the broker measures it."""

import asyncio
import time

from chervil_broker import lag
from chervil_broker.lag import LoopLag


def test_a_loop_that_was_not_watched_yet_is_not_late():
    assert LoopLag().stats() == {"p99_ms": 0.0, "max_ms": 0.0}


def test_what_blocks_the_loop_shows(monkeypatch):
    monkeypatch.setattr(lag, "LOOK_SECONDS", 0.001)

    async def run():
        loop_lag = LoopLag()
        watching = asyncio.create_task(loop_lag.run())
        await asyncio.sleep(0)
        time.sleep(0.05)  # noqa: ASYNC251 -- that is what is measured
        while loop_lag.stats()["max_ms"] < 40:  # noqa: ASYNC110 -- it has no event
            await asyncio.sleep(0.001)
        watching.cancel()
        return loop_lag.stats()

    stats = asyncio.run(asyncio.wait_for(run(), 10))
    assert 40 <= stats["p99_ms"] <= stats["max_ms"]


def test_only_the_last_looks_count(monkeypatch):
    monkeypatch.setattr(lag, "LOOK_SECONDS", 0.0)

    async def run():
        loop_lag = LoopLag()
        loop_lag._lags.append(1000.0)
        watching = asyncio.create_task(loop_lag.run())
        while loop_lag.stats()["max_ms"] >= 1_000_000:  # noqa: ASYNC110 -- it has no event
            await asyncio.sleep(0)
        watching.cancel()
        return len(loop_lag._lags)

    assert asyncio.run(asyncio.wait_for(run(), 10)) == lag.LOOKS
