"""The machine, told what happens one thing at a time; test_machine_cuts.py tells it anything in any order."""

import signal

import pytest

from chervil.protocol import Outcome, TaskOption, to_text
from chervil.protocol.messages import Complete, Completed, Credit, Resume, Started, Subscribe
from chervil_worker import outbox
from chervil_worker.machine import CUT_OFF, DONE, HOLD_NS, LAST_WORDS_NS, STOP_WAIT_NS, Kill
from chervil_worker.terms import Terms
from tests.worker.broker import task_id
from tests.worker.drive import (
    LATER,
    SECOND,
    Drive,
    completions,
    connected,
    inventory_of,
    of_kind,
    outcomes,
)

EARLY = {int(TaskOption.EARLY_ACK): True}
RELEASED_AS_CLAIMED = {2: True}


def test_first_connection_begins_with_a_subscription_and_credit():
    drive = Drive(2)
    assert drive.machine.credentials is None
    assert drive.connect() == [Subscribe(1, ["q"], ["add"], {1: 2, 3: 7}), Credit(2)]
    assert drive.machine.credentials == [b"s" * 16, b"x" * 32]


def test_nothing_is_sent_and_nothing_given_up_while_the_broker_is_away():
    drive = connected()
    drive.deepen()
    drive.deliver(1, 2, 3)
    drive.begin()
    drive.lose()
    assert drive.finish() == []
    drive.begin()
    assert drive.tick(LATER) == []
    assert not drive.machine.slots.idle
    assert drive.machine.exit_code is None


def test_resumed_session_begins_with_inventory_old_completions_subscription_and_credit():
    drive = connected()
    drive.deepen()
    drive.deliver(1, 2, 3, 4, 5)
    drive.begin()
    drive.finish()  # told, not answered
    before = drive.machine.outbox.sequence
    drive.lose()
    drive.begin()
    drive.finish()  # 2: done while the broker was away
    drive.begin()  # and 3 runs
    messages = drive.connect(resumed=True)
    assert [type(message) for message in messages] == [Resume, Complete, Subscribe, Complete, Credit]
    resume, old, _, new, credit = messages
    assert (resume.sequence, resume.more) == (before, False)
    assert inventory_of(messages) == {1: 1, 2: 1, 3: 1, 4: 0, 5: 0}
    assert (old.sequence, outcomes([old])) == (before, {1: Outcome.SUCCESS})
    assert (new.sequence, outcomes([new])) == (before + 1, {2: Outcome.SUCCESS})
    assert credit.limit == 32 - 3, "counted from 0 again, less what is held"
    # The unread ones, stated as unstarted, are with the child again, and nothing was given back.
    assert [task.id for task in drive.children[0].unread] == [task_id(4), task_id(5)]


def test_task_that_a_child_was_sent_and_did_not_read_is_stated_as_unstarted():
    drive = connected()
    drive.deliver(1)
    drive.lose()
    assert inventory_of(drive.connect(resumed=True)) == {1: 0}
    drive.begin()
    assert outcomes(drive.finish()) == {1: Outcome.SUCCESS}


def test_answer_that_is_read_while_the_inventory_is_made_is_stated_as_begun():
    drive = connected()
    drive.deliver(1)
    drive.lose()
    drive.begin()
    drive.answer()  # in the socket
    messages = drive.connect(resumed=True)
    assert inventory_of(messages) == {1: 1}
    assert outcomes(messages) == {1: Outcome.SUCCESS}


def test_completion_that_was_answered_is_not_sent_again():
    drive = connected()
    drive.deliver(1)
    drive.begin()
    (complete,) = of_kind(drive.finish(), Complete)
    drive.machine.completed(Completed(complete.sequence))
    drive.lose()
    messages = drive.connect(resumed=True)
    assert inventory_of(messages) == {}
    assert of_kind(messages, Complete) == []


def test_empty_inventory_is_sent_too():
    drive = connected()
    drive.lose()
    messages = drive.connect(resumed=True)
    assert messages[0] == Resume(2, [], 0, False)


def test_report_of_a_long_run_is_not_repeated_as_the_inventory_says_so():
    drive = connected()
    drive.deliver(1)
    drive.begin()
    drive.lose()
    drive.tick(LATER)
    messages = drive.connect(resumed=True)
    assert inventory_of(messages) == {1: 1}
    assert of_kind(messages, Started) == []


