import signal

import pytest

from chervil_worker.endings import Mark, Why
from chervil_worker.slot import LONG_RUN_NS, TERMINATE_GRACE_NS, Slot, Stage
from chervil_worker.tasks import Task
from chervil_worker.terms import Terms

SECOND = 10**9


@pytest.fixture
def slot() -> Slot:
    """It runs task 5, whose limit is a second, for so long that this is known."""
    slot = Slot()
    slot.stage = Stage.READY
    slot.sent[5] = Task(bytes(16), 1, "t", b"")
    slot.sent[5].number = 5
    slot.sent[5].terms = Terms(hard_ms=1000)
    slot.long = True
    return slot


def test_empty_slot_has_room_and_nothing_to_look_at():
    slot = Slot()
    assert (slot.head, slot.room, slot.look_at()) == (None, 1, None)
    assert not slot.over_limit(SECOND)
    assert not slot.outlived(SECOND)


def test_slot_that_is_down_or_kept_for_one_task_has_no_room():
    slot = Slot()
    slot.stage = Stage.DOWN
    assert slot.room == 0
    slot.stage = Stage.READY
    slot.alone = True
    assert slot.room == 0


def test_first_look_is_whether_the_run_is_a_long_one(slot: Slot):
    slot.long = False
    assert slot.look_at() == LONG_RUN_NS + 1


def test_limit_is_over_when_more_than_that_has_passed(slot: Slot):
    assert slot.look_at() == SECOND + 1
    assert not slot.over_limit(SECOND)
    assert slot.over_limit(SECOND + 1)


def test_without_a_limit_nothing_is_looked_at(slot: Slot):
    slot.sent[5].terms = Terms()
    assert slot.look_at() is None
    assert not slot.over_limit(10**15)


def test_signal_starts_a_grace_and_another_one_for_the_same_task_does_not(slot: Slot):
    slot.sent[5].terms = Terms()
    slot.depth = 8
    slot.signalled(Mark(Why.REVOKED, signal.SIGTERM, 5), 7)
    assert slot.depth == 1
    slot.signalled(Mark(Why.REVOKED, signal.SIGINT, 5), 9)
    assert slot.look_at() == 7 + TERMINATE_GRACE_NS + 1
    assert not slot.outlived(7 + TERMINATE_GRACE_NS)
    assert slot.outlived(7 + TERMINATE_GRACE_NS + 1)


def test_signal_for_another_task_starts_no_grace(slot: Slot):
    slot.signalled(Mark(Why.REVOKED, signal.SIGTERM, 4), 7)
    assert not slot.outlived(10**15)
    slot.signalled(Mark(Why.REVOKED, signal.SIGTERM, 5), SECOND)
    assert not slot.outlived(SECOND + TERMINATE_GRACE_NS), "and its own is counted from its own signal"


@pytest.mark.parametrize("why", Why)
def test_killed_child_is_not_looked_at_again(slot: Slot, why: Why):
    slot.signalled(Mark(why, signal.SIGKILL, 5), 0)
    assert slot.look_at() is None


def test_task_that_answers_is_over_and_has_no_limit_any_more(slot: Slot):
    slot.signalled(Mark(Why.REVOKED, signal.SIGTERM, 5), 0)
    slot.answering = True
    assert slot.look_at() is None
    assert not slot.over_limit(10**15)
    assert not slot.outlived(10**15)
    slot.reset()
    assert not slot.answering
