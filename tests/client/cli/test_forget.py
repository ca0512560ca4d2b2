"""`chervil forget`: what it drops and what it says."""

import json
from collections.abc import Callable

from tests.client.cli.conftest import Broker, Ran

Run = Callable[..., Ran]


def test_ended_tasks_are_dropped_each_once(chervil: Run, broker: Broker) -> None:
    broker.countable = {"a", "b"}
    assert chervil("forget", "a", "b", "a") == Ran(0, "Dropped 2 tasks.\n", "")
    assert broker.asked == [("forget", ["a", "b"])]


def test_what_has_not_ended_is_left_alone(chervil: Run, broker: Broker) -> None:
    broker.countable = {"a"}
    ran = chervil("forget", "a", "b")
    assert (ran.code, ran.out) == (0, "Dropped 1 of 2 tasks; the others have not ended, or are not known.\n")
    assert json.loads(chervil("forget", "a", "b", "--json").out) == {"forgotten": 1, "asked": 2}
    assert chervil("forget", "c").code == 1
