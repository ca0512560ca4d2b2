"""Time limits and deaths of children, as the machine sees them."""

import signal

import pytest

from chervil.protocol import Outcome, TaskOption
from chervil_worker.endings import Why
from chervil_worker.machine import Kill
from chervil_worker.terms import Terms
from tests.worker.broker import task_id
from tests.worker.drive import (
    LATER,
    SECOND,
    completions,
    connected,
    failure,
    inventory_of,
    outcomes,
)

RELEASED_AS_CLAIMED = {2: True}


# Time limits


def test_task_over_its_limit_is_killed_and_fails_with_its_name_limit_and_attempt():
    drive = connected(terms={"slow": Terms(hard_ms=1500)})
    drive.deliver(1, name="slow")
    drive.begin()
    drive.tick(LATER)
    assert drive.machine.next_look == int(1.5 * SECOND) + 1
    drive.tick(SECOND)
    assert drive.kills == []
    drive.tick(SECOND)
    assert drive.kills == [Kill(0, signal.SIGKILL)]
    drive.tick(SECOND)
    assert drive.kills == [Kill(0, signal.SIGKILL)], "once"
    assert drive.machine.next_look is None
    (completion,) = completions(drive.die())
    assert completion[2] == Outcome.FAILURE
    assert failure(completion) == (
        "time_limit",
        "chervil.exceptions.TimeLimitExceeded",
        "slow ran longer than its time limit of 1.5 s, on attempt 1",
    )
    assert len(drive.said) == 1
    assert drive.said[0].startswith("slow[00000000-0000-0000-0000-000000000001] ran longer than its time")


@pytest.mark.parametrize(
    ("limit_ms", "killed"), [(3000, []), (1000, [Kill(0, signal.SIGKILL)]), (0, [])], ids=str
)
def test_limit_of_the_row_comes_before_that_of_the_app(limit_ms: int, killed: list[Kill]):
    drive = connected(terms={"slow": Terms(hard_ms=1000)})
    drive.deliver(1, name="slow", options={int(TaskOption.TIME_LIMIT_MS): limit_ms})
    drive.begin()
    drive.tick(LATER)
    drive.tick(2 * SECOND)
    assert drive.kills == killed


def test_limit_counts_from_when_a_task_came_to_be_the_first_of_its_slot():
    drive = connected(terms={"slow": Terms(hard_ms=1000)})
    drive.deepen()
    drive.deliver(1)
    drive.deliver(2, name="slow")
    drive.begin()
    drive.now += LATER // 2
    drive.finish()
    drive.begin()
    drive.tick(LATER)
    drive.tick(SECOND - LATER)
    assert drive.kills == []
    drive.tick(LATER)
    assert drive.kills


def test_answer_in_the_moment_of_the_limit_stands():
    drive = connected(terms={"slow": Terms(hard_ms=1000)})
    drive.deliver(1, name="slow")
    drive.begin()
    drive.tick(LATER)
    drive.answer()
    assert outcomes(drive.tick(SECOND)) == {1: Outcome.SUCCESS}
    assert drive.kills == []


def test_answer_that_was_sent_as_the_kill_came_stands_and_the_next_task_is_not_harmed():
    drive = connected(terms={"slow": Terms(hard_ms=1000)})
    drive.deliver(1, name="slow")
    drive.begin()
    drive.tick(LATER)
    drive.tick(SECOND)
    drive.finish()
    drive.deliver(2)
    assert completions(drive.die()) == []
    drive.child_is_ready(0)
    drive.turn()
    assert drive.begin().id == task_id(2)


def test_kill_for_a_limit_that_hits_the_next_task_gives_that_back_uncharged():
    drive = connected(terms={"slow": Terms(hard_ms=1000)})
    drive.deliver(1, name="slow")
    drive.begin()
    drive.tick(LATER)
    drive.tick(SECOND)
    drive.finish()
    drive.deliver(2)
    drive.begin()
    (completion,) = completions(drive.die())
    assert (completion[0], completion[2], completion[5]) == (2, Outcome.RELEASE, RELEASED_AS_CLAIMED)


