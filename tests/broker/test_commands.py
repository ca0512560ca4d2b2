"""Each command, as a client sees it answered."""

import pytest

from chervil.protocol import Code, Outcome, Side, Stage, unpack_failure
from chervil.protocol.messages import (
    COMMANDS,
    Complete,
    Completed,
    Confirm,
    Credit,
    Deliver,
    Error,
    Forget,
    Goodbye,
    Heartbeat,
    Hello,
    Ok,
    Publish,
    Purge,
    Query,
    Report,
    Result,
    Started,
    Stats,
    Status,
    Subscribe,
    Unwatch,
    Watch,
)
from chervil_broker.commands import HANDLERS
from chervil_broker.tokens import hashed
from tests.broker.talk import play, task


def test_every_command_of_a_client_has_a_handler():
    from_clients = {c.message for c in COMMANDS.values() if c.sender in (Side.CLIENT, None)}
    assert set(HANDLERS) == from_clients


def test_welcome_says_what_the_broker_is():
    async def scenario(house):
        welcome = await (await house.connect()).hello()
        assert welcome.version == 1
        assert welcome.instance == house.broker.instance
        assert len(welcome.session) == 16
        assert len(welcome.secret) == 32
        assert not welcome.resumed
        assert welcome.options == {1: "memory", 3: "0.1.0", 5: 1_048_576}

    play(scenario)


@pytest.mark.parametrize(
    ("token", "code"), [(None, Code.AUTH_REQUIRED), ("wrong", Code.AUTH_FAILED)], ids=["none", "wrong"]
)
def test_without_the_token_nobody_comes_in(token, code):
    async def scenario(house):
        talker = await house.connect()
        talker.send(Hello(1, 1, [], "stranger", token))
        error = await talker.expect(Error)
        assert error.code == code
        assert error.request is None
        assert "CHERVIL_TOKEN_FILE" in error.message
        assert await talker.ended()
        assert house.broker.stats()["counters"][f"refused_{code.lower()}"] == 1

    play(scenario, token_hash=hashed("right"), needs_token=True)


def test_with_the_token_one_is_welcome():
    async def scenario(house):
        welcome = await (await house.connect()).hello(token="right")
        assert welcome.version == 1

    play(scenario, token_hash=hashed("right"), needs_token=True)


def test_an_unknown_version_is_told_what_this_broker_speaks():
    async def scenario(house):
        talker = await house.connect()
        talker.send(Hello(2, 9, [], "from the future"))
        error = await talker.expect(Error)
        assert error.code == Code.VERSION_UNSUPPORTED
        assert "speaks version 1" in error.message

    play(scenario)


def test_a_vhost_is_refused_while_there_is_one():
    async def scenario(house):
        talker = await house.connect()
        talker.send(Hello(1, 1, [], "me", None, "blue"))
        assert (await talker.expect(Error)).code == Code.BAD_FIELD

    play(scenario)


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
            assert "BODY_TOO_LARGE: 2000 bytes" in unpack_failure(row[3]).message

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
        peer.send(Forget(9, []), Stats(10))
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


def test_goodbye_is_answered_after_what_was_asked_before():
    async def scenario(house):
        peer = await house.guest()
        peer.send(Publish(1, [task()]), Heartbeat(), Goodbye("DONE"))
        assert isinstance(await peer.next(), Confirm)
        assert await peer.expect(Goodbye) == Goodbye("DONE")
        assert await peer.ended()

    play(scenario)


def test_goodbye_gives_leases_back_at_once():
    async def scenario(house):
        first, second = await house.guest("first"), await house.guest("second")
        row = task()
        first.send(Publish(1, [row]), Subscribe(2, ["default"]), Credit(1))
        for kind in (Confirm, Ok, Deliver):
            await first.expect(kind)
        second.send(Subscribe(1, ["default"]), Credit(1))
        await second.expect(Ok)
        first.send(Goodbye("DONE"))
        (delivery,) = (await second.expect(Deliver)).tasks
        assert delivery[:3] == [row[0], 2, True]

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
