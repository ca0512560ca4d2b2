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
    Window,
)
from chervil_broker.clock import Clock
from chervil_broker.journal.files import OSFiles
from chervil_broker.journal.reader import Reader
from chervil_broker.journal.records import Published, decode
from chervil_broker.options import BrokerOptions
from chervil_broker.users import Quotas, changing
from chervil_broker.vhost import VHost
from tests.broker import journaled
from tests.broker.talk import Talker, play, task

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


def test_a_quota_that_does_not_fit_holds_up_no_other_change_of_the_users_file(path, caplog):
    with changing(path) as users:
        gone, kept = users.add("gone", ["publish"], ["default"]), users.add("kept", ["publish"], ["default"])

    async def scenario(house):
        removed, rotated = await house.connect(), await house.connect()
        await removed.hello("removed", token=gone)
        await rotated.hello("rotated", token=kept)
        with changing(path) as users:
            users.set_vhost("big", Quotas(max_memory=1 << 40), new=True)
        house.broker.refresh_users()
        # With mail and default it shares what shop's quota leaves.
        assert house.broker.vhosts["big"].engine.stats()["memory"]["limit"] == 14 * MB
        with changing(path) as users:
            users.remove("gone")
            users.rotate("kept")
            users.set_vhost("news", Quotas(), new=True)
        house.broker.refresh_users()
        for talker in (removed, rotated):
            assert (await talker.expect(Error)).code == Code.AUTH_FAILED
        again = await house.connect()
        again.send(Hello(1, 1, [], "removed", gone))
        assert (await again.expect(Error)).code == Code.AUTH_FAILED
        assert {"big", "news"} < set(house.broker.vhosts)
        with changing(path) as users:
            users.set_vhost("big", Quotas(max_memory=16 * MB), new=False)
        house.broker.refresh_users()
        assert house.broker.vhosts["big"].engine.stats()["memory"]["limit"] == 12 * MB

    play(scenario, users=path, needs_token=True)
    (line,) = [message for message in caplog.messages if "of its quota" in message]
    assert line.startswith("vhost big has 18.7 MiB and not the 1.0 TiB of its quota: all vhosts together")


def test_a_broker_starts_although_a_quota_does_not_fit(path, caplog):
    with changing(path) as users:
        users.set_vhost("big", Quotas(max_memory=1 << 40), new=True)

    async def scenario(house):
        assert isinstance(await at(house, "big"), Talker)

    play(scenario, users=path)
    assert "vhost big has 18.7 MiB and not the 1.0 TiB of its quota" in caplog.text


def test_a_users_file_that_is_wrong_changes_nothing_and_is_told_once(path, caplog):
    async def scenario(house):
        path.write_text("nothing of the kind")
        house.broker.refresh_users()
        house.broker.refresh_users()
        assert isinstance(await at(house, "shop"), Talker)

    play(scenario, users=path)
    (line,) = [message for message in caplog.messages if "holds on" in message]
    assert line.startswith(f"{path} is not a users file")


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


def test_records_say_of_which_vhost_they_are(path, tmp_path):
    folder = tmp_path / "data"
    folder.mkdir(mode=0o700)
    path.rename(folder / "users.json")

    async def scenario(house):
        for vhost in ("shop", "mail"):
            guest = await at(house, vhost)
            guest.send(Publish(1, [task()]))
            await guest.expect(Confirm)

    journaled.play(folder, scenario)
    told = [decode(record) for found in Reader(OSFiles(folder)) for record in found.records]
    assert [record.vhost for record in told if type(record) is Published] == ["shop", "mail"]


def test_a_share_is_three_quarters_for_tasks():
    vhost = VHost("v", 8 * MB, Quotas(), BrokerOptions(), Clock())
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


@pytest.mark.parametrize("holds", [False, True], ids=["nothing", "a task for a while"])
def test_a_removed_vhost_is_forgotten_once_it_holds_nothing_without_another_change(holds, path):
    async def scenario(house):
        talker = await at(house, "mail")
        if holds:
            talker.send(Publish(1, [task()]))
            await talker.expect(Confirm)
        mail = house.broker.vhosts["mail"]
        with changing(path) as users:
            users.remove_vhost("mail")
        house.broker.refresh_users()
        assert await talker.expect(Error)
        if holds:
            house.broker.refresh_users()
            assert "mail" in house.broker.vhosts
        mail.engine.open(99, "test")
        mail.engine.purge(99, 1, [])
        mail.engine.set_limits(MB, 0, None)
        mail.engine.pump()
        house.broker.refresh_users()
        assert list(house.broker.vhosts) == ["default", "shop"]
        assert house.broker.default.engine.stats()["memory"]["limit"] == 42 * MB

    play(scenario, users=path)


@pytest.mark.parametrize(
    ("quotas", "share", "remedy"),
    [
        (Quotas(), 8 * MB, "give the broker more memory (--max-memory)"),
        (Quotas(max_memory=8 * MB), 8 * MB, "raise the vhost's quota (chervil broker vhost set v --max-"),
        (Quotas(max_memory=9 * MB), 8 * MB, "give the broker more memory (--max-memory)"),
    ],
    ids=["no quota", "its quota", "less than its quota"],
)
@pytest.mark.parametrize("later", [False, True])
def test_who_is_refused_for_want_of_memory_is_told_which_limit_holds(quotas, share, remedy, later):
    vhost = VHost("v", 2 * MB if later else share, Quotas() if later else quotas, BrokerOptions(), Clock())
    if later:
        vhost.limit(share, quotas)
    engine = vhost.engine
    engine.open(1, "me")
    engine.publish(1, 1, [(bytes([number]) * 16, "t", "q", 0, None, number, MB) for number in range(9)])
    engine.subscribe(1, 2, ["q"], [f"{number:0255}" for number in range(30_000)], 1, 1)
    replies = [reply for _, reply in engine.pump().replies]
    said = [replies[0].exceptions[-1][2], *(reply.message for reply in replies if isinstance(reply, Error))]
    assert len(said) == 2
    assert all(f", or {remedy}" in each for each in said)


@pytest.mark.parametrize(
    ("vhost", "who", "remedy"),
    [
        (
            "shop",
            "publishers of vhost shop",
            "raise the vhost's quota (chervil broker vhost set shop --max-memory SIZE)",
        ),
        ("mail", "publishers of vhost mail", "give the broker more memory (--max-memory)"),
        ("default", "publishers", "give the broker more memory (--max-memory)"),
    ],
)
def test_the_line_on_memory_names_the_limit_that_holds(vhost, who, remedy, path, caplog):
    with changing(path) as users:
        users.set_vhost("shop", Quotas(max_memory=8 * MB), new=False)

    async def scenario(house):
        peer = await at(house, vhost)
        memory = house.broker.vhosts[vhost].engine.stats()["memory"]["limit"]
        for request in range(memory * 9 // 10 // 900_000):
            peer.send(Publish(request, [task(body=b"x" * 900_000)]))
            await peer.expect(Confirm)
        await peer.expect(Window)
        (line,) = [line for line in caplog.messages if "wait: " in line]
        assert line.startswith(f"{who} wait: tasks take most of their ")
        assert f"or {remedy}" in line

    caplog.set_level("WARNING")
    play(scenario, users=path)
