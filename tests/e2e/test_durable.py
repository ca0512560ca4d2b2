"""A broker with a journal that is killed and started again: what was confirmed is there, nothing runs twice."""

import signal
import stat
import threading
from typing import Any

import pytest

from chervil import Chervil
from chervil.result import AsyncResult
from tests.e2e import tasks
from tests.e2e.stage import KILL, ROOT, Process, Stage, until

pytestmark = pytest.mark.e2e


def durable(stage: Stage, *flags: str) -> Process:
    return stage.broker("--data", str(stage.folder / "data"), *flags, memory=False)


def kill(broker: Process) -> None:
    broker.signal(KILL)
    assert broker.ended() == -KILL


def said(process: Process, text: str) -> str:
    """The line with this text that it has said already."""
    return next(line for line in process.output if text in line)


def told_of(app: Chervil, *results: AsyncResult[Any]) -> list[dict[str, Any]]:
    """Their histories, without what goes on as time goes by."""
    histories = [app.client.history(result.id) for result in results]
    return [{key: value for key, value in each.items() if key != "due_in_ms"} for each in histories]


def test_what_was_confirmed_is_there_after_a_kill_and_runs_once(stage):
    broker = durable(stage)
    stage.app()
    results = tasks.note.delay_many([("ran", str(n)) for n in range(500)])
    single = tasks.add.delay(2, 3)
    kill(broker)
    assert "recovered 501 tasks" in said(durable(stage), "recovered")
    stage.worker("-c", "2")
    assert single.get(timeout=20) == 5
    assert [result.get(timeout=20) for result in results] == [None] * 500
    assert sorted(map(int, stage.lines("ran"))) == list(range(500))


def test_running_tasks_outlive_the_broker_and_their_callers_get_the_results(stage):
    broker = durable(stage)
    worker = stage.worker("-c", "4")
    app = stage.app()
    names = [f"run{n}" for n in range(4)]
    results = [tasks.run_for.delay(name, 2 + n / 2) for n, name in enumerate(names)]
    waiting = tasks.add.delay_many([(n, 1) for n in range(200)])
    values: list[object] = []
    waiter = threading.Thread(target=lambda: values.extend(result.get(timeout=30) for result in results))
    waiter.start()
    for name in names:
        until(lambda name=name: stage.lines(name), f"{name} has started")
    for _ in range(3):
        kill(broker)
        broker = durable(stage)
    worker.wait_for("connected to the broker again")
    waiter.join(30)
    assert values == names
    assert [result.get(timeout=20) for result in waiting] == [n + 1 for n in range(200)]
    for name in names:
        assert len(stage.lines(name)) == 2, "one start and one end"
    assert app.client.stats()["counters"]["lost"] == 0


def test_results_retries_countdowns_and_dead_letters_are_recovered(stage):
    broker = durable(stage)
    worker = stage.worker("-c", "1")
    app = stage.app()
    done = tasks.add.delay(1, 1)
    assert done.get(timeout=20) == 2
    failed = tasks.fail.delay("why not")
    until(lambda: failed.stage == "FAILURE", "it has failed")
    dead = tasks.crash_twice.delay()
    until(lambda: dead.stage == "DEAD", "it was given up")
    later = tasks.add.apply_async((3, 4), countdown=4)
    worker.stop()
    revoked = tasks.add.delay(5, 6)
    app.control.revoke(revoked.id)
    histories = told_of(app, done, failed, dead, later, revoked)
    kill(broker)
    durable(stage)
    assert told_of(app, done, failed, dead, later, revoked) == histories
    assert done.get(timeout=1) == 2
    with pytest.raises(tasks.Unpayable, match="why not"):
        failed.get(timeout=1)
    assert [row["id"] for row in app.client.dead()] == [dead.id]
    stage.worker("-c", "1")
    assert later.get(timeout=20) == 7


def test_a_worker_that_is_gone_when_the_broker_comes_back_gives_its_task_to_another(stage):
    broker = durable(stage)
    worker = stage.worker("-c", "1")
    stage.app()
    result = tasks.stuck_the_first_time.delay("pids")
    until(lambda: stage.lines("pids"), "it runs")
    kill(broker)
    worker.signal(KILL)
    worker.ended()
    # Its session's grace after a restart is 30 s: tests of the rim look at that; here somebody calls it off.
    durable(stage)
    until(lambda: result.stage in {"STARTED", "LEASED"}, "its lease was recovered")


def test_an_orderly_stop_and_start_loses_nothing_and_says_so(stage):
    broker = durable(stage)
    stage.app()
    tasks.add.delay_many([(n, n) for n in range(50)])
    broker.signal(signal.SIGTERM)
    assert broker.ended() == 0
    assert any("50" in line and "kept" in line for line in broker.output), broker.output
    assert "50 not finished" in said(durable(stage), "recovered")
    assert tasks.app.client.stats()["tasks"]["QUEUED"] == 50


def test_a_second_broker_on_the_same_folder_is_refused_by_name(stage):
    durable(stage)
    other = stage.run(
        "other", ["chervil_broker", "--data", str(stage.folder / "data"), "--unix", str(stage.folder / "b2")],
        PYTHONPATH=str(ROOT),
    )  # fmt: skip
    assert other.ended() != 0
    assert any("another" in line and str(stage.folder / "data") in line for line in other.output), (
        other.output
    )


def test_the_folder_and_its_files_are_nobody_elses(stage):
    durable(stage)
    data = stage.folder / "data"
    assert stat.S_IMODE(data.stat().st_mode) == 0o700
    for path in data.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
    assert sorted(path.name.split("-")[0] for path in data.glob("seg-*")) == ["seg"]


def test_a_folder_that_others_may_write_to_is_refused(stage):
    data = stage.folder / "data"
    data.mkdir()
    data.chmod(0o770)
    broker = stage.run(
        "broker", ["chervil_broker", "--data", str(data), "--unix", str(stage.folder / "b")],
        PYTHONPATH=str(ROOT),
    )  # fmt: skip
    assert broker.ended() != 0
    assert any("chmod 700" in line for line in broker.output), broker.output
