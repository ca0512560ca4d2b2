"""Each outcome of a COMPLETE, and what is kept of what it brings."""

import pytest

from chervil.protocol import Code, FailureRecord, Outcome, Stage, unpack_failure
from chervil.protocol.messages import (
    Complete,
    Completed,
    Confirm,
    Credit,
    Deliver,
    Error,
    Ok,
    Publish,
    Query,
    Result,
    Status,
    Subscribe,
    Watch,
)
from chervil_broker import completions
from tests.broker.talk import play, task


def test_a_retry_may_bring_a_new_body():
    async def scenario(house):
        peer = await house.guest()
        row = task(body=b"old", options={9: "me"})
        peer.send(Publish(1, [row]), Subscribe(2, ["default"]), Credit(5))
        await peer.expect(Confirm)
        await peer.expect(Ok)
        await peer.expect(Deliver)
        new_body = {40: [b"h", "msgpack", b"new"], 38: 7}
        peer.send(Complete(1, [[row[0], 1, Outcome.RETRY, "failure", b"why", new_body]]))
        await peer.expect(Completed)
        again = (await peer.expect(Deliver)).tasks[0]
        assert again[1] == 2
        assert again[4] == 1
        assert again[7:12] == [7, {9: "me"}, b"h", "msgpack", b"new"]

    play(scenario)


def test_an_outcome_for_later_ends_the_connection_by_name_and_leaks_nothing():
    async def scenario(house):
        peer = await house.guest()
        row = task()
        peer.send(Publish(1, [row]), Subscribe(2, ["default"]), Credit(5))
        for kind in (Confirm, Ok, Deliver):
            await peer.expect(kind)
        held = len(house.broker.bodies)
        rows = [[row[0], 1, Outcome.SUCCESS, "json", b"1"], [row[0], 1, Outcome.REPLACE]]
        peer.send(Complete(1, rows))
        error = await peer.expect(Error)
        assert error.code == Code.NOT_IMPLEMENTED
        assert "REPLACE" in error.message
        assert await peer.ended()
        assert len(house.broker.bodies) == held

    play(scenario)


def test_a_completion_over_the_brokers_limit_is_a_failure_and_is_not_kept():
    async def scenario(house):
        peer = await house.guest()
        rows = [task(), task()]
        peer.send(Publish(1, rows), Subscribe(2, ["default"]), Credit(5))
        await peer.expect(Deliver)
        result = [rows[0][0], 1, Outcome.SUCCESS, "json", b"x" * 2000]
        retry = [rows[1][0], 1, Outcome.RETRY, None, None, {40: [None, "json", b"y" * 2000]}]
        peer.send(Complete(1, [result, retry]), Query(3, [rows[0][0], rows[1][0]]))
        for row in (await peer.expect(Status)).tasks:
            assert row[1] == Stage.FAILURE
            record = unpack_failure(row[3])
            assert "BODY_TOO_LARGE: 2000 bytes" in record.message
            assert record.task_name == "tasks.add"

    play(scenario, body_limit=1000)


def test_any_reason_of_a_loss_can_be_told():
    async def scenario(house):
        peer = await house.guest()
        row = task(options={16: 1})
        peer.send(Publish(1, [row]), Subscribe(2, ["default"]), Credit(5))
        await peer.expect(Deliver)
        peer.send(Complete(1, [[row[0], 1, Outcome.LOST, None, b"\xff\0" * 500_000]]), Query(3, [row[0]]))
        dead = (await peer.expect(Status)).tasks[0]
        assert dead[1] == Stage.DEAD
        assert "\0" not in unpack_failure(dead[3]).message

    play(scenario)


def test_a_lost_task_is_dead_with_the_workers_reason():
    async def scenario(house):
        peer = await house.guest()
        row = task(options={16: 1})
        peer.send(Publish(1, [row]), Subscribe(2, ["default"]), Credit(5), Watch(3, [row[0]]))
        for kind in (Confirm, Ok, Deliver, Status):
            await peer.expect(kind)
        peer.send(Complete(1, [[row[0], 1, Outcome.LOST, None, b"SIGKILL (pid 7)"]]))
        await peer.expect(Completed)
        dead = (await peer.expect(Result)).tasks[0]
        assert dead[1] == Stage.DEAD
        record = unpack_failure(dead[3])
        assert (record.kind, record.message) == ("lost", "SIGKILL (pid 7)")

    play(scenario)


