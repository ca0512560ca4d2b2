"""Each command, as a client sees it answered."""

from chervil.protocol import Code, Outcome, Side, Stage, unpack_failure
from chervil.protocol.messages import (
    COMMANDS,
    Cancel,
    Complete,
    Completed,
    Confirm,
    Credit,
    Deliver,
    Error,
    Forget,
    Grow,
    Ok,
    Publish,
    Purge,
    Query,
    Report,
    Rerun,
    Result,
    Revoke,
    Started,
    Stats,
    Status,
    Subscribe,
    Unwatch,
    Watch,
)
from chervil_broker import commands
from chervil_broker.commands import HANDLERS
from tests.broker.talk import play, task


def test_every_command_of_a_client_has_a_handler():
    from_clients = {c.message for c in COMMANDS.values() if c.sender in (Side.CLIENT, None)}
    assert set(HANDLERS) == from_clients


def test_publish_deliver_complete_result():
    async def scenario(house):
        client, worker = await house.guest("client"), await house.guest("worker@1")
        row = task(headers=b"{}")
        client.send(Publish(1, [row]), Watch(2, [row[0]]))
        assert await client.expect(Confirm) == Confirm(1, 1)
        status = await client.expect(Status)
        assert status.request == 2
        assert status.tasks[0][:2] == [row[0], Stage.QUEUED]
        worker.send(Subscribe(1, ["default"], ["tasks.add"], {1: 2, 3: 77}), Credit(10))
        assert await worker.expect(Ok) == Ok(1)
        (delivery,) = (await worker.expect(Deliver)).tasks
        assert delivery == [
            row[0],
            1,
            False,
            0,
            0,
            "tasks.add",
            "default",
            0,
            None,
            b"{}",
            "json",
            b"[[2,3],{}]",
            None,
        ]
        worker.send(Started([[row[0], 1]]), Complete(1, [[row[0], 1, Outcome.SUCCESS, "json", b"5"]]))
        assert await worker.expect(Completed) == Completed(1)
        pushed = (await client.expect(Result)).tasks[0]
        assert pushed[:4] == [row[0], Stage.SUCCESS, "json", b"5"]

    play(scenario)


def test_options_count_as_memory():
    async def scenario(house):
        peer = await house.guest()
        heavy = {13: {str(n): "z" * 1000 for n in range(50)}}
        peer.send(*[Publish(n, [task(options=heavy)]) for n in range(30)])
        confirms = [await peer.expect(Confirm) for _ in range(30)]
        assert any(confirm.exceptions and confirm.exceptions[0][1] == Code.FULL for confirm in confirms)

    play(scenario, max_memory=1 << 20)


def test_an_id_asked_for_twice_is_answered_once():
    async def scenario(house):
        peer = await house.guest()
        peer.send(Query(1, [b"a" * 16, b"a" * 16]))
        assert len((await peer.expect(Status)).tasks) == 1

    play(scenario)


def test_a_command_for_later_is_answered_and_the_connection_goes_on():
    async def scenario(house):
        peer = await house.guest()
        peer.send(Grow(9, b"i" * 16, 1), Stats(10))
        error = await peer.expect(Error)
        assert (error.request, error.code) == (9, Code.NOT_IMPLEMENTED)
        report = (await peer.expect(Report)).report
        assert report["counters"]["refused_not_implemented"] == 1

    play(scenario)


def test_an_expired_task_carries_a_record_that_the_broker_wrote():
    async def scenario(house):
        peer = await house.guest()
        row = task(options={6: 1})
        peer.send(Publish(1, [row]), Watch(2, [row[0]]))
        await peer.expect(Confirm)
        seen = (await peer.expect(Status)).tasks[0]
        if seen[1] != Stage.EXPIRED:
            seen = (await peer.expect(Result)).tasks[0]
        assert seen[1:3] == [Stage.EXPIRED, "failure"]
        record = unpack_failure(seen[3])
        assert (record.kind, record.task_id, record.task_name) == ("expired", row[0], "tasks.add")

    play(scenario)


def test_the_expiry_of_a_delivery_is_counted_down():
    async def scenario(house):
        peer = await house.guest()
        peer.send(Publish(1, [task(options={6: 60_000, 9: "me"})]), Subscribe(2, ["default"]), Credit(5))
        await peer.expect(Confirm)
        await peer.expect(Ok)
        options = (await peer.expect(Deliver)).tasks[0][8]
        assert 0 < options[6] <= 60_000
        assert options[9] == "me"

    play(scenario)


def test_query_purge_and_unwatch():
    async def scenario(house):
        peer = await house.guest()
        rows = [task(), task(queue="other")]
        peer.send(Publish(1, rows), Watch(2, [rows[0][0]]), Unwatch([rows[0][0]]), Purge(3, ["default"]))
        assert (await peer.expect(Confirm)).accepted == 2
        await peer.expect(Ok)
        await peer.expect(Status)
        peer.send(Query(4, [rows[0][0], rows[1][0], b"?" * 16]))
        stages = [row[1] for row in (await peer.expect(Status)).tasks]
        assert stages == [Stage.REVOKED, Stage.QUEUED, Stage.UNKNOWN]

    play(scenario)


