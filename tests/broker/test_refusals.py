"""What repeats itself shares a line, counted by reason."""

import pytest

from chervil_broker import refusals as refusals_module
from chervil_broker.refusals import QUIET_SECONDS, Refusals


@pytest.fixture(autouse=True)
def _log(caplog):
    caplog.set_level("WARNING")


def test_the_first_is_logged_at_once(caplog):
    refusals = Refusals()
    refusals.refuse(0.0, "1", "web-1", "FULL", "no room", 3)
    assert caplog.messages == ["web-1 refused: FULL: no room (3 times)"]


def test_more_of_the_same_share_a_line_later(caplog):
    refusals = Refusals()
    for at in range(5):
        refusals.refuse(float(at), "1", "web-1", "FULL", "no room")
    refusals.look(QUIET_SECONDS - 1)
    assert len(caplog.messages) == 1
    refusals.look(QUIET_SECONDS)
    assert caplog.messages[1:] == ["web-1 refused: FULL: no room (4 more in 10 s)"]


def test_other_reasons_are_told_apart_up_to_a_few(caplog):
    refusals = Refusals()
    for at, reason in enumerate("aabacdefa"):
        refusals.refuse(float(at), "1", "web-1", "AUTH_FAILED", f"token of {reason}")
    refusals.look(QUIET_SECONDS)
    assert caplog.messages[1] == (
        "web-1 refused: AUTH_FAILED: token of a (3); AUTH_FAILED: token of b (1); AUTH_FAILED: token of c (1); "
        "AUTH_FAILED: token of d (1); other reasons (2) (8 more in 10 s)"
    )
    refusals.look(2 * QUIET_SECONDS)
    refusals.look(3 * QUIET_SECONDS)
    assert len(caplog.messages) == 2


def test_a_long_reason_is_kept_in_part(caplog):
    refusals = Refusals()
    for _ in range(2):
        refusals.refuse(0.0, "1", "web-1", "BAD_FIELD", "x" * 5_000)
    refusals.look(QUIET_SECONDS)
    assert len(caplog.messages[1]) < 500


def test_other_peers_and_other_codes_have_lines_of_their_own(caplog):
    refusals = Refusals()
    for key, code in (("1", "FULL"), ("2", "FULL"), ("1", "BAD_TASK")):
        refusals.refuse(0.0, key, f"web-{key}", code, "no")
    assert len(caplog.messages) == 3


def test_what_has_ended_is_forgotten_and_logged_when_it_begins_again(caplog):
    refusals = Refusals()
    refusals.refuse(0.0, "1", "web-1", "FULL", "no")
    refusals.look(QUIET_SECONDS)
    refusals.refuse(QUIET_SECONDS + 1, "1", "web-1", "FULL", "no")
    assert len(caplog.messages) == 2


def test_peers_without_number_share_a_line(caplog, monkeypatch):
    monkeypatch.setattr(refusals_module, "TOLD_APART_MAX", 3)
    refusals = Refusals()
    for key in range(100):
        refusals.refuse(0.0, str(key), f"stranger {key}", "BAD_FRAME", "no")
    refusals.look(QUIET_SECONDS)
    assert len(caplog.messages) == 5
    assert caplog.messages[-1] == "others refused: BAD_FRAME: no (96 more in 10 s)"
