"""The link's children: their sockets in one process, with the test as nursery and child; then real ones."""

import asyncio
import signal
import socket
import subprocess

import pytest

from chervil.protocol import Outcome
from chervil_worker import control, outbox, packets, slots
from chervil_worker.child import READY
from chervil_worker.children import ASKED_MAX
from chervil_worker.slot import LONG_RUN_NS
from chervil_worker.slots import DEPTH_MAX
from tests.worker.broker import DEADLINE
from tests.worker.rig import Clock, Rig, answer, play, take, unread


def test_child_is_sent_nothing_before_it_is_ready(clock: Clock):
    async def story(rig: Rig) -> None:
        rig.children.spawn(0)
        rig.deliver(1)
        await rig.until(lambda: rig.spawned)
        slot, child = rig.spawned[0]
        assert slot == 0
        with pytest.raises(BlockingIOError):
            take(child)
        await rig.ready_child(0)
        rig.turn()
        assert packets.receive(child) == packets.Packet(1, b"row")

    play(story)


def test_answer_reaches_the_owner_with_its_task(clock: Clock):
    async def story(rig: Rig) -> None:
        child = await rig.child(0)
        (id_,) = rig.deliver(1)
        answer(child, take(child), b"42")
        await rig.until(lambda: rig.outcomes)
        assert rig.outcomes == [(id_, Outcome.SUCCESS, "json", b"42")]
        assert rig.slots.idle

    play(story)


def test_answer_that_was_given_before_or_not_asked_for_is_ignored(
    clock: Clock, caplog: pytest.LogCaptureFixture
):
    async def story(rig: Rig) -> None:
        child = await rig.child(0)
        ids = rig.deliver(1)
        number = take(child)
        for _ in range(2):
            answer(child, number)
        answer(child, 99)
        await rig.until(lambda: len(caplog.records) == 2)
        ids += rig.deliver(1)
        answer(child, take(child), b"2")
        await rig.until(lambda: len(rig.outcomes) == 2)
        assert [id_ for id_, *_ in rig.outcomes] == ids
        assert rig.slots.idle

    play(story)
    assert [record.getMessage() for record in caplog.records] == [
        f"an answer that was not asked for, or came before, is ignored (slot 0, packet {number})"
        for number in (1, 99)
    ]


def test_nursery_is_asked_for_more_children_only_as_it_answers(clock: Clock):
    async def story(rig: Rig) -> None:
        rig.prompt = False
        count = ASKED_MAX + 2
        for index in range(count):
            rig.children.spawn(index)
        await rig.until(lambda: len(rig.spawned) == ASKED_MAX)
        with pytest.raises(BlockingIOError):
            control.receive(rig._nursery, packets.DONT_WAIT)
        rig.children.born(0, 77)
        await rig.until(lambda: len(rig.spawned) == ASKED_MAX + 1)
        rig.children.exited(1, 0, 1 << 8)  # could not be forked: that is an answer too
        await rig.until(lambda: len(rig.spawned) == count)
        assert [slot for slot, _ in rig.spawned] == list(range(count))
        rig.children.close()

    play(story, count=ASKED_MAX + 2)


def test_without_a_nursery_a_task_is_lost_when_its_child_is_dead_and_not_before(
    clock: Clock, caplog: pytest.LogCaptureFixture
):
    async def story(rig: Rig) -> None:
        child = await rig.child(0)
        await rig.deepen(child, 4)
        ids = rig.deliver(4)
        answer(child, take(child), b"1")
        take(child)  # and this one runs
        rig.machine.nursery_died(clock.now)
        rig.children.bury()
        rig.turn()
        assert unread(child) == 0
        assert [(id_, outcome) for id_, outcome, *_ in rig.outcomes] == [
            (ids[0], Outcome.SUCCESS),
            (ids[2], Outcome.RELEASE),
            (ids[3], Outcome.RELEASE),
        ]
        rig.look()
        assert rig.slots.running == 1
        changes = rig.changes
        child.close()
        await rig.until(lambda: rig.changes > changes)
        assert rig.outcomes[3:] == [(ids[1], Outcome.LOST, None, b"the worker's nursery died, on attempt 1")]
        assert rig.slots.idle
        rig.children.spawn(0)
        assert packets.take_back(rig._nursery) == [], "no other is asked for"

    play(story)
    assert "lost on attempt 1: its process died: the worker's nursery died" in caplog.text


