import pytest

from chervil.protocol import Outcome, Stage
from chervil.protocol.messages import Ok
from chervil_broker.engine.leasing import SLICE_MAX
from tests.broker.engine.rig import SECOND, Rig, changed


def test_batch_goes_to_a_consumer_with_credit_in_order():
    rig = Rig()
    worker = rig.worker("q", credit=3)
    rig.publish("a", "b", "c", "d")
    effects = rig.pump()
    ((session, tasks),) = effects.grants
    assert session == worker
    assert [(task.id, task.lease, task.redelivered) for task in tasks] == [
        ("a", 1, False),
        ("b", 1, False),
        ("c", 1, False),
    ]
    assert changed(effects) == [], "the grant tells it"
    assert rig.pump().grants == []


def test_credit_is_absolute_and_the_newest_counts():
    rig = Rig()
    worker = rig.worker("q", credit=5)
    rig.publish("a", "b", "c")
    assert len(rig.ids()) == 3
    rig.engine.credit(worker, 3)
    rig.publish("d", "e")
    assert rig.ids() == []
    rig.engine.credit(worker, 4)
    assert rig.ids() == ["d"]


def test_credit_of_who_consumes_nothing_leases_nothing():
    rig = Rig()
    rig.engine.credit(rig.publisher, 5)
    rig.publish("a")
    assert rig.ids() == []


def test_credit_given_before_subscribing_counts():
    rig = Rig()
    rig.publish("a")
    late = rig.open()
    rig.engine.credit(late, 1)
    rig.subscribe(late, "q")
    assert rig.ids(late) == ["a"]


def test_few_tasks_are_shared_among_waiting_consumers():
    rig = Rig()
    workers = [rig.worker("q", credit=100) for _ in range(4)]
    rig.pump()
    rig.publish(*[f"t{n}" for n in range(40)])
    assert [(session, len(tasks)) for session, tasks in rig.pump().grants] == [(w, 10) for w in workers]
    rig.publish("one", "two")
    assert [session for session, _ in rig.pump().grants] == workers[:2]
    rig.publish("three", "four")
    assert [session for session, _ in rig.pump().grants] == workers[2:]


def test_small_credit_leaves_the_rest_to_the_others():
    rig = Rig()
    poor, rich = rig.worker("q", credit=1), rig.worker("q", credit=100)
    rig.publish(*[f"t{n}" for n in range(20)])
    assert {session: len(tasks) for session, tasks in rig.pump().grants} == {poor: 1, rich: 19}


def test_queues_of_a_worker_are_served_in_turn():
    rig = Rig()
    rig.publish(*[rig.row(f"{queue}{n}", queue=queue) for queue in "ab" for n in range(10)])
    worker = rig.worker("a", "b", credit=4)
    assert sorted(task.queue for task in rig.lease()) == ["a", "a", "a", "b"]
    served = []
    for limit in range(5, 9):
        rig.engine.credit(worker, limit)
        served += [task.queue for task in rig.lease()]
    assert sorted(served) == ["a", "a", "b", "b"]


def test_all_queues_are_drained_when_credit_allows():
    rig = Rig()
    rig.publish(*[rig.row(f"{queue}{n}", queue=queue) for queue in "abc" for n in range(7)])
    rig.worker("a", "b", "c", "empty", credit=100)
    assert len(rig.ids()) == 21


def test_consumers_get_only_names_that_they_know():
    rig = Rig()
    adder = rig.worker("q", tasks=["add"], credit=9)
    mailer = rig.worker("q", tasks=["mail"], credit=9)
    rig.publish(*[rig.row(name + str(n), name=name) for n in range(3) for name in ("add", "mail", "other")])
    grants = {session: [task.id for task in tasks] for session, tasks in rig.pump().grants}
    assert grants == {adder: ["add0", "add1", "add2"], mailer: ["mail0", "mail1", "mail2"]}
    anybody = rig.worker("q", credit=9)
    assert rig.ids(anybody) == ["other0", "other1", "other2"]


