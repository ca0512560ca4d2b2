import pytest

from chervil.protocol import Outcome, Stage
from chervil_broker.engine.task import TASK_OVERHEAD
from tests.broker.engine.rig import EPOCH, HOUR, MS, SECOND, Rig, changed

PATIENCE = 600 * SECOND


def reject(rig, worker, *ids, reason="Reject: not mine", size=10):
    rig.publish(*[rig.row(id_) for id_ in ids])
    tasks = rig.lease(worker)
    rows = [rig.outcome(task, Outcome.REJECT, size=size, reason=reason) for task in tasks]
    rig.complete(worker, *rows)
    return rig.pump()


def test_dead_letter_keeps_body_options_and_reason_until_somebody_comes():
    rig = Rig()
    effects = reject(rig, rig.worker("q", credit=9), "a")
    told = {"id": "a", "name": "add", "queue": "q", "worker": "worker", "reason": "Reject: not mine"}
    assert effects.events == [("task_rejected", told)]
    rig.advance(9999 * HOUR)
    rig.pump()
    assert rig.stage("a") == Stage.DEAD
    assert sorted(rig.live.values()) == [10, 100]
    memory = rig.engine.stats()["memory"]
    assert memory["bytes"] == memory["dead"] > TASK_OVERHEAD + 110
    assert memory["results"] == 0


def test_dead_letters_are_listed_page_by_page_oldest_first():
    rig = Rig()
    worker = rig.worker("q", credit=99)
    reject(rig, worker, *[f"t{n}" for n in range(5)])
    rows, cursor = rig.engine.dead(None, 2)
    assert rows[0] == {
        "id": "t0",
        "name": "add",
        "queue": "q",
        "attempts": 0,
        "worker": "worker",
        "reason": "Reject: not mine",
        "since_ms": EPOCH // MS,
    }
    rig.engine.forget(rig.publisher, 1, ["t1", "t2"])
    reject(rig, worker, "t9")
    more, cursor = rig.engine.dead(cursor, 2)
    last, end = rig.engine.dead(cursor, 2)
    assert [[row["id"] for row in page] for page in (rows, more, last)] == [
        ["t0", "t1"],
        ["t3", "t4"],
        ["t9"],
    ]
    assert end is None


@pytest.mark.parametrize("cursor", ["", "x", "-1", "1.5", "\u0663"])
def test_cursor_that_is_none_is_refused(cursor):
    with pytest.raises(ValueError, match="no cursor"):
        Rig().engine.dead(cursor, 10)


def test_oldest_dead_letters_are_given_up_over_their_limit():
    rig = Rig(memory_limit=16 * TASK_OVERHEAD)
    worker = rig.worker("q", credit=99)
    reject(rig, worker, "a", size=TASK_OVERHEAD)
    effects = reject(rig, worker, "b", size=2 * TASK_OVERHEAD)
    assert (changed(effects), effects.evicted) == (["b", "a"], [])
    assert ("dead_dropped", {"count": 1, "limit": 4 * TASK_OVERHEAD}) in effects.events
    assert (rig.stage("a"), rig.stage("b")) == (Stage.EVICTED, Stage.DEAD)
    assert rig.engine.stats()["counters"]["dead_dropped"] == 1
    assert sorted(rig.live.values()) == [100, 2 * TASK_OVERHEAD]
    story, handle = rig.engine.history("a")
    assert (handle, story["events"][-1]["stage"]) == (None, "DEAD")


def test_task_of_an_unknown_name_is_parked_with_the_near_names():
    rig = Rig(park_unknown_ns=PATIENCE)
    rig.worker("q", tasks=["adds", "mail.send", "bad"], credit=9)
    rig.publish("a")
    rig.pump()
    assert rig.engine.next_timer()[0] == rig.now + PATIENCE
    rig.advance(PATIENCE - 1)
    rig.pump()
    assert rig.stage("a") == Stage.QUEUED
    rig.advance(1)
    effects = rig.pump()
    reason = "no worker of its queue knew add for 600 s; they know adds, bad"
    assert changed(effects) == ["a"]
    told = {"id": "a", "name": "add", "queue": "q", "count": 1, "reason": reason}
    assert ("task_parked", told) in effects.events
    assert rig.view("a")[1:4] == (Stage.DEAD, None, ("rejected", reason))
    assert rig.engine.stats()["counters"]["parked"] == 1


