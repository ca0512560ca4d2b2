from chervil_broker.engine.charges import (
    CLASS_BYTES,
    FREE_BYTES,
    LEVEL_BYTES,
    QUEUE_BYTES,
    Charges,
    text_bytes,
)
from chervil_broker.engine.consumers import Line
from chervil_broker.engine.queues import EMPTY_CLASSES, Queue
from chervil_broker.engine.task import EXPIRED, QUEUED, Task

ALL = None


def queue(*lines):
    made = Queue("q", Charges())
    for known in lines or (ALL,):
        made.lines[known] = Line(known)
    return made


def put(queue, sequence, name="add", priority=0):
    task = Task(f"{name}-{sequence}", name, "q", priority, None, 1, 1, sequence, sequence * 10, ("web", 0))
    class_ = queue.class_for(name, priority)
    class_.ready.append(task)
    queue.added(class_, priority, 1)
    return task


def numbers(tasks):
    return [task.sequence for task in tasks]


def bury(queue, task):
    task.stage = EXPIRED
    queue.discard(task)


def test_higher_priority_first_then_first_in_first_out():
    q = queue()
    for sequence, priority in enumerate([0, 9, 5, 9, 0]):
        put(q, sequence, priority=priority)
    assert numbers(q.take(10, ALL)) == [1, 3, 2, 0, 4]
    assert q.ready == 0


def test_takes_no_more_than_the_limit():
    q = queue()
    for sequence in range(5):
        put(q, sequence, priority=sequence % 2)
    assert numbers(q.take(3, ALL)) == [1, 3, 0]
    assert q.ready == 2


def test_classes_of_one_priority_are_merged_in_order():
    q = queue()
    for sequence, name in enumerate("aabcabcc"):
        put(q, sequence, name)
    assert numbers(q.take(4, ALL)) == [0, 1, 2, 3]
    assert numbers(q.take(9, ALL)) == [4, 5, 6, 7]


def test_unknown_class_is_passed_over_and_stays():
    q = queue(frozenset({"a", "b"}), frozenset({"c"}))
    for sequence, name in enumerate("cabcx"):
        put(q, sequence, name)
    assert numbers(q.take(9, frozenset({"a", "b"}))) == [1, 2]
    assert numbers(q.take(9, frozenset({"c"}))) == [0, 3]
    assert q.unknown_names(9) == ["x"]
    assert q.take(9, ALL) == []
    assert q.ready == 1


def test_class_is_listed_when_somebody_comes_who_knows_it():
    q = queue(frozenset({"a"}))
    put(q, 0, "x")
    q.lines[ALL] = Line(ALL)
    q.recheck(0)
    assert numbers(q.take(9, ALL)) == [0]
    put(q, 1, "x")
    del q.lines[ALL]
    q.recheck(0)
    assert q.take(9, ALL) == []
    assert q.unknown_names(9) == ["x"]
    q.recheck(0)
    assert q.ready == 1


def test_returned_task_comes_at_its_old_place():
    q = queue()
    tasks = [put(q, sequence, name) for sequence, name in enumerate("abaab")]
    taken = q.take(4, ALL)
    for task in reversed(taken[1:]):
        q.put_back(task)
    assert numbers(q.take(2, ALL)) == [1, 2]
    assert numbers(q.take(9, ALL)) == [3, 4]
    assert q.ready == 0
    assert len(tasks) == 5


def test_returned_task_between_two_classes():
    q = queue()
    for sequence, name in enumerate("aba"):
        put(q, sequence, name)
    first, _, last = q.take(3, ALL)
    put(q, 3, "b")
    put(q, 4, "a")
    q.put_back(last)
    q.put_back(first)
    assert numbers(q.take(1, ALL)) == [0]
    assert numbers(q.take(9, ALL)) == [2, 3, 4]


def test_tombstones_are_passed_over():
    q = queue()
    tasks = [put(q, sequence) for sequence in range(6)]
    bury(q, tasks[0])
    bury(q, tasks[3])
    assert q.ready == 4
    assert q.oldest() == 10
    assert numbers(q.take(9, ALL)) == [1, 2, 4, 5]


def test_tombstone_at_the_head_of_a_class_does_not_reorder():
    q = queue()
    tasks = [put(q, sequence, name) for sequence, name in enumerate("aba")]
    bury(q, tasks[0])
    assert numbers(q.take(9, ALL)) == [1, 2]


def test_task_appended_behind_a_class_of_tombstones():
    q = queue()
    bury(q, put(q, 0, "a"))
    put(q, 1, "b")
    put(q, 2, "a")
    assert numbers(q.take(9, ALL)) == [1, 2]


