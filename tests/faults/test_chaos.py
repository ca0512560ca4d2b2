"""A sample of the run with faults: `make chaos` is the long one."""

from collections import Counter

import pytest

from tests.faults.chaos import Outcome, Settings, run, settings_from
from tests.faults.processes import marked
from tests.faults.troupe import START_SECONDS
from tests.faults.verdict import Invariant, Verdict


def outcome(verdict: Verdict, *wrong: str) -> Outcome:
    return Outcome(verdict, Counter(), list(wrong), 1.0, {})


def test_run_is_well_only_when_nothing_is_broken_held_or_wrong():
    broken = Verdict()
    broken.breach(Invariant.NOTHING_LOST, "a is gone")
    assert outcome(Verdict()).ok
    assert not outcome(broken).ok
    assert not outcome(Verdict(held=1)).ok
    assert not outcome(Verdict(), "a process was left behind").ok
    assert "WRONG: a process was left behind" in outcome(Verdict(), "a process was left behind").text()


def test_without_words_the_long_run_is_asked_for_and_a_seed_can_be_named():
    assert settings_from([]) == Settings()
    assert settings_from(["--tasks", "5", "--seed", "7"]) == Settings(tasks=5, seed=7)


@pytest.mark.e2e
@pytest.mark.timeout(START_SECONDS + 200)
def test_nothing_is_lost_or_repeated_unflagged_under_kills_and_cuts(tmp_path):
    settings = Settings(tasks=3000, seconds=20, seed=1, slots=(2, 2), publishers=2, patient=False)
    came = run(settings, tmp_path)
    print(came.text())
    assert came.ok, came.text()
    assert came.verdict.ran >= 3000 * 0.9
    for fault in ("children killed", "workers started again", "worker connections: cut"):
        assert came.faults[fault], fault
    assert marked(str(tmp_path)) == []
