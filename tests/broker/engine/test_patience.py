from chervil_broker.engine.charges import Charges
from chervil_broker.engine.patience import Patience
from chervil_broker.engine.queues import Queue
from chervil_broker.engine.task import Task


def waiting(unknown_since=5, since=20):
    queue = Queue("q", Charges())
    class_ = queue.class_for("add", 0)
    class_.unknown_since = unknown_since
    class_.ready.append(Task("t", "add", "q", 0, None, 1, 1, 1, since, ("web", 0)))
    return queue, class_


def test_runs_from_the_later_of_arrival_and_ignorance():
    patience = Patience(100)
    assert patience.ends(waiting()[1]) == 120
    assert patience.ends(waiting(unknown_since=30)[1]) == 130


def test_is_not_needed_for_a_known_name_or_an_empty_class():
    patience = Patience(100)
    queue, known = waiting(unknown_since=None)
    assert patience.ends(known) is None
    patience.watch(queue, known)
    assert (patience.next(), patience.ends(queue.class_for("mail", 0))) == (None, None)


def test_one_time_is_set_for_a_class_until_it_has_come():
    patience = Patience(100)
    queue, class_ = waiting()
    patience.watch(queue, class_)
    patience.watch(queue, class_)
    assert patience.next() == 120
    assert patience.pop(119) is None
    assert patience.pop(120) == (queue, class_)
    assert patience.pop(120) is None
    patience.watch(queue, class_)
    assert patience.next() == 120


def test_classes_that_are_forgotten_are_not_held():
    patience = Patience(100)
    kept_queue, kept = waiting(since=50)
    patience.watch(kept_queue, kept)
    for number in range(1000):
        queue, class_ = waiting(since=number)
        patience.watch(queue, class_)
        patience.forget(class_)
        patience.forget(class_)
    assert len(patience._classes) == 1
    assert len(patience) < 100
    assert patience.next() == 150
    assert patience.pop(150) == (kept_queue, kept)
    assert (patience.next(), patience.pop(999)) == (None, None)