def test_without_a_nursery_the_last_answer_of_a_child_stands(clock: Clock):
    async def story(rig: Rig) -> None:
        child = await rig.child(0)
        (id_,) = rig.deliver(1)
        number = take(child)
        rig.children.bury()
        answer(child, number)
        child.close()
        await rig.until(lambda: rig.slots.idle)
        assert rig.outcomes == [(id_, Outcome.SUCCESS, "json", b"1")]

    play(story)


def test_dead_child_loses_its_head_while_answers_stand_and_the_unread_go_to_others(
    clock: Clock, caplog: pytest.LogCaptureFixture
):
    async def story(rig: Rig) -> None:
        dying = await rig.child(0)
        await rig.deepen(dying, 8)
        ids = rig.deliver(8)
        for value in (b"1", b"2"):
            answer(dying, take(dying), value)
        take(dying)  # and this one runs
        # The report of its end overtakes its answers: both are there in the same turn.
        rig.children.born(0, 77)
        rig.children.exited(0, 77, signal.SIGKILL)
        assert rig.outcomes == [
            (ids[0], Outcome.SUCCESS, "json", b"1"),
            (ids[1], Outcome.SUCCESS, "json", b"2"),
            (
                ids[2],
                Outcome.LOST,
                None,
                b"SIGKILL (pid 77), perhaps by the system for want of memory, on attempt 1",
            ),
        ]
        other = await rig.child(1)
        await rig.ready_child(1)  # the replacement, asked for at once
        rig.forget()
        while len(rig.outcomes) < 5:
            done = len(rig.outcomes)
            rig.turn()
            for child in (rig.spawned[1][1], other):
                while True:
                    try:
                        answer(child, take(child))
                    except BlockingIOError:
                        break
            await rig.until(lambda done=done: len(rig.outcomes) > done)
        assert sorted(id_ for id_, *_ in rig.outcomes) == ids[3:]
        assert rig.slots.idle

    play(story, count=2)
    assert "add[00000000-0000-0000-0000-" in caplog.text
    assert "lost on attempt 1: its process died: SIGKILL (pid 77)" in caplog.text


def test_child_that_dies_idle_after_work_is_replaced_at_once(clock: Clock, caplog: pytest.LogCaptureFixture):
    async def story(rig: Rig) -> None:
        child = await rig.child(0)
        await rig.deepen(child, 2)
        rig.children.exited(0, 77, 3 << 8)
        await rig.until(lambda: len(rig.spawned) == 2)
        assert rig.outcomes == []

    play(story)
    assert [record.getMessage() for record in caplog.records] == [
        "a child died without a task: exit code 3 (pid 77)"
    ]


@pytest.mark.parametrize(("pid", "how"), [(77, "exit code 1 (pid 77)"), (0, "it could not be forked")])
def test_child_that_took_nothing_is_replaced_after_a_wait_and_its_tasks_are_kept(
    clock: Clock, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, pid: int, how: str
):
    monkeypatch.setattr(slots, "RESPAWN_FIRST_NS", 1_000_000)

    async def story(rig: Rig) -> None:
        await rig.child(0)
        rig.deliver(1)
        rig.children.exited(0, pid, 1 << 8)
        assert rig.outcomes == []
        assert rig.slots.capacity == 0, "nothing is wanted while there is nobody to run it"
        child = await rig.ready_child(1)
        rig.turn()
        assert take(child) == 1

    play(story)
    assert f"a child died without a task: {how}" in caplog.text
    assert "it is replaced in" in caplog.text


