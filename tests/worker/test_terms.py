"""On what terms tasks run: who says so, and what is said where nobody does."""

from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from chervil import Chervil
from chervil.protocol import TaskOption
from chervil_worker import log
from chervil_worker.options import WorkerOptions
from chervil_worker.terms import PLAIN, Terms, special_terms, terms_of

FLAGS: Any = SimpleNamespace(time_limit=20.0, soft_time_limit=10.0)
NO_FLAGS: Any = SimpleNamespace(time_limit=None, soft_time_limit=None)


def terms(app: Chervil, flags: Any = NO_FLAGS, **options: Any) -> Terms:
    return terms_of(app.task(**options)(lambda: None), app.conf, flags)


@pytest.fixture
def app() -> Chervil:
    return Chervil("proj", set_as_current=False)


def test_task_of_which_nothing_is_said_runs_on_plain_terms(app: Chervil):
    assert terms(app) == PLAIN == Terms(None, None, early=False, fail_on_lost=False)


def test_the_tasks_word_comes_before_the_flag_and_that_before_the_setting(app: Chervil):
    app.conf.update(task_time_limit=4, task_soft_time_limit=timedelta(seconds=3))
    assert terms(app)[:2] == (4000, 3000)
    assert terms(app, FLAGS)[:2] == (20_000, 10_000)
    assert terms(app, FLAGS, time_limit=0.5, soft_time_limit=0.25)[:2] == (500, 250)


def test_limit_of_zero_says_nothing_and_one_below_a_millisecond_is_one(app: Chervil):
    assert terms(app, FLAGS, time_limit=0, soft_time_limit=0)[:2] == (20_000, 10_000)
    assert terms(app, time_limit=1e-9).hard_ms == 1


@pytest.mark.parametrize(
    ("setting", "option", "early"),
    [(True, None, False), (False, None, True), (True, False, True), (False, True, False)],
)
def test_task_says_when_it_is_acked_else_the_setting(
    app: Chervil, *, setting: bool, option: bool | None, early: bool
):
    app.conf.task_acks_late = setting
    assert terms(app, acks_late=option).early is early


@pytest.mark.parametrize(
    ("setting", "option", "fails"),
    [
        (None, None, False),
        (True, None, False),
        (False, None, True),
        (None, False, True),
        (False, True, False),
    ],
)
def test_only_a_false_makes_a_lost_task_a_failure(
    app: Chervil, *, setting: bool | None, option: bool | None, fails: bool
):
    app.conf.task_reject_on_worker_lost = setting
    assert terms(app, reject_on_worker_lost=option).fail_on_lost is fails


def test_attribute_that_is_no_limit_names_its_task(app: Chervil):
    task = app.task(name="work")(lambda: None)
    task.time_limit = "soon"  # type: ignore[assignment]
    with pytest.raises(TypeError, match="time_limit of work wants seconds"):
        terms_of(task, app.conf, NO_FLAGS)


@pytest.mark.parametrize(
    ("options", "of_app", "expected"),
    [
        ({TaskOption.TIME_LIMIT_MS: 20}, Terms(1500, 700), Terms(20, 700)),
        ({TaskOption.SOFT_TIME_LIMIT_MS: 20}, Terms(1500, 700), Terms(1500, 20)),
        ({TaskOption.TIME_LIMIT_MS: 0, TaskOption.SOFT_TIME_LIMIT_MS: 0}, Terms(1500, 700), PLAIN),
        ({TaskOption.EARLY_ACK: True}, PLAIN, Terms(early=True)),
        ({TaskOption.EARLY_ACK: False}, Terms(early=True), PLAIN),
        ({TaskOption.FAIL_ON_LOST: True}, PLAIN, Terms(fail_on_lost=True)),
        ({TaskOption.FAIL_ON_LOST: False}, Terms(fail_on_lost=True), PLAIN),
        ({TaskOption.RETRIES: 1}, Terms(1, 2, early=True, fail_on_lost=True), None),
    ],
)
def test_what_a_call_says_comes_first(options: dict[int, Any], of_app: Terms, expected: Terms | None):
    assert of_app.called(options) == (of_app if expected is None else expected)


def test_only_special_terms_are_told_of(app: Chervil):
    app.task(name="plain")(lambda: None)
    app.task(name="early", acks_late=False)(lambda: None)
    assert special_terms(app.tasks, app.conf, WorkerOptions(concurrency=1)) == {"early": Terms(early=True)}


def test_soft_limit_that_comes_too_late_is_warned_of_once(app: Chervil, caplog: pytest.LogCaptureFixture):
    caplog.set_level("WARNING", log.worker.name)
    app.conf.task_soft_time_limit = 10
    app.task(name="brief", time_limit=5)(lambda: None)
    app.task(name="b", time_limit=10)(lambda: None)
    app.task(name="long", time_limit=50)(lambda: None)
    special_terms(app.tasks, app.conf, NO_FLAGS)
    (record,) = caplog.records
    assert "(b, brief): make soft_time_limit shorter" in record.getMessage()
