"""How a connection begins, goes on after a cut, and ends."""

import contextlib

import pytest

from chervil.protocol import Code, HelloOption, Outcome, Stage, Verdict
from chervil.protocol.messages import (
    Complete,
    Completed,
    Confirm,
    Credit,
    Deliver,
    Error,
    Goodbye,
    Heartbeat,
    Hello,
    Ok,
    Publish,
    Resume,
    Stats,
    Subscribe,
    Welcome,
)
from chervil_broker import broker as broker_module
from chervil_broker import greeting as greeting_module
from chervil_broker import sessions as sessions_module
from chervil_broker.tokens import hashed
from chervil_broker.users import Quotas, changing
from tests.broker.talk import play, task


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
        assert house.broker.counters[f"refused_{code.lower()}"] == 1

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
        refused = await talker.expect(Error)
        assert refused.code == Code.FORBIDDEN
        assert "'blue'" in refused.message

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


def shorten(monkeypatch, closed_ms=20, silent_ms=20):
    monkeypatch.setattr(broker_module, "GRACE_CLOSED_MS", closed_ms)
    monkeypatch.setattr(broker_module, "GRACE_SILENT_MS", silent_ms)


def test_a_worker_that_comes_back_goes_on_where_it_was():
    async def scenario(house):
        row = task()
        worker = await house.worker(row)
        worker.talker.vanish()
        back = await house.back(worker.welcome)
        assert back.welcome.resumed
        assert back.welcome[3:5] == worker.welcome[3:5]
        back.talker.send(Resume(1, [[row[0], 1, 1]], 0), Complete(1, [[row[0], 1, Outcome.SUCCESS]]))
        assert await back.talker.expect(Ok) == Ok(1, 1)
        assert await back.talker.expect(Completed) == Completed(1)
        assert await house.stages(row[0]) == [Stage.SUCCESS]

    play(scenario)


def test_a_hello_that_comes_late_does_not_take_the_session_from_its_newer_connection():
    async def scenario(house):
        row = task()
        worker = await house.worker(row)
        late, newer = await house.connect(), await house.connect()
        proof = [worker.welcome.session, worker.welcome.secret]
        newer.send(Hello(1, 1, [], "worker@1", resume=proof, options={HelloOption.ATTEMPT: 3}))
        assert (await newer.expect(Welcome)).resumed
        late.send(Hello(1, 1, [], "worker@1", resume=proof, options={HelloOption.ATTEMPT: 2}))
        refusal = await late.expect(Error)
        assert (refusal.code, refusal.message) == (
            "BAD_STATE",
            "this session was taken up on a newer connection",
        )
        newer.send(Resume(1, [[row[0], 1, 1]], 0), Complete(1, [[row[0], 1, Outcome.SUCCESS]]))
        assert await newer.expect(Ok) == Ok(1, 1)
        assert await newer.expect(Completed) == Completed(1)

    play(scenario)


def test_credit_counts_anew_after_a_session_was_resumed():
    async def scenario(house):
        worker = await house.worker(task(), credit=1)
        worker.talker.vanish()
        back = await house.back(worker.welcome)
        back.talker.send(Resume(1, [[*worker.leases[0], 0]], 0), Subscribe(2, ["default"]), Credit(1))
        back.talker.send(Publish(3, [task(), task()]))
        await back.talker.expect(Confirm)
        assert len(await back.delivered()) == 1
        assert (await house.stats())["tasks"] == {"LEASED": 2, "QUEUED": 1}

    play(scenario)


def test_what_was_delivered_and_never_arrived_goes_back_unflagged():
    async def scenario(house):
        got, lost = task(), task()
        worker = await house.worker(got)
        worker.talker.send(Publish(5, [lost]))
        await worker.talker.expect(Confirm)
        await house.until(lambda: house.broker.default.engine.stats()["tasks"]["LEASED"] == 2)
        worker.talker.vanish()
        back = await house.back(worker.welcome)
        back.talker.send(Resume(1, [[got[0], 1, 0]], 0), Subscribe(2, ["default"]), Credit(5))
        assert await back.talker.expect(Ok) == Ok(1, 1)
        (again,) = await back.delivered()
        assert again[:4] == [lost[0], 2, False, 0]

    play(scenario)


def test_a_completion_that_was_not_answered_and_comes_again_is_a_duplicate():
    async def scenario(house):
        row = task()
        worker = await house.worker(row)
        completion = Complete(1, [[row[0], 1, Outcome.SUCCESS, "json", b"5"]])
        worker.talker.send(completion)
        await worker.talker.writer.drain()
        await house.until(lambda: house.broker.default.engine.stats()["counters"]["succeeded"] == 1)
        worker.talker.vanish()
        back = await house.back(worker.welcome)
        back.talker.send(Resume(1, [[row[0], 1, 1]], 1), completion)
        assert await back.talker.expect(Ok) == Ok(1, 0)
        assert await back.talker.expect(Completed) == Completed(1, [[0, Verdict.DUPLICATE]])
        assert (await house.stats())["counters"]["succeeded"] == 1

    play(scenario)