def test_unknown_name_is_told_at_once_and_once():
    rig = Rig(unknown_names_reported=2)
    rig.publish(rig.row("early", name="n0"))
    assert rig.pump().events == []
    worker = rig.worker("q", tasks=["add"], credit=1)
    assert rig.pump().events == [("unknown_task", {"queue": "q", "name": "n0"})]
    rig.publish(rig.row("a", name="n0"), rig.row("b", name="n1"), rig.row("c", name="n2"))
    assert rig.pump().events == [("unknown_task", {"queue": "q", "name": "n1"})]
    rig.subscribe(worker, "q", tasks=["n1", "n2"])
    rig.engine.credit(worker, 9)
    assert rig.ids() == ["b", "c"]


def test_name_is_unknown_when_the_last_who_knew_it_goes():
    rig = Rig()
    rig.worker("q", tasks=["add"])
    knower = rig.worker("q", tasks=["mail"])
    rig.publish(rig.row("a", name="mail"))
    assert rig.pump().events == []
    rig.engine.close(knower)
    assert rig.pump().events == [("unknown_task", {"queue": "q", "name": "mail"})]


def test_name_stays_known_while_one_is_left_who_knows_it():
    rig = Rig()
    leaver, stayer = rig.worker("q", tasks=["add"]), rig.worker("q", tasks=["add"], credit=1)
    rig.engine.close(leaver)
    rig.publish("a")
    assert rig.ids(stayer) == ["a"]


def test_queue_without_consumer_is_told_once_after_ten_seconds():
    rig = Rig()
    rig.publish("a", "b")
    assert rig.pump().events == []
    assert rig.engine.next_timer()[0] == rig.now + 10 * SECOND
    rig.advance(10 * SECOND)
    assert rig.pump().events == [("queue_without_consumer", {"queue": "q", "ready": 2})]
    rig.publish("c")
    rig.advance(20 * SECOND)
    assert rig.pump().events == []


def test_consumer_in_time_silences_and_its_leaving_starts_anew():
    rig = Rig()
    rig.publish("a")
    rig.advance(6 * SECOND)
    worker = rig.worker("q")
    rig.engine.close(worker)
    rig.advance(6 * SECOND)
    assert rig.pump().events == []
    rig.advance(4 * SECOND)
    assert [name for name, _ in rig.pump().events] == ["queue_without_consumer"]
    worker = rig.worker("q")
    rig.engine.close(worker)
    rig.worker("q")
    rig.advance(60 * SECOND)
    assert rig.pump().events == []


def test_subscribing_anew_replaces_the_queues():
    rig = Rig()
    worker = rig.worker("a", "a", credit=9)
    rig.pump()
    rig.subscribe(worker, "b")
    rig.publish(rig.row("in-a", queue="a"), rig.row("in-b", queue="b"))
    assert rig.ids() == ["in-b"]
    assert rig.view("in-a").info[9] == "no_consumer"
    rig.subscribe(worker)
    rig.publish(rig.row("b2", queue="b"))
    assert rig.ids() == []


def test_closed_session_gets_nothing_even_if_it_was_just_woken():
    rig = Rig()
    worker = rig.worker("q", credit=9)
    rig.publish("a")
    rig.engine.close(worker)
    assert rig.pump().grants == []


def test_started_is_noted_once_and_only_for_the_lease_in_force():
    rig = Rig()
    worker = rig.worker("q", credit=2)
    rig.publish("a", "b")
    rig.pump()
    rows = [["a", 1], ["b", 7], ["c", 1]]
    rig.engine.started(worker, rows, None)
    rig.engine.started(worker, [["a", 1]], None)
    assert changed(rig.pump()) == ["a"]
    rig.engine.started(worker, [["a", 1]], None)
    assert changed(rig.pump()) == []
    assert (rig.stage("a"), rig.stage("b")) == (Stage.STARTED, Stage.LEASED)


def test_queue_names_that_are_done_with_are_forgotten():
    rig = Rig()
    worker = rig.open("w")
    for n in range(20):
        rig.publish(rig.row(f"t{n}", queue=f"queue-{n}"))
        rig.subscribe(worker, f"queue-{n}")
        rig.engine.credit(worker, n + 1)
        rig.succeed(worker, *rig.lease())
    rig.engine.close(worker)
    assert rig.engine._state.queues == {}


