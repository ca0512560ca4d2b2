"""`chervil list`: dead letters, queues and workers."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.client.cli.conftest import Broker, Ran

Run = Callable[..., Ran]
ID = "2f6c0c2e-5f5e-4b43-9a53-0f3e6f3c0a11"
#: 2026-01-31 12:00:00.120 UTC.
NOON = 1_769_860_800_120
HINT = "What became of one: chervil why ID; run again: chervil retry ID, or --dead\n"


def letter(task_id: str = ID, **more: Any) -> dict[str, Any]:
    return {
        "id": task_id,
        "name": "tasks.add",
        "queue": "default",
        "attempts": 3,
        "worker": "w@h",
        "reason": "WorkerLostError: its process died: SIGKILL",
        "since_ms": NOON,
        **more,
    }


def test_dead_letters_are_a_table_with_a_hint_how_to_go_on(chervil: Run, broker: Broker) -> None:
    broker.letters = [letter(), letter("b" * 36, queue="mail", reason=None)]
    assert chervil("list", "dead") == Ran(
        0,
        "ID                                    TASK       QUEUE    ATTEMPTS       SINCE  REASON\n"
        f"{ID}  tasks.add  default         3  2026-01-31  WorkerLostError: its process died: SIGKILL\n"
        f"{'b' * 36}  tasks.add  mail            3  2026-01-31  -\n",
        HINT,
    )


def test_on_a_terminal_names_and_reasons_have_their_own_line_and_are_cut(
    chervil: Run, broker: Broker, screen: Callable[[int], None]
) -> None:
    screen(80)
    broker.letters = [letter(name="invoices.tasks.send", reason="\x1b" + "x" * 100)]
    ran = chervil("list", "dead")
    assert ran.out.splitlines() == [
        "ID                                    QUEUE    ATTEMPTS       SINCE",
        f"{ID}  default         3  2026-01-31",
        f"  invoices.tasks.send: \\x1b{'x' * 50}...",
    ]
    assert max(map(len, ran.out.splitlines())) == 80


def test_json_is_one_object_a_line_with_nothing_cut(
    chervil: Run, broker: Broker, screen: Callable[[int], None]
) -> None:
    screen(80)
    broker.letters = [letter(reason="x" * 200), letter("b")]
    ran = chervil("list", "dead", "--json")
    assert [json.loads(line) for line in ran.out.splitlines()] == broker.letters
    assert ran.err == ""


def test_no_dead_letters_is_one_line_and_no_json(chervil: Run, broker: Broker) -> None:
    assert chervil("list", "dead") == Ran(0, "No dead letters.\n", "")
    assert chervil("list", "dead", "--json") == Ran(0, "", "")


def test_a_limit_says_that_there_are_more(chervil: Run, broker: Broker) -> None:
    broker.letters = [letter(str(number)) for number in range(3)]
    ran = chervil("list", "dead", "--limit", "2", "--json")
    assert len(ran.out.splitlines()) == 2
    assert ran.err == "There are more: --limit 20\n"
    assert chervil("list", "dead", "--limit", "3", "-q").err == ""


def test_queues_and_workers_come_from_the_report(chervil: Run, broker: Broker) -> None:
    assert chervil("list", "queues").out == "No queues.\n"
    assert chervil("list", "workers").out == ("No worker is connected; start one: chervil -A MODULE worker\n")
    broker.report["queues"] = [
        {"name": "a", "ready": 1, "waiting_for": "no_credit", "oldest_ms": 2000},
        {"name": "b", "ready": 2, "waiting_for": "no_consumer", "oldest_ms": 2000},
    ]
    broker.report["workers"] = [{"name": "w@h", "pid": 1, "queues": ["a"]}]
    assert chervil("list", "queues", "--limit", "1").out.splitlines()[1:] == [
        "b          2          0       0        0     2 s  no worker consumes it"
    ]
    assert chervil("list", "workers").out.splitlines()[1:] == [
        "w@h       1      -       0          0       0 ms  a"
    ]
    assert [json.loads(line)["name"] for line in chervil("list", "queues", "--json").out.splitlines()] == [
        "a",
        "b",
    ]
    assert json.loads(chervil("list", "workers", "--json").out)["name"] == "w@h"


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("tasks", "`chervil list tasks` is not in this release; there is: dead, queues, workers"),
        ("schedules", "is not in this release"),
        ("queue", "Did you mean 'queues'?"),
        ("everything", "There is: dead, queues, workers."),
    ],
)
def test_what_cannot_be_listed_is_refused(chervil: Run, broker: Broker, kind: str, message: str) -> None:
    ran = chervil("list", kind)
    assert ran.code == 2
    assert message in ran.err