def test_end_of_a_child_that_was_dealt_with_changes_nothing(clock: Clock):
    async def story(rig: Rig) -> None:
        await rig.child(0)
        rig.children.close()
        changes = rig.changes
        rig.children.exited(0, 77, 0)
        assert (rig.outcomes, rig.changes) == ([], changes)
        assert rig.slots.capacity == 1, "nor is its slot given up"

    play(story)


def test_full_socket_keeps_tasks_in_the_link_until_the_child_answers(clock: Clock):
    async def story(rig: Rig) -> None:
        child = await rig.child(0)
        await rig.deepen(child, DEPTH_MAX)
        ids = rig.deliver(DEPTH_MAX, bytes(packets.INLINE_MAX))
        held = len(rig.slots[0].sent)
        assert 1 < held < DEPTH_MAX
        rig.turn()
        assert len(rig.slots[0].sent) == held, "a full socket is left alone"
        while len(rig.outcomes) < DEPTH_MAX:
            done = len(rig.outcomes)
            answer(child, take(child))
            await rig.until(lambda done=done: len(rig.outcomes) > done)
            rig.turn()
        assert [id_ for id_, *_ in rig.outcomes] == ids

    play(story)


def test_take_back_leaves_the_head_with_its_child_and_counts_answers(clock: Clock):
    async def story(rig: Rig) -> None:
        child = await rig.child(0)
        await rig.deepen(child, 4)
        ids = rig.deliver(4)
        answer(child, take(child))
        head = take(child)
        rig.look()
        assert rig.outcomes == [(ids[0], Outcome.SUCCESS, "json", b"1")]
        # The head is not known to be a long run, so what was taken back is there for it again.
        assert rig.slots.running == 3
        clock.now += LONG_RUN_NS + 1
        rig.look()
        assert rig.slots.running == 1
        assert unread(child) == 0
        rig.slots.drain()
        rig.turn()
        assert [id_ for id_, outcome, *_ in rig.outcomes if outcome == Outcome.RELEASE] == ids[2:]
        answer(child, head)
        await rig.until(lambda: len(rig.outcomes) == 4)
        assert rig.outcomes[3][0] == ids[1]

    play(story)


def test_take_back_passes_over_slots_without_a_child(clock: Clock):
    async def story(rig: Rig) -> None:
        rig.look()
        assert rig.slots.idle

    play(story, count=2)


def test_long_run_is_reported_once_and_what_lies_behind_it_goes_to_another(clock: Clock):
    async def story(rig: Rig) -> None:
        busy = await rig.child(0)
        await rig.deepen(busy, 4)
        ids = rig.deliver(4)
        take(busy)
        free = await rig.child(1)
        clock.now += LONG_RUN_NS + 1
        rig.tick(clock.now)
        assert rig.reported == [ids[0]]
        assert unread(busy) == 0
        rig.turn()
        answer(free, take(free))
        await rig.until(lambda: rig.outcomes)
        assert rig.outcomes[0][0] == ids[1]
        clock.now += LONG_RUN_NS + 1
        rig.tick(clock.now)
        assert rig.reported == [ids[0]]

    play(story, count=2)


def test_task_that_its_child_does_not_begin_is_not_reported_started_and_goes_to_another(clock: Clock):
    async def story(rig: Rig) -> None:
        deaf = await rig.child(0)
        willing = await rig.child(1)
        (id_,) = rig.deliver(1)
        assert len(rig.slots[0].sent) == 1
        clock.now += LONG_RUN_NS + 1
        rig.tick(clock.now)
        assert rig.reported == []
        assert unread(deaf) == 0
        answer(willing, take(willing))
        await rig.until(lambda: rig.outcomes)
        assert rig.outcomes[0][0] == id_

    play(story, count=2)


