import pickle
import threading
import time

import pytest

from chervil import AsyncResult, EagerResult, exceptions
from chervil.exceptions import (
    DecodeError,
    NotRegistered,
    Reject,
    RemoteError,
    TaskRejectedError,
    TaskRevokedError,
    TimeLimitExceeded,
    UnknownTask,
    WorkerLostError,
)
from chervil.failure import failure_body
from chervil.protocol import FAILURE_CODEC, FailureRecord, Info, Stage
from chervil.protocol import messages as m

ID = "3d56f326-34df-4540-ab63-1408aa5b92e4"
WIRE = bytes.fromhex(ID.replace("-", ""))


@pytest.fixture
def result(app, broker):
    broker.rows[WIRE] = []
    return app.AsyncResult(ID)


def finish(broker, stage, codec=None, body=None):
    broker.statuses[WIRE] = [WIRE, int(stage), codec, body, None]


def at(broker, stage, info):
    broker.statuses[WIRE] = [WIRE, int(stage), None, None, info]


def test_get_returns_what_is_there(result, broker):
    finish(broker, Stage.SUCCESS, "json", b'{"a":1}')
    assert result.get() == {"a": 1}
    assert broker.counts["Watch"] == 1


def test_get_waits_for_the_push_and_does_not_poll(result, broker):
    def later():
        broker.wait_for(lambda: broker.counts["Watch"] == 1)
        broker.finish(WIRE, Stage.SUCCESS, "json", b"5")

    thread = threading.Thread(target=later)
    thread.start()
    assert result.get(timeout=10) == 5
    thread.join(10)
    assert (broker.counts["Watch"], broker.counts["Query"]) == (1, 0)


def test_a_result_once_received_is_kept(result, broker):
    finish(broker, Stage.SUCCESS, "json", b"5")
    assert result.get() == 5
    before = sum(broker.counts.values())
    assert (result.get(), result.state, result.stage, result.result, result.ready()) == (
        5,
        "SUCCESS",
        "SUCCESS",
        5,
        True,
    )
    assert sum(broker.counts.values()) == before


def test_an_ignored_result_is_none(result, broker):
    finish(broker, Stage.SUCCESS)
    assert result.get() is None


def test_the_real_exception_comes_back_with_the_remote_traceback(result, broker):
    finish(
        broker, Stage.FAILURE, FAILURE_CODEC, failure_body(KeyError("k"), ID, "t", traceback="File remote.py")
    )
    with pytest.raises(KeyError) as caught:
        result.get()
    assert "File remote.py" in caught.value.__notes__[0]
    assert isinstance(result.get(propagate=False), KeyError)
    assert isinstance(result.result, KeyError)
    assert result.traceback == "File remote.py"
    assert result.failed()
    assert not result.successful()


@pytest.mark.parametrize(
    ("stage", "error", "state"),
    [
        (Stage.DEAD, WorkerLostError, "FAILURE"),
        (Stage.REVOKED, TaskRevokedError, "REVOKED"),
        (Stage.EXPIRED, TaskRevokedError, "REVOKED"),
        (Stage.FAILURE, RemoteError, "FAILURE"),
        (Stage.UPSTREAM_FAILED, RemoteError, "FAILURE"),
    ],
)
@pytest.mark.parametrize("with_record", [True, False])
def test_other_ends_have_their_errors(app, result, broker, *, stage, error, state, with_record):
    record = FailureRecord("upstream", "x.Y", "signal 9", None, WIRE, "t").pack()
    finish(broker, stage, FAILURE_CODEC if with_record else None, record if with_record else None)
    with pytest.raises(error, match="signal 9" if with_record else ID):
        result.get()
    assert result.state == state
    assert result.ready()
    assert isinstance(app.AsyncResult(ID).result, error)


@pytest.mark.parametrize(("kind", "error"), [("time_limit", TimeLimitExceeded), ("lost", WorkerLostError)])
@pytest.mark.parametrize("type_name", ["chervil.exceptions.X", "some.other.Language"])
def test_what_the_system_says_of_a_failure_has_its_class_whoever_wrote_it(
    result, broker, kind, error, type_name
):
    record = FailureRecord(kind, type_name, "ran for 3 s", None, WIRE, "t")
    finish(broker, Stage.FAILURE, FAILURE_CODEC, record.pack())
    with pytest.raises(error, match=r"^ran for 3 s$"):
        result.get()


@pytest.mark.parametrize(
    ("raised", "error"),
    [
        (Reject("bad order"), TaskRejectedError),
        (NotRegistered("this worker has no task 't'"), NotRegistered),
        (DecodeError("not json"), DecodeError),
    ],
)
def test_a_rejected_task_says_why_and_rejects_nobody_else(result, broker, raised, error):
    finish(broker, Stage.DEAD, FAILURE_CODEC, failure_body(raised, ID, "t", "rejected"))
    with pytest.raises(error, match=str(raised)):
        result.get()
    assert result.state == "FAILURE"


def test_revoke_tells_the_broker(result, broker):
    asked = []

    def answer(peer, message):
        asked.append(message)
        peer.send(m.Ok(message.request, 1))
        return True

    broker.scripts[m.Revoke] = answer
    result.revoke()
    result.revoke(terminate=True, signal="SIGKILL")
    assert [(one.ids, one.terminate, one.signal) for one in asked] == [
        ([WIRE], False, None),
        ([WIRE], True, 9),
    ]