@pytest.mark.parametrize("idle", [0, 1000])
def test_idle_workers_are_not_visited(idle):
    rig = Rig()
    for n in range(idle):
        rig.worker("q", credit=1, name=f"busy{n}")
    rig.publish(*[f"t{n}" for n in range(idle)])
    rig.pump()
    worker = rig.worker("q", credit=10)
    rig.pump()
    (line,) = rig.engine._state.queues["q"].lines.values()
    assert [session.number for session in line.waiting] == [worker]


def test_only_queues_that_changed_are_visited():
    rig = Rig()
    rig.publish(*[rig.row(f"t{n}", queue=f"queue-{n}") for n in range(1000)])
    rig.worker("q", credit=10)
    rig.pump()
    rig.publish("a")
    assert list(rig.engine._state.active) == ["q"]
    assert rig.ids() == ["a"]


def test_consumers_are_given_slices_in_turn_and_none_takes_all():
    rig = Rig()
    rig.publish(*[f"t{n}" for n in range(SLICE_MAX * 3)])
    first, second = rig.worker("q", credit=2**63), rig.worker("q", credit=2**63)
    granted = {session: len(tasks) for session, tasks in rig.pump().grants}
    assert granted in ({first: 2 * SLICE_MAX, second: SLICE_MAX}, {first: SLICE_MAX, second: 2 * SLICE_MAX})


def test_session_is_given_a_limited_number_of_bytes_in_a_pump_and_the_rest_in_the_next():
    rig = Rig(grant_bytes=1000)
    rig.worker("q", credit=9)
    rig.publish(*[rig.row(id_, size=400) for id_ in "abcde"])
    assert rig.ids() == ["a", "b"]
    assert rig.engine.next_timer() == (rig.now, None), "pump again at once"
    assert rig.ids() == ["c", "d"]
    assert rig.ids() == ["e"]
    assert rig.engine.next_timer() == (None, None)


def test_body_over_the_bytes_of_a_pump_travels_alone():
    rig = Rig(grant_bytes=1000)
    rig.publish("a", rig.row("b", size=5000), "c")
    rig.worker("q", credit=9)
    assert [rig.ids(), rig.ids(), rig.ids()] == [["a"], ["b"], ["c"]]


def test_what_one_session_has_no_room_for_goes_to_another_in_the_same_pump():
    rig = Rig(grant_bytes=1000)
    rig.publish(*[rig.row(id_, size=600) for id_ in "abc"])
    first, second = rig.worker("q", credit=9), rig.worker("q", credit=9)
    granted = {session: [task.id for task in tasks] for session, tasks in rig.pump().grants}
    assert sorted(granted) == [first, second]
    assert sorted(granted[first] + granted[second]) == ["a", "b"]


@pytest.mark.parametrize("credit", [3, 2**63 - 1])
def test_session_holds_no_more_leases_than_an_inventory_may_name(credit):
    rig = Rig(inventory=2)
    worker = rig.worker("q", credit=credit)
    rig.publish("a", "b", "c")
    first, _ = rig.lease()
    assert rig.ids() == []
    rig.succeed(worker, first)
    assert rig.ids() == ["c"]


def test_claim_is_answered_and_what_is_not_in_force_cancelled_before():
    rig = Rig()
    worker = rig.worker("q", credit=2)
    rig.publish("a", "b")
    rig.pump()
    rig.engine.started(worker, [["a", 1, True], ["b", 7, True], ["c", 1]], 5)
    effects = rig.pump()
    assert effects.cancels == [(worker, [["b", 7, None], ["c", 1, None]])]
    assert effects.replies == [(worker, Ok(5, 1))]
    assert changed(effects) == ["a"]


def test_task_that_runs_may_be_claimed_early_later_and_once():
    rig = Rig()
    worker = rig.worker("q", credit=2)
    rig.publish("a")
    rig.pump()
    rig.engine.started(worker, [["a", 1]], None)
    rig.pump()
    for expected in (["a"], []):
        rig.engine.started(worker, [["a", 1, True]], 5)
        effects = rig.pump()
        assert (effects.replies, changed(effects)) == ([(worker, Ok(5, 1))], expected)


def test_early_claim_ends_when_the_task_succeeds():
    rig = Rig()
    worker = rig.worker("q", credit=2)
    rig.publish("a")
    (task,) = rig.lease()
    rig.engine.started(worker, [["a", 1, True]], None)
    rig.complete(worker, rig.outcome(task, Outcome.SUCCESS))
    assert not task.unusual.early