def test_task_that_its_child_did_not_begin_is_not_killed_for_its_limit():
    drive = connected(terms={"slow": Terms(hard_ms=1)})
    drive.deliver(1, name="slow")
    drive.tick(LATER)
    assert drive.kills == []


def test_limit_goes_on_counting_after_a_signal_that_the_child_survived():
    drive = connected(terms={"slow": Terms(hard_ms=1000)})
    drive.deliver(1, name="slow")
    drive.begin()
    drive.cancel(1, signal.SIGUSR1)
    drive.tick(LATER)
    drive.tick(SECOND)
    assert drive.kills == [Kill(0, signal.SIGUSR1), Kill(0, signal.SIGKILL)]


def test_nothing_is_looked_at_again_while_a_killed_child_takes_its_time_to_die():
    drive = connected(terms={"slow": Terms(hard_ms=1000)})
    drive.deliver(1, name="slow")
    drive.begin()
    drive.cancel(1, signal.SIGKILL)
    drive.tick(LATER)
    drive.tick(2 * SECOND)
    assert drive.kills == [Kill(0, signal.SIGKILL)]
    assert drive.machine.next_look is None
    assert outcomes(drive.die()) == {1: Outcome.REVOKED}


@pytest.mark.parametrize("signalled", [True, False])
def test_task_whose_answer_has_come_in_part_is_not_killed_for_its_limit(signalled: bool):
    drive = connected(terms={"slow": Terms(hard_ms=1000)})
    drive.deliver(1, name="slow")
    number = drive.begin().number
    if signalled:
        drive.cancel(1, signal.SIGTERM)
    drive.tick(LATER)
    assert not drive.machine.answering(0, number + 1)
    assert drive.machine.next_look is not None, "that was another's"
    assert drive.machine.answering(0, number)
    assert drive.machine.next_look is None
    drive.machine.looks.add(0)
    drive.tick(100 * SECOND)
    assert signal.SIGKILL not in [kill.signal for kill in drive.kills]
    assert outcomes(drive.finish()) == {1: Outcome.SUCCESS}
    drive.deliver(2, name="slow")
    drive.begin()
    drive.tick(LATER)
    assert drive.machine.next_look == drive.now - LATER + SECOND + 1, "the next one has its limit"


def test_part_of_an_answer_from_an_idle_child_is_passed_over():
    drive = connected()
    assert not drive.machine.answering(0, 7)
    drive.deliver(1)
    drive.begin()
    assert outcomes(drive.finish()) == {1: Outcome.SUCCESS}


def test_task_whose_answer_has_come_in_part_is_not_killed_as_it_is_called_off():
    drive = connected()
    drive.deliver(1)
    number = drive.begin().number
    drive.tick(LATER)
    assert drive.machine.answering(0, number)
    drive.cancel(1, signal.SIGTERM)
    assert drive.kills == []
    assert outcomes(drive.finish()) == {1: Outcome.SUCCESS}


def test_part_that_looks_like_the_answer_of_a_task_that_was_not_begun_says_nothing_of_the_next_one():
    drive = connected(terms={"slow": Terms(hard_ms=1000)})
    drive.deliver(1, name="slow")
    assert drive.machine.answering(0, drive.children[0].unread[0].number)
    drive.machine.looks.add(0)
    drive.tick(1)
    drive.begin()
    drive.tick(LATER)
    drive.tick(SECOND)
    assert drive.kills == [Kill(0, signal.SIGKILL)]


# Deaths


@pytest.mark.parametrize(
    ("status", "outcome"), [(signal.SIGSEGV, Outcome.LOST), (3 << 8, Outcome.LOST), (15, Outcome.RELEASE)]
)
def test_later_task_is_charged_for_its_own_crash_though_an_earlier_one_survived_a_signal(
    status: int, outcome: Outcome
):
    drive = connected()
    drive.deliver(1)
    drive.begin()
    drive.tick(LATER)
    drive.cancel(1, signal.SIGTERM)
    drive.finish()
    drive.deliver(2)
    drive.begin()
    assert outcomes(drive.die(status=status)) == {2: outcome}


