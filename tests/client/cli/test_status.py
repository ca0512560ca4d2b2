"""`chervil status`: the report as people read it."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.client.cli.conftest import Broker, Ran

KEPT_FOR = "for up to 5 s after a connection that closed, 30 s after silence"

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
        "x            1          0       0        1       -  no worker knows tasks.gone",
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


def test_dead_letters_and_lost_connections_have_a_line_where_there_are_any(
    chervil: Run, broker: Broker
) -> None:
    broker.report |= {"tasks": {"DEAD": 1, "QUEUED": 4}, "suspended": 2}
    assert chervil("status").out.splitlines()[1:3] == [
        "1 dead letter: chervil list dead",
        f"2 workers have lost the connection; their tasks are kept {KEPT_FOR}",
    ]
    broker.report |= {"tasks": {"DEAD": 3}, "suspended": 1}
    assert chervil("status").out.splitlines()[1:3] == [
        "3 dead letters: chervil list dead",
        f"1 worker has lost the connection; its tasks are kept {KEPT_FOR}",
    ]
    broker.report |= {"tasks": {}, "suspended": 0}
    assert chervil("status").out.splitlines()[1] == ""


@pytest.mark.parametrize(
    ("state", "text"),
    [("closed", "publishers wait until it is 70 %"), ("full", "nothing more is stored, workers go on")],
)
def test_held_back_publishing_is_warned_of_with_what_to_do(
    chervil: Run, broker: Broker, state: str, text: str
) -> None:
    broker.report["publishing"] = "open"
    assert chervil("status").err == ""
    broker.report |= {"publishing": state, "memory": {"bytes": 350, "other": 350, "limit": 1000}}
    err = chervil("status").err
    assert err.startswith("Warning: tasks take ")
    assert text in err
    assert "start more workers, purge what is not needed, or start a broker with more --max-memory" in err


def test_a_vhost_without_memory_is_told_by_its_name(chervil: Run, broker: Broker) -> None:
    broker.report |= {"publishing": "full", "vhost": "shop", "memory": {"bytes": 950, "limit": 1000}}
    assert chervil("status").err == (
        "Warning: tasks take 95 % of the memory of vhost shop: nothing more is stored, workers go on; start "
        "more workers, purge what is not needed, or give it more: chervil broker vhost set shop --max-memory, "
        "or the broker's --max-memory\n"
    )


def test_a_vhost_that_holds_all_its_tasks_is_not_told_to_be_short_of_memory(
    chervil: Run, broker: Broker
) -> None:
    tasks = {"SCHEDULED": 1, "QUEUED": 2, "STARTED": 2, "SUCCESS": 7, "DEAD": 7}
    broker.report |= {"publishing": "full", "vhost": "shop", "tasks": tasks, "tasks_limit": 5}
    assert chervil("status").err == (
        "Warning: vhost shop holds its 5 tasks: nothing more is stored, workers go on; start more workers, "
        "purge what is not needed, or: chervil broker vhost set shop --max-tasks N\n"
    )
    del broker.report["tasks_limit"]
    err = chervil("status").err
    assert "vhost shop may hold all the tasks that it may (it holds 5; its --max-tasks: " in err
    assert "memory: " not in err.partition("though there is memory: ")[0]


def test_dedup_is_for_programs(chervil: Run, broker: Broker) -> None:
    broker.report["dedup"] = {"ids": 5, "limit": 1_000_000, "horizon_ms": 7_777}
    assert "7" not in chervil("status").out.replace("2437", "")
    assert json.loads(chervil("status", "--json").out)["dedup"]["horizon_ms"] == 7_777


def test_tables_fit_the_screen_and_do_not_steer_it(
    chervil: Run, broker: Broker, screen: Callable[[int], None]
) -> None:
    screen(80)
    unknown = [f"tasks.number{number}" for number in range(9)]
    broker.report["queues"] = [queue("m\x1bail", waiting_for="unknown_task", unknown_tasks=unknown)]
    broker.report["workers"] = [{**WORKER, "name": "worker\u202e", "queues": ["q" * 30, "r" * 30]}]
    broker.report["warnings"] = ["queue '\x1b[2J' waits"]
    ran = chervil("status")
    assert max(map(len, ran.out.splitlines())) <= 80
    assert "m\\x1bail" in ran.out
    assert "worker\\u202e" in ran.out
    assert ran.err == "Warning: queue '\\x1b[2J' waits\n"
