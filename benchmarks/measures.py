"""What is measured: one function a row, each on a fresh broker, each returning one figure."""

import asyncio
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from benchmarks import echo, tasks
from benchmarks.stage import Stage, stage

#: The JSON body of a no-op with this argument is about 100 bytes.
PAYLOAD = "x" * 90
BATCH = 100
COROUTINES = 100


class Echo(NamedTuple):
    """The echo limit of a run."""

    per_second: float
    p50_ms: float
    #: The same at 50 round trips a second: caches and cores have gone to sleep in between.
    paced_p50_ms: float


class Measure(NamedTuple):
    """A row of the table: its figure, and what this release asks of it."""

    name: str
    unit: str
    run: Callable[[Path], float]
    #: The floor or ceiling asked for; takes the echo limit of the same run.
    target: Callable[[Echo], float]
    #: Higher figures are better; otherwise lower ones are.
    higher: bool = True
    #: Said beside the target when it is relative to the echo.
    relative: str = ""


def echo_limit() -> Echo:
    with echo.echo_server() as port:
        echo.round_trips(port, 500)
        taken = echo.round_trips(port, 5000)
        paced = echo.round_trips(port, 100, pause=0.02)
    return Echo(len(taken) / sum(taken), statistics.median(taken) * 1000, statistics.median(paced) * 1000)


def enqueue_one_by_one(folder: Path) -> float:
    with stage(folder):
        tasks.noop.delay(PAYLOAD)
        count = 5000
        start = time.perf_counter()
        for _ in range(count):
            tasks.noop.delay(PAYLOAD)
        return count / (time.perf_counter() - start)


def enqueue_batched(folder: Path) -> float:
    with stage(folder):
        count = 200_000
        batch = [(PAYLOAD,)] * BATCH
        tasks.noop.delay_many(batch)
        start = time.perf_counter()
        for _ in range(count // BATCH):
            tasks.noop.delay_many(batch)
        return count / (time.perf_counter() - start)


def enqueue_coroutines(folder: Path) -> float:
    """Coroutines on one loop, each publishing one call after the other."""
    count = 100_000

    async def publish() -> None:
        for _ in range(count // COROUTINES):
            await tasks.noop.adelay(PAYLOAD)

    async def main() -> float:
        async with tasks.app:
            await tasks.noop.adelay(PAYLOAD)
            start = time.perf_counter()
            await asyncio.gather(*[publish() for _ in range(COROUTINES)])
            return count / (time.perf_counter() - start)

    with stage(folder):
        return asyncio.run(main())


def drain(folder: Path) -> float:
    """Tasks already queued; from the first task's first line to the last one's."""
    count = 200_000
    with stage(folder) as broker:
        _fill(count)
        with broker.worker():
            _wait_for(broker, count)
        return _rate(broker, count)


def sustained(folder: Path) -> float:
    """A batched producer and the worker at once; from the first call to the last task's first line."""
    count = 200_000
    with stage(folder) as broker, broker.worker():
        tasks.add.delay(1, 1).get(timeout=30)
        start = time.monotonic_ns()
        _fill(count)
        _wait_for(broker, count + 1)
        last = max(stamp for stamp, _ in tasks.read_stamps(broker.stamps))
        return count / ((last - start) / 1e9)


def latency_p50(folder: Path) -> float:
    return _latency(folder, 0.50)


def latency_p99(folder: Path) -> float:
    return _latency(folder, 0.99)


def _latency(folder: Path, quantile: float) -> float:
    """Milliseconds from the call to the task's first line, at 50 tasks a second."""
    count = 200
    with stage(folder) as broker, broker.worker():
        for _ in range(20):
            tasks.add.delay(1, 1).get(timeout=30)
        begin = time.monotonic()
        for number in range(count):
            time.sleep(max(0.0, begin + number / 50 - time.monotonic()))
            tasks.latency.delay(time.monotonic_ns())
        _wait_for(broker, count + 20)
        values = sorted(value for _, value in tasks.read_stamps(broker.stamps))
    return values[min(len(values) - 1, int(quantile * len(values)))] / 1e6


def round_trip(folder: Path) -> float:
    """Sequential calls, each waiting for its result."""
    with stage(folder) as broker, broker.worker():
        for _ in range(100):
            tasks.add.delay(1, 1).get(timeout=30)
        count = 3000
        start = time.perf_counter()
        for number in range(count):
            if tasks.add.delay(number, 1).get(timeout=30) != number + 1:
                raise AssertionError(f"add({number}, 1) came back wrong")
        return count / (time.perf_counter() - start)


def _fill(count: int) -> None:
    batch = [(PAYLOAD,)] * BATCH
    for _ in range(count // BATCH):
        tasks.noop.delay_many(batch)


def _wait_for(broker: Stage, count: int) -> None:
    broker.wait_until(f"{count} tasks done", lambda report: report["tasks"].get("SUCCESS", 0) >= count)


def _rate(broker: Stage, count: int) -> float:
    stamps = [stamp for stamp, _ in tasks.read_stamps(broker.stamps)]
    if len(stamps) != count:
        raise AssertionError(f"{count} tasks were queued and {len(stamps)} ran")
    return (count - 1) / ((max(stamps) - min(stamps)) / 1e9)


MEASURES = (
    Measure(
        "enqueue one by one, confirmed",
        "/s",
        enqueue_one_by_one,
        lambda e: 0.5 * e.per_second,
        relative="0.5 x echo",
    ),
    Measure("enqueue in batches of 100, confirmed", "/s", enqueue_batched, lambda e: 150_000),
    Measure("enqueue, 100 coroutines", "/s", enqueue_coroutines, lambda e: 50_000),
    Measure("drain", "/s", drain, lambda e: 40_000),
    Measure("sustained, batched producer", "/s", sustained, lambda e: 25_000),
    Measure(
        "latency at 50/s, p50",
        "ms",
        latency_p50,
        lambda e: 5 * e.p50_ms,
        higher=False,
        relative="5 echo round trips",
    ),
    Measure("latency at 50/s, p99", "ms", latency_p99, lambda e: 0.8, higher=False),
    Measure("round trip", "/s", round_trip, lambda e: 0.2 * e.per_second, relative="0.2 x echo"),
)
