from chervil_broker.engine.task import Task
from chervil_broker.engine.timers import Deadlines


def task(id_="t"):
    return Task(id_, "add", "q", 0, None, 1, 1, 1, 0, ("web", 0))


def test_fires_in_order_of_deadline_each_on_its_clock():
    deadlines = Deadlines()
    late, early, wall = task("late"), task("early"), task("wall")
    deadlines.hold(late, 20, wall=False)
    deadlines.hold(early, 10, wall=False)
    deadlines.hold(wall, 15, wall=True)
    assert deadlines.next() == (10, 15)
    assert deadlines.fire(25, 14, 10) == ([early, late], [])
    assert deadlines.fire(25, 15, 10) == ([wall], [])
    assert deadlines.next() == (None, None)


def test_due_and_expiry_are_told_apart():
    deadlines = Deadlines()
    one = task()
    deadlines.hold(one, 10, wall=False)
    deadlines.expire(one, 10, wall=False)
    assert deadlines.fire(10, 0, 10) == ([one], [one])


def test_fires_no_more_than_the_limit():
    deadlines = Deadlines()
    tasks = [task(str(n)) for n in range(5)]
    for each in tasks:
        deadlines.hold(each, 1, wall=False)
    assert deadlines.fire(1, 0, 3)[0] == tasks[:3]
    assert deadlines.fire(1, 0, 3)[0] == tasks[3:]


def test_new_expiry_replaces_the_earlier_one():
    deadlines = Deadlines()
    one = task()
    deadlines.expire(one, 10, wall=False)
    deadlines.expire(one, 30, wall=True)
    assert deadlines.next() == (None, 30)
    assert deadlines.fire(20, 20, 10) == ([], [])
    assert deadlines.fire(20, 30, 10) == ([], [one])


def test_expiry_that_fired_during_a_lease_is_set_again():
    deadlines = Deadlines()
    one = task()
    deadlines.rearm(one)
    deadlines.hold(one, 1, wall=False)
    deadlines.rearm(one)
    assert len(deadlines) == 1
    deadlines.expire(one, 10, wall=False)
    deadlines.rearm(one)
    assert len(deadlines) == 2
    assert deadlines.fire(10, 0, 10) == ([one], [one])
    deadlines.rearm(one)
    assert deadlines.fire(10, 0, 10) == ([], [one])


def test_forgotten_task_fires_nothing():
    deadlines = Deadlines()
    one = task()
    deadlines.forget(one)
    deadlines.hold(one, 10, wall=True)
    deadlines.expire(one, 20, wall=False)
    deadlines.forget(one)
    assert deadlines.fire(100, 100, 10) == ([], [])
    spent = task()
    deadlines.hold(spent, 1, wall=False)
    deadlines.expire(spent, 1, wall=False)
    deadlines.fire(1, 1, 10)
    deadlines.forget(spent)
    assert spent.times is None


def test_cancelled_entries_never_exceed_half_of_many():
    deadlines = Deadlines()
    tasks = [task(str(n)) for n in range(1000)]
    for n, each in enumerate(tasks):
        deadlines.expire(each, 1000 - n, wall=False)
    for each in tasks[:900]:
        deadlines.forget(each)
    assert len(deadlines) <= 200
    assert deadlines.fire(1000, 0, 1000)[1] == tasks[:899:-1]


def test_held_are_those_with_a_due_time():
    deadlines = Deadlines()
    held, expiring, gone = task("held"), task("expiring"), task("gone")
    deadlines.hold(held, 10, wall=True)
    deadlines.expire(expiring, 10, wall=False)
    deadlines.hold(gone, 10, wall=False)
    deadlines.forget(gone)
    assert deadlines.held() == [held]


def test_expiry_that_is_replaced_often_leaves_little_behind():
    deadlines = Deadlines()
    one = task()
    for deadline in range(1000):
        deadlines.expire(one, 5000 + deadline, wall=False)
    assert len(deadlines) <= 70
    assert deadlines.next() == (5999, None)
