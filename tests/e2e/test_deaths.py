"""Processes that are killed: what must survive, and what it costs."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from chervil.exceptions import WorkerLostError
from chervil.protocol.limits import GRACE_SILENT_MS
from tests.e2e import tasks
from tests.e2e.stage import KILL, REAL_TIME, Stage, alive, until, wait_until_gone

pytestmark = pytest.mark.e2e


def let_go(stage: Stage, name: str) -> None:
    (stage.folder / f"{name}.go").write_text("go")


def test_a_killed_childs_task_runs_again_and_its_result_arrives(stage):
    stage.broker()
    worker = stage.worker("-c", "1")
    stage.app()
    stage.fifo("pid")
    result = tasks.stuck_the_first_time.delay("pid")
    waiting = tasks.add.delay_many([(n, 1) for n in range(20)])
    os.kill(stage.read_pid("pid"), KILL)
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


def test_term_lets_running_tasks_finish_and_hands_back_the_rest(stage):
    stage.broker()
    worker = stage.worker("-c", "1")
    stage.app()
    stage.fifo("held", "held.go")
    running = tasks.hold.delay("held")
    waiting = tasks.add.delay_many([(n, 1) for n in range(50)])
    stage.read_pid("held")
    worker.signal(signal.SIGTERM)
    worker.wait_for("stopping when what runs is done (tasks: 1)")
    let_go(stage, "held")
    assert worker.ended() == 0
    assert running.get(timeout=10) == "let go"
    second = stage.worker("-c", "1", "-n", "second@here")
    assert [each.get(timeout=10) for each in waiting] == [n + 1 for n in range(50)]
    second.stop()


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
    stage.fifo("held", "held.go")
    quick = tasks.add.delay_many([(n, 1) for n in range(500)])
    running = tasks.hold.delay("held")
    more = tasks.add.delay_many([(n, 2) for n in range(500)])
    stage.read_pid("held")
    assert [each.get(timeout=20) for each in quick] == [n + 1 for n in range(500)]
    assert [each.get(timeout=20) for each in more] == [n + 2 for n in range(500)]
    let_go(stage, "held")
    assert running.get(timeout=10) == "let go"


# The acknowledgement table, row by row: what becomes of a task that is acked late (the default), early
# (`acks_late=False`), and late with `reject_on_worker_lost=False`.

DEATHS = [("SIGKILL", "SIGKILL"), ("segfault", "SIGSEGV"), ("os._exit", "exit code 3"), ("abort", "SIGABRT")]


def lost(result) -> str:
    """What its WorkerLostError says."""
    with pytest.raises(WorkerLostError) as caught:
        result.get(timeout=20)
    assert result.stage == result.state == "FAILURE"
    return str(caught.value)


def test_child_death_costs_a_late_acked_task_one_attempt(stage):
    stage.broker()
    stage.worker("-c", "1")
    stage.app()
    results = [tasks.dies.delay(how) for how, _ in DEATHS]
    assert {result.get(timeout=20) for result in results} == {"ran again, attempts lost: 1"}
    assert len(stage.lines("runs")) == 2 * len(DEATHS)


def test_child_death_fails_an_early_acked_task_and_one_that_must_not_run_again(stage):
    stage.broker()
    stage.worker("-c", "1")
    stage.app()
    for how, told in DEATHS:
        assert told in lost(tasks.dies_acked_early.delay(how))
        assert told in lost(tasks.dies_not_to_run_again.delay(how))
    assert len(stage.lines("runs")) == 2 * len(DEATHS)


def test_memory_limit_of_the_process_is_an_error_of_the_task(stage):
    stage.broker()
    stage.worker("-c", "1")
    stage.app()
    with pytest.raises(MemoryError):
        tasks.grow_too_large.delay().get(timeout=10)
    assert tasks.add.delay(1, 2).get(timeout=10) == 3


class Trio:
    """Three tasks that hang in one worker: acked late, acked early, not to run again."""

    def __init__(self, stage: Stage) -> None:
        names = ("late", "early", "once")
        stage.fifo(*names)
        self.late = tasks.stuck_the_first_time.delay("late")
        self.early = tasks.stuck_acked_early.delay("early")
        self.once = tasks.stuck_not_to_run_again.delay("once")
        self.children = [stage.read_pid(name) for name in names]
        for result in (self.late, self.early, self.once):
            until(lambda result=result: result.stage == "STARTED", "reported as started")


def test_killed_nursery_takes_the_worker_down_and_is_a_child_death(stage):
    stage.broker()
    worker = stage.worker("-c", "3")
    stage.app()
    trio = Trio(stage)
    os.kill(parent_of(trio.children[0]), KILL)
    assert worker.ended() != 0
    assert wait_until_gone(trio.children, 10) == []
    assert lost(trio.early)
    assert lost(trio.once)
    stage.worker("-c", "1")
    assert trio.late.get(timeout=10) == "ran again, attempts lost: 1"


def test_killed_worker_parent_costs_what_had_started_an_attempt_after_the_grace(stage):
    stage.broker()
    worker = stage.worker("-c", "3")
    stage.app()
    trio = Trio(stage)
    stage.worker("-c", "1", "-n", "second@here")
    worker.signal(KILL)
    assert trio.late.get(timeout=20) == "ran again, attempts lost: 1"
    assert trio.once.get(timeout=20) == "ran again, attempts lost: 1"
    assert lost(trio.early)
    assert wait_until_gone(trio.children, 10) == []


def test_session_lost_for_longer_than_the_grace_gives_its_tasks_to_others(stage):
    stage.broker()
    proxy = stage.proxy()
    first = stage.worker("-c", "3", url=proxy.url)
    stage.app()
    trio = Trio(stage)
    stage.worker("-c", "1", "-n", "second@here")
    proxy.refuse(8)
    proxy.cut(all_=True)
    try:
        assert trio.late.get(timeout=20) == "ran again, attempts lost: 1"
        assert trio.once.get(timeout=20) == "ran again, attempts lost: 1"
        assert lost(trio.early)
        assert all(alive(child) for child in trio.children)
    finally:
        for child in trio.children:
            os.kill(child, KILL)
    first.wait_for("connected to the broker again")
    assert trio.late.stage == "SUCCESS"


@pytest.mark.timeout(150)
@pytest.mark.parametrize(
    ("module", "grace"),
    [
        ("tests.e2e.hasty_broker", GRACE_SILENT_MS / 10_000),
        pytest.param("chervil_broker", GRACE_SILENT_MS / 1000, marks=REAL_TIME),
    ],
)
def test_worker_that_is_silent_for_longer_than_the_grace_loses_its_tasks_to_others(stage, module, grace):
    broker = stage.broker(module=module)
    silent = stage.worker("-c", "3", "-n", "silent@here")
    stage.app()
    trio = Trio(stage)
    stage.worker("-c", "1", "-n", "second@here")
    silent.signal(signal.SIGSTOP)
    try:
        broker.wait_for(f"silent@here is gone; what it has is kept for it for {grace:g} s", deadline=31)
        kept_since = time.monotonic()
        assert [result.stage for result in (trio.late, trio.once, trio.early)] == ["STARTED"] * 3
        assert trio.late.get(timeout=grace + 10) == "ran again, attempts lost: 1"
        assert time.monotonic() - kept_since >= grace - 0.5, "half a second until the line was read"
        assert trio.once.get(timeout=10) == "ran again, attempts lost: 1"
        assert lost(trio.early)
    finally:
        silent.signal(signal.SIGCONT)
    silent.wait_for("the broker did not keep this worker's session")
    for child in trio.children:
        os.kill(child, KILL)
    silent.signal(signal.SIGTERM)
    assert silent.ended() == 0
    assert trio.late.stage == "SUCCESS"


def test_cold_stop_lets_started_tasks_run_again_uncharged_unless_they_were_acked(stage):
    stage.broker()
    worker = stage.worker("-c", "3")
    stage.app()
    trio = Trio(stage)
    worker.signal(signal.SIGTERM)
    worker.wait_for("stopping when what runs is done (tasks: 3)")
    worker.signal(signal.SIGTERM)
    assert worker.ended() == 1
    assert not any(alive(child) for child in trio.children)
    assert lost(trio.early)
    stage.worker("-c", "1")
    assert trio.late.get(timeout=10) == "ran again, attempts lost: 0"
    assert trio.once.get(timeout=10) == "ran again, attempts lost: 0"


def test_task_that_kills_its_whole_worker_tree_ends_dead(stage):
    stage.broker()
    stage.app()
    stage.worker("-c", "1", "-n", "bystander@here", "-Q", "other")
    result = tasks.fell_the_tree.delay()
    stopped = threading.Event()

    def supervise() -> None:
        """What systemd does: a worker that has ended is started again."""
        while not stopped.is_set():
            stage.worker("-c", "1").popen.wait()

    supervisor = threading.Thread(target=supervise)
    supervisor.start()
    try:
        with pytest.raises(WorkerLostError):
            result.get(timeout=45)
        assert result.stage == "DEAD"
        # A first run that fells its link before that has reported it (within 5 ms) is not charged; it is
        # flagged, and flagged ones are reported before they begin.
        assert len(stage.lines("runs")) in (2, 3)
        assert tasks.add.delay(1, 2).get(timeout=10) == 3
    finally:
        stopped.set()
        stage.stop_workers()
        supervisor.join(20)


def test_why_tells_of_a_task_that_died_twice_and_was_parked(stage):
    stage.broker()
    stage.worker("-c", "1", "-n", "w1@here")
    stage.app()
    result = tasks.crash_twice.delay()
    with pytest.raises(WorkerLostError):
        result.get(timeout=20)
    story = stage.run("why", ["chervil", "why", result.id, "-b", stage.url])
    assert story.ended() == 0
    text = "\n".join(story.output)
    assert "tests.e2e.tasks.crash_twice" in text
    assert "published by" in text
    assert text.count("SIGKILL") >= 2
    assert text.count("its process died") == 2
    assert "attempt 2 of 2 lost" in text
    assert "parked" in text
    assert "w1@here" in text
    assert f"chervil retry {result.id}" in text


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
