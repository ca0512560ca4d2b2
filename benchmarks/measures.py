"""What is measured: one function a row, each on a fresh broker, each returning one figure."""

import asyncio
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

from benchmarks import echo, tasks
from benchmarks.disk import Commits
from benchmarks.stage import Durability, Setting, Stage

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


class Target(NamedTuple):
    """What a row is to reach, or to stay under where lower is better."""

    figure: float = 0.0
    #: In place of a figure, for what is bound by wakeups: times the echo of the same run.
    echoes: float = 0.0
    #: And so much of the same row in memory mode.
    of_memory: float = 0.0


class Measure(NamedTuple):
    """A row of the table in each durability: its figure, and what is asked of it."""

    name: str
    unit: str
    run: Callable[[Setting], float]
    memory: Target
    always: Target
    #: Higher figures are better; otherwise lower ones are.
    higher: bool = True
    #: Commits that one call waits for, one after the other, with `--fsync always`.
    commits: int = 0

    def target(self, durability: Durability) -> Target:
        return self.memory if durability == "memory" else self.always

    def asked(self, durability: Durability, echo: Echo) -> float:
        """The figure asked for on a machine with this echo."""
        target = self.target(durability)
        if not target.echoes:
            return target.figure
        return target.echoes * (echo.per_second if self.higher else echo.p50_ms)

    def limit(self, durability: Durability, echo: Echo, commits: Commits) -> float:
        """What one echo round trip, and the commits that one call waits for, would allow."""
        waits = self.commits if durability == "always" else 0
        if self.higher:
            return 1 / (1 / echo.per_second + waits / commits.per_second)
        return echo.p50_ms + waits * commits.p50_ms


def echo_limit() -> Echo:
    with echo.echo_server() as port:
        echo.round_trips(port, 500)
        taken = echo.round_trips(port, 5000)
        paced = echo.round_trips(port, 100, pause=0.02)
    return Echo(len(taken) / sum(taken), statistics.median(taken) * 1000, statistics.median(paced) * 1000)


def enqueue_one_by_one(setting: Setting) -> float:
    with setting.stage():
        tasks.noop.delay(PAYLOAD)
        count = 5000
        start = time.perf_counter()
        for _ in range(count):
            tasks.noop.delay(PAYLOAD)
        return count / (time.perf_counter() - start)


def enqueue_batched(setting: Setting) -> float:
    with setting.stage():
        count = 200_000
        batch = [(PAYLOAD,)] * BATCH
        tasks.noop.delay_many(batch)
        start = time.perf_counter()
        for _ in range(count // BATCH):
            tasks.noop.delay_many(batch)
        return count / (time.perf_counter() - start)


def enqueue_coroutines(setting: Setting) -> float:
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

    with setting.stage():
        return asyncio.run(main())


def drain(setting: Setting) -> float:
    """Tasks already queued; from the first task's first line to the last one's."""
    count = 200_000
    with setting.stage() as broker:
        _fill(count)
        with broker.worker():
            _wait_for(broker, count)
        return _rate(broker, count)


def sustained(setting: Setting) -> float:
    """A batched producer and the worker at once; from the first call to the last task's first line."""
    count = 200_000
    with setting.stage() as broker, broker.worker():
        tasks.add.delay(1, 1).get(timeout=30)
        start = time.monotonic_ns()
        _fill(count)
        _wait_for(broker, count + 1)
        last = max(stamp for stamp, _ in tasks.read_stamps(broker.stamps))
        return count / ((last - start) / 1e9)


def latency_p50(setting: Setting) -> float:
    return _latency(setting, 0.50)


def latency_p99(setting: Setting) -> float:
    return _latency(setting, 0.99)


def _latency(setting: Setting, quantile: float) -> float:
    """Milliseconds from the call to the task's first line, at 50 tasks a second."""
    count = 200
    with setting.stage() as broker, broker.worker():
        for _ in range(20):
            tasks.add.delay(1, 1).get(timeout=30)
        begin = time.monotonic()
        for number in range(count):
            time.sleep(max(0.0, begin + number / 50 - time.monotonic()))
            tasks.latency.delay(time.monotonic_ns())
        _wait_for(broker, count + 20)
        values = sorted(value for _, value in tasks.read_stamps(broker.stamps))
    return values[min(len(values) - 1, int(quantile * len(values)))] / 1e6


def round_trip(setting: Setting) -> float:
    """Sequential calls, each waiting for its result."""
    with setting.stage() as broker, broker.worker():
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
        memory=Target(echoes=0.6),
        always=Target(3_000),
        commits=1,
    ),
    Measure(
        "enqueue in batches of 100, confirmed",
        "/s",
        enqueue_batched,
        memory=Target(250_000),
        always=Target(150_000, of_memory=0.6),
    ),
    Measure(
        "enqueue, 100 coroutines", "/s", enqueue_coroutines, memory=Target(50_000), always=Target(30_000)
    ),
    Measure("drain", "/s", drain, memory=Target(100_000), always=Target(70_000, of_memory=0.6)),
    Measure("sustained, batched producer", "/s", sustained, memory=Target(60_000), always=Target(45_000)),
    Measure(
        "latency at 50/s, p50",
        "ms",
        latency_p50,
        memory=Target(echoes=3.5),
        always=Target(0.6),
        higher=False,
        commits=1,
    ),
    Measure(
        "latency at 50/s, p99",
        "ms",
        latency_p99,
        memory=Target(0.8),
        always=Target(2.5),
        higher=False,
        commits=1,
    ),
    Measure("round trip", "/s", round_trip, memory=Target(echoes=0.25), always=Target(1_500), commits=2),
)
