"""`chervil purge`: asks, then throws away."""

import json
from collections.abc import Callable

import pytest

from tests.client.cli.conftest import Broker, Ran

Run = Callable[..., Ran]


@pytest.fixture
def waiting(broker: Broker) -> Broker:
    broker.report["queues"] = [
        {"name": "default", "ready": 2, "scheduled": 1},
        {"name": "mail", "ready": 5, "scheduled": 0},
    ]
    return broker


def test_force_purges_everything_and_says_how_many(chervil: Run, waiting: Broker) -> None:
    ran = chervil("purge", "-f")
    assert (ran.code, ran.out) == (0, "Purged 8 tasks.\n")
    assert waiting.purged == [[]]


def test_named_queues_alone_are_purged(chervil: Run, waiting: Broker) -> None:
    assert json.loads(chervil("purge", "-f", "-Q", "mail, default", "--json").out) == {"purged": 8}
    assert waiting.purged == [["mail", "default"]]


def test_without_a_terminal_it_refuses_to_ask(
    chervil: Run, waiting: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: False)
    ran = chervil("purge")
    assert ran.code == 2
    assert "-f does not ask" in ran.err
    assert waiting.purged == []


def test_it_asks_with_the_number(
    chervil: Run, waiting: Broker, terminal: Callable[[bool], list[str]]
) -> None:
    asked = terminal(True)
    assert chervil("purge").code == 0
    assert chervil("purge", "-Q", "mail").code == 0
    assert asked == [
        "Throw away 8 waiting tasks in all queues?",
        "Throw away 5 waiting tasks in mail?",
    ]
    assert waiting.purged == [[], ["mail"]]


def test_no_is_no(chervil: Run, waiting: Broker, terminal: Callable[[bool], list[str]]) -> None:
    terminal(False)
    ran = chervil("purge")
    assert ran.code == 1
    assert "nothing was purged" in ran.err
    assert waiting.purged == []