def test_answers_stay_in_the_sockets_while_too_much_is_untold(clock: Clock, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(outbox, "UNANSWERED_MAX", 1)

    async def story(rig: Rig) -> None:
        first, second = await rig.child(0), await rig.child(1)
        ids = rig.deliver(2)
        answer(first, take(first))
        await rig.until(lambda: rig.outcomes)
        rig.turn()
        answer(second, take(second))
        await asyncio.sleep(0)  # a turn of the loop, in which an answer that is watched for is read
        rig.children.read()
        assert [id_ for id_, *_ in rig.outcomes] == ids[:1]
        assert rig.slots.running == 1
        rig.machine.outbox = outbox.Outbox()  # as if the broker had answered
        rig.turn()
        await rig.until(lambda: rig.outcomes)
        assert [id_ for id_, *_ in rig.outcomes] == ids[1:]

    play(story, count=2)


def test_child_that_dies_while_answers_are_left_in_sockets_is_read_to_the_end(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(outbox, "UNANSWERED_MAX", 0)

    async def story(rig: Rig) -> None:
        child = await rig.child(0)
        (id_,) = rig.deliver(1)
        rig.turn()
        answer(child, take(child))
        rig.children.exited(0, 77, 1 << 8)
        assert rig.outcomes == [(id_, Outcome.SUCCESS, "json", b"1")]

    play(story)


def test_no_task_is_sent_to_a_child_whose_process_id_is_not_known(clock: Clock):
    async def story(rig: Rig) -> None:
        rig.prompt = False
        rig.children.spawn(0)
        await rig.until(lambda: rig.spawned)
        packets.send(rig.spawned[0][1], READY, b"")
        changes = rig.changes
        await rig.until(lambda: rig.changes > changes)
        rig.deliver(1)
        assert len(rig.slots[0].sent) == 0
        rig.children.born(0, 77)
        rig.turn()
        assert take(rig.spawned[0][1]) == 1

    play(story)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_signal_is_sent_to_the_process_group_of_a_child(clock: Clock, number: int):
    leader = subprocess.Popen(["sh", "-c", "sleep 60 & wait"], process_group=0, stdout=subprocess.PIPE)
    try:

        async def story(rig: Rig) -> None:
            child = await rig.child(0)
            rig.children.born(0, leader.pid)
            (id_,) = rig.deliver(1)
            take(child)
            rig.machine.cancelled([[id_, 1, number]])
            rig.turn()

        play(story)
        assert leader.wait(DEADLINE) == -number
        assert leader.stdout is not None
        assert leader.stdout.read() == b"", "at its end: the other one in the group is dead too"
    finally:
        leader.kill()
        leader.wait()
        assert leader.stdout is not None
        leader.stdout.close()


def test_closing_ends_every_child_and_makes_none_anew(clock: Clock):
    async def story(rig: Rig) -> None:
        child = await rig.child(0)
        rig.deliver(1)
        assert take(child) == 1
        rig.children.close()
        assert packets.receive(child) is None
        rig.children.spawn(0)
        assert packets.take_back(rig._nursery) == []

    play(story)


def test_spawning_without_a_nursery_is_no_error_here(clock: Clock):
    async def story(rig: Rig) -> None:
        asyncio.get_running_loop().remove_reader(rig._nursery.fileno())
        rig._nursery.shutdown(socket.SHUT_RDWR)
        rig.children.spawn(0)
        assert rig.slots.capacity == 1
        assert rig.outcomes == []

    play(story)


def test_kill_reaches_children_that_were_born_and_not_those_that_ended(clock: Clock):
    processes = [subprocess.Popen(["sleep", "60"], process_group=0) for _ in range(2)]
    try:

        async def story(rig: Rig) -> None:
            await rig.child(0)
            rig.children.born(0, processes[0].pid)
            rig.children.born(1, processes[1].pid)
            rig.children.exited(0, processes[0].pid, 0)
            rig.children.kill()

        play(story, count=2)
        assert processes[1].wait(DEADLINE) == -signal.SIGKILL
        assert processes[0].poll() is None
    finally:
        for process in processes:
            process.kill()
            process.wait()
