from chervil.protocol import Outcome
from chervil.protocol.limits import ROWS_MAX
from chervil.protocol.messages import Complete, Completed, Credit, Started
from chervil_worker import outbox
from chervil_worker.outbox import UNANSWERED_BYTES_MAX, UNANSWERED_MAX, Outbox
from chervil_worker.slots import Task


def task(number: int = 1) -> Task:
    return Task(number.to_bytes(16, "big"), 3, "t", b"")


def test_everything_of_a_turn_goes_in_one_frame_of_each_kind():
    box = Outbox()
    box.complete(task(1), Outcome.SUCCESS, "json", b"1")
    box.release(task(2))
    box.started(task(3))
    box.started(task(4))
    assert box.flush(2, 2) == [
        Started([[task(3).id, 3], [task(4).id, 3]]),
        Complete(1, [[task(1).id, 3, 1, "json", b"1", None], [task(2).id, 3, 7]]),
        Credit(2),
    ]
    assert box.flush(2, 2) == []


def test_sequence_counts_completes():
    box = Outbox()
    for expected in (1, 2, 3):
        box.release(task())
        (message,) = box.flush(0, 1)
        assert isinstance(message, Complete)
        assert message.sequence == expected


def test_large_results_travel_one_a_frame():
    box = Outbox()
    for number in (1, 2):
        box.complete(task(number), Outcome.SUCCESS, "json", bytes(200_000))
    assert [message.sequence for message in box.flush(0, 1) if isinstance(message, Complete)] == [1, 2]


def test_reports_of_long_runs_keep_to_a_frames_rows():
    box = Outbox()
    for _ in range(ROWS_MAX + 1):
        box.started(task())
    assert [len(message.tasks) for message in box.flush(0, 1) if isinstance(message, Started)] == [
        ROWS_MAX,
        1,
    ]


def test_small_raises_of_credit_wait_and_cuts_do_not():
    box = Outbox()
    assert box.flush(40, 40) == [Credit(40)]
    assert box.flush(59, 40) == []
    assert box.flush(60, 40) == [Credit(60)]
    assert box.flush(59, 40) == [Credit(59)]


def test_with_little_capacity_every_raise_is_told():
    box = Outbox()
    assert [box.flush(limit, 1) for limit in (1, 2)] == [[Credit(1)], [Credit(2)]]


def test_answers_say_which_rows_were_not_applied():
    box = Outbox()
    for number in (1, 2):
        box.complete(task(number), Outcome.SUCCESS)
    assert box.unanswered == 2
    box.flush(0, 1)
    assert box.unanswered == 2
    assert [(row[0], verdict) for row, verdict in box.completed(Completed(1, [[1, 2], [9, 1]]))] == [
        (task(2).id, 2)
    ]
    assert box.unanswered == 0
    assert box.completed(Completed(7)) == []


def test_broker_that_answers_nothing_gets_no_more_credit():
    box = Outbox()
    for number in range(UNANSWERED_MAX):
        box.complete(task(number), Outcome.SUCCESS)
    assert not any(isinstance(message, Credit) for message in box.flush(10, 1))
    box.completed(Completed(1))
    assert box.flush(10, 1) == [Credit(10)]


def test_so_does_one_that_answers_no_large_results(monkeypatch):
    monkeypatch.setattr(outbox, "UNANSWERED_BYTES_MAX", 1000)
    assert UNANSWERED_BYTES_MAX > 1 << 20
    box = Outbox()
    box.complete(task(), Outcome.SUCCESS, "json", bytes(1000))
    assert not any(isinstance(message, Credit) for message in box.flush(10, 1))
    box.completed(Completed(1))
    assert box.flush(10, 1) == [Credit(10)]