def test_a_session_moves_on_from_a_connection_that_is_still_open():
    async def scenario(house):
        row = task()
        worker = await house.worker(row)
        back = await house.back(worker.welcome)
        assert back.welcome.resumed
        assert (await worker.talker.expect(Error)).code == Code.BAD_STATE
        assert await worker.talker.ended()
        await house.until(lambda: len(house.broker.peers) == 1)
        back.talker.send(Resume(1, [[row[0], 1, 1]], 0), Subscribe(2, ["default"]), Credit(5))
        assert await back.talker.expect(Ok) == Ok(1, 1)
        back.talker.send(Publish(3, [task()]), Complete(1, [[row[0], 1, Outcome.SUCCESS]]))
        assert (await back.delivered())[0][1] == 1
        assert await back.talker.expect(Completed) == Completed(1)
        assert (await house.stats())["suspended"] == 0

    play(scenario)


def test_what_an_older_connection_was_promised_is_not_answered_on_the_new_one():
    async def scenario(house):
        worker = await house.worker()
        back = await house.connect()
        await house.until(lambda: len(house.broker.peers) == 2)
        older, newer = house.broker.peers.values()
        proof = [worker.welcome.session, worker.welcome.secret]
        older.data_received(worker.talker.connection.send(Publish(78, [task()])))
        newer.data_received(back.connection.send(Hello(1, 1, [], "worker@1", resume=proof)))
        assert await worker.talker.expect(Confirm) == Confirm(78, 1)
        assert (await back.expect(Welcome)).resumed
        back.send(Resume(1, [], 0), Goodbye("DONE"))
        answers = []
        with contextlib.suppress(EOFError):
            while True:
                answers.append(await back.next())
        assert [type(answer) for answer in answers] == [Ok, Goodbye]

    play(scenario)


def test_after_the_grace_a_session_is_over_and_its_leases_are_anothers(monkeypatch, caplog):
    shorten(monkeypatch)

    async def scenario(house):
        row = task()
        worker = await house.worker(row)
        worker.talker.vanish()
        other = await house.worker(name="worker@2")
        assert (await other.delivered())[0][:3] == [row[0], 2, True]
        back = await house.back(worker.welcome)
        assert not back.welcome.resumed
        assert back.welcome.session != worker.welcome.session
        back.talker.send(Complete(1, [[row[0], 1, Outcome.SUCCESS]]))
        assert await back.talker.expect(Completed) == Completed(1, [[0, Verdict.STALE]])
        assert len(house.broker.sessions) == 2

    caplog.set_level("INFO")
    play(scenario)
    assert "worker@1 is gone; what it has is kept for it for 0.02 s" in caplog.text
    assert "worker worker@1 did not come back; leases that go back: 1" in caplog.text


def test_a_wrong_secret_gets_a_new_session_and_takes_nothing_from_the_right_one(caplog):
    async def scenario(house):
        row = task()
        worker = await house.worker(row)
        thief = await house.back(worker.welcome._replace(secret=b"x" * 32), name="thief")
        assert not thief.welcome.resumed
        assert thief.welcome.session != worker.welcome.session
        assert (await house.stats())["counters"]["wrong_session_secrets"] == 1
        worker.talker.vanish()
        assert (await house.back(worker.welcome)).welcome.resumed

    caplog.set_level("WARNING")
    play(scenario)
    assert "thief named a session and not its secret" in caplog.text
    assert "x" * 32 not in caplog.text


def test_after_goodbye_there_is_nothing_to_resume():
    async def scenario(house):
        worker = await house.worker(task())
        worker.talker.send(Goodbye("DONE"))
        await worker.talker.expect(Goodbye)
        assert not (await house.back(worker.welcome)).welcome.resumed

    play(scenario)


def test_a_publishers_session_is_not_kept():
    async def scenario(house):
        publisher = await house.connect()
        welcome = await publisher.hello("web-1")
        publisher.vanish()
        await house.until(lambda: not house.broker.peers)
        assert len(house.broker.sessions) == 0
        assert not (await house.back(welcome)).welcome.resumed

    play(scenario)


def test_too_many_kept_sessions_cost_the_oldest(monkeypatch, caplog):
    monkeypatch.setattr(sessions_module, "SUSPENDED_MAX", 1)

    async def scenario(house):
        rows = [task(), task()]
        first = await house.worker(rows[0], name="first", credit=1)
        second = await house.worker(rows[1], name="second", credit=1)
        for worker in (first, second):
            worker.talker.vanish()
            await house.until(lambda: len(house.broker.peers) < 2)
        await house.until(lambda: not house.broker.peers)
        assert not (await house.back(first.welcome)).welcome.resumed
        assert (await house.back(second.welcome)).welcome.resumed
        assert await house.stages(rows[0][0], rows[1][0]) == [Stage.QUEUED, Stage.LEASED]

    caplog.set_level("WARNING")
    play(scenario)
    assert "the session of first is given up; leases that go back: 1" in caplog.text


