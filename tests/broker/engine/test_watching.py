from chervil.protocol import Code, Info, Outcome, Stage, TaskOption
from chervil_broker.engine.charges import WATCH_BYTES, text_bytes
from tests.broker.engine.rig import MS, SECOND, Rig


def statuses(effects):
    return [(session, request, [view[:3] for view in views]) for session, request, views in effects.statuses]


def test_watch_answers_at_once_and_pushes_when_final():
    rig = Rig()
    worker = rig.worker("q", credit=9)
    waiter = rig.open()
    rig.publish("a", "b")
    tasks = rig.lease()
    rig.engine.watch(waiter, 5, ["a", "nobody"])
    assert statuses(rig.pump()) == [(waiter, 5, [("a", Stage.LEASED, None), ("nobody", Stage.UNKNOWN, None)])]
    rig.succeed(worker, *tasks)
    assert statuses(rig.pump()) == [(waiter, None, [("a", Stage.SUCCESS, rig.handle - 1)])]
    rig.engine.watch(waiter, 6, ["a"])
    assert statuses(rig.pump()) == [(waiter, 6, [("a", Stage.SUCCESS, rig.handle - 1)])]


def test_everybody_who_watches_is_told_once_in_one_batch():
    rig = Rig()
    worker = rig.worker("q", credit=9)
    first, second = rig.open(), rig.open()
    rig.publish("a", "b")
    rig.engine.watch(first, 1, ["a", "b", "a"])
    rig.engine.watch(second, 1, ["b"])
    tasks = rig.lease()
    rig.succeed(worker, *tasks)
    pushed = rig.pump().statuses
    assert [(session, request, [view.id for view in views]) for session, request, views in pushed] == [
        (first, None, ["a", "b"]),
        (second, None, ["b"]),
    ]


def test_who_no_longer_watches_is_not_told():
    rig = Rig()
    worker = rig.worker("q", credit=9)
    first, second = rig.open(), rig.open()
    rig.publish("a")
    rig.engine.watch(first, 1, ["a"])
    rig.engine.watch(second, 1, ["a"])
    rig.engine.unwatch(first, ["a", "other"])
    tasks = rig.lease()
    rig.engine.close(second)
    rig.succeed(worker, *tasks)
    assert rig.pump().statuses == []
    assert rig.engine._state.watchers == {}


def test_session_that_closes_before_the_pump_gets_no_push():
    rig = Rig()
    worker = rig.worker("q", credit=9)
    waiter = rig.open()
    rig.publish("a")
    rig.engine.watch(waiter, 1, ["a"])
    rig.succeed(worker, *rig.lease())
    rig.engine.close(waiter)
    assert rig.pump().statuses == []


def test_status_and_push_show_a_result_that_is_evicted_in_the_same_pump():
    rig = Rig(results_limit=0)
    worker = rig.worker("q", credit=9)
    rig.publish("a")
    rig.engine.watch(rig.publisher, 1, ["a"])
    task = rig.lease()
    rig.succeed(worker, *task)
    effects = rig.engine.pump()
    assert effects.statuses[0][2][0].handle in effects.freed


def test_info_says_where_a_task_is():
    rig = Rig()
    rig.publish(rig.row("a", name="mail", queue="q"))
    rig.advance(1500 * MS)
    expected = {Info.NAME: "mail", Info.QUEUE: "q", Info.ATTEMPTS: 0, Info.RETRIES: 0, Info.IN_STAGE_MS: 1500}
    assert rig.view("a").info == expected | {Info.WAITING_FOR: "no_consumer"}
    other = rig.worker("q", tasks=["add"])
    assert rig.view("a").info[Info.WAITING_FOR] == "unknown_task"
    worker = rig.worker("q", tasks=["mail"], name="node1")
    rig.pump()
    assert rig.view("a").info[Info.WAITING_FOR] == "no_credit"
    rig.engine.credit(other, 1)
    rig.engine.credit(worker, 1)
    rig.advance(SECOND)
    rig.pump()
    assert rig.view("a").info == expected | {Info.IN_STAGE_MS: 0, Info.WORKER: "node1"}


