"""The protocol's numbers."""

import pytest

from chervil.protocol import FINAL, Outcome, RetryOption, Side, Stage, TaskOption, rows
from chervil.protocol.vocabulary import Info, SubscribeOption, WelcomeOption


def test_each_side_has_the_other():
    assert Side.CLIENT.other is Side.BROKER
    assert Side.BROKER.other is Side.CLIENT


def test_final_stages_are_the_last_numbers():
    assert sorted(FINAL) == [stage for stage in Stage if stage >= Stage.SUCCESS]


@pytest.mark.parametrize("option", ["DELAY_MS", "DUE_AT", "EXPIRES_MS", "EXPIRES_AT"])
def test_a_retry_says_times_as_a_task_does(option):
    assert RetryOption[option] == TaskOption[option]


def test_a_retrys_other_options_are_no_tasks_options():
    own = set(RetryOption) - {2, 4, 6, 8}
    assert not own & set(map(int, TaskOption))


@pytest.mark.parametrize("options", [Info, WelcomeOption, SubscribeOption])
def test_options_that_inform_are_odd_so_that_older_peers_pass_over_them(options):
    assert all(key % 2 for key in options)


def test_every_option_has_a_check():
    assert set(rows.TASK_OPTIONS) == set(TaskOption)
    assert set(rows.RETRY_OPTIONS) == set(RetryOption)
    assert set(rows.INFO_OPTIONS) == set(Info)


def test_outcomes_start_at_one_without_a_gap():
    assert [int(outcome) for outcome in Outcome] == list(range(1, len(Outcome) + 1))
