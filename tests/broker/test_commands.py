"""Each command, as a client sees it answered."""

import pytest

from chervil.protocol import Code, Outcome, Role, Side, Stage, to_text, unpack_failure
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
    Heartbeat,
    History,
    List,
    Ok,
    Publish,
    Purge,
    Query,
    Report,
    Rerun,
    Result,
    Resume,
    Revoke,
    Started,
    Stats,
    Status,
    Subscribe,
    Unwatch,
    Watch,
)
from chervil_broker.access import Identity
from chervil_broker.commands import HANDLERS, forbidden, handlers_for
from chervil_broker.engine import charges
from chervil_broker.turns import CHANGE_COST, MESSAGE_COST, TURN_ROWS
from chervil_broker.users import User, changing
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


def test_a_watch_that_there_is_no_memory_for_is_refused_once_and_the_connection_goes_on(monkeypatch):
    monkeypatch.setattr(charges, "FREE_BYTES", 0)

    async def scenario(house):
        peer = await house.guest()
        rows = [task() for _ in range(800)]
        ids = [row[0] for row in rows]
        peer.send(Publish(1, rows))
        assert (await peer.expect(Confirm)).exceptions is None
        peer.send(Watch(2, ids), Query(3, ids[:1]))
        refused = await peer.expect(Error)
        assert (refused.request, refused.code) == (2, Code.FULL)
        while (status := await peer.expect(Status)).request == 2:
            assert status.more
        assert status.request == 3
        counters = (await house.stats())["counters"]
        assert counters["refused_full"] == 1
        # What was told before is watched; and the request is forgotten.
        assert not house.broker.peers[1].parts
        assert not house.broker.peers[1].watches

    play(scenario, max_memory=1 << 20)


def test_refused_rows_are_counted_and_share_a_line_of_the_log(caplog):
    async def scenario(house):
        peer = await house.guest("web-1")
        for request in range(20):
            peer.send(Publish(request, [task(body=b"x" * 2000) for _ in range(10)]))
        for _ in range(20):
            assert (await peer.expect(Confirm)).accepted == 0
        assert house.broker.default.counters["refused_body_too_large"] == 200

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
        subscribe = house.broker.default.engine.subscribe
        house.broker.default.engine.subscribe = lambda *given: (
            taken.append(house.broker.pump.ran_at),
            subscribe(*given),
        )
        worker.send(*[Subscribe(number, ["q"]) for number in range(1, 6)])
        for _ in range(5):
            await worker.expect(Ok)
        assert peer.in_session
        assert len(set(taken)) >= 3, "the pump ran between them"

    play(scenario)


@pytest.mark.parametrize(
    "asked",
    [Subscribe(1, ["q"]), Purge(1, []), Stats(1), History(1, b"i" * 16), List(1, "dead", None, 5)],
    ids=lambda asked: type(asked).__name__,
)
def test_what_is_long_to_answer_is_one_to_a_turn(asked, monkeypatch):
    async def scenario(house):
        runs = 0
        at: list[int] = []
        pump, handle = house.broker.default.engine.pump, HANDLERS[type(asked)]

        def counted():
            nonlocal runs
            runs += 1
            return pump()

        def noted(*given):
            at.append(runs)
            handle(*given)

        monkeypatch.setattr(house.broker.default.engine, "pump", counted)
        guest = await house.guest()
        peer = house.broker.peers[1]
        monkeypatch.setattr(peer, "_handlers", {**peer._handlers, type(asked): noted})
        guest.send(*[asked] * 3, Query(9, [b"x" * 16]))
        await guest.expect(Status)
        assert len(set(at)) == 3

    play(scenario)


IDS = [bytes([number]) * 16 for number in range(4)]


