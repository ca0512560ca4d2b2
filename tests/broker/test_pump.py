"""What one turn brings leaves together, in its order; timers; answers that wait for company."""

import asyncio
import time

from chervil.protocol import Code
from chervil.protocol.messages import (
    Complete,
    Completed,
    Confirm,
    Credit,
    Deliver,
    Error,
    Ok,
    Publish,
    Purge,
    Report,
    Stats,
    Status,
    Subscribe,
    Watch,
    Window,
)
from chervil_broker import pump as pump_module
from chervil_broker import shortage as shortage_module
from chervil_broker import upkeep as upkeep_module
from chervil_broker.upkeep import Upkeep
from chervil_broker.users import Quotas, changing
from tests.broker.talk import play, task


def test_a_delayed_task_is_delivered_when_it_is_due():
    async def scenario(house):
        peer = await house.guest()
        begin = house.broker.seconds()
        rows = [task(options={2: 60}), task(options={2: 30})]
        peer.send(Publish(1, rows), Subscribe(2, ["default"]), Credit(5))
        await peer.expect(Confirm)
        await peer.expect(Ok)
        delivered = []
        while len(delivered) < 2:  # in one DELIVER where the loop was held up
            delivered += [row[0] for row in (await peer.expect(Deliver)).tasks]
        assert delivered == [rows[1][0], rows[0][0]]
        assert house.broker.seconds() - begin >= 0.06

    play(scenario)


def test_a_due_time_follows_the_wall_clock():
    async def scenario(house):
        peer = await house.guest()
        due_at = time.time_ns() // 1_000_000 + 50
        peer.send(Publish(1, [task(options={4: due_at})]), Subscribe(2, ["default"]), Credit(5))
        await peer.expect(Confirm)
        await peer.expect(Ok)
        await peer.expect(Deliver)
        assert time.time_ns() // 1_000_000 >= due_at

    play(scenario)


def test_a_run_looks_at_no_vhost_but_those_it_is_for(tmp_path):
    with changing(tmp_path / "users.json") as users:
        users.set_vhost("idle", Quotas(), new=True)
        users.set_vhost("slow", Quotas(), new=True)

    async def scenario(house):
        slow, peer = await house.connect(), await house.guest()
        await slow.hello(vhost="slow")
        row = task(options={2: 500})
        slow.send(Publish(1, [row]), Subscribe(2, ["default"]), Credit(1))
        await slow.expect(Ok)
        looked = []
        for vhost in house.broker.vhosts.values():
            asked = vhost.engine.next_timer
            vhost.engine.next_timer = lambda vhost=vhost, asked=asked: (looked.append(vhost.name), asked())[1]
        peer.send(Publish(1, [task()]))
        await peer.expect(Confirm)
        assert set(looked) == {"default"}
        assert (await slow.expect(Deliver)).tasks[0][0] == row[0]
        assert "idle" not in looked

    play(scenario, users=tmp_path / "users.json")


def test_a_timer_that_comes_early_is_set_again():
    async def scenario(house):
        peer = await house.guest()
        row = task(options={2: 500})
        peer.send(Publish(1, [row]), Subscribe(2, ["default"]), Credit(1))
        await peer.expect(Ok)
        house.broker.pump._timer.cancel()
        house.broker.pump._timer_fired()
        assert (await peer.expect(Deliver)).tasks[0][0] == row[0]

    play(scenario)


def test_the_alarm_of_a_vhost_that_is_gone_wakes_nobody(tmp_path):
    path = tmp_path / "users.json"
    with changing(path) as users:
        users.set_vhost("gone", Quotas(), new=True)

    async def scenario(house):
        pump = house.broker.pump
        house.broker.wake(house.broker.vhosts["gone"])
        pump.run()
        pump._alarms.arm("gone", 1, None)
        del house.broker.vhosts["gone"]
        pump._timer_fired()
        assert not pump._woken
        assert pump._alarms.wait(0, 0) is None

    play(scenario, users=path)


