import uuid
from datetime import UTC, datetime, timedelta

import pytest

from chervil.exceptions import EncodeError, PublishRefused, PublishUnconfirmed
from chervil.execution import execute
from chervil.protocol import TaskOption
from chervil.protocol import messages as m
from chervil.protocol.limits import BODY_MAX
from chervil.publishing import new_wire_id, new_wire_ids
from chervil.serialization import decode
from chervil.times import DELAY_MAX_MS
from tests.client.deliveries import request_for, run

NAIVE = datetime(1970, 1, 2)  # noqa: DTZ001  # naive is the point


@pytest.fixture
def add(app):
    @app.task
    def add(x: int, y: int = 1) -> int:
        """Adds."""
        return x + y

    return add


def published(broker):
    (row,) = broker.rows.values()
    return row


def options(broker):
    return published(broker)[4] or {}


def test_ids_are_random_uuids_of_version_4():
    ids = [new_wire_id(), *new_wire_ids(50), new_wire_id()]
    assert len(set(ids)) == 52
    assert {(uuid.UUID(bytes=id_).version, uuid.UUID(bytes=id_).variant) for id_ in ids} == {
        (4, uuid.RFC_4122)
    }


def test_every_option_reaches_the_wire(add, broker):
    add.apply_async(
        [1], {"y": 2}, countdown=1.5, expires=60, queue="mail", priority=9, task_id="mine",
        headers={"a": 1}, ignore_result=True, serializer="msgpack",
    )  # fmt: skip
    id_, _, queue, priority, opts, headers, codec, body = published(broker)
    assert (id_, queue, priority, codec) == ("mine", "mail", 9, "msgpack")
    assert opts == {TaskOption.DELAY_MS: 1500, TaskOption.EXPIRES_MS: 60_000, TaskOption.IGNORE_RESULT: True}
    assert decode(codec, headers) == {"a": 1}
    assert decode(codec, body) == [[1], {"y": 2}]


def test_absolute_times_stay_absolute(add, app, broker):
    app.conf.timezone = "Europe/Berlin"
    add.apply_async([1], eta=NAIVE, expires=datetime(1970, 1, 3, tzinfo=UTC))
    assert options(broker) == {TaskOption.DUE_AT: 82_800_000, TaskOption.EXPIRES_AT: 172_800_000}


def test_the_tasks_options_hold_and_the_call_wins(app, broker):
    @app.task(queue="q", priority=3, ignore_result=True, serializer="msgpack", expires=5, name="t")
    def task(): ...

    task.delay()
    row = published(broker)
    assert (row[1], row[2], row[3], row[6]) == ("t", "q", 3, "msgpack")
    assert row[4] == {TaskOption.IGNORE_RESULT: True, TaskOption.EXPIRES_MS: 5000}
    broker.rows.clear()
    task.apply_async(queue="other", priority=0, ignore_result=False, serializer="json", expires=timedelta(1))
    row = published(broker)
    assert (row[2], row[3], row[6], row[4]) == ("other", 0, "json", {TaskOption.EXPIRES_MS: 86_400_000})


def test_the_settings_hold_where_nothing_is_said(add, app, broker):
    app.conf.update(
        task_default_queue="low", task_default_priority=2, task_serializer="msgpack", task_ignore_result=True,
        result_expires=60,
    )  # fmt: skip
    add.delay(1)
    row = published(broker)
    assert (row[2], row[3], row[6]) == ("low", 2, "msgpack")
    assert row[4] == {TaskOption.IGNORE_RESULT: True, TaskOption.RESULT_EXPIRES_MS: 60_000}


def test_results_kept_for_ever_are_kept_long(add, app, broker):
    app.conf.result_expires = None
    add.delay(1)
    assert options(broker) == {TaskOption.RESULT_EXPIRES_MS: DELAY_MAX_MS}


@pytest.mark.parametrize(
    "call",
    [
        {"countdown": -1},
        {"countdown": 1e12},
        {"expires": -1},
        {"priority": 10},
        {"queue": "x" * 256},
        {"queue": "a\0"},
        {"task_id": "x" * 129},
        {"task_id": ""},
        {"headers": {"a": "x" * 70_000}},
        {"countdown": 1, "eta": datetime(2026, 1, 1, tzinfo=UTC)},
    ],
)
def test_values_out_of_range_are_refused(add, broker, call):
    with pytest.raises(ValueError):
        add.apply_async([1], **call)
    assert broker.counts["Publish"] == 0


def test_arguments_that_cannot_be_written_name_the_task(add):
    with pytest.raises(EncodeError, match=rf"arguments of {add.name}: .*list"):
        add.delay({1, 2})