@pytest.mark.parametrize(
    ("asked", "cost"),
    [
        (Heartbeat(), 0),
        (Credit(5), 0),
        (Publish(1, [task() for _ in range(5)]), 5),
        (Complete(1, [[id_, 1, 1, None, None, None, None] for id_ in IDS]), 4),
        (Started([[id_, 1] for id_ in IDS]), 4),
        (Unwatch(IDS), 4),
        (Query(1, IDS[:2]), 2),
        (Watch(1, IDS[:2]), 2),
        (Revoke(1, IDS, False), 4 * CHANGE_COST),
        (Rerun(1, IDS), 4 * CHANGE_COST),
        (Forget(1, IDS), 4 * CHANGE_COST),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_a_peer_asks_for_is_charged_to_its_turn(asked, cost):
    async def scenario(house):
        guest = await house.guest()
        peer = house.broker.peers[1]
        before = peer.spent
        guest.send(asked, Query(9, IDS[:1]))
        while (await guest.expect(Status)).request != 9:
            pass
        assert peer.spent - before == 2 * MESSAGE_COST + cost + 1

    play(scenario)


def test_an_inventory_is_charged_to_its_turn():
    async def scenario(house):
        worker = await house.worker(*[task() for _ in range(9)])
        worker.talker.vanish()
        await house.until(lambda: not house.broker.peers)
        back = await house.back(worker.welcome)
        (peer,) = house.broker.peers.values()
        before = peer.spent
        back.talker.send(Resume(1, [[*lease, 0] for lease in worker.leases], 0))
        assert await back.talker.expect(Ok) == Ok(1, 9)
        assert peer.spent - before == MESSAGE_COST + 9

    play(scenario)


def test_a_request_of_many_ids_is_answered_as_one():
    async def scenario(house):
        guest, other = await house.guest(), await house.guest()
        rows = [task() for _ in range(2000)]
        ids = [row[0] for row in rows]
        guest.send(Publish(1, rows))
        await guest.expect(Confirm)
        turns = []
        revoke = house.broker.default.engine.revoke

        def noted(session, request, part, *more):
            turns.append((session, len(part)))
            revoke(session, request, part, *more)

        house.broker.default.engine.revoke = noted
        guest.send(Revoke(2, [*ids, *ids], False))
        other.send(Revoke(3, [b"x" * 16], False))
        assert await other.expect(Ok) == Ok(3, 1)
        assert await guest.expect(Ok) == Ok(2, 2000)
        assert max(size for _, size in turns) == TURN_ROWS // CHANGE_COST
        assert turns.index((2, 1)) < len(turns) - 1  # others are served in between
        guest.send(Query(4, [*ids, *ids]), Rerun(5, ids), Forget(6, ids))
        seen, more = [], True
        while more:
            part = await guest.expect(Status)
            seen += part.tasks
            more = part.more
        assert [row[0] for row in seen] == ids
        assert {row[1] for row in seen} == {Stage.REVOKED}
        assert await guest.next() == Ok(5, 2000)
        assert await guest.next() == Ok(6, 0)
        assert house.broker.peers[1].parts == {}

    play(scenario)


def test_what_came_after_a_long_request_is_taken_after_it():
    async def scenario(house):
        guest = await house.guest()
        ids = [number.to_bytes(16, "big") for number in range(500)]
        guest.send(Revoke(1, ids, False), Publish(2, [task(id_) for id_ in ids]))
        assert await guest.expect(Ok) == Ok(1, 500)
        assert (await guest.expect(Confirm)).accepted == 500
        assert set(await house.stages(*ids)) == {Stage.REVOKED}

    play(scenario)


def test_what_is_read_while_a_long_request_is_taken_waits_behind_it():
    async def scenario(house):
        guest = await house.guest()
        ids = [number.to_bytes(16, "big") for number in range(500)]
        peer = house.broker.peers[1]
        peer.data_received(guest.connection.send(Revoke(1, ids, False)))
        peer.data_received(guest.connection.send(Publish(2, [task(id_) for id_ in ids])))
        assert await guest.next() == Ok(1, 500)
        assert await guest.expect(Confirm) == Confirm(2, 500)
        assert set(await house.stages(*ids)) == {Stage.REVOKED}

    play(scenario)


def user(name: str, *roles: Role) -> Identity:
    return Identity(name, "token", User(name, b"", frozenset(roles), frozenset({"default"})))


@pytest.mark.parametrize("role", [Role.PUBLISH, Role.CONSUME, Role.CONTROL])
def test_what_a_role_does_not_hold_is_forbidden(role):
    handlers = handlers_for(user("shop", role).roles)
    for command in COMMANDS.values():
        if command.message in HANDLERS:
            allowed = command.role in (role, Role.ANY)
            assert (handlers[command.message] is forbidden) == (not allowed)


def test_an_admin_may_do_everything():
    assert handlers_for(user("boss", Role.ADMIN).roles) == HANDLERS


def test_a_request_without_its_role_is_refused_and_the_connection_goes_on(tmp_path, caplog):
    with changing(tmp_path / "users.json") as users:
        token = users.add("shop", ["publish"], ["default"])

    async def scenario(house):
        shop = await house.connect()
        await shop.hello("web", token=token)
        shop.send(Purge(1, []), Publish(2, [task()]))
        refused = await shop.expect(Error)
        assert (refused.request, refused.code) == (1, Code.FORBIDDEN)
        assert refused.message == "PURGE needs the role control, which user shop does not have"
        assert (await shop.expect(Confirm)).accepted == 1
        assert house.broker.default.counters["refused_forbidden"] == 1
        shop.send(Credit(1))
        refused = await shop.expect(Error)
        # As for SUBSCRIBE, with which a worker sends it.
        assert refused.message == "SUBSCRIBE needs the role consume, which user shop does not have"
        assert refused.request is None
        assert await shop.ended()

    play(scenario, users=tmp_path / "users.json", needs_token=True)


def test_who_changes_what_others_published_stands_in_the_audit_log_once(caplog):
    async def scenario(house):
        guest = await house.guest("cli@host")
        ids = [bytes([number]) * 16 for number in range(100)]
        guest.send(Revoke(1, ids, False), Purge(2, ["a", "b"]), Purge(3, []))
        for _ in range(3):
            await guest.expect(Ok)

    caplog.set_level("INFO", "chervil.audit")
    play(scenario)
    told = ", ".join(to_text(bytes([number]) * 16) for number in range(5))
    assert caplog.messages == [
        f"Unix socket: local asks for REVOKE of {told} and 95 more",
        "Unix socket: local asks for PURGE of a, b",
        "Unix socket: local asks for PURGE of all queues",
    ]