def test_answers_that_fit_no_single_frame_go_on_in_another():
    async def scenario(house):
        peer = await house.guest()
        rows = [task(body=b"x" * 1000) for _ in range(300)]
        peer.send(Publish(1, rows[:150]), Publish(2, rows[150:]), Subscribe(3, ["default"]), Credit(300))
        got = []
        while len(got) < 300:
            message = await peer.next()
            if isinstance(message, Deliver):
                got += [row[0] for row in message.tasks]
                assert len(message.tasks) < 300
        assert sorted(got) == sorted(row[0] for row in rows)
        peer.send(Complete(1, [[id_, 1, 1, "json", b"r" * 900] for id_ in got[:140]]))
        peer.send(Complete(2, [[id_, 1, 1, "json", b"r" * 900] for id_ in got[140:]]))
        peer.send(Watch(9, got))
        answered, more = [], True
        while more:
            message = await peer.next()
            if isinstance(message, Status):
                assert message.request == 9
                answered += [row[0] for row in message.tasks]
                more = bool(message.more)
        assert answered == got

    play(scenario)


def test_nobody_answers_a_peer_that_left(caplog):
    async def scenario(house):
        client, worker = await house.guest(), await house.guest()
        row = task()
        client.send(Publish(1, [row]), Watch(2, [row[0]]))
        await client.expect(Confirm)
        await client.expect(Status)
        client.writer.transport.abort()
        worker.send(Subscribe(1, ["default"]), Credit(1))
        await worker.expect(Ok)
        await worker.expect(Deliver)
        worker.send(Complete(1, [[row[0], 1, 1, None, None]]))
        await worker.expect(Completed)

    play(scenario)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_a_task_that_no_worker_knows_is_warned_of_at_once(caplog):
    async def scenario(house):
        peer = await house.guest()
        peer.send(Subscribe(1, ["default"], ["tasks.other"]), Publish(2, [task()]))
        await peer.expect(Ok)
        await peer.expect(Confirm)

    caplog.set_level("WARNING")
    play(scenario)
    assert "no worker of this queue knows that name" in caplog.text


def test_answers_that_nobody_waits_for_go_along_with_the_next_frame():
    async def scenario(house):
        peer = await house.guest()
        row = task()
        peer.send(Publish(1, [row]), Watch(2, [row[0]]), Stats(3))
        first = [type(await peer.next()) for _ in range(3)]
        assert first.index(Status) < first.index(Report)

    play(scenario)


def test_answers_that_nobody_waits_for_come_by_themselves_soon(monkeypatch):
    monkeypatch.setattr(pump_module, "UNHURRIED_SECONDS", 0.001)

    async def scenario(house):
        peer = await house.guest()
        for request in range(20):
            row = task()
            peer.send(Publish(request, [row]))
            await peer.expect(Confirm)
            peer.send(Watch(100 + request, [row[0]]))
            assert (await peer.expect(Status)).request == 100 + request

    play(scenario)


def test_an_answer_that_no_frame_can_hold_harms_nobody_else(monkeypatch, caplog):
    async def scenario(house):
        asker, other = await house.guest("asker"), await house.guest("other")
        monkeypatch.setattr(house.broker, "stats", lambda peer: {"queues": "x" * (17 << 20)})
        asker.send(Stats(1))
        other.send(Publish(2, [task()]))
        assert (await other.expect(Confirm)).accepted == 1
        assert (await asker.expect(Error)).code == Code.TOO_MANY
        assert await asker.ended()
        other.send(Publish(3, [task()]))
        assert (await other.expect(Confirm)).accepted == 1

    caplog.set_level("WARNING")
    play(scenario)
    assert "asker refused: TOO_MANY: an answer to it cannot be sent" in caplog.text


