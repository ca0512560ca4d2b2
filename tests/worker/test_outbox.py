from chervil.protocol import Outcome
from chervil.protocol.limits import ROWS_MAX
from chervil.protocol.messages import Complete, Completed, Credit, Started
from chervil_worker import outbox
from chervil_worker.outbox import UNANSWERED_BYTES_MAX, UNANSWERED_MAX, Outbox
from chervil_worker.tasks import Task


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


def test_what_was_not_answered_is_sent_again_under_its_old_sequence():
    box = Outbox()
    for number in (1, 2):
        box.complete(task(number), Outcome.SUCCESS, "json", b"1")
        box.flush(number, 1)
    box.completed(Completed(1))
    box.started(task(3))
    box.answered(task(4), [Outcome.SUCCESS, "json", b"2", None])
    assert [row[0] for row in box.untold()] == [task(2).id, task(4).id]
    assert box.sequence == 2
    assert box.resend() == [Complete(2, [[task(2).id, 3, 1, "json", b"1", None]])]
    # The report of a long run is in the inventory, and credit counts from 0 again.
    assert box.flush(1, 1) == [Complete(3, [[task(4).id, 3, 1, "json", b"2", None]]), Credit(1)]


def test_broker_may_deliver_as_much_as_it_was_ever_told_on_this_connection():
    box = Outbox()
    for credit in (40, 10):
        box.flush(credit, 1)
    assert box.allowed == 40, "a cut may come too late"
    box.resend()
    assert box.allowed == 0


def test_bytes_that_wait_for_a_broker_that_is_away_count_too(monkeypatch):
    monkeypatch.setattr(outbox, "UNANSWERED_BYTES_MAX", 1000)
    box = Outbox()
    for expected in (False, True):
        box.complete(task(), Outcome.SUCCESS, "json", bytes(500))
        box.weigh()
        assert box.full == expected
    box.flush(0, 1)
    assert box.full
    box.completed(Completed(1))
    assert not box.full
