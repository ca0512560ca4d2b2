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


def test_nothing_there_is_said_without_a_question(
    chervil: Run, waiting: Broker, terminal: Callable[[bool], list[str]]
) -> None:
    asked = terminal(False)
    waiting.report["tasks"] = {"QUEUED": 7, "SCHEDULED": 1, "DEAD": 9}
    assert chervil("purge", "-Q", "letters") == Ran(0, "Nothing waits in letters.\n", "")
    assert chervil("purge", "-Q", "letters", "--json") == Ran(0, '{"purged": 0}\n', "")
    waiting.report |= {"queues": [], "tasks": {"DEAD": 9}}
    assert chervil("purge") == Ran(0, "Nothing waits in any queue.\n", "")
    assert (asked, waiting.purged) == ([], [])


def test_it_asks_where_a_queue_that_is_not_listed_may_hold_something(
    chervil: Run, waiting: Broker, terminal: Callable[[bool], list[str]]
) -> None:
    """A broker lists its fullest queues alone."""
    asked = terminal(True)
    waiting.report["tasks"] = {"QUEUED": 8, "RETRY": 1}
    assert chervil("purge", "-Q", "letters").code == 0
    assert asked == ["Throw away 0 waiting tasks in letters?"]
