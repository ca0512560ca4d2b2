"""The records of a pump: what is told, in which order, and how much of it."""

import pytest

from chervil.protocol import Outcome, RetryOption, Stage, TaskOption
from chervil.protocol.limits import ROWS_MAX
from chervil_broker.engine.task import TASK_OVERHEAD
from chervil_broker.journal.records import (
    Changed,
    Completed,
    Evicted,
    Forgotten,
    Leased,
    Published,
    Revoked,
)
from tests.broker.engine.rig import MS
from tests.broker.journal.recorded import RecordedRig

#: Handles go up by one: those that three divides have headers, those that four divides another codec.
DELAY = {TaskOption.DELAY_MS.value: 5000}


def told(rig, *kinds):
    """What a pump writes, of these kinds if any are named."""
    rig.pump()
    records = rig.frames[-1].records()
    return [record for record in records if not kinds or type(record) in kinds]


@pytest.fixture
def rig():
    return RecordedRig()


def test_publish_is_told_in_groups_of_what_its_tasks_share(rig):
    first = rig.now, "publisher", rig.wall // MS
    rows = [
        rig.row("a"),
        rig.row("b", name="mail"),
        rig.row("c", options={9: "me"}),
        rig.row("d", priority=4),
    ]
    rig.publish(*rows)
    bodies = [rig.contents.task(row[5]) for row in rows]
    assert [body[:2] for body in bodies] == [
        (None, "json"),
        (None, "json"),
        (b"3 3 ", "json"),
        (None, "msgpack"),
    ]
    assert told(rig, Published) == [
        Published(
            "shop",
            *first,
            [
                [
                    "add",
                    "q",
                    0,
                    [["a", 1, None, bodies[0][2]], ["c", 3, {9: "me"}, bodies[2][2], "json", b"3 3 "]],
                ],
                ["mail", "q", 0, [["b", 2, None, bodies[1][2]]]],
                ["add", "q", 4, [["d", 4, None, bodies[3][2], "msgpack"]]],
            ],
        )
    ]
    assert [rig.engine.tasks[id_].home for id_ in "abcd"] == [1] * 4


def test_what_was_published_and_changed_in_one_pump_is_told_once_as_it_is(rig):
    rig.publish("a", "b")
    rig.engine.revoke(rig.publisher, 1, ["a"], False, 15)
    published, changed = told(rig, Published, Changed, Leased)
    assert [row[0] for row in published.groups[0][3]] == ["b"]
    assert (changed.task.id, changed.task.stage, changed.task.body[1]) == ("a", Stage.REVOKED, "json")


def test_nothing_is_told_of_a_publish_whose_tasks_all_changed(rig):
    rig.publish("a")
    rig.engine.purge(rig.publisher, 1, [])
    (changed,) = told(rig, Published, Changed)
    assert type(changed) is Changed


