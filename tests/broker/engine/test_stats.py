from chervil_broker.engine.charges import options_bytes
from chervil_broker.engine.stats import NAMES_MAX
from chervil_broker.engine.task import EVENT_BYTES, TASK_OVERHEAD
from tests.broker.engine.rig import SECOND, Rig


def test_report_of_a_fresh_engine():
    rig = Rig(memory_limit=1000, results_limit=500)
    report = rig.engine.stats()
    assert report["tasks"] == {}
    assert report["memory"] == {
        "bytes": 0,
        "limit": 1000,
        "other": 0,
        "results": 0,
        "results_limit": 500,
        "dead": 0,
        "dead_limit": 250,
    }
    assert report["publishing"] == "open"
    assert report["dedup"] == {"ids": 0, "limit": 1, "horizon_ms": 0}
    assert report["suspended"] == 0
    assert (report["queues"], report["workers"], report["warnings"]) == ([], [], [])
    assert not any(report["counters"].values())


def test_report_tells_queues_workers_and_counters():
    rig = Rig()
    worker = rig.worker("q", credit=3, name="node1")
    rig.publish("a", "b", rig.row("later", options={2: 5000}))
    first, _ = rig.lease()
    rig.succeed(worker, first)
    rig.publish("c", "d")
    rig.pump()
    rig.advance(2 * SECOND)
    report = rig.engine.stats()
    assert report["tasks"] == {"SCHEDULED": 1, "QUEUED": 1, "LEASED": 2, "SUCCESS": 1}
    assert report["memory"]["bytes"] == 4 * (TASK_OVERHEAD + 100) + EVENT_BYTES + options_bytes({2: 5000})
    assert report["queues"] == [
        {
            "name": "q",
            "ready": 1,
            "scheduled": 1,
            "leased": 2,
            "consumers": 1,
            "oldest_ms": 2000,
            "waiting_for": "no_credit",
            "unknown_tasks": [],
        }
    ]
    assert report["workers"] == [
        {
            "name": "node1",
            "pid": 77,
            "concurrency": 2,
            "queues": ["q"],
            "leased": 2,
            "credit": 0,
            "delivered": 3,
            "connected_ms": 2000,
        }
    ]
    counted = {name: count for name, count in report["counters"].items() if count}
    assert counted == {"published": 5, "delivered": 3, "succeeded": 1}


def test_queues_with_a_warning_come_first_then_the_fullest():
    rig = Rig(stats_rows=4)
    rig.worker("full", "fuller", "idle", "strange", tasks=["add"])
    rig.publish(
        rig.row("a", queue="full"),
        rig.row("b", queue="fuller"),
        rig.row("c", queue="fuller"),
        rig.row("d", queue="alone"),
        rig.row("e", queue="strange", name="mail"),
    )
    report = rig.engine.stats()
    assert [(queue["name"], queue["waiting_for"]) for queue in report["queues"]] == [
        ("alone", "no_consumer"),
        ("strange", "unknown_task"),
        ("fuller", "no_credit"),
        ("full", "no_credit"),
    ]
    assert report["queues"][1]["unknown_tasks"] == ["mail"]
    assert report["warnings"] == [
        "queue 'alone' has no worker that consumes it; ready tasks: 1",
        "queue 'strange' has tasks that none of its workers knows: mail",
    ]


def test_row_of_a_queue_names_a_limited_number_of_unknown_tasks():
    rig = Rig()
    rig.worker("q", tasks=["mail"])
    rig.publish(*[rig.row(f"t{n}", name=f"name-{n}") for n in range(NAMES_MAX + 3)])
    (row,) = rig.engine.stats()["queues"]
    assert row["unknown_tasks"] == [f"name-{n}" for n in range(NAMES_MAX)]


def test_report_says_when_the_limit_of_tasks_is_reached_and_what_it_is():
    rig = Rig(tasks_limit=2)
    said = "this vhost holds its 2 tasks (max_tasks): nothing more is stored"
    rig.publish("a")
    assert rig.engine.stats()["tasks_limit"] == 2
    assert said not in rig.engine.stats()["warnings"]
    rig.publish("b")
    assert rig.engine.stats()["warnings"][0] == said
