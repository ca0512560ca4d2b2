import pytest

from chervil.protocol import Outcome, RetryOption, Stage, TaskOption
from chervil_broker.engine.publishing import LATER
from chervil_broker.engine.task import TASK_OVERHEAD
from tests.broker.engine.rig import MS, SECOND, Rig, changed


def test_confirms_and_tells_what_came():
    rig = Rig()
    rows = [rig.row("a"), rig.row("b", queue="other", priority=3)]
    confirm = rig.publish(*rows)
    assert (confirm.accepted, confirm.exceptions) == (2, None)
    ((since, origin, tasks),) = rig.pump().published
    assert (since, origin) == (rig.now, ("publisher", rig.wall // MS))
    assert [(task.id, task.queue, task.handle) for task in tasks] == [
        (row[0], row[2], row[5]) for row in rows
    ]
    assert rig.engine.stats()["memory"]["bytes"] == 2 * (100 + TASK_OVERHEAD)


def test_known_id_is_a_duplicate_in_any_stage_and_in_one_batch():
    rig = Rig()
    worker = rig.worker("q", credit=9)
    confirm = rig.publish("a", "a", "b")
    assert confirm.accepted == 3
    assert [row[:2] for row in confirm.exceptions] == [[1, "DUPLICATE"]]
    rig.succeed(worker, *rig.lease())
    assert rig.stage("a") == Stage.SUCCESS
    again = rig.publish("a")
    assert [row[:2] for row in again.exceptions] == [[0, "DUPLICATE"]]
    effects = rig.pump()
    assert (effects.published, changed(effects)) == ([], [])
    assert len(rig.live) == 2  # the two results
    assert rig.engine.stats()["counters"]["duplicates"] == 2


def test_full_broker_refuses_says_what_to_do_and_takes_again_when_there_is_room():
    rig = Rig(memory_limit=2 * (TASK_OVERHEAD + 100) * 100 // 95 + 1)
    worker = rig.worker("q")
    confirm = rig.publish("a", "b", "c")
    assert confirm.accepted == 2
    ((index, code, message),) = confirm.exceptions
    assert (index, code) == (2, "FULL")
    assert "--max-memory" in message
    rig.engine.credit(worker, 1)
    rig.succeed(worker, *rig.lease())
    assert rig.publish("c").exceptions is None
    assert rig.engine.stats()["counters"]["refused"] == 1


def test_body_over_the_limit_is_refused_with_what_to_do():
    rig = Rig(body_limit=100)
    ((index, code, message),) = rig.publish("a", rig.row("b", size=101)).exceptions
    assert (index, code) == (1, "BODY_TOO_LARGE")
    assert "--body-limit" in message


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({TaskOption.DELAY_MS: 1, TaskOption.DUE_AT: 1}, "BAD_TASK"),
        ({TaskOption.EXPIRES_MS: 1, TaskOption.EXPIRES_AT: 1}, "BAD_TASK"),
        ({TaskOption.INPUTS: 1}, "NOT_IMPLEMENTED"),
        ({TaskOption.ON_SUCCESS: [["x", 0]]}, "NOT_IMPLEMENTED"),
        ({TaskOption.ON_FAILURE: ["x"]}, "NOT_IMPLEMENTED"),
        ({TaskOption.UNIQUE_KEY: "k"}, "NOT_IMPLEMENTED"),
        ({TaskOption.LIMIT_KEY: "k"}, "NOT_IMPLEMENTED"),
    ],
)
def test_refused_row_names_its_reason_and_leaves_the_others_alone(options, code):
    rig = Rig()
    confirm = rig.publish("a", rig.row("b", options={int(key): value for key, value in options.items()}), "c")
    assert confirm.accepted == 2
    ((index, given, message),) = confirm.exceptions
    assert (index, given) == (1, code)
    if code == "NOT_IMPLEMENTED":
        (option,) = options
        assert f"option {option.value} ({LATER[option]})" in message
    rig.pump()
    assert rig.stage("b") == Stage.UNKNOWN
    assert len(rig.live) == 2


def test_later_options_that_ask_for_nothing_are_taken():
    rig = Rig()
    options = {
        TaskOption.INPUTS.value: 0,
        TaskOption.EARLY_ACK.value: False,
        TaskOption.FAIL_ON_LOST.value: False,
        TaskOption.ON_SUCCESS.value: [],
    }
    assert rig.publish(rig.row("a", options=options)).exceptions is None
    assert rig.stage("a") == Stage.QUEUED


def test_delay_runs_on_broker_time_and_due_time_on_the_wall_clock():
    rig = Rig()
    worker = rig.worker("q", credit=9)
    rig.publish(
        rig.row("delayed", options={TaskOption.DELAY_MS.value: 1000}),
        rig.row("due", options={TaskOption.DUE_AT.value: rig.wall // MS + 1000}),
        rig.row("past", options={TaskOption.DUE_AT.value: 1}),
        rig.row("now", options={TaskOption.DELAY_MS.value: 0}),
    )
    assert rig.ids(worker) == ["past", "now"]
    assert rig.engine.next_timer()[1] == rig.wall + SECOND
    rig.advance(0, wall=SECOND)
    assert rig.ids(worker) == ["due"]
    rig.advance(SECOND, wall=-SECOND)
    effects = rig.pump()
    assert [task.id for _, tasks in effects.grants for task in tasks] == ["delayed"]
    assert changed(effects) == ["delayed"]


def test_due_task_goes_to_the_end():
    rig = Rig()
    rig.publish(rig.row("delayed", options={TaskOption.DELAY_MS.value: 1}), "early")
    rig.advance(MS)
    rig.pump()
    rig.publish("late")
    rig.worker("q", credit=9)
    assert rig.ids() == ["early", "delayed", "late"]


def test_retries_start_where_the_application_says():
    rig = Rig()
    rig.worker("q", credit=1)
    rig.publish(rig.row("a", options={TaskOption.RETRIES.value: 4}))
    assert [task.retries for task in rig.lease()] == [4]


def test_tasks_of_one_class_share_its_strings():
    rig = Rig()
    names, queues = (b"add", b"add"), (b"jobs", b"jobs")
    rig.publish(*[rig.row(str(n), name=names[n].decode(), queue=queues[n].decode()) for n in range(2)])
    first, second = rig.engine._state.tasks.values()
    assert first.name is second.name
    assert first.queue is second.queue


def test_windows_close_at_80_percent_and_open_again_at_70():
    rig = Rig(memory_limit=100_000)
    worker = rig.worker("q", credit=2**63)
    engine = rig.engine
    fill = 10_000 - TASK_OVERHEAD
    assert (engine.publishing_state, engine.room()) == ("open", 80_000)
    rig.publish(*[rig.row(f"t{n}", size=fill) for n in range(7)])
    assert (engine.publishing_state, engine.room()) == ("open", 10_000)
    rig.publish(rig.row("t7", size=fill))
    assert (engine.publishing_state, engine.room()) == ("closed", 0)
    tasks = rig.lease()
    rig.complete(worker, (tasks[0].id, 1, Outcome.SUCCESS.value, None, 0, None, None))
    rig.publish(rig.row("small", size=1))
    assert (engine.publishing_state, engine.room()) == ("closed", 0), "over 70 %"
    rig.complete(worker, *[(task.id, 1, Outcome.SUCCESS.value, None, 0, None, None) for task in tasks[1:3]])
    rig.pump()
    assert engine.publishing_state == "open"
    assert engine.stats()["publishing"] == "open"


def test_publishes_are_refused_over_95_percent_and_completions_and_retries_taken():
    rig = Rig(memory_limit=100_000)
    worker = rig.worker("q", credit=2**63)
    rig.publish(rig.row("a", size=95_000 - TASK_OVERHEAD))
    assert rig.engine.publishing_state == "full"
    assert rig.publish(rig.row("b", size=0)).exceptions[0][1] == "FULL"
    (task,) = rig.lease()
    body = (rig.body(200_000), 200_000)
    rig.complete(worker, rig.outcome(task, Outcome.RETRY, {RetryOption.BODY.value: body}))
    (task,) = rig.lease()
    assert rig.engine.publishing_state == "full"
    rig.succeed(worker, task)
    rig.pump()
    assert (rig.engine.publishing_state, rig.engine.room()) == ("open", 80_000)


def test_broker_is_full_while_what_it_refused_has_no_room():
    rig = Rig(memory_limit=100_000)
    assert rig.publish(rig.row("huge", size=98_000)).exceptions[0][1] == "FULL"
    assert rig.engine.publishing_state == "open", "nothing would make room for that"
    rig.publish(rig.row("a", size=85_000))
    assert rig.engine.publishing_state == "closed"
    assert rig.publish(rig.row("b", size=20_000)).exceptions[0][1] == "FULL"
    assert rig.engine.publishing_state == "full"
    rig.engine.purge(rig.publisher, 1, [])
    rig.pump()
    assert rig.engine.publishing_state == "open"


def test_first_rows_that_the_limit_of_tasks_has_room_for_are_taken_and_the_rest_is_told_what_to_do():
    rig = Rig(tasks_limit=4)
    rig.publish("old")
    delayed = {TaskOption.DELAY_MS.value: 5}
    rows = [
        "a",
        "old",
        rig.row("b", options=delayed),
        "a",
        "c",
        "d",
        "b",
        rig.row("e", options=delayed),
        "old",
    ]
    confirm = rig.publish(*rows)
    assert [row[:2] for row in confirm.exceptions] == [
        [1, "DUPLICATE"],
        [3, "DUPLICATE"],
        [5, "FULL"],
        [6, "DUPLICATE"],
        [7, "FULL"],
        [8, "DUPLICATE"],
    ]
    assert confirm.exceptions[2][2] == (
        "this vhost holds its 4 tasks (max_tasks) and did not store this one; start more workers, "
        "purge what is not needed, or raise it: chervil broker vhost set"
    )
    assert confirm.accepted == 7
    rig.pump()
    assert len(rig.live) == 4
    assert rig.engine.stats()["counters"]["refused"] == 2


def test_limit_of_tasks_counts_what_is_not_final_and_no_dead_letters():
    rig = Rig(tasks_limit=3)
    worker = rig.worker("q", credit=99)
    rig.publish("a", "b", "c")
    leased = rig.lease()
    rig.engine.started(worker, [["a", 1]], None)
    assert rig.publish("d").accepted == 0, "leased and started ones count"
    rig.complete(worker, rig.outcome(leased[0], Outcome.RETRY, {RetryOption.DELAY_MS.value: 5}))
    assert rig.publish("d").accepted == 0, "so do those that are to run again"
    rig.complete(worker, rig.outcome(leased[1], Outcome.SUCCESS), rig.outcome(leased[2], Outcome.REJECT))
    assert rig.publish("d", "e", "f").accepted == 2
    assert rig.stage("c") == Stage.DEAD


def test_rows_near_the_limit_of_tasks_run_in_the_order_of_their_publish():
    rig = Rig(tasks_limit=5)
    rig.worker("q", credit=99)
    rig.publish("a", "b")
    rig.publish("c", "d", rig.row("e", priority=9), "f")
    assert rig.ids() == ["e", "a", "b", "c", "d"]


def test_vhost_is_full_at_its_limit_of_tasks_while_its_windows_stay_open():
    rig = Rig(tasks_limit=2)
    rig.publish("a")
    assert rig.engine.publishing_state == "open"
    rig.publish("b")
    assert rig.engine.publishing_state == rig.engine.stats()["publishing"] == "full"
    assert not rig.engine.memory_short
    assert rig.engine.room() > 0
    rig.engine.purge(rig.publisher, 1, [])
    assert rig.engine.publishing_state == "open"


def test_task_that_was_revoked_before_it_came_needs_a_place_for_its_batch_only():
    rig = Rig(tasks_limit=1)
    rig.engine.revoke(rig.publisher, 1, ["gone"], terminate=False, signal=15)
    assert rig.publish("gone", "a").accepted == 1
    assert rig.stage("gone") == Stage.REVOKED
    assert rig.publish("a").accepted == 1


@pytest.mark.parametrize(
    "options",
    [
        {TaskOption.EARLY_ACK.value: True},
        {TaskOption.FAIL_ON_LOST.value: True},
        {TaskOption.TIME_LIMIT_MS.value: 5},
        {TaskOption.SOFT_TIME_LIMIT_MS.value: 5},
    ],
)
def test_policies_of_a_task_are_taken_and_delivered(options):
    rig = Rig()
    rig.worker("q", credit=1)
    rig.publish(rig.row("a", options=options))
    (task,) = rig.lease()
    assert task.options == options
