"""`chervil retry`: which tasks run again, and why others do not."""

import json
from collections.abc import Callable

import pytest

from chervil.client import Status
from chervil.protocol import Info, Stage
from tests.client.cli.conftest import Broker, Ran

Run = Callable[..., Ran]


def status(task_id: str, stage: Stage) -> Status:
    return Status(task_id, stage, None, None, {Info.WORKER: "w@h"})


@pytest.fixture
def letters(broker: Broker) -> Broker:
    """Three dead letters."""
    broker.letters = [
        {"id": "a", "name": "tasks.add", "queue": "default"},
        {"id": "b", "name": "tasks.mail", "queue": "mail"},
        {"id": "c", "name": "tasks.add", "queue": "mail"},
    ]
    broker.countable = {"a", "b", "c"}
    return broker


def test_one_task_runs_again(chervil: Run, broker: Broker) -> None:
    broker.countable = {"a"}
    assert chervil("retry", "a") == Ran(0, "1 task runs again.\n", "")


def test_how_many_of_how_many_and_for_each_other_why_not(chervil: Run, broker: Broker) -> None:
    broker.countable = {"a", "b"}
    broker.statuses = [
        status("c", Stage.SUCCESS),
        status("d", Stage.STARTED),
        status("e", Stage.FAILURE),
        status("f", Stage.EVICTED),
    ]
    ran = chervil("retry", "a", "b", "a", "c", "d", "e", "f", "g\x1b")
    assert (ran.code, ran.out) == (0, "2 of 7 tasks run again.\n")
    assert ran.err.splitlines() == [
        "c is not run again: it succeeded",
        "d is not run again: it has not ended: running on w@h",
        "e is not run again: it ended as FAILURE, and its arguments are gone; publish it anew",
        "f is not run again: it ended, and its arguments were dropped; publish it anew",
        "g\\x1b is not run again: the broker knows no such task",
    ]


def test_none_is_1_and_json_says_why(chervil: Run, broker: Broker) -> None:
    broker.statuses = [status("c", Stage.SUCCESS)]
    assert chervil("retry", "c") == Ran(1, "Nothing was run again.\n", "c is not run again: it succeeded\n")
    ran = chervil("retry", "c", "--json")
    assert ran.code == 1
    assert json.loads(ran.out) == {
        "rerun": 0,
        "asked": 1,
        "passed_over": [{"id": "c", "stage": "SUCCESS", "why": "it succeeded"}],
    }


def test_all_dead_letters_run_again_after_a_yes(
    chervil: Run, letters: Broker, terminal: Callable[[bool], list[str]]
) -> None:
    asked = terminal(True)
    assert chervil("retry", "--dead") == Ran(0, "3 tasks run again.\n", "")
    assert asked == ["Run 3 dead letters again?"]
    assert letters.asked == [("rerun", ["a", "b", "c"])]


def test_no_is_no(chervil: Run, letters: Broker, terminal: Callable[[bool], list[str]]) -> None:
    terminal(False)
    ran = chervil("retry", "--dead")
    assert (ran.code, ran.err) == (1, "Error: nothing was run again\n")
    assert letters.asked == []


@pytest.mark.parametrize(
    ("which", "ids"),
    [
        (["-Q", "mail"], ["b", "c"]),
        (["--task", "tasks.add"], ["a", "c"]),
        (["--queue", "mail", "--task", "tasks.add"], ["c"]),
    ],
)
def test_dead_letters_are_chosen_by_queue_and_task(
    chervil: Run, letters: Broker, which: list[str], ids: list[str]
) -> None:
    assert chervil("retry", "--dead", "--yes", *which).code == 0
    assert letters.asked == [("rerun", ids)]


def test_letters_that_somebody_else_took_meanwhile_are_counted(chervil: Run, letters: Broker) -> None:
    letters.countable = {"a"}
    assert chervil("retry", "--dead", "-y") == Ran(
        0, "1 of 3 tasks run again.\n", "The others are no dead letters any more.\n"
    )
    assert json.loads(chervil("retry", "--dead", "-y", "--json").out) == {"rerun": 1, "asked": 3}
    letters.countable = set()
    assert chervil("retry", "--dead", "-y") == Ran(
        1, "Nothing was run again.\n", "They are no dead letters any more.\n"
    )


def test_no_dead_letters_is_no_failure_and_no_question(chervil: Run, broker: Broker) -> None:
    assert chervil("retry", "--dead", "-Q", "mail", "--task", "t") == Ran(
        0, "No dead letters of task t in queue mail.\n", ""
    )
    assert broker.asked == []


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (["retry"], "Give their IDs, or --dead"),
        (["retry", "a", "--dead"], "IDs or --dead: give one"),
        (["retry", "a", "--yes"], "go with --dead"),
        (["retry", "a", "-Q", "mail"], "go with --dead"),
        (["retry", "--dead"], "--yes does not ask"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    chervil: Run, letters: Broker, monkeypatch: pytest.MonkeyPatch, line: list[str], message: str
) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: False)
    ran = chervil(*line)
    assert ran.code == 2
    assert message in ran.err
    assert letters.asked == []
