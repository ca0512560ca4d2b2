"""Vhosts: nothing of one is seen or touched from another; quotas; what a changed users file does."""

import pytest

from chervil.protocol import Code, Stage
from chervil.protocol.messages import (
    Confirm,
    Credit,
    Deliver,
    Error,
    Hello,
    Ok,
    Publish,
    Purge,
    Query,
    Report,
    Revoke,
    Stats,
    Status,
    Subscribe,
    Watch,
    Welcome,
)
from chervil_broker.options import BrokerOptions
from chervil_broker.users import Quotas, changing
from chervil_broker.vhost import VHost
from tests.broker.talk import play, task

MB = 1 << 20


@pytest.fixture
def path(tmp_path):
    """A users file with two more vhosts, and a user of one of them."""
    path = tmp_path / "users.json"
    with changing(path) as users:
        users.set_vhost("shop", Quotas(max_memory=8 * MB, max_tasks=3, max_connections=2), new=True)
        users.set_vhost("mail", Quotas(), new=True)
    return path


async def at(house, vhost, name="guest"):
    talker = await house.connect()
    await talker.hello(name, vhost=vhost)
    return talker


def test_nothing_of_a_vhost_is_seen_or_touched_from_another(path):
    async def scenario(house):
        shop, mail = await at(house, "shop"), await at(house, "mail")
        row = task()
        shop.send(Publish(1, [row]))
        mail.send(Publish(1, [task()]), Query(2, [row[0]]), Revoke(3, [row[0]], False), Purge(4, []))
        assert (await shop.expect(Confirm)).exceptions is None
        assert (await mail.expect(Status)).tasks[0][1] == Stage.UNKNOWN
        assert await mail.expect(Ok) == Ok(3, 1)  # an id that is not known is remembered, there
        assert await mail.expect(Ok) == Ok(4, 1)  # its own one
        mail.send(Subscribe(5, ["default"]), Credit(10), Watch(6, [row[0]]))
        assert (await mail.expect(Status)).tasks[0][1] == Stage.UNKNOWN
        shop.send(Query(2, [row[0]]), Subscribe(3, ["default"]), Credit(1))
        assert (await shop.expect(Status)).tasks[0][1] == Stage.QUEUED
        assert (await shop.expect(Deliver)).tasks[0][0] == row[0]
        # The same id in another vhost is another task.
        other = await at(house, "default")
        other.send(Publish(1, [row]))
        assert (await other.expect(Confirm)).exceptions is None

    play(scenario, users=path)


def test_stats_are_of_one_vhost_and_an_admin_sees_which_others_there_are(path):
    async def scenario(house):
        shop = await at(house, "shop")
        shop.send(Publish(1, [task()]), Stats(2))
        report = (await shop.expect(Report)).report
        assert (report["vhost"], report["connections"], report["tasks"]) == ("shop", 1, {"QUEUED": 1})
        assert [(row["name"], row["connections"], row["unfinished"]) for row in report["vhosts"]] == [
            ("default", 0, 0),
            ("shop", 1, 1),
            ("mail", 0, 0),
        ]
        assert report["memory"]["limit"] == 6 * MB
        assert house.broker.default.engine.stats()["memory"]["limit"] == 21 * MB

    play(scenario, users=path)


def test_who_is_no_admin_is_told_of_no_other_vhosts(path):
    with changing(path) as users:
        token = users.add("watcher", ["control"], ["shop"])

    async def scenario(house):
        talker = await house.connect()
        await talker.hello("cli", token=token, vhost="shop")
        talker.send(Stats(1))
        assert "vhosts" not in (await talker.expect(Report)).report

    play(scenario, users=path, needs_token=True)


@pytest.mark.parametrize(
    ("vhost", "said"),
    [
        ("nowhere", "user seller may not use vhost 'nowhere'"),
        ("mail", "user seller may not use vhost 'mail'"),
        (None, "user seller may not use vhost 'default'"),
    ],
)
def test_a_vhost_that_is_not_granted_is_refused_whether_it_exists_or_not(vhost, said, path):
    with changing(path) as users:
        token = users.add("seller", ["admin"], ["shop"])

    async def scenario(house):
        talker = await house.connect()
        talker.send(Hello(1, 1, [], "me", token, vhost))
        refused = await talker.expect(Error)
        assert refused.code == Code.FORBIDDEN
        assert refused.message.startswith(said)
        assert await talker.ended()

    play(scenario, users=path, needs_token=True)