def filler(size: int) -> list[list[object]]:
    """Tasks that take about so many bytes."""
    return [task(body=b"x" * 50_000) for _ in range(size // 50_000)]


async def published(peer, rows):
    """The frames' confirmations: one row a frame, so that memory is looked at after each."""
    for request, row in enumerate(rows):
        peer.send(Publish(request, [row]))
        confirm = await peer.expect(Confirm)
        assert confirm.exceptions is None


def test_windows_close_when_memory_runs_short_and_open_when_there_is_room_again():
    async def scenario(house):
        memory = house.broker.options.task_memory
        first, idle = await house.guest(), await house.guest()
        rows = filler(memory * 85 // 100)
        await published(first, rows)
        closed = await first.expect(Window)
        assert 0 < closed.limit <= len(rows) * 50_000
        assert (await idle.expect(Window)).limit == 0
        newcomer = await house.guest()
        assert await newcomer.next() == Window(0)
        worker = await house.worker(credit=len(rows) // 4)
        done = 0
        while done < len(rows) // 4:
            leased = await worker.delivered()
            worker.talker.send(Complete(done + 1, [[row[0], row[1], 1] for row in leased]))
            done += len(leased)
        shares = [await peer.expect(Window) for peer in (first, idle, newcomer)]
        assert all(share.limit >= 65_536 for share in shares[1:])
        assert shares[1].limit < memory
        first.send(Purge(99, []))
        assert [(await peer.expect(Window)).limit for peer in (first, idle, newcomer)] == [2**63 - 1] * 3
        assert house.broker.default.windows.idle

    play(scenario, max_memory=8 << 20)


def test_that_publishers_wait_and_go_on_is_logged_with_what_helps(caplog, monkeypatch):
    monkeypatch.setattr(shortage_module, "QUIET_SECONDS", 0)

    async def scenario(house):
        first = await house.guest()
        await published(first, filler(house.broker.options.task_memory * 85 // 100))
        await first.expect(Window)
        assert len(caplog.messages) == 1
        assert caplog.messages[0].startswith("publishers wait: tasks take most of their 6.0 MiB; start more")
        assert "queue 'default' has no worker that consumes it; ready tasks: " in caplog.messages[0]
        first.send(Purge(99, []))
        await first.expect(Window)
        assert caplog.messages[1:] == ["publishers go on: there is room for tasks again"]

    caplog.set_level("INFO", "chervil.broker")
    play(scenario, max_memory=8 << 20)


def test_who_ignores_its_window_is_served_until_memory_is_full():
    async def scenario(house):
        peer = await house.guest()
        rows = filler(house.broker.options.task_memory)
        for request, row in enumerate(rows):
            peer.send(Publish(request, [row]))
        confirms = [await peer.expect(Confirm) for _ in rows]
        refused = [confirm.exceptions[0][1] for confirm in confirms if confirm.exceptions]
        assert set(refused) == {Code.FULL}
        assert len(rows) // 30 < len(refused) < len(rows) // 8
        assert (await peer.expect(Window)).limit < len(rows) * 50_000
        assert (await house.stats())["publishing"] != "open"
        assert house.broker.default.counters["refused_full"] == len(refused)

    play(scenario, max_memory=8 << 20)


def test_who_is_refused_though_memory_is_not_short_is_told_to_wait_and_when_to_try_again(monkeypatch):
    monkeypatch.setattr(upkeep_module, "SWEEP_SECONDS", 0.01)

    async def scenario(house):
        peer = await house.guest()
        peer.send(Publish(1, [task(body=b"x" * 900_000)]))
        window, confirm = await peer.next(), await peer.next()
        assert window == Window(900_000)
        assert confirm.exceptions[0][1] == Code.FULL
        upkeep = asyncio.create_task(Upkeep(house.broker).run())
        assert await peer.expect(Window) == Window(2**63 - 1)
        upkeep.cancel()

    play(scenario, max_memory=1 << 20)


def test_while_there_is_room_nobody_hears_of_windows():
    async def scenario(house):
        peer = await house.guest()
        for request in range(10):
            peer.send(Publish(request, [task(body=b"x" * 10_000)]))
            assert type(await peer.next()) is Confirm

    play(scenario)


def test_the_end_of_a_shortage_is_logged_though_nothing_happens_any_more(caplog, monkeypatch):
    monkeypatch.setattr(upkeep_module, "SWEEP_SECONDS", 0.005)

    async def scenario(house):
        first = await house.guest()
        await published(first, filler(house.broker.options.task_memory * 85 // 100))
        await first.expect(Window)
        first.send(Purge(99, []))
        await first.expect(Window)
        assert len(caplog.messages) == 1
        monkeypatch.setattr(shortage_module, "QUIET_SECONDS", 0)
        upkeep = asyncio.create_task(Upkeep(house.broker).run())
        await house.until(lambda: len(caplog.messages) == 2)
        upkeep.cancel()

    caplog.set_level("INFO", "chervil.broker")
    play(scenario, max_memory=8 << 20)