def record(message="no such user", kind="exception"):
    return FailureRecord(kind, "shop.errors.NotFound", message, None, b"i" * 16, "tasks.add").pack()


@pytest.mark.parametrize(
    ("codec", "body", "reason"),
    [
        ("failure", record(), "NotFound: no such user"),
        ("failure", record(None), "NotFound"),
        ("failure", record("x" * 500), "NotFound: " + "x" * 190),
        ("failure", b"\xc1", None),
        ("failure", b"\x91" * 100, None),
        ("failure", record("x" * 60_000) + b"\0" * 400_000, None),
        ("json", record(), None),
        (None, b"text", None),
    ],
)
def test_a_reason_is_one_line_of_a_failure_record(codec, body, reason):
    assert completions.reason_of(codec, body) == reason


def test_the_engine_is_told_the_reason_and_a_success_has_none(monkeypatch):
    async def scenario(house):
        rows = [task() for _ in range(7)]
        worker = await house.worker(*rows)
        told = []
        complete = house.broker.default.engine.complete

        def note(session, sequence, given):
            told.extend(given)
            return complete(session, sequence, given)

        monkeypatch.setattr(house.broker.default.engine, "complete", note)
        outcomes = [
            [Outcome.SUCCESS, "failure", record()],
            [Outcome.FAILURE, "failure", record()],
            [Outcome.RETRY, "failure", record(kind="retry"), {2: 60_000}],
            [Outcome.REJECT, "failure", record(kind="rejected")],
            [Outcome.REVOKED, "failure", record(kind="revoked")],
            [Outcome.LOST, None, b"SIGKILL\0 (pid 7)"],
            [Outcome.RELEASE, None, b"worker stops \xff"],
        ]
        worker.talker.send(
            Complete(1, [[row[0], 1, *rest] for row, rest in zip(rows, outcomes, strict=True)])
        )
        assert (await worker.talker.expect(Completed)).exceptions is None
        assert [row[6] for row in told] == [
            None,
            *["NotFound: no such user"] * 4,
            "SIGKILL  (pid 7)",
            "worker stops \N{REPLACEMENT CHARACTER}",
        ]
        assert told[6][3:5] == (None, 0)

    play(scenario)


@pytest.mark.parametrize(
    ("outcome", "options", "stage"),
    [
        (Outcome.REJECT, None, Stage.DEAD),
        (Outcome.REJECT, {2: True}, Stage.LEASED),
        (Outcome.REVOKED, None, Stage.REVOKED),
        (Outcome.REVOKED, {2: True}, Stage.EXPIRED),
        (Outcome.RELEASE, {2: True}, Stage.LEASED),
    ],
)
def test_outcomes_lead_where_the_protocol_says(outcome, options, stage):
    async def scenario(house):
        row = task()
        worker = await house.worker(row)
        worker.talker.send(Complete(1, [[row[0], 1, outcome, "failure", record(), options]]))
        await worker.talker.expect(Completed)
        if stage is Stage.LEASED:
            (again,) = await worker.delivered()
            assert again[1:3] == [2, True]
        assert await house.stages(row[0]) == [stage]

    play(scenario)


def test_a_failure_that_the_broker_wrote_is_a_record_for_who_asks():
    async def scenario(house):
        row = task(options={14: True})
        worker = await house.worker(row)
        lost = [row[0], 1, Outcome.LOST, None, b"SIGKILL (pid 7)"]
        worker.talker.send(Complete(1, [lost]), Query(2, [row[0]]))
        failed = (await worker.talker.expect(Status)).tasks[0]
        assert failed[1:3] == [Stage.FAILURE, "failure"]
        told = unpack_failure(failed[3])
        assert (told.kind, told.type, told.message) == (
            "lost",
            "chervil.exceptions.WorkerLostError",
            "SIGKILL (pid 7)",
        )

    play(scenario)
