"""A sample of the run with faults: `make chaos` is the long one."""

import pytest

from tests.faults.chaos import Settings, run
from tests.faults.processes import marked
from tests.faults.troupe import START_SECONDS

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(START_SECONDS + 200)]


def test_nothing_is_lost_or_repeated_unflagged_under_kills_and_cuts(tmp_path):
    settings = Settings(tasks=3000, seconds=20, seed=1, slots=(2, 2), publishers=2, patient=False)
    outcome = run(settings, tmp_path)
    print(outcome.text())
    assert outcome.ok, outcome.text()
    assert outcome.verdict.ran >= 3000 * 0.9
    for fault in ("children killed", "workers started again", "worker connections: cut"):
        assert outcome.faults[fault], fault
    assert marked(str(tmp_path)) == []
