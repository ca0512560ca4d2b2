"""Tasks that run at most once, and tasks that are called off, as the machine sees them."""

import signal

from chervil.protocol import Outcome, TaskOption
from chervil.protocol.messages import Started
from chervil_worker.machine import Kill, Spawn
from chervil_worker.slot import TERMINATE_GRACE_NS
from chervil_worker.tasks import Task
from chervil_worker.terms import Terms
from tests.worker.broker import row, task_id
from tests.worker.drive import (
    LATER,
    SECOND,
    Drive,
    completions,
    connected,
    failure,
    inventory_of,
    of_kind,
    outcomes,
)

EARLY = {int(TaskOption.EARLY_ACK): True}
RELEASED_AS_CLAIMED = {2: True}


def begun_once_granted(drive: Drive, started: Started) -> Task:
    """The task that the child begins when the broker has granted a claim."""
    assert not drive.children[0].unread
    assert started.request is not None
    drive.machine.ok(started.request, 1)
    drive.turn()
    return drive.begin()


# At most once


def test_early_task_is_claimed_first_and_sent_when_the_claim_is_granted():
    drive = connected()
    assert of_kind(drive.deliver(1, options=EARLY), Started) == [Started([[task_id(1), 1, True]], 2)]
    assert not drive.children[0].unread
    drive.grant()
    drive.begin()
    assert outcomes(drive.finish()) == {1: Outcome.SUCCESS}


def test_early_task_waits_for_an_idle_slot_and_has_it_for_itself():
    drive = connected()
    drive.deepen()
    drive.deliver(1)
    drive.begin()
    assert of_kind(drive.deliver(2, options=EARLY), Started) == []
    assert outcomes(drive.deliver(3)) == {3: Outcome.RELEASE}, "the slot is kept: nobody takes it soon"
    (started,) = of_kind(drive.finish(), Started)
    assert started.tasks == [[task_id(2), 1, True]]
    drive.grant()
    assert drive.begin().id == task_id(2)
    assert drive.machine.slots.credit() == drive.machine.slots.delivered


def test_what_the_app_says_makes_a_task_early_and_the_row_may_say_otherwise():
    drive = connected(terms={"once": Terms(early=True)})
    assert of_kind(drive.deliver(1, name="once"), Started)
    drive.grant()
    drive.begin()
    drive.finish()
    late = {int(TaskOption.EARLY_ACK): False}
    assert of_kind(drive.deliver(2, name="once", options=late), Started) == []
    assert drive.begin().id == task_id(2)


def test_claim_of_a_lease_that_is_not_in_force_is_dropped():
    drive = connected()
    (started,) = of_kind(drive.deliver(1, options=EARLY), Started)
    drive.cancel(1)
    drive.machine.ok(started.request, 0)
    drive.turn()
    assert not drive.children[0].unread
    assert drive.machine.slots.idle


def test_grant_of_a_task_that_was_called_off_meanwhile_begins_neither_it_nor_the_next():
    drive = connected()
    (first,) = of_kind(drive.deliver(1, options=EARLY), Started)
    drive.cancel(1)
    (second,) = of_kind(drive.deliver(2, options=EARLY), Started)
    drive.machine.ok(first.request, 1)
    drive.turn()
    assert begun_once_granted(drive, second).id == task_id(2)


def test_claim_that_the_connection_was_lost_over_is_made_anew():
    drive = connected()
    (first,) = of_kind(drive.deliver(1, options=EARLY), Started)
    drive.lose()
    messages = drive.connect(resumed=True)
    assert inventory_of(messages) == {1: 0}
    (second,) = of_kind(messages, Started)
    assert second.tasks == first.tasks
    assert second.request != first.request
    assert begun_once_granted(drive, second).id == task_id(1)


def test_early_task_that_runs_is_stated_as_begun():
    drive = connected()
    drive.deliver(1, options=EARLY)
    drive.grant()
    drive.begin()
    drive.lose()
    assert inventory_of(drive.connect(resumed=True)) == {1: 1}


def test_claim_for_a_slot_whose_child_died_is_made_for_another():
    drive = connected()
    drive.deliver(5)
    drive.begin()
    drive.finish()  # a child that has run something is replaced at once
    (first,) = of_kind(drive.deliver(1, options=EARLY), Started)
    drive.die()
    drive.machine.ok(first.request, 1)
    drive.turn()
    drive.child_is_ready(0)
    (second,) = of_kind(drive.turn(), Started)
    assert begun_once_granted(drive, second).id == task_id(1)


def test_early_task_that_its_child_does_not_begin_is_taken_back_and_claimed_again():
    drive = connected()
    drive.deliver(1, options=EARLY)
    drive.grant()
    drive.sent.clear()
    drive.tick(LATER)
    assert of_kind(drive.sent, Started)
    assert not drive.children[0].unread


def test_answer_to_what_was_no_claim_changes_nothing():
    drive = connected()
    drive.machine.ok(1, None)
    drive.machine.ok(99, 1)
    assert drive.turn() == []


# Calling off