def test_a_body_beyond_the_protocols_limit_is_refused(add):
    with pytest.raises(PublishRefused, match="BODY_TOO_LARGE") as caught:
        add.delay("x" * BODY_MAX)
    assert len(caught.value.task_ids) == 1


def test_delay_many_publishes_all_in_one_frame(add, broker):
    results = add.delay_many([(n, n) for n in range(100)], queue="mail")
    assert broker.counts["Publish"] == 1
    assert [row[2] for row in broker.rows.values()] == ["mail"] * 100
    assert len({result.id for result in results}) == 100
    assert [decode("json", row[7])[0] for row in broker.rows.values()] == [[n, n] for n in range(100)]


def test_delay_many_sends_nothing_unless_all_fit_and_names_the_call_that_does_not(add, broker):
    with pytest.raises(TypeError, match=r"^call 2 of 2: .*missing a required argument"):
        add.delay_many([(1,), ()])
    with pytest.raises(
        TypeError, match=r"^call 1 of 2: args wants a list or tuple, such as \(2, 3\), not 1$"
    ):
        add.delay_many([1, 2])
    assert broker.counts["Publish"] == 0
    assert add.delay_many([]) == []


ROOT = {int(TaskOption.ROOT_ID): "root"}


@pytest.mark.parametrize(("given", "root"), [(None, "id"), (ROOT, "root")])
def test_a_task_published_inside_a_task_knows_its_parents(app, add, broker, given, root):
    @app.task
    def outer():
        add.delay(1)

    assert run(outer, options=given).exception is None
    assert options(broker) == {TaskOption.PARENT_ID: "id", TaskOption.ROOT_ID: root}
    broker.rows.clear()
    add.delay(1)
    assert options(broker) == {}


def test_a_task_called_directly_inside_a_task_publishes_for_the_one_that_runs(app, add, broker):
    @app.task
    def inner():
        add.delay(1)

    @app.task
    async def outer():
        inner()

    assert run(outer, options=ROOT).exception is None
    assert options(broker) == {TaskOption.PARENT_ID: "id", TaskOption.ROOT_ID: "root"}


def test_the_innermost_run_is_the_parent_and_then_the_outer_one_again(app, add, broker):
    @app.task
    def inner():
        add.delay(1)

    @app.task
    def outer():
        inner.apply(task_id="inner")
        add.delay(1)

    assert execute(outer, request_for(outer)).exception is None
    assert [row[4][int(TaskOption.PARENT_ID)] for row in broker.rows.values()] == ["inner", "id"]


def test_a_task_called_directly_outside_of_any_has_no_parent_to_name(app, add, broker):
    @app.task
    def outer():
        add.delay(1)

    outer()
    assert options(broker) == {}


def test_what_is_to_happen_when_a_process_dies_travels_where_it_is_not_the_usual(app, broker):
    task = app.task(name="t", acks_late=False, reject_on_worker_lost=False, delivery_limit=7)(lambda: None)
    task.delay()
    assert options(broker) == {
        TaskOption.EARLY_ACK: True, TaskOption.FAIL_ON_LOST: True, TaskOption.DELIVERY_LIMIT: 7,
    }  # fmt: skip
    broker.rows.clear()
    app.task(name="usual", acks_late=True, reject_on_worker_lost=True, delivery_limit=3)(lambda: None).delay()
    assert options(broker) == {}


def test_the_settings_say_it_for_tasks_that_do_not_and_are_known_here(add, app, broker):
    app.conf.update(task_acks_late=False, task_reject_on_worker_lost=False, task_delivery_limit=1)
    add.delay(1)
    assert options(broker) == {
        TaskOption.EARLY_ACK: True, TaskOption.FAIL_ON_LOST: True, TaskOption.DELIVERY_LIMIT: 1,
    }  # fmt: skip
    broker.rows.clear()
    app.send_task("unknown.here")
    assert options(broker) == {TaskOption.DELIVERY_LIMIT: 1}


def test_limits_of_a_call_travel_and_those_of_its_task_are_the_workers_to_know(app, broker):
    task = app.task(name="t", time_limit=50, soft_time_limit=40)(lambda: None)
    task.apply_async(time_limit=timedelta(seconds=3), soft_time_limit=2.5)
    assert options(broker) == {TaskOption.TIME_LIMIT_MS: 3000, TaskOption.SOFT_TIME_LIMIT_MS: 2500}
    for nothing in ({}, {"time_limit": 0, "soft_time_limit": None}):
        broker.rows.clear()
        task.apply_async(**nothing)
        assert options(broker) == {}
    broker.rows.clear()
    task.apply_async(soft_time_limit=1e-6)
    assert options(broker) == {TaskOption.SOFT_TIME_LIMIT_MS: 1}, "none at all would be another thing"


