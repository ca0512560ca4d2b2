"""What came of a task: stdout, stderr and the exit code."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from chervil.cli.outcome import PATIENCE_SECONDS, _as_text
from chervil.client import Status
from chervil.failure import failure_body
from chervil.protocol import Info, Stage
from chervil.serialization import encode
from tests.client.cli.conftest import Broker, Ran

Run = Callable[..., Ran]
ID = "7b0b0c2e-5f5e-4b43-9a53-0f3e6f3c0a11"


def success(value: Any) -> Status:
    return Status(ID, Stage.SUCCESS, "json", encode("json", value), {})


def failure(stage: Stage, exc: Exception, traceback: str | None = None) -> Status:
    return Status(ID, stage, "failure", failure_body(exc, ID, "tasks.add", traceback=traceback), {})


@pytest.mark.parametrize(
    ("value", "text"),
    [(5, "5"), ("a text", "a text"), (None, "null"), ({"a": [1, True]}, '{"a": [1, true]}'), ("", "")],
)
def test_a_result_is_printed_as_json_and_text_as_it_is(
    chervil: Run, broker: Broker, value: Any, text: str
) -> None:
    broker.statuses = [success(value)]
    assert chervil("result", ID) == Ran(0, f"{text}\n", "")


def test_an_ignored_result_is_null(chervil: Run, broker: Broker) -> None:
    broker.statuses = [Status(ID, Stage.SUCCESS, None, None, {})]
    assert chervil("result", ID) == Ran(0, "null\n", "")


def test_a_failed_task_is_1_and_its_traceback_goes_to_stderr(chervil: Run, broker: Broker) -> None:
    broker.statuses = [
        failure(Stage.FAILURE, ValueError("bad"), "Traceback ...\n  line 3\nValueError: bad\n")
    ]
    ran = chervil("result", ID)
    assert (ran.code, ran.out) == (1, "")
    assert ran.err == f"Traceback ...\n  line 3\nValueError: bad\nTask tasks.add[{ID}] ended as FAILURE.\n"


def test_a_dead_task_without_a_traceback_is_told_in_a_line(chervil: Run, broker: Broker) -> None:
    broker.statuses = [failure(Stage.DEAD, RuntimeError("SIGKILL, 3 times"))]
    ran = chervil("result", ID)
    assert ran.code == 1
    assert ran.err == (
        f"Task tasks.add[{ID}] ended as DEAD: builtins.RuntimeError: SIGKILL, 3 times\n"
        f"How it came to that: chervil why {ID}\n"
    )


@pytest.mark.parametrize("stage", [Stage.REVOKED, Stage.EXPIRED])
def test_a_task_that_never_ran_is_1(chervil: Run, broker: Broker, stage: Stage) -> None:
    broker.statuses = [Status(ID, stage, None, None, {})]
    for line in (["result", ID], ["call", "tasks.add", "--task-id", ID, "--wait", "-q"]):
        assert chervil(*line) == Ran(
            1, "", f"Task {ID} ended as {stage.name}. How it came to that: chervil why {ID}\n"
        )


def test_an_unknown_id_is_69_and_names_the_broker_and_where_its_url_came_from(
    chervil: Run, broker: Broker
) -> None:
    broker.statuses = [Status(ID, Stage.UNKNOWN, None, None, {})]
    ran = chervil("result", ID)
    assert ran.code == 69
    assert ran.err.startswith(f"Error: chervil://127.0.0.1:2437 (from default) knows no task {ID}.")
    assert "the broker was restarted since" in ran.err
    assert "another broker (-b URL)" in ran.err


def test_a_lost_broker_is_one_line_on_stderr(chervil: Run, broker: Broker) -> None:
    broker.statuses = [success(5)]
    broker.lost = "lost the broker"
    assert chervil("result", ID, "--wait") == Ran(0, "5\n", "lost the broker\n")
    assert chervil("result", ID, "--wait", "-q").err == ""


def test_a_lost_broker_is_waited_for_half_a_minute() -> None:
    assert PATIENCE_SECONDS == 30.0


def test_a_timeout_of_zero_says_that_it_is_not_finished(chervil: Run, broker: Broker) -> None:
    broker.statuses = [Status(ID, Stage.STARTED, None, None, {})]
    assert chervil("result", ID, "-w", "--timeout", "0") == Ran(
        124, "", f"Task {ID} is not finished: running\n"
    )


def test_an_evicted_result_is_69(chervil: Run, broker: Broker) -> None:
    broker.statuses = [Status(ID, Stage.EVICTED, None, None, {})]
    ran = chervil("result", ID)
    assert ran.code == 69
    assert ran.err == (
        f"Error: task {ID} ended, and its result was dropped: for room, because its time was over, or because "
        f"somebody forgot it. How it came to that: chervil why {ID}\n"
    )


def test_what_a_task_says_does_not_steer_the_terminal(
    chervil: Run, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    traceback = "Traceback\n\tx\nValueError: \x1b[2J\u202e"
    broker.statuses = [failure(Stage.FAILURE, ValueError("\x1b[2J"), traceback)]
    assert chervil("result", ID).err.startswith("Traceback\n\tx\nValueError: \\x1b[2J\\u202e\nTask")
    broker.statuses = [success("a\n\x1b]0;title\x07")]
    assert chervil("result", ID).out == "a\n\x1b]0;title\x07\n"  # a file gets what the task returned
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert _as_text("a\n\x1b]0;title\x07") == "a\n\\x1b]0;title\\x07"


def test_busy_workers_are_no_reason_to_start_one(chervil: Run, broker: Broker) -> None:
    info: dict[int, Any] = {Info.QUEUE: "default", Info.WAITING_FOR: "no_credit"}
    broker.statuses = [Status(ID, Stage.QUEUED, None, None, info)]
    assert "start one" not in chervil("result", ID, "--wait").err


def test_json_has_the_result_or_the_error(chervil: Run, broker: Broker) -> None:
    broker.statuses = [success([1])]
    assert json.loads(chervil("result", ID, "--json").out) == {"id": ID, "stage": "SUCCESS", "result": [1]}
    broker.statuses = [failure(Stage.FAILURE, ValueError("bad"), "Traceback")]
    ran = chervil("result", ID, "--json")
    assert (ran.code, ran.err) == (1, "")
    assert json.loads(ran.out)["error"] == {
        "kind": "exception",
        "type": "builtins.ValueError",
        "message": "bad",
        "traceback": "Traceback",
    }
