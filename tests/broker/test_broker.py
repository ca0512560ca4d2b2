"""Results, stats, what a changed users file does to who is there, and the end."""

import asyncio
import time

import pytest

from chervil.protocol import Code, Stage
from chervil.protocol.messages import (
    Complete,
    Confirm,
    Credit,
    Deliver,
    Error,
    Goodbye,
    Hello,
    Ok,
    Publish,
    Report,
    Result,
    Stats,
    Status,
    Subscribe,
    Watch,
)
from chervil_broker import broker as broker_module
from chervil_broker import pump as pump_module
from chervil_broker import sessions as sessions_module
from chervil_broker.users import Quotas, changing
from tests.broker.talk import play, task


def test_the_end_is_said_to_everybody():
    async def scenario(house):
        peer = await house.guest()
        peer.send(Publish(1, [task()]))
        await peer.expect(Confirm)
        assert house.broker.unfinished() == 1
        ending = asyncio.create_task(house.broker.stop(1.0))
        assert (await peer.expect(Goodbye)).code == "SHUTDOWN"
        peer.writer.close()
        await ending
        assert house.broker.peers == {}

    play(scenario)


def test_answers_that_wait_for_company_are_sent_before_the_end(monkeypatch):
    monkeypatch.setattr(pump_module, "UNHURRIED_SECONDS", 60)

    async def scenario(house):
        peer = await house.guest()
        row = task()
        peer.send(Publish(1, [row]))
        await peer.expect(Confirm)
        peer.send(Watch(2, [row[0]]))
        waiter = house.broker.peers[1]
        await house.until(lambda: bool(house.broker.default.engine._state.watchers) and not waiter.watches)
        ending = asyncio.create_task(house.broker.stop(1.0))
        answer, end = await peer.next(), await peer.next()
        assert (type(answer), answer.request, type(end)) == (Status, 2, Goodbye)
        peer.writer.close()
        await ending

    play(scenario)


def test_what_nobody_has_decided_on_yet_is_answered_before_the_end():
    async def scenario(house):
        peer = await house.guest()
        house.broker.default.engine.publish(house.broker.peers[1].session, 7, [])
        ending = asyncio.create_task(house.broker.stop(1.0))
        answer, end = await peer.next(), await peer.next()
        assert (type(answer), answer.request, type(end)) == (Confirm, 7, Goodbye)
        peer.writer.close()
        await ending

    play(scenario)


def test_stats_report_the_broker():
    async def scenario(house):
        peer = await house.guest()
        peer.send(Publish(1, [task(queue="mail")]), Stats(2))
        await peer.expect(Confirm)
        report = (await peer.expect(Report)).report
        assert report["durability"] == "memory"
        assert report["connections"] == 1
        assert report["tasks"]["QUEUED"] == 1
        assert report["queues"][0]["name"] == "mail"
        assert report["queues"][0]["waiting_for"] == "no_consumer"
        assert report["instance"] == house.broker.instance.hex()

    play(scenario)


def test_results_reach_everybody_who_waits():
    async def scenario(house):
        waiters = [await house.guest() for _ in range(3)]
        worker = await house.guest()
        row = task()
        worker.send(Publish(1, [row]))
        await worker.expect(Confirm)
        for waiter in waiters:
            waiter.send(Watch(1, [row[0]]))
            await waiter.expect(Status)
        worker.send(Subscribe(2, ["default"]), Credit(1))
        await worker.expect(Ok)
        await worker.expect(Deliver)
        worker.send(Complete(1, [[row[0], 1, 1, "json", b"5"]]))
        for waiter in waiters:
            assert (await waiter.expect(Result)).tasks[0][:4] == [row[0], Stage.SUCCESS, "json", b"5"]

    play(scenario)


@pytest.fixture
def path(tmp_path):
    """A users file with two more vhosts; one takes three tasks."""
    path = tmp_path / "users.json"
    with changing(path) as users:
        users.set_vhost("shop", Quotas(max_memory=8 << 20, max_tasks=3), new=True)
        users.set_vhost("mail", Quotas(), new=True)
    return path


