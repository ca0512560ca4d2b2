import re

import pytest

from chervil import shared_task
from chervil.options import CALL_OPTIONS, TASK_OPTIONS, refuse_unknown


@pytest.fixture
def add(app):
    @app.task
    def add(x: int, y: int = 1) -> int:
        return x + y

    return add


def test_what_a_call_may_say():
    assert {
        "countdown", "eta", "expires", "queue", "priority", "task_id", "headers", "ignore_result", "serializer",
    } == CALL_OPTIONS  # fmt: skip


def test_what_a_task_may_say():
    assert {
        "name", "max_retries", "default_retry_delay", "queue", "priority", "ignore_result", "serializer",
        "expires", "typing",
    } == TASK_OPTIONS  # fmt: skip


def test_known_options_are_not_refused():
    refuse_unknown("it", CALL_OPTIONS, CALL_OPTIONS)
    refuse_unknown("it", {}, frozenset())


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["countdwn"], "it() has no option 'countdwn'; did you mean 'countdown'?"),
        (["queue", "zzz"], "it() has no option 'zzz'"),
    ],
)
def test_the_first_unknown_option_is_refused_with_the_near_one(given, said):
    with pytest.raises(TypeError, match=f"^{re.escape(said)}"):
        refuse_unknown("it()", given, CALL_OPTIONS)


def test_every_way_to_call_refuses_what_it_does_not_know(add, app):
    with pytest.raises(TypeError, match=rf"apply_async\(\) of {add.name} .*did you mean 'countdown'"):
        add.apply_async([1], countdwn=1)
    with pytest.raises(TypeError, match="has no option 'link'"):
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
