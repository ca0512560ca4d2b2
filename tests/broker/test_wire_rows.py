from chervil.protocol import Stage, unpack_failure
from chervil.protocol.frames import FrameWriter
from chervil.protocol.limits import FRAME_BATCH
from chervil.protocol.messages import Cancel, Confirm, Deliver, Ok, Result, Status
from chervil_broker.bodies import Bodies
from chervil_broker.engine.effects import Effects
from chervil_broker.engine.task import Task, Times, View
from chervil_broker.wire_rows import outgoing, status_row

ID = b"i" * 16


def granted(bodies: Bodies, body: bytes, options=None) -> Task:
    handle = bodies.put_task(None, "json", body)
    return Task(ID, "tasks.add", "default", 0, options, handle, len(body), 1, 0, ("publisher", 0))


def test_deliveries_leave_first_and_replies_last():
    bodies = Bodies()
    effects = Effects()
    effects.statuses.append(
        (1, None, [View(ID, Stage.REVOKED, None, ("revoked", "purged"), "tasks.add", None)])
    )
    effects.grants.append((1, [granted(bodies, b"[]")]))
    effects.replies.append((1, Confirm(1, 1)))
    assert [type(message) for _, message in outgoing(effects, bodies, 0, 0)] == [Deliver, Result, Confirm]


def test_deliveries_are_split_where_a_frame_would_be_too_long():
    bodies = Bodies()
    effects = Effects()
    effects.grants.append((1, [granted(bodies, b"x" * 100_000) for _ in range(5)]))
    parts = [message.tasks for _, message in outgoing(effects, bodies, 0, 0)]
    assert [len(part) for part in parts] == [2, 2, 1]


def test_options_are_weighed():
    bodies = Bodies()
    effects = Effects()
    heavy = {13: {str(n): "y" * 1000 for n in range(60)}}
    effects.grants.append((1, [granted(bodies, b"x", heavy) for _ in range(10)]))
    parts = [message.tasks for _, message in outgoing(effects, bodies, 0, 0)]
    assert sum(len(part) for part in parts) == 10
    assert len(parts) == 3


def test_one_row_larger_than_a_frame_travels_alone():
    bodies = Bodies()
    effects = Effects()
    effects.grants.append(
        (1, [granted(bodies, b"x"), granted(bodies, b"x" * (FRAME_BATCH + 1)), granted(bodies, b"x")])
    )
    parts = [message.tasks for _, message in outgoing(effects, bodies, 0, 0)]
    assert [len(part) for part in parts] == [1, 1, 1]


def test_an_answer_in_parts_says_that_more_comes():
    bodies = Bodies()
    effects = Effects()
    views = [
        View(ID, Stage.SUCCESS, bodies.put_result("json", b"r" * 200_000), None, "t", None) for _ in range(3)
    ]
    effects.statuses.append((1, 7, views))
    messages = [message for _, message in outgoing(effects, bodies, 0, 0)]
    assert [(type(m), m.request, m.more) for m in messages] == [
        (Status, 7, True),
        (Status, 7, True),
        (Status, 7, None),
    ]


def test_an_empty_question_has_an_answer():
    effects = Effects()
    effects.statuses.append((1, 7, []))
    assert [message for _, message in outgoing(effects, Bodies(), 0, 0)] == [Status(7, [])]


def test_a_failure_that_the_broker_writes_is_a_failure_record():
    row = status_row(View(ID, Stage.EXPIRED, None, ("expired", "waited too long"), "tasks.add", {}), Bodies())
    assert row[:3] == [ID, Stage.EXPIRED, "failure"]
    record = unpack_failure(row[3])
    assert (record.kind, record.message, record.task_name) == ("expired", "waited too long", "tasks.add")


def test_a_lost_tasks_message_is_what_its_worker_said():
    bodies = Bodies()
    handle = bodies.put_result(None, b"SIGSEGV (pid 9)")
    row = status_row(View(ID, Stage.DEAD, handle, ("lost", None), "tasks.add", None), bodies)
    assert unpack_failure(row[3]).message == "SIGSEGV (pid 9)"


def test_cancels_leave_before_answers_and_fit_their_frames():
    effects = Effects()
    effects.replies.append((1, Ok(1, 1)))
    effects.cancels.append((1, [[f"{number:0128}", 2**63 - 1, 9] for number in range(5000)]))
    *cancels, ok = [message for _, message in outgoing(effects, Bodies(), 0, 0)]
    assert type(ok) is Ok
    assert sum(len(cancel.tasks) for cancel in cancels) == 5000
    assert all(len(FrameWriter().frame((54, cancel.tasks))) <= FRAME_BATCH for cancel in cancels)


def test_cancels_leave_after_deliveries_and_before_replies():
    bodies = Bodies()
    effects = Effects()
    effects.replies.append((1, Ok(5)))
    effects.cancels.append((1, [[ID, 1, None], ["x" * 128, 2, 15]]))
    messages = list(outgoing(effects, bodies, 0, 0))
    assert messages == [(1, Cancel([[ID, 1, None], ["x" * 128, 2, 15]])), (1, Ok(5))]


def test_expiry_by_the_wall_clock_is_counted_down():
    bodies = Bodies()
    effects = Effects()
    task = granted(bodies, b"[]", {8: 1_700_000_005_000, 9: "me"})
    task.times = Times()
    task.times.expires, task.times.expires_wall = 1_700_000_005_000 * 1_000_000, True
    effects.grants.append((1, [task]))
    ((_, message),) = outgoing(effects, bodies, 7, 1_700_000_000_000 * 1_000_000)
    assert isinstance(message, Deliver)
    assert message.tasks[0][8] == {9: "me", 6: 5000}


def test_result_of_a_task_travels_with_its_codec():
    bodies = Bodies()
    view = View(ID, Stage.SUCCESS, bodies.put_result("json", b"7"), None, "tasks.add", {1: "tasks.add"})
    assert status_row(view, bodies) == [ID, Stage.SUCCESS, "json", b"7", {1: "tasks.add"}]
    bare = View(ID, Stage.SUCCESS, None, None, "tasks.add", None)
    assert status_row(bare, bodies) == [ID, Stage.SUCCESS, None, None, None]
