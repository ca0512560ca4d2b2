import re
from datetime import timedelta

import pytest

from chervil import shared_task
from chervil.options import CALL_OPTIONS, TASK_OPTIONS, check_options


@pytest.fixture
def add(app):
    @app.task
    def add(x: int, y: int = 1) -> int:
        return x + y

    return add


def test_what_a_call_may_say():
    assert {
        "countdown", "eta", "expires", "queue", "priority", "task_id", "headers", "ignore_result", "serializer",
        "time_limit", "soft_time_limit",
    } == CALL_OPTIONS  # fmt: skip


def test_what_a_task_may_say():
    assert {
        "name", "max_retries", "default_retry_delay", "queue", "priority", "ignore_result", "serializer",
        "expires", "acks_late", "reject_on_worker_lost", "delivery_limit", "time_limit", "soft_time_limit", "typing",
    } == TASK_OPTIONS  # fmt: skip


def test_known_options_are_not_refused():
    check_options("it", dict.fromkeys(CALL_OPTIONS), CALL_OPTIONS)
    check_options("it", {}, frozenset())


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["countdwn"], "it() has no option 'countdwn'; did you mean 'countdown'?"),
        (["queue", "zzz"], "it() has no option 'zzz'"),
    ],
)
def test_the_first_unknown_option_is_refused_with_the_near_one(given, said):
    with pytest.raises(TypeError, match=f"^{re.escape(said)}"):
        check_options("it()", dict.fromkeys(given), CALL_OPTIONS)


def test_every_way_to_call_refuses_what_it_does_not_know(add, app):
    with pytest.raises(TypeError, match=rf"apply_async\(\) of {add.name} .*did you mean 'countdown'"):
        add.apply_async([1], countdwn=1)
    with pytest.raises(TypeError, match="the option 'link' is not in this release of Chervil"):
        add.apply_async([1], link=None)
    with pytest.raises(TypeError, match=rf"delay_many\(\) of {add.name} has no option 'task_id'"):
        add.delay_many([(1,)], task_id="x")
    with pytest.raises(TypeError, match=r"send_task\(\) has no option 'throw'"):
        app.send_task("t", throw=True)


def test_every_way_to_make_a_task_refuses_what_it_does_not_know(app):
    with pytest.raises(TypeError, match=r"@app\.task has no option 'queu'; did you mean 'queue'"):
        app.task(queu="x")
    with pytest.raises(TypeError, match="@shared_task has no option 'task_id'"):
        shared_task(task_id="x")


@pytest.mark.parametrize(
    ("option", "value", "error"),
    [
        ("queue", "", ValueError),
        ("queue", 5, ValueError),
        ("priority", "x", ValueError),
        ("priority", 10, ValueError),
        ("serializer", "", ValueError),
        ("serializer", 5, ValueError),
        ("headers", 5, TypeError),
        ("ignore_result", "no", TypeError),
        ("countdown", "x", TypeError),
        ("time_limit", "x", TypeError),
        ("time_limit", -1, ValueError),
        ("soft_time_limit", True, TypeError),
        ("expires", "x", TypeError),
        ("eta", 5, TypeError),
    ],
)
def test_a_wrong_value_of_a_call_names_its_option(add, broker, option, value, error):
    with pytest.raises(error, match=rf"\b{option} wants "):
        add.apply_async([1], **{option: value})
    assert broker.counts["Publish"] == 0


@pytest.mark.parametrize(("soft", "hard"), [(5, 5), (6, 5.5), (timedelta(minutes=1), 30)])
def test_a_soft_limit_that_is_not_shorter_is_refused_with_what_to_do(app, add, broker, soft, hard):
    said = r"soft_time_limit \(.* s\) must be shorter than time_limit \(.* s\).*some time to clean up"
    with pytest.raises(ValueError, match=f"^@app.task: {said}"):
        app.task(soft_time_limit=soft, time_limit=hard)
    with pytest.raises(ValueError, match=rf"^apply_async\(\) of {add.name}: {said}"):
        add.apply_async([1], soft_time_limit=soft, time_limit=hard)
    add.time_limit = hard
    with pytest.raises(ValueError, match=f"^a call of {add.name}: {said}"):
        add.apply_async([1], soft_time_limit=soft)
    assert broker.counts["Publish"] == 0


@pytest.mark.parametrize(
    ("option", "value"),
    [("acks_late", "no"), ("reject_on_worker_lost", 1), ("delivery_limit", 0), ("delivery_limit", 101)],
)
def test_a_wrong_word_on_lost_tasks_names_its_option(app, option, value):
    with pytest.raises((TypeError, ValueError), match=rf"@app\.task: {option} wants "):
        app.task(**{option: value})


def test_a_wrong_value_of_a_task_names_its_option(app):
    with pytest.raises(ValueError, match=r"@app\.task: queue wants a text of 1 to 255 bytes, not ''"):
        app.task(queue="")
    with pytest.raises(ValueError, match="@shared_task: priority wants an integer from 0 to 9, not 'x'"):
        shared_task(priority="x")