def test_reason_names_no_name_where_none_is_near():
    rig = Rig()
    rig.worker("q", tasks=["zzz"])
    rig.publish("a")
    rig.advance(PATIENCE)
    rig.pump()
    assert rig.view("a").failure == ("rejected", "no worker of its queue knew add for 600 s")


def test_queue_without_consumers_parks_nothing():
    rig = Rig()
    rig.publish("a")
    rig.advance(2 * PATIENCE)
    rig.pump()
    assert rig.stage("a") == Stage.QUEUED
    rig.worker("q", tasks=["mail"])
    rig.pump()
    rig.advance(PATIENCE - 1)
    rig.pump()
    assert rig.stage("a") == Stage.QUEUED, "only from here on did anybody not know it"
    rig.advance(1)
    rig.pump()
    assert rig.stage("a") == Stage.DEAD


def test_rolling_deploy_parks_nothing():
    rig = Rig()
    old = rig.worker("q", tasks=["mail"])
    rig.publish("a")
    rig.advance(PATIENCE - SECOND)
    rig.worker("q", tasks=["mail", "add"])
    rig.engine.close(old)
    rig.advance(2 * PATIENCE)
    rig.pump()
    assert rig.stage("a") == Stage.QUEUED


def test_each_task_waits_its_own_time_and_one_timer_watches_a_name():
    rig = Rig()
    rig.worker("q", tasks=["mail"])
    rig.publish("a")
    rig.advance(10 * SECOND)
    rig.publish("b")
    assert len(rig.engine._state.patience) == 1
    rig.advance(PATIENCE - 10 * SECOND)
    rig.pump()
    assert (rig.stage("a"), rig.stage("b")) == (Stage.DEAD, Stage.QUEUED)
    assert rig.engine.next_timer()[0] == rig.now + 10 * SECOND
    rig.advance(10 * SECOND)
    rig.pump()
    assert rig.stage("b") == Stage.DEAD


def test_names_that_left_the_queue_meanwhile_are_passed_over():
    rig = Rig()
    rig.worker("q", tasks=["mail"])
    rig.publish("a")
    rig.engine.purge(rig.publisher, 1, [])
    rig.advance(PATIENCE)
    assert [task.stage for task in rig.pump().changed] == [Stage.REVOKED]
    assert rig.engine._state.patience.next() is None


def test_one_pump_parks_a_limited_number():
    rig = Rig(timers_per_pump=3)
    rig.worker("q", tasks=["mail"])
    rig.publish(*[f"t{n}" for n in range(5)])
    rig.advance(PATIENCE)
    rig.pump()
    assert len(rig.engine.dead(None, 10)[0]) == 3
    assert rig.engine.next_timer()[0] <= rig.now
    rig.pump()
    assert len(rig.engine.dead(None, 10)[0]) == 5


def test_names_that_are_purged_at_once_leave_nothing():
    rig = Rig()
    rig.worker("q", tasks=["mail"])
    for number in range(500):
        rig.publish(rig.row(b"%016d" % number, name=f"name{number}"))
        if number % 2:
            rig.engine.revoke(rig.publisher, 1, [b"%016d" % number], terminate=False, signal=15)
        rig.engine.purge(rig.publisher, 1, ["q"])
    patience = rig.engine._state.patience
    assert (len(patience._classes), len(patience) < 100) == (0, True)


def test_names_that_somebody_knows_now_are_not_watched():
    rig = Rig()
    rig.worker("q", tasks=["mail"])
    rig.publish("a")
    patience = rig.engine._state.patience
    assert len(patience._classes) == 1
    rig.worker("q", tasks=["add"])
    assert len(patience._classes) == 0


def test_task_behind_one_that_was_revoked_waits_its_own_time():
    rig = Rig()
    rig.worker("q", tasks=["mail"])
    rig.publish("a")
    rig.advance(10 * SECOND)
    rig.publish("b")
    rig.engine.revoke(rig.publisher, 1, ["a"], terminate=False, signal=15)
    rig.advance(PATIENCE - 10 * SECOND)
    rig.pump()
    assert rig.stage("b") == Stage.QUEUED
    rig.advance(10 * SECOND)
    rig.pump()
    assert rig.stage("b") == Stage.DEAD
