from chervil_broker.engine.parked import Parked
from chervil_broker.engine.task import TASK_OVERHEAD, Task


def parked(count, limit=10**9):
    letters = Parked(limit)
    tasks = [Task(f"t{n}", "add", "q", 0, None, n, 100, 0, 0, ("web", 0)) for n in range(count)]
    for number, task in enumerate(tasks, 1):
        letters.add(task, number)
    return letters, tasks


def test_weighs_what_is_there():
    letters, tasks = parked(3)
    letters.remove(tasks[1])
    assert (len(letters), letters.bytes) == (2, 2 * (TASK_OVERHEAD + 100))


def test_pages_pass_over_what_left():
    letters, tasks = parked(6)
    letters.remove(tasks[2])
    assert letters.page(1, 3) == [tasks[1], tasks[3], tasks[4]]
    assert letters.page(6, 3) == []


def test_oldest_are_over_the_limit_and_nothing_when_it_is_kept():
    letters, tasks = parked(4, limit=2 * (TASK_OVERHEAD + 100) + 1)
    assert letters.over() == tasks[:2]
    letters.limit *= 9
    assert letters.over() == []
    letters.limit = 0
    assert letters.over() == tasks


def test_numbers_of_those_that_left_do_not_pile_up():
    letters, tasks = parked(1000)
    for task in tasks[10:]:
        letters.remove(task)
    assert len(letters._numbers) <= 2 * 10 + 65
    assert letters.page(0, 99) == tasks[:10]