def test_forget_drops_the_result_here_too(result, broker):
    broker.scripts[m.Forget] = lambda peer, message: peer.send(m.Ok(message.request, 1)) or True
    finish(broker, Stage.SUCCESS, "json", b"5")
    assert result.get() == 5
    result.forget()
    assert broker.counts["Forget"] == 1
    broker.statuses[WIRE] = [WIRE, int(Stage.EVICTED), None, None, None]
    with pytest.raises(UnknownTask, match="forgotten"):
        result.get()


def test_a_damaged_failure_record_is_still_a_failure(result, broker):
    finish(broker, Stage.FAILURE, FAILURE_CODEC, b"\xc1")
    with pytest.raises(RemoteError, match="no record"):
        result.get()
    assert result.traceback is None


def test_an_unknown_id_raises_at_once(app):
    started = time.monotonic()
    result = app.AsyncResult("nobody")
    with pytest.raises(UnknownTask, match="knows no task nobody"):
        result.get(timeout=30)
    assert time.monotonic() - started < 5
    assert (result.state, result.stage, result.ready(), result.result) == ("UNKNOWN", "UNKNOWN", False, None)


def test_an_evicted_result_says_so(result, broker):
    finish(broker, Stage.EVICTED)
    with pytest.raises(UnknownTask, match="no longer has its result"):
        result.get()


def test_a_retry_shows_its_cause(result, broker):
    finish(broker, Stage.RETRY, FAILURE_CODEC, failure_body(ValueError("again"), ID, "t", kind="retry"))
    assert isinstance(result.info, ValueError)


def test_a_broker_that_does_not_answer_ends_the_wait_at_its_timeout(result, broker):
    broker.scripts[m.Watch] = lambda peer, message: True
    started = time.monotonic()
    with pytest.raises(exceptions.TimeoutError, match=r"did not answer within 0\.1 s"):
        result.get(timeout=0.1)
    assert time.monotonic() - started < 3, "and not the 4 s that connecting may take"


@pytest.mark.usefixtures("leisurely")
@pytest.mark.parametrize(
    ("stage", "info", "words"),
    [
        (Stage.SCHEDULED, {Info.DUE_IN_MS: 60_000}, "scheduled; due in 60.0 s"),
        (Stage.RETRY, {Info.DUE_IN_MS: 1000, Info.IN_STAGE_MS: 500}, "waiting to be retried; due in 1.0 s"),
        (Stage.STARTED, {Info.WORKER: "w@h", Info.IN_STAGE_MS: 5000}, "running for 5 s on w@h"),
    ],
)
def test_a_timeout_says_of_a_task_on_its_way_how_far_it_is(result, broker, stage, info, words):
    at(broker, stage, {int(key): value for key, value in info.items()})
    with pytest.raises(exceptions.TimeoutError) as caught:
        result.get(timeout=0.02)
    assert str(caught.value) == f"task {ID} did not finish within 0.02 s: {words}"


@pytest.mark.usefixtures("leisurely")
def test_a_timeout_says_where_the_task_is_and_why(result, broker):
    at(broker, Stage.QUEUED, {int(Info.QUEUE): "q", int(Info.WAITING_FOR): "no_consumer"})
    with pytest.raises(exceptions.TimeoutError) as caught:
        result.get(timeout=0.02)
    assert str(caught.value) == f"task {ID} did not finish within 0.02 s: queued; no worker consumes 'q'"
    assert result.info is None
    assert not result.ready()


def test_a_timeout_of_zero_says_that_it_is_not_finished(result, broker):
    at(broker, Stage.STARTED, {})
    with pytest.raises(exceptions.TimeoutError, match=f"^task {ID} is not finished: running$"):
        result.get(timeout=0)


def test_a_lost_broker_is_a_warning_and_one_that_forgot_the_task_an_error(result, broker, caplog):
    def forget(peer, message):
        del broker.scripts[m.Watch]
        broker.rows.clear()
        broker.statuses.clear()
        peer.send(
            m.Status(message.request, [[id_, int(Stage.QUEUED), None, None, None] for id_ in message.ids])
        )
        peer.cut()
        return True

    broker.scripts[m.Watch] = forget
    with pytest.raises(UnknownTask, match="most likely it was restarted since"):
        result.get()
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("chervil", "WARNING")
    assert record.message == f"lost the broker at {broker.url}; trying again until it is back"


def test_a_timeout_of_zero_still_asks(result, broker):
    finish(broker, Stage.SUCCESS, "json", b"1")
    assert result.get(timeout=0) == 1


def test_only_accepted_content_is_decoded(app, result, broker):
    app.conf.accept_content = ["json"]
    finish(broker, Stage.SUCCESS, "msgpack", b"\1")
    with pytest.raises(DecodeError):
        result.get()


def test_results_compare_by_id_and_travel(app):
    one = app.AsyncResult(ID)
    assert one == AsyncResult(ID)
    assert one != ID
    assert len({one, AsyncResult(ID)}) == 1
    assert pickle.loads(pickle.dumps(one)) == one
    assert (str(one), repr(one), one.task_id) == (ID, f"<AsyncResult: {ID}>", ID)
    assert AsyncResult(ID).app is app
    with pytest.raises(TypeError, match="a task id is text"):
        AsyncResult(5)


def test_eager_results_look_the_same():
    good, bad = EagerResult("a", 5, "SUCCESS"), EagerResult("b", ValueError("x"), "FAILURE", "tb")
    assert (good.get(), good.state, good.ready(), good.result, good.successful()) == (
        5,
        "SUCCESS",
        True,
        5,
        True,
    )
    with pytest.raises(ValueError, match="x"):
        bad.get()
    assert isinstance(bad.get(propagate=False), ValueError)
    assert (bad.traceback, bad.failed(), bad.stage) == ("tb", True, "FAILURE")
    assert pickle.loads(pickle.dumps(good)).get() == 5
