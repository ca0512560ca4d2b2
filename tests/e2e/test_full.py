"""A broker that is full to its limit: publishers wait or are refused, what it holds goes on, nothing hangs."""

import threading

import pytest

from chervil.exceptions import PublishRefused
from tests.e2e import tasks
from tests.e2e.stage import Stage, until

pytestmark = pytest.mark.e2e

MEMORY = 4 << 20
PAYLOAD = "x" * 20_000
DEPTH = 5
#: Roots whose whole trees take several times the broker's memory for tasks.
ROOTS = 20
FLOOD = 40


def by_stage(stage: Stage) -> dict[str, int]:
    return {name: count for name, count in stage.app().client.stats()["tasks"].items() if count}


def rss(pid: int) -> int:
    """Resident bytes of a process."""
    with open(f"/proc/{pid}/status", encoding="ascii") as status:  # noqa: PTH123  # not a file of anyone
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmRSS"))


def test_full_broker_under_tasks_that_publish_tasks_drains_to_zero(stage):
    broker = stage.broker("--max-memory", str(MEMORY))
    stage.app()
    began = rss(broker.popen.pid)
    for n in range(ROOTS):
        tasks.spread.apply_async((DEPTH, PAYLOAD), task_id=f"root{n:02}")
    # More than the broker has room for, from outside; this publisher waits whenever it must.
    failures: list[Exception] = []

    def flood() -> None:
        try:
            for n in range(FLOOD):
                tasks.length.apply_async((PAYLOAD,), task_id=f"flood{n:03}")
        except Exception as error:
            failures.append(error)

    flooding = threading.Thread(target=flood)
    flooding.start()
    stage.worker("-c", "4")
    flooding.join(50)
    assert not flooding.is_alive()
    assert not failures
    until(lambda: not open_stages(stage), "all is final", 50)
    confirmed = set(stage.lines("confirmed"))
    assert set(stage.lines("refused")) == {"FULL"}, "it was full, and said so inside tasks"
    report = stage.app().client.stats()
    assert report["memory"]["bytes"] == 0
    # Results have a budget too, and some are gone; the counters know of all.
    counters = report["counters"]
    assert counters["published"] == counters["succeeded"] == len(confirmed) + ROOTS + FLOOD
    assert counters["failed"] == counters["dead"] == 0
    assert report["publishing"] == "open"
    assert rss(broker.popen.pid) - began < 32 << 20


def test_publisher_outside_waits_at_a_closed_window_until_there_is_room(stage):
    stage.broker("--max-memory", str(MEMORY))
    app = stage.app()
    published: list[int] = []

    def flood() -> None:
        for n in range(250):
            tasks.length.delay(PAYLOAD)
            published.append(n)

    flooding = threading.Thread(target=flood, daemon=True)
    flooding.start()
    until(lambda: app.client.stats()["publishing"] == "closed", "the windows are closed")

    def held_up() -> bool:
        count = len(published)
        flooding.join(0.5)
        return len(published) == count

    # Some may be under way when the windows close.
    until(held_up, "it waits")
    assert flooding.is_alive()
    assert len(published) < 250
    stage.worker("-c", "1")
    flooding.join(20)
    assert not flooding.is_alive()
    until(lambda: by_stage(stage).get("SUCCESS") == 250, "all have run")
    assert app.client.stats()["counters"]["refused"] == 0


def test_publish_that_finds_no_room_until_its_deadline_is_refused_as_full(stage):
    stage.broker("--max-memory", str(MEMORY))
    app = stage.app()
    app.conf.task_publish_timeout = 2.0
    confirmed = []

    def fill() -> None:
        while True:
            confirmed.append(tasks.length.delay(PAYLOAD))

    try:
        with pytest.raises(PublishRefused, match="FULL"):
            fill()
    finally:
        app.conf.task_publish_timeout = 10.0
    assert by_stage(stage) == {"QUEUED": len(confirmed)}
    stage.worker("-c", "2")
    assert {result.get(timeout=20) for result in confirmed} == {len(PAYLOAD)}


def test_results_over_their_budget_are_evicted_oldest_first_and_refuse_nobody(stage):
    stage.broker("--max-memory", str(MEMORY))
    stage.worker("-c", "2")
    app = stage.app()
    results = tasks.large.delay_many([(50_000,)] * 100)
    until(lambda: sum(by_stage(stage).values()) == 100 and not open_stages(stage), "all have run")
    assert results[-1].get(timeout=10) == "x" * 50_000
    assert results[0].stage == "EVICTED"
    assert app.client.stats()["memory"]["results"] <= MEMORY // 4


def open_stages(stage: Stage) -> list[str]:
    return [name for name in by_stage(stage) if name not in ("SUCCESS", "EVICTED")]