@pytest.mark.parametrize(
    ("instance", "said", "follows"),
    [
        (b"i", "away for too long", "has it run again or has ended it"),
        (b"j", "started anew and has forgotten", "has forgotten the task; publish it again"),
    ],
)
def test_session_that_is_not_resumed_drops_what_is_held_and_counts_sequences_anew(
    instance: bytes, said: str, follows: str
):
    drive = connected()
    drive.deepen()
    drive.deliver(1, 2, 3)
    drive.begin()
    drive.finish()
    drive.begin()
    drive.lose()
    messages = drive.connect(instance=instance, session=b"t")
    assert [type(message) for message in messages] == [Subscribe, Credit]
    assert drive.machine.credentials is not None
    assert drive.machine.credentials[0] == b"t" * 16
    line = drive.said[-1]
    assert said in line
    assert "whose results are dropped: 1; tasks not begun, and dropped: 1; completions" in line
    assert line.endswith("not have heard of: 1 (00000000-0000-0000-0000-000000000001)")
    assert drive.finish() == []
    assert drive.machine.orphans.count == 1
    assert "came to its end (SUCCESS), and that is dropped: its session was over" in drive.said[-1]
    assert follows in drive.said[-1]
    drive.deliver(4)
    drive.begin()
    (complete,) = of_kind(drive.finish(), Complete)
    assert (complete.sequence, outcomes([complete])) == (1, {4: Outcome.SUCCESS})


def test_nothing_new_is_begun_once_another_worker_may_have_it():
    drive = connected()
    drive.deepen()
    drive.deliver(1, 2, 3)
    drive.begin()
    drive.lose()
    drive.tick(LATER)
    assert drive.machine.next_look == HOLD_NS
    drive.finish()
    drive.begin()
    drive.finish()
    drive.tick(HOLD_NS)
    assert not drive.children[0].unread
    assert inventory_of(drive.connect(resumed=True)) == {1: 1, 2: 1, 3: 0}
    drive.begin()
    assert outcomes(drive.finish()) == {3: Outcome.SUCCESS}


def test_more_deliveries_than_credit_end_the_connection_and_are_not_taken():
    drive = connected()
    drive.deliver(1, 2)
    assert drive.machine.hang_up == "the broker delivers more than it was given credit for"
    assert drive.machine.slots.idle
    drive.lose()
    assert drive.machine.hang_up is None


def test_stale_verdict_is_logged_and_a_duplicate_is_not():
    drive = connected()
    drive.deepen()
    drive.deliver(1, 2)
    for _ in range(2):
        drive.begin()
        drive.answer()
    drive.read(0)
    (complete,) = of_kind(drive.turn(), Complete)
    drive.machine.completed(Completed(complete.sequence, [[0, 1], [1, 2]]))
    drive.turn()
    (line,) = drive.said
    assert line.startswith(f"a completion of [{to_text(task_id(2))}] (SUCCESS) was not applied")