def test_an_inventory_may_come_in_parts():
    async def scenario(house):
        rows = [task() for _ in range(3)]
        worker = await house.worker(*rows)
        worker.talker.vanish()
        back = await house.back(worker.welcome)
        inventory = [[id_, lease, 0] for id_, lease in worker.leases]
        back.talker.send(Resume(1, inventory[:2], 0, True), Heartbeat(), Resume(2, inventory[2:], 0))
        assert sorted([await back.talker.expect(Ok) for _ in range(2)]) == [Ok(1), Ok(2, 3)]

    play(scenario)


@pytest.mark.parametrize(
    "sent",
    [
        [Subscribe(1, ["default"])],
        [Complete(1, [])],
        [Resume(1, [], 0, True), Stats(2)],
        [Resume(1, [], 0), Resume(2, [], 0)],
    ],
    ids=["subscribe first", "complete first", "between parts", "twice"],
)
def test_in_a_resumed_session_the_inventory_comes_once_and_first(sent):
    async def scenario(house):
        worker = await house.worker(task())
        worker.talker.vanish()
        back = await house.back(worker.welcome)
        back.talker.send(*sent)
        assert (await back.talker.expect(Error)).code == Code.BAD_STATE
        assert (await house.back(worker.welcome)).welcome.resumed

    play(scenario)


def test_a_new_session_has_nothing_to_resume():
    async def scenario(house):
        guest = await house.guest()
        guest.send(Resume(1, [], 0))
        assert (await guest.expect(Error)).code == Code.BAD_STATE

    play(scenario)


def test_an_inventory_has_a_limit(monkeypatch):
    monkeypatch.setattr(greeting_module, "INVENTORY_MAX", 3)

    async def scenario(house):
        worker = await house.worker(task())
        worker.talker.vanish()
        back = await house.back(worker.welcome)
        part = [[bytes([number]) * 16, 1, 0] for number in range(2)]
        back.talker.send(Resume(1, part, 0, True), Resume(2, part, 0, True))
        assert (await back.talker.expect(Error)).code == Code.TOO_MANY

    play(scenario)


def test_an_inventory_that_does_not_come_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(greeting_module, "RESUME_SECONDS", 0.01)

    async def scenario(house):
        worker = await house.worker(task())
        worker.talker.vanish()
        back = await house.back(worker.welcome)
        error = await back.talker.expect(Error)
        assert (error.code, error.message) == (Code.SLOW, "no whole inventory (RESUME) within 0.01 s")

    play(scenario)


@pytest.fixture
def full(tmp_path):
    """A users file whose default vhost has room for one connection."""
    with changing(tmp_path / "users.json") as users:
        users.set_vhost("default", Quotas(max_connections=1), new=False)
    return tmp_path / "users.json"


def test_in_a_full_vhost_a_worker_comes_back_before_its_older_connection_is_seen_to_end(full):
    async def scenario(house):
        row = task()
        worker = await house.worker(row)
        back = await house.back(worker.welcome)
        assert back.welcome.resumed
        assert await worker.talker.expect(Error)
        assert len(house.broker.default.peers) == 1
        back.talker.send(Resume(1, [[row[0], 1, 0]], 0))
        assert await back.talker.expect(Ok) == Ok(1, 1)

    play(scenario, users=full)


@pytest.mark.parametrize("wrong", ["secret", "session"])
def test_in_a_full_vhost_only_the_right_proof_is_a_place(wrong, full):
    async def scenario(house):
        worker = await house.worker()
        proof = worker.welcome._replace(**{wrong: b"x" * len(getattr(worker.welcome, wrong))})
        thief = await house.connect()
        thief.send(Hello(1, 1, [], "thief", resume=[proof.session, proof.secret]))
        assert (await thief.expect(Error)).code == Code.TOO_MANY
        worker.talker.send(Publish(5, [task()]))
        assert await worker.talker.expect(Confirm) == Confirm(5, 1)

    play(scenario, users=full)


def test_who_waits_without_a_connection_has_no_place_in_a_full_vhost(full):
    async def scenario(house):
        worker = await house.worker()
        worker.talker.vanish()
        await house.until(lambda: not house.broker.peers)
        await house.guest()
        back = await house.connect()
        back.send(Hello(1, 1, [], "worker@1", resume=[worker.welcome.session, worker.welcome.secret]))
        refused = await back.expect(Error)
        assert refused.code == Code.TOO_MANY
        assert refused.message.endswith("chervil broker vhost set default --max-connections N")

    play(scenario, users=full)
