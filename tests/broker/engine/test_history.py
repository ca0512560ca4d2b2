import pytest

from chervil.protocol import Outcome, ReleaseOption, RetryOption, TaskOption
from chervil_broker.engine.history import HISTORY_EVENTS_MAX
from chervil_broker.engine.task import EVENT_BYTES, REASON_BYTES, TASK_OVERHEAD
from tests.broker.engine.rig import EPOCH, HOUR, MS, SECOND, Rig

START = EPOCH // MS


@pytest.fixture
def rig():
    return Rig()


def story(rig, id_="a"):
    """The events as tuples: ms since the start, name, the rest."""
    return [
        (
            event["at_ms"] - START,
            event["event"],
            *[v for k, v in event.items() if k not in ("at_ms", "event")],
        )
        for event in rig.engine.history(id_)[0]["events"]
    ]


def test_unknown_id_has_no_story(rig):
    assert rig.engine.history(b"\0" * 16) == (
        {"id": "00000000-0000-0000-0000-000000000000", "stage": "UNKNOWN"},
        None,
    )


def test_forgotten_id_says_so(rig):
    worker = rig.worker("q", credit=1)
    rig.publish("a")
    rig.succeed(worker, *rig.lease())
    rig.engine.forget(rig.publisher, 1, ["a"])
    assert rig.engine.history("a") == ({"id": "a", "stage": "EVICTED"}, None)


def test_waiting_task_tells_why(rig):
    rig.publish(
        "a", rig.row("b", options={TaskOption.DELAY_MS.value: 500, TaskOption.DELIVERY_LIMIT.value: 7})
    )
    report, handle = rig.engine.history("a")
    assert report == {
        "id": "a",
        "stage": "QUEUED",
        "name": "add",
        "queue": "q",
        "priority": 0,
        "attempts": 0,
        "retries": 0,
        "delivery_limit": 3,
        "worker": None,
        "waiting_for": "no_consumer",
        "due_in_ms": None,
        "events": [{"at_ms": START, "event": "published", "by": "publisher", "queue": "q"}],
        "dropped_events": 0,
    }
    assert handle is None
    held, _ = rig.engine.history("b")
    assert (held["due_in_ms"], held["waiting_for"], held["delivery_limit"]) == (500, None, 7)


def test_short_task_needs_no_list_of_events(rig):
    worker = rig.worker("q", credit=1)
    rig.publish("a")
    rig.advance(5 * MS)
    (task,) = rig.lease()
    rig.advance(MS)
    rig.engine.started(worker, [["a", 1]], None)
    assert story(rig)[-1] == (6, "started", "worker")
    rig.advance(SECOND)
    rig.succeed(worker, task)
    assert story(rig) == [
        (0, "published", "publisher", "q"),
        (5, "delivered", "worker", 1, False),
        (6, "started", "worker"),
        (1006, "ended", "SUCCESS", "worker", None),
    ]
    report, handle = rig.engine.history("a")
    assert (report["stage"], handle) == ("SUCCESS", None)
    rig.publish("short")
    rig.engine.credit(worker, 2)
    (task,) = rig.lease()
    rig.succeed(worker, task)
    assert task.unusual is None
    assert [event[1] for event in story(rig, "short")] == ["published", "delivered", "ended"]


