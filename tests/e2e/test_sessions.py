"""Connections that break while tasks run and callers wait: what a session is for."""

import signal
import threading
import time

import pytest

from chervil.exceptions import PublishUnconfirmed
from tests.e2e import tasks
from tests.e2e.stage import REAL_TIME, Stage, until
from tests.faults.proxy import Direction, Proxy

pytestmark = pytest.mark.e2e

#: Two missed heartbeats of 10 s, half of one for the way, and half of one until somebody looks.
NOTICED_SECONDS = 31.0


@pytest.fixture
def proxy(stage: Stage) -> Proxy:
    """Before a broker that is there."""
    stage.broker()
    return stage.proxy()


def started(stage: Stage, names: list[str]) -> None:
    for name in names:
        until(lambda name=name: stage.lines(name), f"{name} has started")


@pytest.mark.parametrize("seconds", [0.5, 2.5])
def test_cut_in_the_middle_of_running_tasks_has_each_run_once(stage, proxy, seconds):
    worker = stage.worker("-c", "4", url=proxy.url)
    stage.app()
    names = [f"run{n}" for n in range(4)]
    # Some end while the worker is away, and some when it is back.
    results = [tasks.run_for.delay(name, 1 + n) for n, name in enumerate(names)]
    waiting = tasks.add.delay_many([(n, 1) for n in range(100)])
    started(stage, names)
    proxy.refuse(seconds)
    proxy.cut(all_=True)
    worker.wait_for("lost the broker")
    assert [result.get(timeout=20) for result in results] == names
    assert [result.get(timeout=20) for result in waiting] == [n + 1 for n in range(100)]
    for name in names:
        assert len(stage.lines(name)) == 2, "one start and one end"


def test_many_cuts_one_after_another_have_each_task_run_once(stage, proxy):
    stage.worker("-c", "2", url=proxy.url)
    stage.app()
    results = tasks.run_for.delay_many([(f"run{n}", 0.1) for n in range(40)])
    cuts = 0
    for _ in range(8):
        until(lambda: proxy.connections, "it is back")
        time.sleep(0.2)  # the rate of the cuts; nothing is waited for
        cuts += proxy.cut(all_=True)
    assert cuts >= 4, "most of them met it"
    assert [result.get(timeout=30) for result in results] == [f"run{n}" for n in range(40)]
    repeated = [n for n in range(40) if len(stage.lines(f"run{n}")) != 2]
    assert not repeated


@pytest.mark.parametrize(("lost", "duplicates"), [(Direction.TO_BROKER, 0), (Direction.TO_CLIENT, 1)])
def test_completion_is_sent_again_when_it_or_its_answer_was_lost(stage, proxy, lost, duplicates):
    stage.fifo("held", "held.go")
    worker = stage.worker("-c", "1", url=proxy.url)
    app = stage.app()
    result = tasks.hold.delay("held")
    stage.read_pid("held")
    until(lambda: result.stage == "STARTED", "all that comes before the completion has passed")
    proxy.stall(lost)
    (stage.folder / "held.go").write_text("go")
    until(lambda: proxy.counts["swallowed"], f"what goes {lost.name} is lost")
    assert result.stage == ("SUCCESS" if duplicates else "STARTED")
    proxy.cut(all_=True)
    worker.wait_for("connected to the broker again")
    assert result.get(timeout=10) == "let go"
    until(lambda: app.client.stats()["counters"]["duplicate_completions"] == duplicates, "it came again")
    assert app.client.stats()["counters"]["delivered"] == 1


def test_delivery_that_never_arrived_comes_again_unflagged_and_uncharged(stage, proxy):
    worker = stage.worker("-c", "1", url=proxy.url)
    client = stage.app().client
    assert proxy.stall(Direction.TO_CLIENT) == 1
    result = tasks.add.delay(1, 2)
    until(lambda: proxy.counts["swallowed"], "the delivery is lost")
    assert result.stage == "LEASED"
    proxy.cut(all_=True)
    worker.wait_for("connected to the broker again")
    assert result.get(timeout=10) == 3
    story = client.history(result.id)
    events = {event["event"]: event for event in story["events"]}
    assert events["released"]["reason"] == "it never reached its worker"
    assert (events["delivered"]["redelivered"], story["attempts"]) == (False, 0)


def test_early_acked_task_survives_a_cut_too(stage, proxy):
    stage.fifo("held", "held.go")
    stage.worker("-c", "1", url=proxy.url)
    stage.app()
    result = tasks.hold_acked_early.delay("held")
    stage.read_pid("held")
    proxy.cut(all_=True)
    (stage.folder / "held.go").write_text("go")
    assert result.get(timeout=10) == "let go"


