import pytest

from chervil_broker.bodies import Bodies, ResultBody, TaskBody

TASK = TaskBody(b"{}", "json", b"[]")
RESULT = ResultBody("json", b"5")


def test_a_body_comes_back_by_its_handle_until_it_is_freed():
    bodies = Bodies()
    task, result = bodies.put_task(*TASK), bodies.put_result(*RESULT)
    assert bodies.task(task) == TASK
    assert bodies.result(result) == RESULT
    bodies.free([task])
    assert len(bodies) == 1
    with pytest.raises(KeyError):
        bodies.task(task)


def test_handles_are_not_used_twice():
    bodies = Bodies()
    first = bodies.put_task(*TASK)
    bodies.free([first])
    assert bodies.put_task(*TASK) != first


def test_freeing_twice_is_an_error_of_ours_and_says_so():
    bodies = Bodies()
    handle = bodies.put_task(*TASK)
    bodies.free([handle])
    with pytest.raises(KeyError):
        bodies.free([handle])


def test_a_task_is_not_taken_for_a_result():
    bodies = Bodies()
    with pytest.raises(TypeError, match="is a task's"):
        bodies.result(bodies.put_task(*TASK))
    with pytest.raises(TypeError, match="is a result's"):
        bodies.task(bodies.put_result(*RESULT))


def test_the_usual_body_is_kept_bare():
    bodies = Bodies()
    assert bodies.task(bodies.put_task(None, "json", b"[]")) == (None, "json", b"[]")
    assert bodies.task(bodies.put_task(None, "msgpack", b"")) == (None, "msgpack", b"")