def test_every_misfortune_is_told_in_order(rig):
    worker = rig.worker("q", credit=99)
    rig.publish(rig.row("a", options={TaskOption.DELAY_MS.value: 10}))
    rig.advance(10 * MS)
    (task,) = rig.lease()
    rig.complete(worker, rig.outcome(task, Outcome.LOST, reason="signal 9"))
    rig.pump()
    options = {ReleaseOption.CLAIMED.value: True}
    rig.complete(worker, rig.outcome(task, Outcome.RELEASE, options, body=False, reason="stopping"))
    rig.pump()
    retry = {RetryOption.DELAY_MS.value: 30}
    rig.complete(worker, rig.outcome(task, Outcome.RETRY, retry, reason="ValueError: x"))
    rig.advance(30 * MS)
    rig.pump()
    rig.engine.started(worker, [["a", task.lease]], None)
    rig.engine.close(worker)
    worker = rig.worker("q", credit=1, name="second")
    rig.pump()
    rig.engine.revoke(rig.publisher, 1, ["a"], terminate=False, signal=15)
    failed = rig.outcome(task, Outcome.FAILURE, reason="KeyError: 'k'")
    rig.complete(worker, failed)
    assert rig.engine.history("a")[1] == failed[3]
    rig.engine.rerun(rig.publisher, 1, ["a"])
    assert story(rig) == [
        (0, "published", "publisher", "q"),
        (0, "scheduled", 10 + START),
        (10, "due"),
        (10, "delivered", "worker", 1, False),
        (10, "lost", "worker", 1, "signal 9"),
        (10, "delivered", "worker", 2, True),
        (10, "released", "worker", "stopping"),
        (10, "delivered", "worker", 3, True),
        (10, "retry", "worker", 40 + START, "ValueError: x"),
        (40, "due"),
        (40, "delivered", "worker", 4, False),
        (40, "started", "worker"),
        (40, "session_lost", "worker", 2),
        (40, "delivered", "second", 5, True),
        (40, "revoke_asked", "publisher"),
        (40, "ended", "FAILURE", "second", "KeyError: 'k'"),
        (40, "rerun", "publisher"),
    ]


def test_first_and_newest_events_are_kept_and_the_rest_counted(rig):
    worker = rig.worker("q", credit=999)
    rig.publish("a")
    for count in range(1, 101):
        (task,) = rig.lease()
        rig.advance(SECOND)
        rig.complete(worker, rig.outcome(task, Outcome.RELEASE, body=False, reason=f"reason {count}"))
        told, _ = rig.engine.history("a")
        assert len(told["events"]) + told["dropped_events"] == 1 + 2 * count
    told = story(rig)
    assert len(told) == HISTORY_EVENTS_MAX - 2
    assert [event[-1] for event in told[2:8:2]] == ["reason 1", "reason 2", "reason 3"]
    assert told[7][1] == "delivered"
    assert told[-1][-1] == "reason 100"
    kept = task.unusual.events
    reasons = sum(event[1] == "released" for event in kept)
    memory = rig.engine.stats()["memory"]["bytes"]
    assert memory == TASK_OVERHEAD + 100 + EVENT_BYTES * len(kept) + REASON_BYTES * reasons


def test_story_is_told_until_the_record_is_forgotten(rig):
    worker = rig.worker("q", credit=9)
    rig.publish(rig.row("a", options={TaskOption.DELIVERY_LIMIT.value: 2}))
    (task,) = rig.lease()
    rig.complete(worker, rig.outcome(task, Outcome.LOST, body=False, reason="signal 11"))
    rig.succeed(worker, *rig.lease())
    rig.engine._state.results.limit = 2 * rig.engine._state.results.bytes - 30
    rig.engine._state.results.bytes += 0
    rig.advance(HOUR)
    rig.pump()
    told, _ = rig.engine.history("a")
    assert [event["event"] for event in told["events"]] == [
        "published",
        "delivered",
        "lost",
        "delivered",
        "ended",
    ]
    assert told["delivery_limit"] == 2
    rig.advance(25 * HOUR)
    rig.pump()
    assert "events" not in rig.engine.history("a")[0]


def test_failure_that_the_broker_writes_is_told_without_a_handle(rig):
    rig.publish("a")
    rig.engine.revoke(rig.publisher, 1, ["a"], terminate=False, signal=15)
    told, handle = rig.engine.history("a")
    assert (told["error"], handle) == ({"kind": "revoked", "message": "called off by publisher"}, None)
    assert story(rig)[-1] == (0, "ended", "REVOKED", None, "called off by publisher")


def test_evicted_result_leaves_the_story():
    rig = Rig(results_limit=4 * TASK_OVERHEAD)
    worker = rig.worker("q", credit=9)
    rig.publish("a")
    (task,) = rig.lease()
    rig.complete(worker, rig.outcome(task, Outcome.SUCCESS, size=9 * TASK_OVERHEAD))
    rig.pump()
    told, _ = rig.engine.history("a")
    assert (told["stage"], told["events"][-1]["stage"]) == ("EVICTED", "SUCCESS")