def test_what_is_changed_between_calls_holds_for_the_next(add, app, broker):
    add.delay(1)
    assert published(broker)[2:5] == ["default", 0, None]
    for change in (
        lambda: setattr(add, "queue", "q"),
        lambda: setattr(app.conf, "task_default_priority", 4),
        lambda: setattr(add, "acks_late", False),
        lambda: app.conf.update(task_ignore_result=True),
    ):
        change()
        broker.rows.clear()
        add.delay(1)
    assert published(broker)[2:5] == ["q", 4, {TaskOption.EARLY_ACK: True, TaskOption.IGNORE_RESULT: True}]


def test_nothing_is_waited_for_inside_a_task(app, add, monkeypatch):
    waits = []
    monkeypatch.setattr(app.client, "publish", lambda rows, deadline, wait, on_full=None: waits.append(wait))

    @app.task
    def outer():
        add.delay(1)
        add.delay_many([(1,)])
        app.send_task("t")

    assert run(outer).exception is None
    assert waits == [False] * 3
    outer()
    assert waits[3:] == [True] * 3


def test_send_task_needs_no_code(app, broker, add):
    app.send_task("elsewhere.run", [1], {"a": 2}, queue="q", task_id="x")
    row = published(broker)
    assert (row[0], row[1], row[2]) == ("x", "elsewhere.run", "q")
    with pytest.raises(TypeError, match=r"send_task\(\) has no option"):
        app.send_task("x", nonsense=1)
    with pytest.raises(ValueError, match="task x"):
        app.send_task("x" * 300)


def test_the_json_of_a_call_is_its_arguments_and_nothing_else(add, broker):
    add.delay(2, y=3)
    id_, name, queue, priority, opts, headers, codec, body = published(broker)
    assert (len(id_), name, queue, priority, opts, headers, codec) == (
        16, add.name, "default", 0, None, None, "json",
    )  # fmt: skip
    assert body == b'[[2],{"y":3}]'


def test_empty_headers_do_not_travel(add, broker):
    add.apply_async([1], headers={})
    assert published(broker)[5] is None


def test_a_uuid_of_ones_own_travels_as_its_bytes(add, broker):
    id_ = "3d56f326-34df-4540-ab63-1408aa5b92e4"
    assert add.apply_async([1], task_id=id_).id == id_
    assert published(broker)[0] == uuid.UUID(id_).bytes


def test_a_call_without_a_word_leaves_the_tasks_options(app, broker):
    task = app.task(name="t", queue="q", priority=0, expires=5)(lambda: None)
    app.conf.task_default_priority = 7
    task.apply_async(queue=None, priority=None, expires=None, serializer=None, ignore_result=None)
    row = published(broker)
    assert (row[2], row[3], row[4], row[6]) == ("q", 0, {TaskOption.EXPIRES_MS: 5000}, "json")


def test_a_task_known_here_lends_its_options_to_a_call_by_name(app, broker):
    app.task(name="t", queue="q", serializer="msgpack")(lambda: None)
    app.send_task("t", [1])
    row = published(broker)
    assert (row[2], row[6], decode(row[6], row[7])) == ("q", "msgpack", [[1], {}])


def test_delay_many_takes_a_generator_and_gives_every_row_the_same_options(add, broker):
    add.delay_many(((n,) for n in range(3)), countdown=1, headers={"h": 1}, ignore_result=True)
    expected = {TaskOption.DELAY_MS: 1000, TaskOption.IGNORE_RESULT: True}
    assert [row[4] for row in broker.rows.values()] == [expected] * 3
    assert {decode("json", row[5])["h"] for row in broker.rows.values()} == {1}


def test_the_publish_timeout_of_the_settings_is_the_deadline(add, app, broker):
    app.conf.task_publish_timeout = 0.1
    broker.scripts[m.Publish] = lambda peer, message: True
    with pytest.raises(PublishUnconfirmed) as caught:
        add.apply_async([1], task_id="mine")
    assert caught.value.task_ids == ["mine"]


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (("ab",), "args wants a list or tuple, such as (2, 3), not 'ab'"),
        (("",), "args wants a list or tuple, such as (2, 3), not ''"),
        ((2, 3), "args wants a list or tuple, such as (2, 3), not 2"),
        (([2], [3]), "kwargs wants a dict, such as {'x': 2}, not [3]"),
    ],
)
def test_arguments_that_are_no_arguments_are_told_apart(app, add, broker, call, said):
    for way in (add.apply_async, add.apply, lambda *args: app.send_task("t", *args)):
        with pytest.raises(TypeError) as caught:
            way(*call)
        assert str(caught.value) == said
    assert broker.counts["Publish"] == 0