def test_task_about_to_be_leased_waits_for_nothing():
    rig = Rig()
    rig.worker("q", credit=1)
    rig.pump()
    rig.publish("a")
    assert Info.WAITING_FOR not in rig.view("a").info


def test_info_of_a_held_task_counts_down_on_its_own_clock():
    rig = Rig()
    rig.publish(
        rig.row("delayed", options={TaskOption.DELAY_MS.value: 5000}),
        rig.row("due", options={TaskOption.DUE_AT.value: rig.wall // MS + 5000}),
    )
    rig.advance(SECOND, wall=2 * SECOND)
    assert rig.view("delayed").info[Info.DUE_IN_MS] == 4000
    assert rig.view("due").info[Info.DUE_IN_MS] == 3000
    rig.advance(0, wall=10 * SECOND)
    assert rig.view("due").info[Info.DUE_IN_MS] == 0


def test_asking_marks_a_result_as_read_so_that_it_goes_first():
    rig = Rig(results_limit=100_000)
    worker = rig.worker("q", credit=9)
    rig.publish("a", "b")
    rig.complete(worker, *[rig.outcome(task, Outcome.SUCCESS, size=40_000) for task in rig.lease()])
    rig.pump()
    rig.view("b")
    rig.publish("c")
    rig.complete(worker, *[rig.outcome(task, Outcome.SUCCESS, size=40_000) for task in rig.lease()])
    assert rig.pump().evicted == ["b"]


def test_watches_are_charged_until_they_end():
    rig = Rig()
    charges = rig.engine._state.charges
    worker, other = rig.worker("q"), rig.open()
    rig.publish("a", "b" * 100)
    before = charges.bytes
    for session in (rig.publisher, other):
        rig.engine.watch(session, 1, ["a", "a", "b" * 100, "nobody"])
        rig.engine.watch(session, 2, ["a"])
    assert charges.bytes == before + 4 * WATCH_BYTES + 2 * text_bytes("b" * 100)
    rig.engine.unwatch(other, ["a"])
    assert charges.bytes == before + 3 * WATCH_BYTES + 2 * text_bytes("b" * 100)
    rig.engine.close(other)
    rig.engine.credit(worker, 9)
    rig.succeed(worker, *rig.lease())
    assert charges.bytes == before


def test_watch_that_there_is_no_memory_for_is_refused_as_a_whole():
    rig = Rig(memory_limit=1_000_000)
    ids = [b"%016d" % number for number in range(1200)]
    rig.publish(*ids)
    sessions = [rig.open() for _ in range(50)]
    for session in sessions:
        rig.engine.watch(session, 1, ids)
    effects = rig.pump()
    refused = [(session, reply) for session, reply in effects.replies if session != rig.publisher]
    answered = [session for session, *_ in effects.statuses]
    assert answered + [session for session, _ in refused] == sessions
    assert answered
    assert {(reply.request, reply.code) for _, reply in refused} == {(1, Code.FULL)}
    state = rig.engine._state
    assert state.taken <= 1_000_000
    assert all(sorted(numbers) == answered for numbers in state.watchers.values())
    assert not state.sessions[sessions[-1]].watching
    for session in answered:
        rig.engine.unwatch(session, ids)
    rig.engine.watch(sessions[-1], 2, ids)
    assert rig.pump().statuses[0][:2] == (sessions[-1], 2)


def test_arguments_can_be_asked_for_until_they_are_dropped():
    rig = Rig()
    worker = rig.worker("q", credit=9)
    rig.publish("kept", "done")
    handle = rig.engine.body_handle("kept")
    kept, done = rig.lease()
    assert handle == kept.handle
    rig.succeed(worker, done)
    rig.complete(worker, rig.outcome(kept, Outcome.REJECT))
    assert rig.engine.body_handle("kept") == handle
    assert rig.engine.body_handle("done") is None
    assert rig.engine.body_handle("nobody knows") is None
