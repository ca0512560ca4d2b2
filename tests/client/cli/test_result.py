"""`chervil result`: asking once, or waiting, and what can be asked."""

from collections.abc import Callable
from typing import Any

import pytest

from chervil.client import Status
from chervil.exceptions import OperationalError
from chervil.protocol import Info, Stage
from tests.client.cli.conftest import Broker, Ran

Run = Callable[..., Ran]
ID = "7b0b0c2e-5f5e-4b43-9a53-0f3e6f3c0a11"


def test_timeout_without_wait_is_refused(chervil: Run) -> None:
    for line in (["result", ID], ["call", "tasks.add"]):
        ran = chervil(*line, "--timeout", "3")
        assert ran.code == 2
        assert "it goes with --wait" in ran.err


def test_waiting_in_vain_says_why_and_gives_up_after_the_timeout(chervil: Run, broker: Broker) -> None:
    info: dict[int, Any] = {Info.QUEUE: "mail", Info.WAITING_FOR: "no_consumer", Info.IN_STAGE_MS: 2000}
    broker.statuses = [Status(ID, Stage.QUEUED, None, None, info)]
    ran = chervil("result", ID, "--wait", "--timeout", "3")
    assert ran.code == 124
    assert broker.waited == [3.0]
    assert ran.err.splitlines() == [
        "queued for 2 s; no worker consumes 'mail'; start one: chervil -A MODULE worker -Q mail",
        f"Task {ID}: queued for 2 s; no worker consumes 'mail'; gave up after 3 s",
    ]
    assert len(chervil("result", ID, "--wait", "-q").err.splitlines()) == 1


def test_a_task_that_has_not_ended_is_124_and_says_where_it_is(chervil: Run, broker: Broker) -> None:
    broker.statuses = [Status(ID, Stage.SCHEDULED, None, None, {Info.DUE_IN_MS: 1500})]
    assert chervil("result", ID) == Ran(124, "", f"Task {ID}: scheduled; due in 1.5 s\n")
    assert broker.waited == []


def test_asking_without_wait_is_one_query(chervil: Run, broker: Broker) -> None:
    broker.statuses = [Status(ID, Stage.SUCCESS, "json", b"5", {})]
    assert chervil("result", ID) == Ran(0, "5\n", "")
    assert broker.waited == []


def test_wait_without_timeout_waits_for_ever(chervil: Run, broker: Broker) -> None:
    broker.statuses = [Status(ID, Stage.SUCCESS, "json", b"5", {})]
    assert chervil("result", ID, "--wait") == Ran(0, "5\n", "")
    assert broker.waited == [None]


def test_a_timeout_of_zero_is_taken_and_a_negative_one_refused(chervil: Run, broker: Broker) -> None:
    broker.statuses = [Status(ID, Stage.STARTED, None, None, {})]
    assert chervil("result", ID, "-w", "--timeout", "0").code == 124
    assert broker.waited == [0.0]
    assert chervil("result", ID, "-w", "--timeout", "-1").code == 2


def test_a_forgotten_task_is_not_sent_on_to_a_story_that_is_forgotten_too(
    chervil: Run, broker: Broker
) -> None:
    broker.statuses = [Status(ID, Stage.EVICTED, None, None, {})]
    broker.life = {"id": ID, "stage": "EVICTED"}
    said = f"Error: task {ID} ended and is forgotten: neither its result nor its story is kept.\n"
    assert chervil("result", ID) == Ran(69, "", said)
    assert chervil("result", ID, "--json") == Ran(69, f'{{"id": "{ID}", "stage": "EVICTED"}}\n', "")
    broker.life |= {"name": "tasks.add"}
    ran = chervil("result", ID)
    assert ran.code == 69
    assert f"chervil why {ID}" in ran.err


@pytest.mark.parametrize("wait", [[], ["--wait"]])
def test_the_client_is_closed_whatever_happens(
    chervil: Run, broker: Broker, monkeypatch: pytest.MonkeyPatch, wait: list[str]
) -> None:
    closed: list[bool] = []

    def fail(*args: Any, **kwargs: Any) -> list[Status]:
        raise OperationalError("cannot reach it")

    monkeypatch.setattr(broker, "close", lambda: closed.append(True))
    monkeypatch.setattr(broker, "query", fail)
    monkeypatch.setattr(broker, "wait", fail)
    ran = chervil("result", ID, *wait)
    assert ran.code == 69
    assert "cannot reach it" in ran.err
    assert closed == [True]