def test_task_that_waits_in_the_link_is_called_off():
    drive = connected()
    drive.machine.slots.starting(0)
    drive.deliver(1)
    (completion,) = completions(drive.cancel(1))
    assert completion[2] == Outcome.REVOKED
    assert failure(completion) == (
        "revoked",
        "chervil.exceptions.TaskRevokedError",
        "called off before it began",
    )


def test_task_that_its_child_has_not_read_is_taken_back_and_called_off():
    drive = connected()
    drive.deepen()
    drive.deliver(1, 2, 3)
    drive.begin()
    assert outcomes(drive.cancel(2)) == {2: Outcome.REVOKED}
    assert [task.id for task in drive.children[0].unread] == [task_id(3)]
    assert drive.kills == []


def test_running_task_without_a_signal_goes_on():
    drive = connected()
    drive.deliver(1)
    drive.begin()
    assert completions(drive.cancel(1)) == []
    assert drive.kills == []
    assert outcomes(drive.finish()) == {1: Outcome.SUCCESS}


def test_running_task_is_sent_the_signal_and_is_revoked_when_its_process_dies():
    drive = connected()
    drive.deliver(1)
    drive.begin()
    assert completions(drive.cancel(1, signal.SIGTERM)) == []
    assert drive.kills == [Kill(0, signal.SIGTERM)]
    (completion,) = completions(drive.die(status=signal.SIGTERM))
    assert completion[2] == Outcome.REVOKED
    assert failure(completion)[2] == "terminated by SIGTERM"
    assert drive.spawns == [Spawn(0, 0)]


def test_task_that_goes_on_after_its_signal_is_killed_when_the_grace_is_over():
    drive = connected()
    drive.deliver(1)
    drive.begin()
    drive.tick(LATER)
    drive.cancel(1, signal.SIGTERM)
    drive.tick(SECOND)
    drive.cancel(1, signal.SIGUSR1)  # asked again: that is no second grace
    due = LATER + TERMINATE_GRACE_NS + 1
    assert drive.machine.next_look == due
    drive.tick(due - drive.now - 1)
    assert [kill.signal for kill in drive.kills] == [signal.SIGTERM, signal.SIGUSR1]
    drive.tick(1)
    assert drive.kills[2:] == [Kill(0, signal.SIGKILL)]
    assert drive.machine.next_look is None
    (completion,) = completions(drive.die())
    assert (completion[2], failure(completion)[2]) == (Outcome.REVOKED, "terminated by SIGKILL")


def test_grace_of_one_task_is_not_the_next_ones():
    drive = connected()
    drive.deliver(1)
    drive.begin()
    drive.cancel(1, signal.SIGTERM)
    drive.finish()
    drive.deliver(2)
    drive.begin()
    drive.tick(LATER)
    assert drive.machine.next_look is None
    drive.tick(2 * TERMINATE_GRACE_NS)
    assert drive.kills == [Kill(0, signal.SIGTERM)]


def test_result_that_was_reported_before_the_signal_stands_and_no_signal_is_sent():
    drive = connected()
    drive.deliver(1)
    drive.begin()
    drive.answer()  # in the socket
    assert outcomes(drive.cancel(1, signal.SIGTERM)) == {1: Outcome.SUCCESS}
    assert drive.kills == []


def test_result_that_was_reported_as_the_signal_came_stands():
    drive = connected()
    drive.deliver(1)
    drive.begin()
    drive.cancel(1, signal.SIGTERM)
    drive.answer()
    assert outcomes(drive.die(status=signal.SIGTERM)) == {1: Outcome.SUCCESS}


def test_signal_that_was_meant_for_a_task_and_hits_the_next_gives_that_back_uncharged():
    drive = connected()
    drive.deliver(1)
    drive.begin()
    drive.cancel(1, signal.SIGTERM)
    drive.finish()
    drive.deliver(2)
    drive.begin()
    (completion,) = completions(drive.die(status=signal.SIGTERM))
    assert completion == [
        2, 1, Outcome.RELEASE, None,
        b"cut off by a SIGTERM that was meant for another task", RELEASED_AS_CLAIMED,
    ]  # fmt: skip


def test_child_that_survives_a_signal_goes_on_and_its_later_death_is_a_tasks_own():
    drive = connected()
    drive.deliver(1)
    drive.begin()
    drive.cancel(1, signal.SIGTERM)
    assert outcomes(drive.finish()) == {1: Outcome.SUCCESS}
    for number in (2, 3):
        drive.deliver(number)
        drive.begin()
        if number == 2:
            drive.finish()
    assert outcomes(drive.die(status=signal.SIGSEGV)) == {3: Outcome.LOST}


def test_lease_that_is_not_held_is_passed_over():
    drive = connected()
    drive.deliver(1)
    drive.begin()
    assert completions(drive.cancel(1, signal.SIGTERM, lease=2)) == []
    assert completions(drive.cancel(9)) == []
    assert drive.kills == []


def test_task_that_may_have_killed_a_worker_before_begins_once_the_broker_knows():
    drive = connected()
    drive.deepen()
    suspect = row(1, "add", lease=2)
    suspect[2] = True
    drive.machine.delivered([suspect], drive.now)
    (started,) = of_kind(drive.turn(), Started)
    assert started.tasks == [[task_id(1), 2]]
    assert begun_once_granted(drive, started).id == task_id(1)
