"""`chervil demo --kill`: what it does, and that it counts what is lost and repeated."""

import json
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import click
import pytest

from chervil.cli import demo_kill, demo_tasks
from chervil.cli.daemons import Daemons
from chervil.cli.demo_kill import KILLS, Tally, kill_and_count
from chervil.client import Status
from chervil.exceptions import OperationalError, PublishUnconfirmed
from chervil.protocol import Stage
from tests.client.cli.conftest import Ran


class Scene:
    """Stands for daemons, a task and a client: every kill is noted, every task runs when it is published."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.killed: list[str] = []
        self.checked = self.checked_late = 0
        self.waited = False
        #: What the next publishes raise, before they go through.
        self.raised: list[Exception] = []
        self.idle = False
        #: Stages by id; SUCCESS for all others.
        self.stages: dict[str, Stage] = {}
        #: Lines by number; one unflagged run for all others.
        self.lines: dict[int, str] = {}
        self.client = self
        self.note = self

    def kill_broker(self) -> float:
        self.killed.append("broker")
        return 0.5

    def kill_worker(self) -> None:
        self.killed.append("worker")

    def check(self) -> None:
        self.checked += 1
        self.checked_late += self.waited

    def give_up(self, why: str) -> None:
        raise click.ClickException(why)

    def delay_many(self, calls: list[tuple[str, int]]) -> list[SimpleNamespace]:
        if self.raised:
            raise self.raised.pop()
        for path, number in () if self.idle else calls:
            with Path(path).open("a") as notes:
                notes.write(self.lines.get(number, f"{number} 77 0\n"))
        return [SimpleNamespace(id=f"task {number}") for _, number in calls]

    def wait(self, ids: list[str], timeout: float) -> list[Status]:
        self.waited = True
        return [Status(id_, self.stages.get(id_, Stage.SUCCESS), None, None, {}) for id_ in ids]


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    made = Scene(tmp_path)
    monkeypatch.setattr(demo_kill, "BETWEEN_SECONDS", 0.01)
    monkeypatch.setattr(demo_kill, "PAUSE_SECONDS", 0.001)
    monkeypatch.setattr(demo_tasks, "app", made)
    monkeypatch.setattr(demo_tasks, "note", made)
    monkeypatch.setattr(
        "os.kill",
        lambda pid, number: made.killed.append("process" if (pid, number) == (77, signal.SIGKILL) else "?"),
    )
    return made


def show(scene: Scene) -> Tally:
    return kill_and_count(cast("Daemons", scene), lambda text: None)


def test_all_are_killed_in_turn_while_tasks_are_published(scene: Scene) -> None:
    tally = show(scene)
    assert scene.killed == list(KILLS)
    assert tally.kills == Counter(KILLS)
    assert tally.recoveries == [0.5, 0.5, 0.5]
    assert len(tally.confirmed) == tally.completed >= demo_kill.BATCH
    assert (tally.lost, tally.ran_twice, tally.untold, tally.holds) == (0, 0, 0, True)
    assert tally.figures()["longest_recovery_seconds"] == 0.5


def test_what_is_published_while_the_broker_is_away_is_published_again(scene: Scene) -> None:
    scene.raised = [OperationalError("refused"), OperationalError("refused")]
    tally = show(scene)
    assert sorted(tally.confirmed) == list(range(len(tally.confirmed)))
    assert tally.unconfirmed == 0


def test_what_the_broker_may_have_or_not_is_told_apart(scene: Scene) -> None:
    scene.raised = [PublishUnconfirmed(["a", "b"], "no word", [])]
    tally = show(scene)
    assert tally.unconfirmed == 2
    assert min(tally.confirmed) == demo_kill.BATCH
    assert tally.holds
    assert "unconfirmed 2" in tally.text()


def test_any_other_failure_to_publish_ends_the_demo(scene: Scene) -> None:
    scene.raised = [KeyError("no such task")]
    with pytest.raises(KeyError):
        show(scene)


@pytest.mark.parametrize("stage", [Stage.UNKNOWN, Stage.DEAD, Stage.QUEUED])
def test_a_confirmed_task_without_a_result_is_lost(scene: Scene, stage: Stage) -> None:
    scene.stages = {"task 3": stage}
    tally = show(scene)
    assert (tally.lost, tally.completed, tally.holds) == (1, len(tally.confirmed) - 1, False)
    # A daemon that is gone would be why it is not final.
    assert scene.checked_late == (stage is Stage.QUEUED)


def test_a_result_of_a_task_that_never_ran_counts_as_a_loss(scene: Scene) -> None:
    scene.lines = {3: ""}
    assert show(scene).lost == 1


def test_a_repeat_is_counted_and_one_that_knows_nothing_of_it_is_a_breach(scene: Scene) -> None:
    scene.lines = {3: "3 77 0\n3 78 1\n"}
    tally = show(scene)
    assert (tally.ran_twice, tally.untold, tally.holds) == (1, 0, True)
    scene.lines = {4: "4 77 0\n4 78 0\n"}
    (scene.folder / "notes").unlink()
    tally = show(scene)
    assert (tally.ran_twice, tally.untold, tally.holds) == (1, 1, False)
    assert "1 of them without a word" in tally.text()


def test_a_process_that_is_not_there_is_not_counted_as_killed(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(pid: int, number: int) -> None:
        raise ProcessLookupError

    monkeypatch.setattr("os.kill", gone)
    assert "process" not in show(scene).kills


def test_a_worker_that_runs_nothing_is_not_waited_for_for_ever(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo_kill, "PATIENCE", 0.05)
    scene.idle = True
    with pytest.raises(click.ClickException, match=r"no task was run for 0\.05 s"):
        show(scene)
    assert scene.checked > 0


@pytest.mark.e2e
def test_nothing_is_lost_and_it_says_so(chervil: Callable[..., Ran], tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "chervil.cli", "demo", "--kill", "--json"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, ""), ran.stdout
    figures = json.loads(ran.stdout)
    assert figures["lost"] == figures["ran_twice_untold"] == 0
    assert figures["confirmed"] == figures["completed"] > 500
    assert (figures["kills"]["broker"], figures["kills"]["worker"]) == (3, 1)
    assert figures["kills"]["process"] >= 1
