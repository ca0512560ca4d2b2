import pytest

from chervil import states
from chervil.protocol import FINAL, Stage

WORDS = {
    Stage.UNKNOWN: "UNKNOWN",
    Stage.WAITING: "PENDING",
    Stage.SCHEDULED: "PENDING",
    Stage.QUEUED: "PENDING",
    Stage.LEASED: "PENDING",
    Stage.STARTED: "STARTED",
    Stage.RETRY: "RETRY",
    Stage.SUCCESS: "SUCCESS",
    Stage.FAILURE: "FAILURE",
    Stage.DEAD: "FAILURE",
    Stage.REVOKED: "REVOKED",
    Stage.EXPIRED: "REVOKED",
    Stage.UPSTREAM_FAILED: "FAILURE",
    Stage.EVICTED: "EVICTED",
}


@pytest.mark.parametrize("stage", Stage)
def test_a_stage_has_celerys_word(stage):
    assert states.STATE_OF_STAGE[stage.name] == WORDS[stage]


def test_no_word_is_for_a_stage_that_the_protocol_does_not_have():
    assert set(states.STATE_OF_STAGE) == {stage.name for stage in Stage}
    assert set(states.STATE_OF_STAGE.values()) == states.ALL_STATES


def test_a_state_is_ready_exactly_where_its_stages_are_final():
    for stage in Stage:
        assert (states.STATE_OF_STAGE[stage.name] in states.READY_STATES) == (stage in FINAL)


def test_a_state_is_ready_or_not_and_only_unknown_is_neither():
    assert not states.READY_STATES & states.UNREADY_STATES
    assert {"UNKNOWN"} == states.ALL_STATES - states.READY_STATES - states.UNREADY_STATES


def test_the_sets_are_celerys():
    assert {"FAILURE", "REVOKED"} == states.PROPAGATE_STATES
    assert {"RETRY", "FAILURE", "REVOKED"} == states.EXCEPTION_STATES


@pytest.mark.parametrize("stage", Stage)
def test_a_result_speaks_both_languages(app, broker, stage):
    broker.statuses["a"] = ["a", int(stage), None, None, None]
    result = app.AsyncResult("a")
    assert (result.state, result.status, result.stage) == (WORDS[stage], WORDS[stage], stage.name)
