"""Completion rows: their parts in this process, then as a real worker sends them."""

import time
from typing import Any

import pytest

from chervil import Chervil
from chervil.exceptions import DecodeError, EncodeError, Reject, Retry
from chervil.execution import Finished, execute
from chervil.protocol import Outcome, RejectOption, RetryOption, RevokedOption, TaskOption, unpack_failure
from chervil.request import Request
from chervil.task import Task
from chervil_worker import completion, packets
from tests.worker.broker import ScriptedBroker, row, task_id
from tests.worker.conftest import StartWorker, stop

LIMIT = 100


@pytest.fixture
def task() -> Task[..., Any]:
    app = Chervil("proj", set_as_current=False)

    @app.task(name="proj.work", bind=True)
    def work(self: Any, text: str) -> None:
        if text == "fail":
            raise KeyError("nothing", 7)
        raise self.retry(args=[text], countdown=2.5, exc=OSError("busy"), queue="slow", priority=3)

    return app.tasks["proj.work"]


def run(task: Task[..., Any], text: str) -> tuple[Request, list[Any], Finished]:
    """One run of a task as the child makes it."""
    delivery = row(9, task.name, text)
    request = Request.from_delivery(delivery, [text], {}, None, "me@here")
    return request, delivery, execute(task, request)


def test_success_holds_the_encoded_result():
    assert completion.success(row(1, "add"), {"a": 1}, "json", LIMIT) == [
        Outcome.SUCCESS, "json", b'{"a":1}', None,
    ]  # fmt: skip


def test_result_may_be_as_large_as_the_limit_and_no_larger():
    fits = "x" * (LIMIT - 2)  # and two quotes
    assert len(completion.success(row(1, "add"), fits, "json", LIMIT)[2]) == LIMIT
    with pytest.raises(
        EncodeError, match=r"the result of add takes 101 bytes, and the broker takes 100; .*--body-limit"
    ):
        completion.success(row(1, "add"), fits + "x", "json", LIMIT)


def test_result_that_the_codec_has_no_form_for_is_refused():
    with pytest.raises(EncodeError, match="object"):
        completion.success(row(1, "add"), object(), "json", LIMIT)


def test_success_may_hold_nothing():
    assert completion.success_without_result() == [Outcome.SUCCESS, None, None, None]


def test_failure_record_names_exception_task_and_the_users_frame(task: Task[..., Any]):
    outcome, codec, body, options = completion.failure(*run(task, "fail"))
    assert (outcome, codec, options) == (Outcome.FAILURE, "failure", None)
    record = unpack_failure(body)
    assert (record.kind, record.type) == ("exception", "builtins.KeyError")
    assert (record.task_id, record.task_name) == (task_id(9), "proj.work")
    assert (record.args_codec, record.args) == ("json", b'["nothing",7]')
    assert record.traceback is not None
    assert 'raise KeyError("nothing", 7)' in record.traceback
    assert "execution.py" not in record.traceback


def test_refusal_is_a_reject_without_a_run():
    outcome, codec, body, options = completion.refusal(row(4, "add"), DecodeError("not json"))
    assert (outcome, codec, options) == (Outcome.REJECT, "failure", None)
    record = unpack_failure(body)
    assert (record.kind, record.message, record.traceback) == ("rejected", "not json", None)
    assert (record.task_id, record.task_name) == (task_id(4), "add")


@pytest.mark.parametrize(
    ("rejection", "options"),
    [(Reject("bad order"), None), (Reject("bad order", requeue=True), {RejectOption.REQUEUE: True})],
)
def test_rejection_says_why_and_whether_it_goes_back(
    task: Task[..., Any], rejection: Reject, options: dict[int, Any] | None
):
    request, delivery, _ = run(task, "again")
    finished = Finished(Outcome.REJECT, None, rejection, "line 1\n", None)
    parts = completion.rejection(request, delivery, finished)
    assert (parts[0], parts[1], parts[3]) == (Outcome.REJECT, "failure", options)
    record = unpack_failure(parts[2])
    assert (record.kind, record.type) == ("rejected", "chervil.exceptions.Reject")
    assert (record.message, record.traceback) == ("bad order", "line 1\n")


def test_expiry_is_a_revoked_that_says_so():
    outcome, codec, body, options = completion.expiry(row(4, "add"))
    assert (outcome, codec, options) == (Outcome.REVOKED, "failure", {RevokedOption.EXPIRED: True})
    assert unpack_failure(body).kind == "expired"


def test_outcome_that_cannot_be_sent_is_a_failure():
    outcome, codec, body, options = completion.not_sent(row(4, "add"), EncodeError("a set"))
    assert (outcome, codec, options) == (Outcome.FAILURE, "failure", None)
    assert unpack_failure(body).kind == "exception"


def test_retry_tells_its_cause_its_delay_and_what_changes(task: Task[..., Any]):
    request, delivery, finished = run(task, "again")
    outcome, codec, body, options = completion.retry(task, request, delivery, finished, LIMIT)
    assert (outcome, codec) == (Outcome.RETRY, "failure")
    assert options == {
        RetryOption.DELAY_MS: 2500,
        RetryOption.QUEUE: "slow",
        RetryOption.PRIORITY: 3,
        RetryOption.BODY: [None, "json", b'[["again"],{}]'],
    }
    record = unpack_failure(body)
    assert (record.kind, record.type, record.message) == ("retry", "builtins.OSError", "busy")
    assert record.task_id == task_id(9)