def test_waiting_get_goes_on_across_a_cut_in_which_the_result_comes(stage, proxy):
    stage.fifo("held", "held.go")
    stage.worker("-c", "1")
    client = stage.app(url=proxy.url).client
    result = tasks.hold.delay("held")
    stage.read_pid("held")
    got: list[object] = []
    is_waiting = threading.Event()
    waiters = [
        threading.Thread(target=lambda: got.append(result.get(timeout=20))),
        threading.Thread(target=client.wait, args=([result.id], 20, lambda _: is_waiting.set())),
    ]
    for waiter in waiters:
        waiter.start()
    assert is_waiting.wait(10), "both have been waiting for some time"
    proxy.refuse(1)
    assert proxy.cut(all_=True) >= 2
    (stage.folder / "held.go").write_text("go")
    for waiter in waiters:
        waiter.join(20)
        assert not waiter.is_alive()
    assert got == ["let go"]


def test_publish_across_a_cut_is_confirmed_and_makes_one_task(stage, proxy):
    stage.worker("-c", "1")
    stage.app(url=proxy.url)
    tasks.add.delay(1, 1).get(timeout=10)
    proxy.cut_after(150, all_=True)
    ids = [f"note-{n}" for n in range(20)]
    for id_ in ids:
        tasks.note.apply_async(("notes", id_), task_id=id_).get(timeout=10)
    proxy.cut(all_=True)
    tasks.note.apply_async(("notes", "last"), task_id="last").get(timeout=10)
    assert stage.lines("notes") == [*ids, "last"]
    assert proxy.counts["cut mid-frame"] >= 1


def test_publish_that_meets_a_stalled_connection_raises_at_its_deadline_or_is_confirmed(stage, proxy):
    app = stage.app(url=proxy.url)
    tasks.add.delay(1, 1)
    proxy.stall(all_=True)
    began = time.monotonic()
    app.conf.task_publish_timeout = 2.0
    try:
        with pytest.raises(PublishUnconfirmed, match="publish again"):
            tasks.add.apply_async((1, 1), task_id="stalled")
    finally:
        app.conf.task_publish_timeout = 10.0
    assert 1.5 <= time.monotonic() - began <= 5
    # A new connection is fine, and the same id may be published again.
    assert tasks.add.apply_async((1, 1), task_id="stalled").stage == "QUEUED"


def test_workers_that_are_cut_together_take_up_each_its_own_session(stage, proxy):
    first = stage.worker("-c", "1", "-n", "first@here", url=proxy.url)
    second = stage.worker("-c", "1", "-n", "second@here", url=proxy.url)
    stage.app()
    results = [tasks.run_for.delay(name, 1.5) for name in ("one", "two")]
    started(stage, ["one", "two"])
    proxy.cut(all_=True)
    first.wait_for("lost the broker")
    second.wait_for("lost the broker")
    assert [result.get(timeout=20) for result in results] == ["one", "two"]
    assert len(stage.lines("one")) == len(stage.lines("two")) == 2


def test_broker_that_has_forgotten_everything_is_served_again(stage):
    broker = stage.broker()
    worker = stage.worker("-c", "1")
    app = stage.app()
    old = tasks.run_for.delay("run", 1.5)
    started(stage, ["run"])
    broker.signal(signal.SIGTERM)
    assert broker.ended() == 0
    stage.broker()
    worker.wait_for("connected to the broker again")
    assert tasks.add.delay(2, 2).get(timeout=20) == 4
    assert app.AsyncResult(old.id).stage == "UNKNOWN"
    assert len(stage.lines("run")) == 2
    worker.signal(signal.SIGTERM)
    assert worker.ended() == 0


@REAL_TIME
@pytest.mark.parametrize("direction", list(Direction))
def test_stalled_connection_is_noticed_within_two_heartbeats(stage, proxy, direction):
    worker = stage.worker("-c", "1", url=proxy.url)
    stage.app()
    result = tasks.run_for.delay("run", NOTICED_SECONDS + 4)
    started(stage, ["run"])
    began = time.monotonic()
    assert proxy.stall(direction) == 1
    worker.wait_for("lost the broker", deadline=NOTICED_SECONDS)
    assert time.monotonic() - began >= 15, "not before two heartbeats are missing"
    worker.wait_for("connected to the broker again", deadline=10)
    assert result.get(timeout=20) == "run"
    assert len(stage.lines("run")) == 2, "the session was taken up: one start and one end"