def test_kill_is_not_forgotten_when_answers_come_before_it():
    drive = connected()
    drive.deliver(1)
    drive.begin()
    drive.tick(LATER)
    drive.cancel(1, signal.SIGKILL)
    drive.finish()
    for number in (2, 3):
        drive.deliver(number)
        drive.begin()
        if number == 2:
            drive.finish()
    assert outcomes(drive.die()) == {3: Outcome.RELEASE}


def test_child_that_is_condemned_loses_its_task_for_that_reason():
    drive = connected()
    drive.deliver(1)
    drive.begin()
    for _ in range(2):
        drive.machine.condemned(0, Why.NO_ANSWER, drive.now)
    drive.turn()
    assert drive.kills == [Kill(0, signal.SIGKILL)]
    (completion,) = completions(drive.die())
    assert completion[2] == Outcome.LOST
    assert completion[4] == (
        b"SIGKILL (pid 77), from the worker: it had sent what is no answer, on attempt 1"
    )


def test_idle_child_that_is_condemned_dies_without_a_word_more():
    drive = connected()
    drive.machine.condemned(0, Why.NO_ANSWER, drive.now)
    drive.turn()
    assert drive.kills == [Kill(0, signal.SIGKILL)]
    drive.die()
    assert [line for line in drive.said if "died" in line] == []


def test_death_loses_the_task_that_ran_and_the_rest_is_sent_to_the_next_child():
    drive = connected()
    drive.deepen()
    drive.deliver(1, 2, 3)
    drive.begin()
    messages = drive.die()
    assert outcomes(messages) == {1: Outcome.LOST, 3: Outcome.RELEASE}
    assert completions(messages)[0][4] == (
        b"SIGKILL (pid 77), perhaps by the system for want of memory, on attempt 1"
    )
    drive.child_is_ready(0)
    drive.turn()
    assert drive.begin().id == task_id(2)


def test_task_that_must_not_run_again_by_its_apps_word_fails():
    drive = connected(terms={"once": Terms(fail_on_lost=True)})
    drive.deliver(1, name="once")
    drive.begin()
    (completion,) = completions(drive.die(status=3 << 8))
    assert completion[2] == Outcome.FAILURE
    assert failure(completion) == (
        "lost",
        "chervil.exceptions.WorkerLostError",
        "its process died: exit code 3 (pid 77), on attempt 1",
    )


@pytest.mark.parametrize("said", [True, False])
def test_what_the_row_says_of_losses_is_the_brokers_affair(said: bool):
    drive = connected(terms={"once": Terms(fail_on_lost=True)})
    drive.deliver(1, name="once", options={int(TaskOption.FAIL_ON_LOST): said})
    drive.begin()
    assert outcomes(drive.die()) == {1: Outcome.LOST}
    assert ("it ends as FAILURE" in drive.said[-1]) is said


def test_deaths_while_the_broker_is_away_are_told_later():
    drive = connected()
    drive.deliver(1)
    drive.begin()
    drive.lose()
    assert drive.die() == []
    messages = drive.connect(resumed=True)
    assert inventory_of(messages) == {1: 1}
    assert outcomes(messages) == {1: Outcome.LOST}


def test_death_of_a_task_of_an_earlier_session_is_told_to_nobody():
    drive = connected()
    drive.deliver(1)
    drive.begin()
    drive.lose()
    drive.connect()
    assert completions(drive.die()) == []
    assert drive.machine.orphans.count == 1
    assert "came to its end (SIGKILL (pid 77)" in drive.said[-1]


def test_answer_that_nobody_asked_for_is_ignored():
    drive = connected()
    assert drive.machine.answered(0, 99, [1, None, None, None], 0)
    drive.turn()
    assert drive.said == ["an answer that was not asked for, or came before, is ignored (slot 0, packet 99)"]
