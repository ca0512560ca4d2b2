import pytest

from chervil_broker.bodies import Bodies, ResultBody, TaskBody

TASK = TaskBody(None, "json", b"[]")
RESULT = ResultBody("json", b"5")


def test_a_body_comes_back_by_its_handle_until_it_is_freed():
    bodies = Bodies()
    task, result = bodies.put(TASK), bodies.put(RESULT)
    assert bodies.task(task) is TASK
    assert bodies.result(result) is RESULT
    bodies.free([task])
    assert len(bodies) == 1
    with pytest.raises(KeyError):
        bodies.task(task)


def test_handles_are_not_used_twice():
    bodies = Bodies()
    first = bodies.put(TASK)
    bodies.free([first])
    assert bodies.put(TASK) != first


def test_freeing_twice_is_an_error_of_ours_and_says_so():
    bodies = Bodies()
    handle = bodies.put(TASK)
    bodies.free([handle])
    with pytest.raises(KeyError):
        bodies.free([handle])


def test_a_task_is_not_taken_for_a_result():
    bodies = Bodies()
    with pytest.raises(TypeError, match="is a task's"):
        bodies.result(bodies.put(TASK))
    with pytest.raises(TypeError, match="is a result's"):
        bodies.task(bodies.put(RESULT))