def test_returned_tombstone_is_passed_over():
    q = queue()
    put(q, 0)
    put(q, 1)
    first, second = q.take(2, ALL)
    q.put_back(first)
    q.put_back(second)
    bury(q, first)
    assert numbers(q.take(9, ALL)) == [1]
    q.put_back(second)
    bury(q, second)
    assert q.take(9, ALL) == []


def test_tombstones_never_exceed_half_of_many():
    q = queue()
    tasks = [put(q, sequence) for sequence in range(100)]
    back = q.take(10, ALL)
    for task in back:
        q.put_back(task)
    for task in tasks[5:95]:
        bury(q, task)
    class_ = q.class_for("add", 0)
    assert len(class_.ready) + len(class_.returned) <= 2 * 10 + 16
    assert numbers(q.take(99, ALL)) == [0, 1, 2, 3, 4, 95, 96, 97, 98, 99]


def test_stale_heads_do_not_pile_up():
    q = queue()
    put(q, 0, "a")
    put(q, 1, "a")
    for _ in range(1000):
        (first,) = q.take(1, ALL)
        q.put_back(first)
    assert len(q.levels[0].heads) < 50
    assert numbers(q.take(9, ALL)) == [0, 1]


def test_many_names_leave_no_empty_classes():
    q = queue()
    for sequence in range(EMPTY_CLASSES + 50):
        put(q, sequence, f"name-{sequence}")
    assert len(q.take(1000, ALL)) == EMPTY_CLASSES + 50
    assert len(q.levels[0].classes) == EMPTY_CLASSES


def test_a_class_that_was_dropped_and_its_successor_may_stand_under_one_number():
    q = queue()
    first, second = put(q, 0, "a"), put(q, 1, "a")
    for sequence in range(EMPTY_CLASSES + 6):
        put(q, 2 + sequence, f"name-{sequence}")
    assert q.take(1, ALL) == [first]
    q.put_back(first)
    assert q.take(1, ALL) == [first]
    assert q.take(1, ALL) == [second]
    q.put_back(second)
    q.put_back(first)
    assert numbers(q.take(3, ALL)) == [0, 1, 2]


def test_expired_names_leave_no_empty_classes():
    q = queue()
    tasks = [put(q, sequence, f"name-{sequence}") for sequence in range(EMPTY_CLASSES + 50)]
    for task in tasks:
        bury(q, task)
    assert len(q.levels[0].classes) == EMPTY_CLASSES
    put(q, 999, "name-0")
    assert numbers(q.take(9, ALL)) == [999]


def test_emptying_returns_every_ready_task():
    q = queue()
    put(q, 0)
    put(q, 1, priority=3)
    bury(q, put(q, 2))
    (high,) = q.take(1, ALL)
    q.put_back(high)
    assert sorted(numbers(q.empty())) == [0, 1]
    assert q.ready == 0
    assert q.oldest() is None
    assert put(q, 5).stage == QUEUED
    assert numbers(q.take(9, ALL)) == [5]


def test_emptying_leaves_nothing_in_a_class_that_a_timer_still_holds():
    q = queue()
    first = put(q, 0)
    put(q, 1)
    class_ = q.class_for(first.name, first.priority)
    q.put_back(*q.take(1, ALL))
    q.empty()
    assert not class_.ready
    assert not class_.returned


def test_unused_queue_says_so():
    q = Queue("q", Charges())
    assert q.unused
    q.leased = 1
    assert not q.unused


def test_what_it_takes_is_charged_until_it_is_over():
    charges = Charges()
    q = Queue("q", charges)
    q.lines[ALL] = Line(ALL)
    put(q, 0, "a")
    put(q, 1, "b" * 255, priority=3)
    classes = 2 * CLASS_BYTES + text_bytes("a") + text_bytes("b" * 255)
    whole = QUEUE_BYTES + text_bytes("q")
    assert charges.bytes == whole + 2 * LEVEL_BYTES + classes
    q.empty()
    assert charges.bytes == whole
    put(q, 2, "a")
    q.take(1, ALL)
    assert charges.bytes == whole + LEVEL_BYTES + CLASS_BYTES + text_bytes("a"), "kept for the next task"
    q.dissolve()
    assert charges.bytes == 0


def test_no_empty_class_is_kept_once_what_is_charged_counts():
    charges = Charges()
    charges.bytes = FREE_BYTES
    q = Queue("q", charges)
    q.lines[ALL] = Line(ALL)
    put(q, 0, "a")
    q.take(1, ALL)
    bury(q, put(q, 1, "b"))
    assert list(q.classes()) == []
    assert charges.bytes == FREE_BYTES + QUEUE_BYTES + text_bytes("q") + LEVEL_BYTES
