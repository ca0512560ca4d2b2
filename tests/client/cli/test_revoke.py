"""`chervil revoke`: what is asked of the broker, and each answer in words."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from chervil.client import Status
from chervil.protocol import Info, Stage
from tests.client.cli.conftest import Broker, Ran

Run = Callable[..., Ran]


def status(stage: Stage, task_id: str = "a", worker: str | None = None) -> Status:
    info: dict[int, Any] = {Info.WORKER: worker} if worker else {}
    return Status(task_id, stage, None, None, info)


@pytest.mark.parametrize(
    ("now", "text"),
    [
        (status(Stage.REVOKED), "a: revoked"),
        (
            status(Stage.STARTED, worker="w@h\x1b"),
            "a: it runs on w@h\\x1b, and goes on; end it: chervil revoke --terminate a",
        ),
        (status(Stage.LEASED, worker="w@h"), "a: w@h has it, and is told not to begin it"),
        (status(Stage.QUEUED), "a: now queued"),
        (status(Stage.UNKNOWN), "a: not known here; it will not run if it is published later"),
    ],
)
def test_each_task_has_a_line_that_says_what_that_means(
    chervil: Run, broker: Broker, now: Status, text: str
) -> None:
    broker.countable = {"a"}
    broker.statuses = [now]
    assert chervil("revoke", "a") == Ran(0, f"{text}\n", "")
    assert broker.asked == [("revoke", ["a"], False, None)]


def test_what_had_ended_stays_and_is_1(chervil: Run, broker: Broker) -> None:
    broker.statuses = [status(Stage.SUCCESS)]
    assert chervil("revoke", "a") == Ran(1, "a: it had ended: SUCCESS\n", "")


@pytest.mark.parametrize(
    ("signal", "number"), [("SIGUSR1", 10), ("usr2", 12), ("KILL", 9), ("15", 15), (None, None)]
)
def test_terminate_sends_a_signal_by_its_number_on_linux(
    chervil: Run, broker: Broker, signal: str | None, number: int | None
) -> None:
    broker.countable = {"a"}
    broker.statuses = [status(Stage.STARTED, worker="w@h")]
    ran = chervil("revoke", "a", "--terminate", *(["--signal", signal] if signal else []))
    assert (ran.code, ran.out) == (0, "a: being ended on w@h; killed if it still runs in 10 s\n")
    assert broker.asked == [("revoke", ["a"], True, number)]


@pytest.mark.parametrize("signal", ["SIGNOTHING", "0", "65", "-1", "²"])
def test_what_is_no_signal_is_refused(chervil: Run, broker: Broker, signal: str) -> None:
    ran = chervil("revoke", "a", "--terminate", "--signal", signal)
    assert ran.code == 2
    assert "is no signal; write HUP, INT" in ran.err
    assert broker.asked == []


def test_a_signal_goes_with_terminate(chervil: Run, broker: Broker) -> None:
    ran = chervil("revoke", "a", "--signal", "KILL")
    assert ran.code == 2
    assert "it goes with --terminate" in ran.err


def test_json_has_the_stages(chervil: Run, broker: Broker) -> None:
    broker.countable = {"a"}
    broker.statuses = [status(Stage.REVOKED), status(Stage.DEAD, "b")]
    assert json.loads(chervil("revoke", "a", "b", "a", "--json").out) == {
        "revoked": 1,
        "asked": 2,
        "tasks": [{"id": "a", "stage": "REVOKED"}, {"id": "b", "stage": "DEAD"}],
    }
