"""`chervil forget`: what it drops and what it says."""

import json
from collections.abc import Callable

from chervil.client import Status
from chervil.protocol import Stage
from tests.client.cli.conftest import Broker, Ran

Run = Callable[..., Ran]


def test_ended_tasks_are_dropped_each_once(chervil: Run, broker: Broker) -> None:
    broker.countable = {"a", "b"}
    assert chervil("forget", "a", "b", "a") == Ran(0, "Dropped 2 tasks.\n", "")
    assert broker.asked == [("forget", ["a"]), ("forget", ["b"])]


def test_for_each_that_is_left_alone_it_is_told_why(chervil: Run, broker: Broker) -> None:
    broker.countable = {"a"}
    stages = {"b": Stage.STARTED, "c": Stage.EVICTED, "d": Stage.SUCCESS}
    broker.statuses = [Status(each, stage, None, None, {}) for each, stage in stages.items()]
    ran = chervil("forget", "a", "b", "c", "d", "e\x1b")
    assert (ran.code, ran.out) == (0, "Dropped 1 of 5 tasks.\n")
    assert ran.err.splitlines() == [
        "b was not dropped: it has not ended: running",
        "c was not dropped: it is forgotten already",
        "d was not dropped: it has just ended as SUCCESS; forget it now",
        "e\\x1b was not dropped: the broker knows no such task",
    ]


def test_none_is_1_and_json_says_why(chervil: Run, broker: Broker) -> None:
    broker.statuses = [Status("b", Stage.QUEUED, None, None, {})]
    assert chervil("forget", "b") == Ran(
        1, "Nothing was dropped.\n", "b was not dropped: it has not ended: queued\n"
    )
    ran = chervil("forget", "b", "--json")
    assert ran.code == 1
    assert json.loads(ran.out) == {
        "forgotten": 0,
        "asked": 1,
        "passed_over": [{"id": "b", "stage": "QUEUED", "why": "it has not ended: queued"}],
    }
