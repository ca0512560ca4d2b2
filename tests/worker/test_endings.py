import logging
import signal

import pytest

from chervil.protocol import FAILURE_CODEC, Outcome, TaskOption, unpack_failure
from chervil_worker.endings import Mark, Why, after_death, describe, in_vain, revoked, signal_of
from chervil_worker.tasks import Task
from chervil_worker.terms import PLAIN, Terms

HOW = "SIGSEGV (pid 7)"


def task(terms: Terms = PLAIN, options: dict[int, int] | None = None) -> Task:
    made = Task(bytes(16), 1, "t", b"", attempt=2, options=options)
    made.number = 5
    made.terms = terms
    return made


def test_task_that_was_not_begun_is_called_off_with_a_record():
    outcome, codec, body, options = revoked(task())
    assert (outcome, codec, options) == (Outcome.REVOKED, FAILURE_CODEC, None)
    assert body is not None
    record = unpack_failure(body)
    assert (record.kind, record.type) == ("revoked", "chervil.exceptions.TaskRevokedError")
    assert (record.task_id, record.task_name) == (bytes(16), "t")


def test_death_without_a_signal_of_ours_is_the_tasks_own():
    (outcome, codec, body, options), line = after_death(task(), None, HOW, signal.SIGSEGV)
    assert (outcome, codec, body, options) == (Outcome.LOST, None, b"SIGSEGV (pid 7), on attempt 2", None)
    assert line.text == (
        f"t[00000000-0000-0000-0000-000000000000] lost on attempt 2: its process died: {HOW}; it runs again"
    )
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
        (Mark(Why.NO_ANSWER, signal.SIGKILL, 5), Outcome.FAILURE, "lost"),
        (Mark(Why.NO_END, signal.SIGKILL, 5), Outcome.FAILURE, "lost"),
        (Mark(Why.NO_ANSWER, signal.SIGKILL, 4), Outcome.RELEASE, None),
    ],
)
def test_death_means_what_the_signal_was_sent_for(mark: Mark | None, outcome: int, kind: str | None):
    ended_by = signal.SIGSEGV if mark is None else mark.signal
    parts, _ = after_death(task(Terms(hard_ms=1000, fail_on_lost=True)), mark, HOW, ended_by)
    assert parts[0] == outcome
    if kind is None:
        assert parts[3] == {2: True}
    else:
        assert parts[2] is not None
        assert unpack_failure(parts[2]).kind == kind


@pytest.mark.parametrize(
    ("terms", "limit", "outcome", "follows"),
    [
        (PLAIN, 3, Outcome.LOST, "it runs again"),
        (PLAIN, 2, Outcome.LOST, "it is parked as DEAD, as its delivery limit is 2"),
        (Terms(early=True), 3, Outcome.LOST, "it ends as FAILURE, as it runs at most once"),
        (Terms(fail_on_lost=True), 3, Outcome.FAILURE, "it ends as FAILURE (reject_on_worker_lost=False)"),
    ],
)
def test_loss_says_what_follows(terms: Terms, limit: int, outcome: int, follows: str):
    parts, line = after_death(task(terms, {int(TaskOption.DELIVERY_LIMIT): limit}), None, HOW, None)
    assert parts[0] == outcome
    assert f"; {follows}" in line.text


@pytest.mark.parametrize(
    ("terms", "follows"),
    [
        (PLAIN, "runs again, uncharged"),
        (Terms(early=True), "ends as FAILURE, as it had begun and runs at most"),
    ],
)
def test_task_that_was_cut_off_says_what_follows(terms: Terms, follows: str):
    parts, line = after_death(task(terms), Mark(Why.STOPPED, signal.SIGKILL, 5), HOW, None)
    assert parts[0] == Outcome.RELEASE, "and the broker makes of it what follows"
    assert f"was cut off and {follows}" in line.text


@pytest.mark.parametrize(("forgotten", "follows"), [(True, "publish it again"), (False, "has it run again")])
def test_end_that_came_too_late_is_a_warning_that_says_what_follows(forgotten: bool, follows: str):
    line = in_vain(task(), "SUCCESS", forgotten=forgotten)
    assert line.level == logging.WARNING
    assert "came to its end (SUCCESS), and that is dropped" in line.text
    assert follows in line.text


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
    assert describe(status, 7, None) == text


@pytest.mark.parametrize(
    ("why", "said"),
    [
        (Why.TIME_LIMIT, ""),
        (Why.NO_ANSWER, ", from the worker: it had sent what is no answer"),
        (Why.NO_END, ", from the worker: its answer did not end"),
    ],
)
def test_kill_of_our_own_is_not_blamed_on_the_system(why: Why, said: str):
    assert describe(signal.SIGKILL, 7, Mark(why, signal.SIGKILL, 5)) == f"SIGKILL (pid 7){said}"


def test_kill_of_somebody_elses_after_a_softer_signal_of_ours_may_be_the_systems():
    said = describe(signal.SIGKILL, 7, Mark(Why.REVOKED, signal.SIGTERM, 5))
    assert said == "SIGKILL (pid 7), perhaps by the system for want of memory"


@pytest.mark.parametrize(
    ("status", "number"),
    [(None, None), (0, None), (3 << 8, None), (signal.SIGSEGV, 11), (signal.SIGKILL | 0x80, 9)],
)
def test_signal_that_ended_a_process_is_known_where_there_was_one(status: int | None, number: int | None):
    assert signal_of(status) == number


@pytest.mark.parametrize("ended_by", [None, signal.SIGSEGV])
def test_death_after_a_survived_signal_for_another_task_is_the_tasks_own(ended_by: int | None):
    parts, line = after_death(task(), Mark(Why.REVOKED, signal.SIGTERM, 4), HOW, ended_by)
    assert parts[0] == Outcome.LOST
    assert f"its process died: {HOW}" in line.text


@pytest.mark.parametrize(
    ("ended_by", "said"),
    [
        (signal.SIGTERM, "terminated by SIGTERM"),
        (signal.SIGSEGV, "terminated by SIGSEGV"),
        (None, "terminated by SIGTERM: exit code 3 (pid 7)"),
    ],
)
def test_task_that_was_called_off_names_what_ended_it(ended_by: int | None, said: str):
    mark = Mark(Why.REVOKED, signal.SIGTERM, 5)
    (_, _, body, _), line = after_death(task(), mark, "exit code 3 (pid 7)", ended_by)
    assert body is not None
    assert unpack_failure(body).message == said
    assert line.text.endswith(f"revoked while it ran: {said}")