def test_a_body_over_the_brokers_limit_is_refused_alone():
    async def scenario(house):
        peer = await house.guest()
        small, big = task(), task(body=b"x" * 2000)
        peer.send(Publish(1, [big, small]))
        confirm = await peer.expect(Confirm)
        assert confirm.accepted == 1
        assert [e[:2] for e in confirm.exceptions] == [[0, Code.BODY_TOO_LARGE]]

    play(scenario, body_limit=1000)


def test_revoke_cancels_before_it_is_answered():
    async def scenario(house):
        row = task()
        worker = await house.worker(row)
        worker.talker.send(Revoke(9, [row[0], b"?" * 16], True, 9))  # the unknown one is remembered
        assert await worker.talker.next() == Cancel([[row[0], 1, 9]])
        assert await worker.talker.next() == Ok(9, 2)
        worker.talker.send(Complete(1, [[row[0], 1, Outcome.REVOKED]]))
        await worker.talker.expect(Completed)
        assert await house.stages(row[0]) == [Stage.REVOKED]

    play(scenario)


def test_revoke_sends_sigterm_unless_told_otherwise():
    async def scenario(house):
        row = task()
        worker = await house.worker(row)
        worker.talker.send(Revoke(9, [row[0]], True))
        assert await worker.talker.next() == Cancel([[row[0], 1, 15]])

    play(scenario)


def test_a_claim_that_is_not_in_force_is_cancelled_before_its_answer():
    async def scenario(house):
        row = task()
        worker = await house.worker(row)
        worker.talker.send(Started([[row[0], 1, True], [b"?" * 16, 4, True]], 5))
        first, second = await worker.talker.next(), await worker.talker.next()
        assert type(first) is Cancel
        assert first.tasks[0][:2] == [b"?" * 16, 4]
        assert second == Ok(5, 1)
        assert await house.stages(row[0]) == [Stage.STARTED]

    play(scenario)


def test_dead_letters_run_again_or_are_forgotten():
    async def scenario(house):
        row = task()
        worker = await house.worker(row)
        worker.talker.send(Complete(1, [[row[0], 1, Outcome.REJECT]]), Rerun(2, [row[0], b"?" * 16]))
        assert await worker.talker.expect(Ok) == Ok(2, 1)
        (again,) = await worker.delivered()
        assert again[:4] == [row[0], 2, False, 0]
        worker.talker.send(Complete(2, [[row[0], 2, Outcome.REJECT]]), Forget(3, [row[0]]))
        assert await worker.talker.expect(Ok) == Ok(3, 1)
        assert await house.stages(row[0]) == [Stage.EVICTED]
        await house.until(lambda: len(house.broker.bodies) == 0)

    play(scenario)


def test_ids_that_are_waited_for_have_a_limit(monkeypatch):
    monkeypatch.setattr(commands, "WATCHED_MAX", 3)

    async def scenario(house):
        peer = await house.guest()
        rows = [task() for _ in range(3)]
        ids = [row[0] for row in rows]
        peer.send(Publish(1, rows), Watch(2, ids), Watch(3, ids))
        await peer.expect(Confirm)
        for _ in range(2):
            await peer.expect(Status)
        peer.send(Unwatch(ids[:1]), Watch(4, [b"unknown id here."]))
        await peer.expect(Status)
        peer.send(Watch(5, [b"another unknown."]))
        await peer.expect(Status)
        peer.send(Purge(6, []))
        await peer.expect(Result)
        assert not house.broker.peers[1].watching
        peer.send(Watch(7, [bytes([n]) * 16 for n in range(4)]))
        assert (await peer.expect(Error)).code == Code.TOO_MANY

    play(scenario)


def test_refused_rows_are_counted_and_share_a_line_of_the_log(caplog):
    async def scenario(house):
        peer = await house.guest("web-1")
        for request in range(20):
            peer.send(Publish(request, [task(body=b"x" * 2000) for _ in range(10)]))
        for _ in range(20):
            assert (await peer.expect(Confirm)).accepted == 0
        assert house.broker.stats()["counters"]["refused_body_too_large"] == 200

    caplog.set_level("WARNING")
    play(scenario, body_limit=1000)
    (line,) = [line for line in caplog.messages if "BODY_TOO_LARGE" in line]
    assert line.startswith("web-1 refused: BODY_TOO_LARGE: a body of 2000 bytes")
    assert line.endswith("(10 times)")


def test_subscribing_again_and_again_leaves_turns_to_others():
    async def scenario(house):
        worker = await house.guest("worker")
        (peer,) = house.broker.peers.values()
        taken = []
        subscribe = house.broker.engine.subscribe
        house.broker.engine.subscribe = lambda *given: (
            taken.append(house.broker.pump.ran_at),
            subscribe(*given),
        )
        worker.send(*[Subscribe(number, ["q"]) for number in range(1, 6)])
        for _ in range(5):
            await worker.expect(Ok)
        assert peer.in_session
        assert len(set(taken)) >= 3, "the pump ran between them"

    play(scenario)