def test_a_vhost_that_is_not_there_says_how_to_add_it(path):
    async def scenario(house):
        talker = await house.connect()
        talker.send(Hello(1, 1, [], "me", None, "shap"))
        refused = await talker.expect(Error)
        assert (refused.code, refused.message) == (
            Code.FORBIDDEN,
            "there is no vhost 'shap'; add it: chervil broker vhost add shap",
        )

    play(scenario, users=path)


def test_a_vhost_has_its_number_of_connections_and_of_tasks(path):
    async def scenario(house):
        first, second = await at(house, "shop"), await at(house, "shop")
        third = await house.connect()
        third.send(Hello(1, 1, [], "third", None, "shop"))
        refused = await third.expect(Error)
        assert refused.code == Code.TOO_MANY
        assert "vhost 'shop' has its 2 connections" in refused.message
        second.vanish()
        await house.until(lambda: len(house.broker.vhosts["shop"].peers) == 1)
        assert await at(house, "shop")
        first.send(Publish(1, [task() for _ in range(5)]))
        confirm = await first.expect(Confirm)
        assert (confirm.accepted, [row[:2] for row in confirm.exceptions]) == (3, [[3, "FULL"], [4, "FULL"]])
        assert "max_tasks" in confirm.exceptions[0][2]

    play(scenario, users=path)


def test_a_session_is_not_taken_up_in_another_vhost(path):
    async def scenario(house):
        worker = await house.connect()
        welcome = await worker.hello("w", vhost="shop")
        worker.send(Subscribe(1, ["default"]))
        await worker.expect(Ok)
        proof = [welcome.session, welcome.secret]
        worker.vanish()
        thief = await house.connect()
        assert not (await thief.hello("w", vhost="mail", resume=proof)).resumed
        back = await house.connect()
        assert (await back.hello("w", vhost="shop", resume=proof)).resumed

    play(scenario, users=path)


def test_a_vhost_that_is_added_is_there_at_once_and_one_that_is_removed_keeps_what_it_holds(path, caplog):
    async def scenario(house):
        shop = await at(house, "shop")
        row = task()
        shop.send(Publish(1, [row]))
        await shop.expect(Confirm)
        with changing(path) as users:
            users.remove_vhost("shop")
            users.set_vhost("news", Quotas(), new=True)
        house.broker.refresh_users()
        assert (await shop.expect(Error)).message.startswith("vhost shop was removed")
        assert await shop.ended()
        refused = await house.connect()
        refused.send(Hello(1, 1, [], "me", None, "shop"))
        assert (await refused.expect(Error)).code == Code.FORBIDDEN
        assert await at(house, "news")
        with changing(path) as users:
            users.set_vhost("shop", Quotas(), new=True)
        house.broker.refresh_users()
        back = await at(house, "shop")
        back.send(Query(1, [row[0]]))
        assert (await back.expect(Status)).tasks[0][1] == Stage.QUEUED

    caplog.set_level("WARNING")
    play(scenario, users=path)
    assert (
        "vhost shop was removed; unfinished tasks that it holds, and has again if it is added: 1"
        in caplog.text
    )


def test_changed_quotas_hold_at_once(path):
    async def scenario(house):
        shop = await at(house, "shop")
        shop.send(Publish(1, [task() for _ in range(4)]))
        assert (await shop.expect(Confirm)).accepted == 3
        with changing(path) as users:
            users.set_vhost("shop", Quotas(max_memory=16 * MB, max_tasks=4), new=False)
        house.broker.refresh_users()
        shop.send(Publish(2, [task() for _ in range(2)]), Stats(3))
        assert (await shop.expect(Confirm)).accepted == 1
        assert (await shop.expect(Report)).report["memory"]["limit"] == 12 * MB
        assert house.broker.default.engine.stats()["memory"]["limit"] == 18 * MB

    play(scenario, users=path)


