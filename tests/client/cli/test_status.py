"""`chervil status`: the report as people read it."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from chervil.cli.status import span, table
from tests.client.cli.conftest import Broker, Ran

Run = Callable[..., Ran]


def queue(name: str, **more: Any) -> dict[str, Any]:
    zero = {"ready": 0, "scheduled": 0, "leased": 0, "consumers": 1, "oldest_ms": 0, "waiting_for": None}
    return {"name": name, **zero, "unknown_tasks": [], **more}


WORKER = {
    "name": "worker@host",
    "pid": 4711,
    "concurrency": 2,
    "queues": ["default", "mail"],
    "leased": 1,
    "credit": 64,
    "delivered": 12,
    "connected_ms": 61_000,
}


def test_empty_broker_says_how_to_start_a_worker(chervil: Run, broker: Broker) -> None:
    ran = chervil("status")
    assert ran.code == 0
    assert ran.out.startswith("Chervil 0.1.0, up 90 s; keeps tasks in memory only; 1 MiB of 512 MiB used\n")
    assert "No worker is connected; start one: chervil -A MODULE worker" in ran.out


def test_warnings_come_first_and_a_waiting_queue_is_the_first_row(chervil: Run, broker: Broker) -> None:
    broker.report["warnings"] = ["queue 'mail' has waited 12 s without a consumer"]
    broker.report["queues"] = [
        queue("default", ready=1, waiting_for="no_credit", oldest_ms=1200),
        queue("mail", ready=3, consumers=0, oldest_ms=12_000, waiting_for="no_consumer"),
        queue("x", ready=1, waiting_for="unknown_task", unknown_tasks=["tasks.gone"]),
        queue("strange", waiting_for="the moon"),
    ]
    broker.report["workers"] = [WORKER]
    ran = chervil("status")
    assert ran.err == "Warning: queue 'mail' has waited 12 s without a consumer\n"
    lines = ran.out.splitlines()
    assert lines[2:7] == [
        "QUEUE    READY  SCHEDULED  LEASED  WORKERS  OLDEST",
        "mail         3          0       0        0    12 s  no worker consumes it",
        "x            1          0       0        1       -  no worker knows its tasks: tasks.gone",
        "default      1          0       0        1     1 s  all its workers are busy",
        "strange      0          0       0        1       -  the moon",
    ]
    assert lines[8:] == [
        "WORKER        PID  SLOTS  LEASED  DELIVERED  CONNECTED  QUEUES",
        "worker@host  4711      2       1         12       61 s  default, mail",
    ]


def test_json_is_the_brokers_report(chervil: Run, broker: Broker) -> None:
    ran = chervil("status", "--json")
    assert json.loads(ran.out) == broker.report


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [
        (0, "0 ms"),
        (340, "340 ms"),
        (12_000, "12 s"),
        (300_000, "5 min"),
        (3 * 3_600_000, "3 h"),
        (3 * 86_400_000, "3 d"),
    ],
)
def test_durations_have_the_unit_that_people_use(milliseconds: int, text: str) -> None:
    assert span(milliseconds) == text


def test_table_puts_numbers_right_and_names_left() -> None:
    assert table([("NAME", "N"), ("a", "1"), ("long name", "10")]) == (
        "NAME        N\na           1\nlong name  10"
    )
