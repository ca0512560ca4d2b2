"""Processes that are killed: what must survive, and what it costs."""

import os
import signal
from pathlib import Path

import pytest

from chervil.exceptions import WorkerLostError
from tests.e2e import tasks
from tests.e2e.stage import KILL, Stage, alive, wait_until_gone

pytestmark = pytest.mark.e2e


def read_fifo_line(stage: Stage, name: str) -> int:
    """The pid that a task tells through a FIFO; opening it waits for the task."""
    with (stage.folder / name).open() as fifo:
        return int(fifo.readline())


def make_fifo(stage: Stage, *names: str) -> None:
    for name in names:
        os.mkfifo(stage.folder / name)


def let_go(stage: Stage, name: str) -> None:
    (stage.folder / f"{name}.go").write_text("go")


def test_a_killed_childs_task_runs_again_and_its_result_arrives(stage):
    stage.broker()
    worker = stage.worker("-c", "1")
    stage.app()
    make_fifo(stage, "pid")
    result = tasks.stuck_the_first_time.delay("pid")
    waiting = tasks.add.delay_many([(n, 1) for n in range(20)])
    os.kill(read_fifo_line(stage, "pid"), KILL)
    assert "ran again" in result.get(timeout=10)
    assert [each.get(timeout=10) for each in waiting] == [n + 1 for n in range(20)]
    line = worker.wait_for("SIGKILL")
    assert result.id in line
    assert "tests.e2e.tasks.stuck_the_first_time" in line


def test_a_task_that_kills_its_process_every_time_ends_dead(stage):
    broker = stage.broker()
    stage.worker("-c", "1")
    stage.app()
    result = tasks.crash.delay()
    with pytest.raises(WorkerLostError, match="SIGKILL"):
        result.get(timeout=20)
    assert result.stage == "DEAD"
    assert result.state == "FAILURE"
    broker.wait_for("is DEAD after 3 attempts")
    assert tasks.add.delay(1, 2).get(timeout=10) == 3


def test_a_killed_worker_leaves_no_process_and_its_tasks_go_to_another(stage):
    stage.broker()
    worker = stage.worker("-c", "2")
    stage.app()
    make_fifo(stage, "one", "two")
    results = [tasks.stuck_the_first_time.delay(name) for name in ("one", "two")]
    children = [read_fifo_line(stage, name) for name in ("one", "two")]
    worker.signal(KILL)
    worker.ended()
    assert wait_until_gone(children, 10) == []
    stage.worker("-c", "2")
    assert all("ran again" in result.get(timeout=10) for result in results)


def test_a_killed_nursery_takes_the_worker_down_and_nothing_is_lost(stage):
    stage.broker()
    worker = stage.worker("-c", "1")
    stage.app()
    make_fifo(stage, "pid")
    result = tasks.stuck_the_first_time.delay("pid")
    child = read_fifo_line(stage, "pid")
    nursery = int(Path(f"/proc/{child}/stat").read_text().rsplit(")", 1)[1].split()[1])
    os.kill(nursery, KILL)
    assert worker.ended() != 0
    assert wait_until_gone([child], 10) == []
    stage.worker("-c", "1")
    assert "ran again" in result.get(timeout=10)


def test_term_lets_running_tasks_finish_and_hands_back_the_rest(stage):
    stage.broker()
    worker = stage.worker("-c", "1")
    stage.app()
    make_fifo(stage, "held", "held.go")
    running = tasks.hold.delay("held")
    waiting = tasks.add.delay_many([(n, 1) for n in range(50)])
    read_fifo_line(stage, "held")
    worker.signal(signal.SIGTERM)
    worker.wait_for("stopping when what runs is done (tasks: 1)")
    let_go(stage, "held")
    assert worker.ended() == 0
    assert running.get(timeout=10) == "let go"
    second = stage.worker("-c", "1", "-n", "second@here")
    assert [each.get(timeout=10) for each in waiting] == [n + 1 for n in range(50)]
    second.stop()


def test_a_second_term_cuts_running_tasks_off_and_they_run_again(stage):
    stage.broker()
    worker = stage.worker("-c", "1")
    stage.app()
    make_fifo(stage, "pid")
    result = tasks.stuck_the_first_time.delay("pid")
    child = read_fifo_line(stage, "pid")
    worker.signal(signal.SIGTERM)
    worker.wait_for("stopping when what runs is done (tasks: 1)")
    worker.signal(signal.SIGTERM)
    assert worker.ended() == 1
    assert not alive(child)
    stage.worker("-c", "1")
    assert "ran again" in result.get(timeout=10)


def test_a_worker_waits_for_a_broker_and_finds_the_next_one(stage):
    broker = stage.broker()
    worker = stage.worker("-c", "1")
    stage.app()
    assert tasks.add.delay(1, 1).get(timeout=10) == 2
    broker.signal(signal.SIGTERM)
    assert broker.ended() == 0
    worker.wait_for("cannot reach the broker")
    stage.broker()
    worker.wait_for("connected to the broker again")
    assert tasks.add.delay(2, 2).get(timeout=20) == 4


def test_a_long_task_keeps_no_others_hostage(stage):
    stage.broker()
    stage.worker("-c", "2")
    stage.app()
    make_fifo(stage, "held", "held.go")
    quick = tasks.add.delay_many([(n, 1) for n in range(500)])
    running = tasks.hold.delay("held")
    more = tasks.add.delay_many([(n, 2) for n in range(500)])
    read_fifo_line(stage, "held")
    assert [each.get(timeout=20) for each in quick] == [n + 1 for n in range(500)]
    assert [each.get(timeout=20) for each in more] == [n + 2 for n in range(500)]
    let_go(stage, "held")
    assert running.get(timeout=10) == "let go"
