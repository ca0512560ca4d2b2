import pytest

from chervil.protocol import TaskOption
from chervil_broker.engine.task import MS, NO_HANDLE, NOBODY, QUEUED, Task, Times

DELIVERY_LIMIT = TaskOption.DELIVERY_LIMIT.value


def task(options=None):
    return Task("t", "add", "q", 5, options, 1, 100, 7, 42, ("web", 0))


def expiring(at, wall=False):
    one = task()
    one.times = Times()
    one.times.expires, one.times.expires_wall = at, wall
    return one


def test_new_task_is_queued_and_nobodys():
    one = task()
    assert (one.stage, one.owner, one.worker) == (QUEUED, NOBODY, None)
    assert (one.lease, one.attempts, one.retries, one.redelivered) == (0, 0, 0, False)
    assert (one.result, one.result_size, one.read) == (NO_HANDLE, 0, False)
    assert (one.sequence, one.since, one.size) == (7, 42, 100)


@pytest.mark.parametrize("one", [task(), Times()], ids=["Task", "Times"])
def test_no_dictionary_is_held_for_each_task(one):
    assert not hasattr(one, "__dict__")


@pytest.mark.parametrize(
    ("options", "limit"),
    [(None, 3), ({}, 3), ({TaskOption.IGNORE_RESULT.value: True}, 3), ({DELIVERY_LIMIT: 1}, 1)],
)
def test_delivery_limit_is_three_unless_the_task_says_otherwise(options, limit):
    assert task(options).delivery_limit() == limit


def test_task_that_does_not_expire_has_no_remaining_time():
    held = task()
    held.times = Times()
    held.times.due = 10 * MS
    assert task().remaining_ms(0, 0) is None
    assert held.remaining_ms(0, 0) is None


@pytest.mark.parametrize(
    ("now", "left"),
    [(0, 10), (1, 9), (MS, 9), (10 * MS - 1, 0), (10 * MS, 0), (99 * MS, 0)],
)
@pytest.mark.parametrize("wall", [False, True])
def test_remaining_time_is_whole_milliseconds_of_its_own_clock_and_never_negative(now, left, wall):
    one = expiring(10 * MS, wall)
    clocks = (12_345 * MS, now) if wall else (now, 12_345 * MS)
    assert one.remaining_ms(*clocks) == left