def test_leases_are_told_a_session_each_but_for_tasks_that_changed(rig):
    worker = rig.worker("q", credit=9)
    rig.publish(rig.row("a", options={TaskOption.EXPIRES_MS.value: 5000}))
    (changed,) = told(rig, Leased, Changed)
    assert (changed.task.stage, changed.task.lease, changed.task.session) == (Stage.LEASED, 1, worker)
    rig.publish("c", "d")
    assert told(rig, Leased) == [
        Leased("shop", worker, "worker", rig.now, rig.wall // MS, [["c", 1], ["d", 1]])
    ]


def test_success_is_told_with_its_result_and_anything_else_as_the_whole_task(rig):
    worker = rig.worker("q", credit=9)
    rig.publish("a", "b", "c")
    rig.pump()
    done, bare, failed = (rig.engine.tasks[id_] for id_ in "abc")
    rig.advance(5)
    row = rig.outcome(done, Outcome.SUCCESS)
    rig.complete(
        worker, row, rig.outcome(bare, Outcome.SUCCESS, body=False), rig.outcome(failed, Outcome.FAILURE)
    )
    # The other way round a crash between two frames could leave a COMPLETE that is known without its outcome.
    changed, completed = told(rig, Changed, Completed)
    kept = done.kept
    codec, body = rig.contents.result(row[3])
    assert completed == Completed(
        "shop", worker, 1, rig.now, rig.wall // MS, [["a", kept, codec, body], ["b", kept, None, None]]
    )
    assert (changed.task.id, changed.task.stage, changed.task.session) == ("c", Stage.FAILURE, -2)
    assert (changed.task.body, changed.task.result) == (0, list(rig.contents.result(failed.result)))


def test_completion_without_a_success_is_told_for_its_sequence(rig):
    worker = rig.worker("q", credit=9)
    rig.complete(worker, ("nobody", 1, Outcome.SUCCESS.value, None, 0, None, None), sequence=7)
    assert told(rig, Completed) == [Completed("shop", worker, 7, rig.now, rig.wall // MS, [])]


def test_success_that_is_forgotten_or_evicted_at_once_is_told_as_that():
    rig = RecordedRig(results_limit=4 * TASK_OVERHEAD)
    worker = rig.worker("q", credit=9)
    rig.publish("a", "b")
    rig.pump()
    first, second = (rig.engine.tasks[id_] for id_ in "ab")
    rig.complete(worker, rig.outcome(first, Outcome.SUCCESS), rig.outcome(second, Outcome.SUCCESS, size=9999))
    rig.engine.forget(rig.publisher, 1, ["a"])
    forgotten, completed, evicted = told(rig, Forgotten, Completed, Evicted)
    assert (forgotten.ids, evicted.ids) == (["a"], ["b"])
    assert completed.rows == [["b", second.kept, None, None]]


def test_task_that_ended_and_was_forgotten_is_told_by_its_id_alone(rig):
    rig.publish("a")
    rig.pump()
    rig.engine.purge(rig.publisher, 1, [])
    rig.engine.forget(rig.publisher, 1, ["a"])
    assert [type(record) for record in told(rig, Forgotten, Changed)] == [Forgotten]


def test_revoked_id_that_was_published_meanwhile_is_not_told(rig):
    rig.engine.revoke(rig.publisher, 1, ["a", "b"], False, 15)
    rig.publish("a")
    revoked, changed = told(rig, Revoked, Changed, Published)
    assert (revoked, changed.task.id) == (Revoked("shop", "publisher", ["b"]), "a")


def test_id_that_is_forgotten_and_published_again_in_one_pump_is_told_in_that_order():
    rig = RecordedRig(dedup_ids=0)
    rig.publish("a")
    rig.pump()
    rig.engine.purge(rig.publisher, 1, [])
    rig.engine.forget(rig.publisher, 1, ["a"])
    rig.publish("a")
    assert [type(record) for record in told(rig, Forgotten, Changed, Published)] == [Forgotten, Published]
    rig.check()


def test_body_is_told_once_and_again_only_when_it_is_another(rig):
    worker = rig.worker("q", credit=9)
    rig.publish("a")
    rig.pump()
    task = rig.engine.tasks["a"]
    rig.engine.started(worker, [["a", 1]], None)
    rig.segment = 2
    (started,) = told(rig, Changed)
    assert (started.task.body, started.task.result, task.home) == (0, None, 1)
    options = {RetryOption.BODY.value: (rig.body(20), 20)}
    rig.complete(worker, rig.outcome(task, Outcome.RETRY, options))
    (retried,) = told(rig, Changed)
    assert (retried.task.body, retried.task.result) == (
        list(rig.contents.task(task.handle)),
        list(rig.contents.result(task.result)),
    )
    assert task.home == 2


def test_whole_record_has_body_and_result_however_old_they_are(rig):
    rig.publish(rig.row("a", options=DELAY))
    rig.pump()
    rig.rotate()
    rig.copy(["a"])
    (changed,) = rig.frames[-1].records()
    task = rig.engine.tasks["a"]
    assert (changed.task.body, task.home) == (list(rig.contents.task(task.handle)), 2)
    assert changed.task.times == [task.times.due, False, None, False]
    assert (changed.task.past[1:], changed.task.kept) == ([0, False, None, 0], None)


def test_long_lists_make_more_records_than_one(rig):
    ids = [f"t{n}" for n in range(ROWS_MAX + 1)]
    rig.engine.revoke(rig.publisher, 1, ids, False, 15)
    assert [record.ids for record in told(rig, Revoked)] == [ids[:ROWS_MAX], ids[ROWS_MAX:]]


def test_dead_letter_that_is_given_up_is_told_without_its_body():
    rig = RecordedRig(memory_limit=16 * TASK_OVERHEAD)
    worker = rig.worker("q", credit=9)
    rig.publish(rig.row("a", size=5 * TASK_OVERHEAD))
    rig.pump()
    rig.complete(worker, rig.outcome(rig.engine.tasks["a"], Outcome.REJECT))
    (changed,) = told(rig, Changed)
    assert (changed.task.stage, changed.task.body, changed.task.result) == (Stage.EVICTED, None, None)
    assert changed.task.kept == rig.engine.tasks["a"].kept
    rig.check()


def test_times_beyond_all_times_are_the_last_that_a_record_holds(rig):
    never = 2**63 - 1
    rig.publish(
        rig.row("due", options={TaskOption.DUE_AT.value: never, TaskOption.EXPIRES_AT.value: never}),
        rig.row("delayed", options={TaskOption.DELAY_MS.value: never, TaskOption.EXPIRES_MS.value: never}),
    )
    rig.pump()
    for id_ in ("due", "delayed"):
        times = rig.engine.tasks[id_].times
        assert (times.due, times.expires) == (never, never)
    rig.check()