async def at(house, vhost):
    talker = await house.connect()
    await talker.hello("guest", vhost=vhost)
    return talker


def test_leases_that_go_back_in_another_vhost_are_delivered_there_at_once(path, monkeypatch):
    monkeypatch.setattr(sessions_module, "SUSPENDED_MAX", 1)
    monkeypatch.setattr(broker_module, "GRACE_CLOSED_MS", 60_000)  # or the end of it would wake the vhost

    async def scenario(house):
        row = task()
        first, second, elsewhere = [await at(house, vhost) for vhost in ("shop", "shop", "mail")]
        first.send(Publish(1, [row]))
        await first.expect(Confirm)
        for talker in (first, elsewhere):
            talker.send(Subscribe(2, ["default"]), Credit(1))
            await talker.expect(Ok)
        await first.expect(Deliver)
        second.send(Subscribe(2, ["default"]), Credit(1))
        await second.expect(Ok)
        first.vanish()
        await house.until(lambda: len(house.broker.peers) == 2)
        closed_at = []
        engine = house.broker.vhosts["shop"].engine
        close = engine.close
        engine.close = lambda number, **how: (closed_at.append(engine._state.now), close(number, **how))[1]
        begun = time.monotonic_ns()
        elsewhere.vanish()
        assert (await second.expect(Deliver)).tasks[0][:2] == [row[0], 2]
        assert closed_at[0] > begun

    play(scenario, users=path)


@pytest.mark.parametrize("gone", [False, True], ids=["connected", "without a connection"])
def test_who_is_removed_gives_back_what_it_has_at_the_time_that_it_is(gone, path):
    with changing(path) as users:
        token = users.add("crook", ["admin"], ["shop"])

    async def scenario(house):
        worker = await house.connect()
        await worker.hello("worker", token=token, vhost="shop")
        worker.send(Subscribe(1, ["default"]), Credit(1))
        await worker.expect(Ok)
        if gone:
            worker.vanish()
            await house.until(lambda: not house.broker.peers)
        closed_at = []
        engine = house.broker.vhosts["shop"].engine
        close = engine.close
        engine.close = lambda number, **how: (closed_at.append(engine._state.now), close(number, **how))[1]
        with changing(path) as users:
            users.remove("crook")
        begun = time.monotonic_ns()
        house.broker.refresh_users()
        assert closed_at[0] > begun

    play(scenario, users=path, needs_token=True)


def test_whose_share_is_as_before_is_left_alone(path):
    async def scenario(house):
        limited = []
        for name, vhost in house.broker.vhosts.items():
            set_limits = vhost.engine.set_limits
            vhost.engine.set_limits = lambda *limits, name=name, set_=set_limits: (
                limited.append(name),
                set_(*limits),
            )
        with changing(path) as users:
            users.remove_vhost("mail")
        house.broker.refresh_users()
        house.broker.refresh_users()
        assert limited == ["default"]

    play(scenario, users=path)


@pytest.fixture
def worker_token(path):
    with changing(path) as users:
        return users.add("worker", ["consume", "publish"], ["shop"])


def refreshed(house, path, **granted):
    """The broker, after `user set worker`."""
    with changing(path) as users:
        users.grant("worker", **({"roles": [], "vhosts": []} | granted))
    house.broker.refresh_users()


def test_whose_user_may_do_more_goes_on_and_may_do_it(path, worker_token):
    async def scenario(house):
        worker = await house.connect()
        await worker.hello("w", token=worker_token, vhost="shop")
        worker.send(Subscribe(1, ["default"]), Credit(1), Stats(2))
        await worker.expect(Ok)
        assert (await worker.expect(Error)).code == Code.FORBIDDEN
        refreshed(house, path, roles=["consume", "publish", "control"], vhosts=["shop", "mail"])
        worker.send(Stats(3), Publish(4, [task()]))
        assert (await worker.expect(Report)).report["connections"] == 1
        assert await worker.expect(Deliver)

    play(scenario, users=path, needs_token=True)