def test_quotas_that_do_not_fit_change_nothing(path, caplog):
    async def scenario(house):
        with changing(path) as users:
            users.set_vhost("shop", Quotas(max_memory=1 << 40), new=False)
        house.broker.refresh_users()
        assert house.broker.vhosts["shop"].quotas.max_tasks == 3
        assert isinstance(await (await house.connect()).hello("g", vhost="shop"), Welcome)

    play(scenario, users=path)
    assert "is not enough: the quotas of vhosts take" in caplog.text


def test_a_full_vhost_holds_up_nobody_elsewhere(path):
    async def scenario(house):
        shop, mail = await at(house, "shop"), await at(house, "mail")
        for request in range(1, 20):
            shop.send(Publish(request, [task(body=b"x" * 500_000)]))
        codes = set()
        for _ in range(1, 20):
            codes |= {row[1] for row in (await shop.expect(Confirm)).exceptions or ()}
        assert codes == {"FULL"}
        for request in range(1, 20):
            mail.send(Publish(request, [task(body=b"x" * 500_000)]))
        accepted = [(await mail.expect(Confirm)).accepted for _ in range(1, 20)]
        assert sum(accepted) == 19

    play(scenario, users=path)


def test_records_say_of_which_vhost_they_are(path):
    async def scenario(house):
        batches = []
        append = house.broker.store.append
        house.broker.store.append = lambda records: (batches.append(list(records)), append(records))[1]
        shop, mail = await at(house, "shop"), await at(house, "mail")
        shop.send(Publish(1, [task()]))
        await shop.expect(Confirm)
        mail.send(Publish(1, [task()]))
        await mail.expect(Confirm)
        told = [record for batch in batches for record in batch if record[0] in ("vhost", "publish")]
        assert [record[1] if record[0] == "vhost" else "publish" for record in told] == [
            "shop",
            "publish",
            "mail",
            "publish",
        ]

    play(scenario, users=path)


def test_a_share_is_three_quarters_for_tasks():
    vhost = VHost("v", 8 * MB, Quotas(), BrokerOptions())
    memory = vhost.engine.stats()["memory"]
    assert (memory["limit"], memory["results_limit"]) == (6 * MB, 2 * MB)
    vhost.limit(16 * MB, Quotas(max_tasks=1))
    memory = vhost.engine.stats()["memory"]
    assert (memory["limit"], memory["results_limit"]) == (12 * MB, 4 * MB)
    assert (vhost.unfinished(), vhost.held()) == (0, 0)


def test_what_somebody_holds_over_its_share_is_not_given_to_others_yet(path):
    async def scenario(house):
        default = await at(house, "default")
        for request in range(1, 24):
            default.send(Publish(request, [task(body=b"x" * 800_000)]))
        for _ in range(1, 24):
            await default.expect(Confirm)
        held = house.broker.default.held()
        with changing(path) as users:
            for number in range(3):
                users.set_vhost(f"new{number}", Quotas(), new=True)
        house.broker.refresh_users()

        def limit(vhost):
            memory = vhost.engine.stats()["memory"]
            return memory["limit"] + memory["results_limit"]

        others = [vhost for name, vhost in house.broker.vhosts.items() if name != "default"]
        assert held > limit(house.broker.default)
        assert held + sum(map(limit, others)) <= 65 * MB
        default.send(Purge(99, []))
        await default.expect(Ok)
        house.broker.refresh_users()
        house.broker.refresh_users()
        assert 64 * MB - 10 < sum(map(limit, house.broker.vhosts.values())) <= 64 * MB

    play(scenario, users=path)


def test_a_removed_vhost_that_holds_nothing_is_forgotten(path):
    async def scenario(house):
        with changing(path) as users:
            users.remove_vhost("mail")
        house.broker.refresh_users()
        with changing(path) as users:
            users.set_vhost("news", Quotas(), new=True)
        house.broker.refresh_users()
        assert list(house.broker.vhosts) == ["default", "shop", "news"]

    play(scenario, users=path)
