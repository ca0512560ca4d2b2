import threading
from contextvars import copy_context

import pytest

from chervil import Chervil, current, current_app, current_task
from chervil.current import Running, get_current_app, get_current_task, running, set_current_app, share
from chervil.request import Request


def test_the_newest_app_is_current_and_the_default_steps_in():
    default = current_app.main
    assert default is None
    quiet = Chervil("quiet", set_as_current=False)
    assert current_app != quiet
    quiet.set_default()
    assert current_app == quiet
    newest = Chervil("newest")
    assert current_app.main == "newest"
    assert repr(current_app) == "<current_app: <Chervil newest>>"
    assert hash(current_app) == hash(newest)
    current_app.main = "renamed"
    assert newest.main == "renamed"
    assert repr(Chervil()) == "<Chervil (no name)>"


def test_without_any_app_one_is_made_and_kept():
    made = get_current_app()
    assert made.main is None
    assert get_current_app() is made
    assert current._current is None


def test_a_current_app_taken_back_lets_the_default_in():
    default = Chervil("default", set_as_current=False)
    default.set_default()
    Chervil("newest")
    set_current_app(None)
    assert get_current_app() is default


def test_the_current_app_is_the_whole_processs():
    app = Chervil("x")
    seen = []
    thread = threading.Thread(target=lambda: seen.append(get_current_app()))
    thread.start()
    thread.join(10)
    assert seen == [app]


def test_what_is_shared_reaches_final_apps_at_once_and_the_others_when_they_are():
    early, late = Chervil("early"), Chervil("late")
    early.finalize()
    seen = []
    share(seen.append)
    assert seen == [early]
    late.finalize()
    late.finalize()
    assert seen == [early, late]


def test_a_final_app_that_is_gone_is_not_kept_alive():
    Chervil("x", set_as_current=False).finalize()
    assert len(current.finalized) == 0


def test_outside_of_tasks_there_is_no_current_task():
    assert get_current_task() is None
    assert not current_task
    assert repr(current_task) == "<current_task: None>"
    with pytest.raises(AttributeError):
        _ = current_task.name


def test_inside_a_task_the_proxy_is_that_task():
    task = Chervil("x").task(name="t")(lambda: None)
    token = running.set(Running(task, Request()))
    try:
        assert get_current_task() is task
        assert current_task
        assert current_task == task
        assert hash(current_task) == hash(task)
        current_task.queue = "q"
        assert task.queue == "q"
    finally:
        running.reset(token)


def test_the_current_task_is_its_threads_and_contexts_own():
    task = Chervil("x").task(name="t")(lambda: None)
    context = copy_context()
    token = running.set(Running(task, Request()))
    seen = []
    try:
        thread = threading.Thread(target=lambda: seen.append(get_current_task()))
        thread.start()
        thread.join(10)
        seen.append(context.run(get_current_task))
    finally:
        running.reset(token)
    assert seen == [None, None]