def test_retry_without_a_cause_tells_of_itself_and_changes_nothing_else(task: Task[..., Any]):
    request, delivery, _ = run(task, "again")
    finished = Finished(Outcome.RETRY, None, None, None, Retry("later", when=1))
    parts = completion.retry(task, request, delivery, finished, LIMIT)
    assert parts[3] == {RetryOption.DELAY_MS: 1000}
    assert unpack_failure(parts[2]).type == "chervil.exceptions.Retry"


def test_new_arguments_are_held_to_the_limit(task: Task[..., Any]):
    request, delivery, finished = run(task, "x" * LIMIT)
    with pytest.raises(EncodeError, match=r"new arguments of proj\.work .* 109 bytes"):
        completion.retry(task, request, delivery, finished, LIMIT)


@pytest.mark.parametrize(
    ("options", "left_ms", "over"),
    [
        (None, None, False),
        ({}, None, False),
        (None, 60_000, False),
        (None, 0, True),
        (None, -1, True),
        ({TaskOption.EXPIRES_AT: 1}, None, True),
        ({TaskOption.EXPIRES_AT: 1 << 50}, None, False),
        ({TaskOption.EXPIRES_AT: 1 << 50}, -1, True),
        ({TaskOption.EXPIRES_MS: 0}, None, False),  # the link has made a deadline of it
        ({TaskOption.IGNORE_RESULT: True}, None, False),
    ],
)
def test_task_is_expired_when_either_clock_says_so(
    options: dict[int, Any] | None, left_ms: int | None, over: bool
):
    deadline = None if left_ms is None else time.monotonic_ns() + left_ms * 1_000_000
    assert completion.expired(options, deadline) is over


def test_failures_come_as_records(start_worker: StartWorker, broker: ScriptedBroker):
    worker = start_worker("-c", "1", "-l", "info")
    broker.greet(body_limit=1000)
    broker.deliver(
        row(1, "proj.fail"),
        row(2, "proj.nowhere"),
        row(3, "proj.add", body=b"not json"),
        row(4, "proj.unencodable"),
        row(5, "proj.big", 2000),
        row(6, "proj.add", 1, 2, options={TaskOption.EXPIRES_MS: 0}),
        row(7, "proj.add", 1, 2, options={TaskOption.EXPIRES_AT: 1}),
        row(8, "proj.add", body=b"[1]"),
    )
    broker.until(lambda: len(broker.rows) == 8)
    assert broker.outcomes() == {
        **dict.fromkeys(map(task_id, (1, 4, 5)), Outcome.FAILURE),
        **dict.fromkeys(map(task_id, (2, 3, 8)), Outcome.REJECT),
        **dict.fromkeys(map(task_id, (6, 7)), Outcome.REVOKED),
    }
    assert [r[5] for r in broker.rows if r[2] == Outcome.REVOKED] == [{RevokedOption.EXPIRED: True}] * 2
    records = {r[0]: unpack_failure(r[4]) for r in broker.rows}
    kinds = [(records[task_id(n)].kind, records[task_id(n)].type.rpartition(".")[2]) for n in range(1, 9)]
    assert kinds == [
        ("exception", "ZeroDivisionError"),
        ("rejected", "NotRegistered"),
        ("rejected", "DecodeError"),
        ("exception", "EncodeError"),
        ("exception", "EncodeError"),
        ("expired", "TaskRevokedError"),
        ("expired", "TaskRevokedError"),
        ("rejected", "DecodeError"),
    ]
    assert stop(worker, broker) == 0
    assert "proj.fail[00000000-0000-0000-0000-000000000001] failed: ZeroDivisionError: no" in worker.said()


def test_retry_travels_with_its_delay_and_its_cause(start_worker: StartWorker, broker: ScriptedBroker):
    start_worker("-c", "1", "-l", "info", "--log-format", "json")
    broker.greet()
    broker.deliver(row(1, "proj.again"))
    broker.until(lambda: broker.rows)
    (completion,) = broker.rows
    assert completion[2] == Outcome.RETRY
    assert unpack_failure(completion[4]).kind == "retry"
    assert completion[5] == {2: 3000}


def test_ignored_results_do_not_travel(start_worker: StartWorker, broker: ScriptedBroker):
    start_worker("-c", "1")
    broker.greet()
    broker.deliver(row(1, "proj.add", 1, 2, options={TaskOption.IGNORE_RESULT: True}))
    broker.until(lambda: broker.rows)
    assert broker.rows[0][2:5] == [Outcome.SUCCESS, None, None]


@pytest.mark.parametrize("outcome", Outcome)
def test_answer_is_read_as_it_was_written(outcome: Outcome):
    parts = [outcome, "json", b"1", {1: 2}]
    assert completion.read(packets.pack(parts)) == parts
    assert completion.read(packets.pack([outcome, None, None, None])) == [outcome, None, None, None]


@pytest.mark.parametrize(
    "value",
    [
        5, None, [], "abcd", {1: 1, 2: 2, 3: 3, 4: 4}, [1, None, None], [1, None, None, None, None],
        [99, None, None, None], [[], None, None, None], [True, None, None, None], [1.0, None, None, None],
        [1, b"json", None, None], [1, None, "text", None], [1, None, None, []],
    ],
    ids=repr,
)  # fmt: skip
def test_what_is_no_answer_is_not_read_as_one(value: Any):
    assert completion.read(packets.pack(value)) is None


@pytest.mark.parametrize(
    "payload", [b"", b"\xc1", b"\x94\x01", b"a line of a log\n", b"\x81\x90\x01"], ids=repr
)
def test_what_is_no_msgpack_is_no_answer(payload: bytes):
    assert completion.read(payload) is None
