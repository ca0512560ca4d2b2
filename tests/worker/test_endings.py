import signal

import pytest

from chervil.protocol import FAILURE_CODEC, Outcome, unpack_failure
from chervil_worker.endings import Mark, Why, after_death, describe, revoked
from chervil_worker.tasks import Task, TaskTerms

HOW = "SIGSEGV (pid 7)"


def task(**terms: object) -> Task:
    made = Task(bytes(16), 1, "t", b"", attempt=2)
    made.number = 5
    made.terms = TaskTerms(**terms)  # type: ignore[arg-type]
    return made


def test_task_that_was_not_begun_is_called_off_with_a_record():
    outcome, codec, body, options = revoked(task())
    assert (outcome, codec, options) == (Outcome.REVOKED, FAILURE_CODEC, None)
    assert body is not None
    record = unpack_failure(body)
    assert (record.kind, record.type) == ("revoked", "chervil.exceptions.TaskRevokedError")
    assert (record.task_id, record.task_name) == (bytes(16), "t")


def test_death_without_a_signal_of_ours_is_the_tasks_own():
    (outcome, codec, body, options), line = after_death(task(), None, HOW)
    assert (outcome, codec, body, options) == (Outcome.LOST, None, b"SIGSEGV (pid 7), on attempt 2", None)
    assert line.text == f"t[00000000-0000-0000-0000-000000000000] lost on attempt 2: its process died: {HOW}"
    assert (line.task_name, line.task_id) == ("t", "00000000-0000-0000-0000-000000000000")


@pytest.mark.parametrize(
    ("mark", "outcome", "kind"),
    [
        (None, Outcome.FAILURE, "lost"),
        (Mark(Why.REVOKED, signal.SIGTERM, 5), Outcome.REVOKED, "revoked"),
        (Mark(Why.TIME_LIMIT, signal.SIGKILL, 5), Outcome.FAILURE, "time_limit"),
        (Mark(Why.TIME_LIMIT, signal.SIGKILL, 4), Outcome.RELEASE, None),
        (Mark(Why.REVOKED, signal.SIGTERM, 4), Outcome.RELEASE, None),
        (Mark(Why.STOPPED, signal.SIGKILL, 5), Outcome.RELEASE, None),
    ],
)
def test_death_means_what_the_signal_was_sent_for(mark: Mark | None, outcome: int, kind: str | None):
    parts, _ = after_death(task(limit_ns=10**9, fail_on_lost=True), mark, HOW)
    assert parts[0] == outcome
    if kind is None:
        assert parts[3] == {2: True}
    else:
        assert parts[2] is not None
        assert unpack_failure(parts[2]).kind == kind


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (0, "exit code 0 (pid 7)"),
        (3 << 8, "exit code 3 (pid 7)"),
        (signal.SIGSEGV, "SIGSEGV (pid 7)"),
        (signal.SIGKILL | 0x80, "SIGKILL (pid 7), perhaps by the system for want of memory"),  # a core dump
        (signal.SIGRTMIN + 1, f"signal {signal.SIGRTMIN + 1} (pid 7)"),
    ],
)
def test_end_of_a_process_is_told_in_words(status: int, text: str):
    assert describe(status, 7, ours=False) == text


def test_kill_of_our_own_is_not_blamed_on_the_system():
    assert describe(signal.SIGKILL, 7, ours=True) == "SIGKILL (pid 7)"
