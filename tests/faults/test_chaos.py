"""A sample of the run with faults: `make chaos` is the long one."""

from collections import Counter

import pytest

from tests.faults.chaos import (
    DRAIN_SECONDS,
    PUBLISH_MORE_SECONDS,
    TASKS_A_MINUTE,
    Outcome,
    Settings,
    run,
    settings_from,
)
from tests.faults.processes import marked
from tests.faults.troupe import START_SECONDS, STOP_SECONDS
from tests.faults.verdict import Invariant, Verdict

SAMPLE = Settings(tasks=8000, seconds=15, seed=1, slots=(2, 2), publishers=2, kill_after=1, patient=False)
#: All that a run allows itself: it is to tell itself what did not go as it should.
LONGEST_SECONDS = 2 * START_SECONDS + SAMPLE.seconds + PUBLISH_MORE_SECONDS + DRAIN_SECONDS + 4 * STOP_SECONDS


def outcome(verdict: Verdict, *wrong: str) -> Outcome:
    return Outcome(verdict, Counter(), list(wrong), 1.0, [0.5, 1.5])


def test_run_is_well_only_when_nothing_is_broken_held_or_wrong():
    broken = Verdict()
    broken.breach(Invariant.NOTHING_LOST, "a is gone")
    assert outcome(Verdict()).ok
    assert not outcome(broken).ok
    assert not outcome(Verdict(held=1)).ok
    assert not outcome(Verdict(), "a process was left behind").ok
    assert "WRONG: a process was left behind" in outcome(Verdict(), "a process was left behind").text()
    assert "longest recovery of the broker: 1.5 s" in outcome(Verdict()).text()


def test_without_words_the_long_run_is_asked_for_and_all_of_it_can_be_chosen():
    assert settings_from([]) == Settings()
    assert settings_from(["--minutes", "1"]) == Settings(tasks=TASKS_A_MINUTE, seconds=60)
    assert settings_from(["--tasks", "5", "--seed", "7"]) == Settings(tasks=5, seed=7)
    assert settings_from(["--memory"]) == Settings(durable=False)


@pytest.mark.e2e
@pytest.mark.timeout(LONGEST_SECONDS)
def test_nothing_is_lost_or_repeated_unflagged_under_kills_and_cuts(tmp_path):
    came = run(SAMPLE, tmp_path)
    print(came.text())
    assert came.ok, came.text()
    # Others could not be published while no connection was taken.
    assert came.verdict.ran >= SAMPLE.tasks / 2
    assert len(came.recoveries) >= 3
    for fault in ("brokers killed", "children killed", "workers started again", "worker connections: cut"):
        assert came.faults[fault], fault
    assert marked(str(tmp_path)) == []