@pytest.mark.parametrize(
    "granted",
    [{"roles": ["publish"]}, {"vhosts": ["mail"]}, {"roles": ["publish", "control"]}],
    ids=["a role less", "not its vhost", "another role"],
)
def test_whose_user_lost_what_it_may_be_using_is_sent_away(granted, path, worker_token):
    async def scenario(house):
        worker = await house.connect()
        await worker.hello("w", token=worker_token, vhost="shop")
        refreshed(house, path, **granted)
        refused = await worker.expect(Error)
        assert (refused.code, refused.message) == (
            Code.AUTH_FAILED,
            "user worker was removed or changed; connect with what holds now",
        )
        assert await worker.ended()

    play(scenario, users=path, needs_token=True)


def test_a_session_without_a_connection_stays_as_a_connection_would(path, worker_token):
    async def scenario(house):
        worker = await house.connect()
        await worker.hello("w", token=worker_token, vhost="shop")
        worker.send(Subscribe(1, ["default"]))
        await worker.expect(Ok)
        worker.vanish()
        await house.until(lambda: not house.broker.peers)
        refreshed(house, path, roles=["admin"])
        assert len(house.broker.sessions) == 1
        refreshed(house, path, roles=["consume", "publish"])
        assert len(house.broker.sessions) == 0

    play(scenario, users=path, needs_token=True)


@pytest.mark.parametrize("connected", [True, False])
def test_a_worker_that_is_thrown_out_has_not_said_goodbye(connected, path, worker_token, caplog):
    async def scenario(house):
        worker = await house.connect()
        await worker.hello("w@1", token=worker_token, vhost="shop")
        worker.send(Publish(1, [task(), task()]), Subscribe(2, ["default"]), Credit(2))
        await worker.expect(Deliver)
        if not connected:
            worker.vanish()
            await house.until(lambda: not house.broker.peers)
        with changing(path) as users:
            users.rotate("worker")
        house.broker.refresh_users()
        if connected:
            assert (await worker.expect(Error)).code == Code.AUTH_FAILED

    caplog.set_level("INFO")
    play(scenario, users=path, needs_token=True)
    thrown_out = "worker w@1 was thrown out: user worker was removed or changed; leases that go back: 2"
    assert thrown_out in caplog.messages
    assert "said goodbye" not in caplog.text


def test_a_vhost_counts_its_own_refusals_and_an_admin_sees_those_before_hello_too(path):
    with changing(path) as users:
        watcher = users.add("watcher", ["control", "publish"], ["shop", "mail"])
        admin = users.add("boss", ["admin"], ["shop", "mail"])

    async def counted(house, token, vhost):
        talker = await house.connect()
        await talker.hello("cli", token=token, vhost=vhost)
        talker.send(Stats(1))
        counters = (await talker.expect(Report)).report["counters"]
        return {name: count for name, count in counters.items() if name.startswith(("refused_", "wrong"))}

    async def scenario(house):
        stranger = await house.connect()
        stranger.send(Hello(1, 1, [], "me", "wrong"))
        assert await stranger.expect(Error)
        shop = await house.connect()
        welcome = await shop.hello("web", token=watcher, vhost="shop")
        shop.send(Publish(1, [task() for _ in range(5)]))
        await shop.expect(Confirm)
        thief = await house.connect()
        await thief.hello("t", token=watcher, vhost="mail", resume=[welcome.session, bytes(32)])
        shop.vanish()
        await house.until(lambda: not house.broker.vhosts["shop"].peers)
        assert await counted(house, watcher, "shop") == {"refused_full": 2}
        assert await counted(house, admin, "shop") == {"refused_auth_failed": 1, "refused_full": 2}
        assert await counted(house, watcher, "mail") == {"wrong_session_secrets": 1}

    play(scenario, users=path, needs_token=True)