def test_children_are_not_read_while_more_is_untold_than_should_be(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(outbox, "UNANSWERED_BYTES_MAX", 1)
    drive = connected()
    drive.deliver(1)
    drive.begin()
    drive.lose()
    assert not drive.machine.choked
    drive.finish()
    assert drive.machine.choked
    drive.connect(resumed=True)
    assert drive.machine.choked, "sent again, not answered"
    drive.confirm()
    assert not drive.machine.choked


# The end


def test_warm_stop_gives_back_what_was_not_begun_and_waits_for_the_rest():
    drive = connected()
    drive.deepen()
    drive.deliver(1, 2)
    drive.begin()
    drive.machine.drain()
    assert outcomes(drive.turn()) == {2: Outcome.RELEASE}
    assert drive.machine.exit_code is None
    drive.finish()
    assert drive.machine.exit_code is None
    drive.confirm()
    assert drive.machine.exit_code == DONE


def test_task_that_was_given_back_is_stated_as_unstarted_until_the_broker_has_heard_of_it():
    drive = connected()
    drive.deliver(1)
    drive.machine.drain()
    assert outcomes(drive.turn()) == {1: Outcome.RELEASE}
    drive.lose()
    messages = drive.connect(resumed=True)
    assert inventory_of(messages) == {1: 0}
    assert outcomes(messages) == {1: Outcome.RELEASE}


def test_warm_stop_gives_back_a_task_that_is_being_claimed():
    drive = connected()
    (started,) = of_kind(drive.deliver(1, options=EARLY), Started)
    drive.machine.drain()
    (completion,) = completions(drive.turn())
    assert (completion[2], completion[5]) == (Outcome.RELEASE, None)
    drive.machine.ok(started.request, 1)
    drive.turn()
    assert not drive.children[0].unread


def test_child_that_dies_while_the_worker_stops_is_not_replaced():
    drive = connected()
    drive.deliver(1)
    drive.begin()
    drive.machine.drain()
    assert outcomes(drive.die()) == {1: Outcome.LOST}
    assert drive.spawns == []


@pytest.fixture
def done_without_a_broker() -> Drive:
    """Told to stop, and done with what ran, while the broker is away."""
    drive = connected()
    drive.deliver(1)
    drive.begin()
    drive.lose()
    drive.machine.drain()
    drive.finish()
    assert drive.machine.exit_code is None
    return drive


def test_warm_stop_waits_for_a_broker_that_is_away_until_it_has_given_up_on_us(done_without_a_broker: Drive):
    drive = done_without_a_broker
    drive.tick(STOP_WAIT_NS - 1)
    assert drive.machine.exit_code is None
    drive.tick(1)
    assert drive.machine.exit_code == CUT_OFF
    assert "completions: 1" in drive.said[-1]


def test_session_that_was_forsaken_leaves_nothing_to_the_next_one():
    drive = connected()
    drive.deliver(1)
    drive.begin()
    drive.finish()
    drive.machine.forsake()
    drive.lose()
    messages = drive.connect(session=b"t")
    assert [type(message) for message in messages] == [Subscribe, Credit]
    assert drive.machine.outbox.unanswered == 0
    drive.machine.drain()
    drive.turn()
    assert drive.machine.exit_code == DONE


def test_signal_is_sent_once_though_every_resumed_session_hears_of_it_again():
    drive = connected()
    drive.deliver(1)
    drive.begin()
    drive.cancel(1, signal.SIGTERM)
    for _ in range(3):
        drive.lose()
        drive.connect(resumed=True)
        drive.cancel(1, signal.SIGTERM)
    assert drive.kills == [Kill(0, signal.SIGTERM)]
    drive.cancel(1, signal.SIGKILL)
    assert drive.kills[1:] == [Kill(0, signal.SIGKILL)]


@pytest.mark.parametrize(
    ("durability", "back", "code"),
    [("memory", False, CUT_OFF), ("always", False, None), ("memory", True, None)],
    ids=["forgetful", "durable", "one that came back and was cut off"],
)
def test_warm_stop_does_not_wait_for_a_broker_that_has_stopped_and_kept_nothing(
    durability: str, back: bool, code: int | None
):
    drive = Drive()
    drive.connect(durability=durability)
    drive.deliver(1)
    drive.begin()
    drive.finish()
    drive.machine.broker_stops()
    drive.lose()
    if back:
        drive.connect(durability=durability, resumed=True)
        drive.lose()
    drive.machine.drain()
    drive.turn()
    drive.tick()
    assert drive.machine.exit_code == code


def test_broker_that_comes_back_in_time_hears_all_before_a_warm_stop_ends(done_without_a_broker: Drive):
    drive = done_without_a_broker
    assert outcomes(drive.connect(resumed=True)) == {1: Outcome.SUCCESS}
    drive.tick(STOP_WAIT_NS)
    assert drive.machine.exit_code is None
    drive.confirm()
    assert drive.machine.exit_code == DONE


def test_cold_stop_kills_what_runs_and_gives_it_back_uncharged_when_it_is_dead():
    drive = connected(2)
    drive.deliver(1, 2)
    drive.begin(0)
    drive.begin(1)
    drive.answer(1)  # reported: stands
    drive.machine.cut_off(drive.now)
    assert outcomes(drive.turn()) == {2: Outcome.SUCCESS}
    assert drive.kills == [Kill(0, signal.SIGKILL)]
    (completion,) = completions(drive.die())
    assert completion == [1, 1, Outcome.RELEASE, None, b"worker stopped", RELEASED_AS_CLAIMED]
    assert drive.machine.exit_code is None
    drive.confirm()
    assert drive.machine.exit_code == CUT_OFF


def test_cold_stop_does_not_take_a_kill_for_a_time_limit_back():
    drive = connected(terms={"slow": Terms(hard_ms=1000)})
    drive.deliver(1, name="slow")
    drive.begin()
    drive.tick(LATER)
    drive.tick(SECOND)
    drive.machine.cut_off(drive.now)
    drive.turn()
    assert len(drive.kills) == 1
    assert outcomes(drive.die()) == {1: Outcome.FAILURE}


def test_cold_stop_ends_though_the_broker_does_not_answer():
    drive = connected()
    drive.deliver(1)
    drive.begin()
    drive.machine.cut_off(drive.now)
    drive.turn()
    drive.die()
    drive.tick(LAST_WORDS_NS)
    assert drive.machine.exit_code == CUT_OFF


def test_death_of_the_nursery_charges_every_task_that_ran():
    drive = connected(2)
    drive.deliver(1, 2)
    drive.begin(0)
    drive.begin(1)
    drive.machine.nursery_died(drive.now)
    drive.turn()
    drive.now += LATER
    assert drive.machine.next_look == LAST_WORDS_NS, "there is nothing to look into"
    drive.machine.tick(drive.now)
    assert drive.machine.looks == set()
    messages = drive.die(0, status=None) + drive.die(1, status=None)
    assert outcomes(messages) == {1: Outcome.LOST, 2: Outcome.LOST}
    assert completions(messages)[0][4] == b"the worker's nursery died, on attempt 1"
    drive.confirm()
    assert drive.machine.exit_code == CUT_OFF
