"""Answers that come in parts, and what happens where the link has no descriptor left; see test_children.py."""

import errno
import os
import signal
from typing import Any

import pytest

from chervil.protocol import Outcome
from chervil_worker import children as module
from chervil_worker import lifeline, outbox, packets
from chervil_worker.child import READY
from chervil_worker.slot import LONG_RUN_NS
from tests.worker.conftest import no_descriptor_left
from tests.worker.rig import Clock, Rig, answer, play, take


def test_answer_in_parts_is_put_together_whatever_comes_between(clock: Clock):
    async def story(rig: Rig) -> None:
        first, second = await rig.child(0), await rig.child(1)
        ids = rig.deliver(2)
        numbers = take(first), take(second)
        large = bytes(3 * packets.INLINE_MAX)
        payload = packets.pack([Outcome.SUCCESS, "json", large, None])
        head, tail = payload[: packets.INLINE_MAX], payload[packets.INLINE_MAX :]
        packets.send(first, numbers[0] | packets.MORE, head)
        await rig.until(lambda: rig.slots[0].answering)
        answer(second, numbers[1])
        await rig.until(lambda: rig.outcomes)
        rig.tick(10**15)
        assert rig.machine.looks == set()
        packets.send_in_parts(first, numbers[0], tail)
        await rig.until(lambda: len(rig.outcomes) == 2)
        assert rig.outcomes == [(ids[1], 1, "json", b"1"), (ids[0], 1, "json", large)]
        assert rig.slots.idle

    play(story, count=2)


def test_child_that_dies_within_its_answer_loses_its_task_and_the_next_ones_answer_is_whole(clock: Clock):
    async def story(rig: Rig) -> None:
        child = await rig.child(0)
        rig.children.born(0, 77)
        rig.deliver(1)
        packets.send(child, take(child) | packets.MORE, b"begun")
        rig.children.exited(0, 77, signal.SIGKILL)
        assert [outcome for _, outcome, *_ in rig.outcomes] == [Outcome.LOST]
        other = await rig.ready_child(1)
        rig.deliver(1)
        answer(other, take(other), b"2")
        await rig.until(lambda: len(rig.outcomes) == 2)
        assert rig.outcomes[1][3] == b"2"

    play(story)


def test_child_whose_answer_does_not_end_is_killed(
    clock: Clock, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "ANSWER_MAX", 10)
    killed: list[int] = []
    monkeypatch.setattr(module.lifeline, "kill_group", killed.append)

    async def story(rig: Rig) -> None:
        child = await rig.child(0)
        rig.deliver(1)
        number = take(child) | packets.MORE
        packets.send(child, number, bytes(10))
        await rig.until(lambda: rig.slots[0].answering)
        assert killed == []
        packets.send(child, number, b"x")
        await rig.until(lambda: killed)
        assert [part for ends in rig.children._ends if ends for part in ends.parts] == [], "none is kept"
        rig.forget()
        packets.send(child, number, b"x")
        packets.send(child, number ^ packets.MORE, b"the end")
        rig.children.exited(0, killed[0], signal.SIGKILL)
        assert [(outcome, body) for _, outcome, _, body in rig.outcomes] == [
            (
                Outcome.LOST,
                b"SIGKILL (pid %d), from the worker: its answer did not end, on attempt 1" % killed[0],
            )
        ]
        rig.turn()

    play(story)
    assert [record.getMessage() for record in caplog.records if "answers" in record.getMessage()] == [
        f"child {killed[0]} answers more than 10 bytes and is killed"
    ]
    assert len(killed) == 1


@pytest.mark.parametrize("size", [10, 3 * packets.INLINE_MAX])
def test_answer_that_is_half_read_when_too_much_is_untold_is_read_to_its_end_when_the_worker_stops(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, size: int
):
    monkeypatch.setattr(outbox, "UNANSWERED_MAX", 1)

    async def story(rig: Rig) -> None:
        first, second = await rig.child(0), await rig.child(1)
        ids = rig.deliver(2)
        numbers = take(first), take(second)
        payload = packets.pack([Outcome.SUCCESS, "json", bytes(size), None])
        packets.send(first, numbers[0] | packets.MORE, payload[:5])
        await rig.until(lambda: rig.slots[0].answering)
        answer(second, numbers[1])
        await rig.until(lambda: rig.outcomes)
        rig.turn()
        rig.machine.drain()
        rig.turn()
        packets.send_in_parts(first, numbers[0], payload[5:])
        await rig.until(lambda: len(rig.outcomes) == 2)
        assert rig.outcomes[1] == (ids[0], Outcome.SUCCESS, "json", bytes(size))
        assert rig.slots.idle

    play(story, count=2)


# What is no answer


def test_part_of_another_packets_answer_is_told_once_and_dropped(
    clock: Clock, caplog: pytest.LogCaptureFixture
):
    async def story(rig: Rig) -> None:
        child = await rig.child(0)
        (id_,) = rig.deliver(1)
        number = take(child)
        for part in (b"zzz", b"zz"):
            packets.send(child, 5 | packets.MORE, part)
        packets.send(child, 5, b"z")
        answer(child, number)
        await rig.until(lambda: rig.outcomes)
        assert rig.outcomes == [(id_, Outcome.SUCCESS, "json", b"1")]
        for expected in range(2, 7):  # that number's own turn comes too
            rig.deliver(1)
            answer(child, take(child))
            await rig.until(lambda expected=expected: len(rig.outcomes) == expected)

    play(story)
    (record,) = caplog.records
    assert record.getMessage() == (
        "a part of an answer that was not asked for is ignored, and so are others that this child sends "
        "(slot 0, packet 5)"
    )


@pytest.mark.parametrize("size", [10, 2 * packets.INLINE_MAX])
def test_part_that_came_before_its_packet_was_begun_is_not_glued_to_another_answer(clock: Clock, size: int):
    async def story(rig: Rig) -> None:
        child, other = await rig.child(0), await rig.child(1)
        rig.deliver(1)
        packets.send(child, 1 | packets.MORE, b"zzz")
        await rig.until(lambda: rig.slots[0].answering)
        clock.now += LONG_RUN_NS + 1
        rig.tick(clock.now)
        answer(other, take(other))
        await rig.until(lambda: rig.outcomes)
        rig.slots[0].deaf = False
        ids = rig.deliver(1)
        answer(child, take(child), bytes(size))
        await rig.until(lambda: len(rig.outcomes) == 2)
        assert rig.outcomes[1] == (ids[0], Outcome.SUCCESS, "json", bytes(size))

    play(story, count=2)


RUBBISH = {
    "nothing": lambda number: b"",
    "short": lambda number: b"abc",
    "ready": lambda number: READY.to_bytes(8, "big"),
    "not msgpack": lambda number: (999).to_bytes(8, "big") + b"\xc1",
    "an int": lambda number: number.to_bytes(8, "big") + b"\x05",
    "another list": lambda number: number.to_bytes(8, "big") + packets.pack([99, None, None, None]),
}


@pytest.mark.parametrize("rubbish", RUBBISH.values(), ids=RUBBISH.keys())
def test_child_that_sends_rubbish_is_killed_and_its_task_lost_for_that_reason(
    clock: Clock, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, rubbish: Any
):
    killed: list[int] = []
    monkeypatch.setattr(module.lifeline, "kill_group", killed.append)

    async def story(rig: Rig) -> None:
        child = await rig.child(0)
        await rig.deepen(child, 4)
        ids = rig.deliver(2)
        number = take(child)
        for _ in range(3):
            child.send(rubbish(number))
        rig.look()  # packets are taken back in the same turn
        rig.turn()
        assert len(killed) == 1
        assert rig.slots.running == 1, "it goes on until the child is dead, and nothing is sent behind it"
        rig.children.exited(0, killed[0], signal.SIGKILL)
        why = b"SIGKILL (pid %d), from the worker: it had sent what is no answer, on attempt 1" % killed[0]
        assert rig.outcomes == [(ids[0], Outcome.LOST, None, why)]
        again = await rig.ready_child(1)
        rig.turn()
        answer(again, take(again))
        await rig.until(lambda: len(rig.outcomes) == 2)
        assert rig.outcomes[1][0] == ids[1]

    play(story)
    said = [record.getMessage() for record in caplog.records]
    assert said[0] == (
        f"child {killed[0]} sends what is no answer (does a task write to a file or socket that it has "
        "closed?) and is killed"
    )
    assert len(said) == 2
    assert "lost on attempt 1" in said[1]


def test_descriptors_that_a_child_sends_are_closed(clock: Clock, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module.lifeline, "kill_group", lambda pid: None)

    async def story(rig: Rig) -> None:
        child = await rig.child(0)
        before = lifeline.open_descriptors()
        packets.send(child, 7, b"", [0])
        rig.children.read()
        assert lifeline.open_descriptors() == before
        assert rig.slots[0].mark is not None

    play(story)


def test_rubbish_of_a_child_that_has_died_is_told_and_its_own_end_stands(
    clock: Clock, caplog: pytest.LogCaptureFixture
):
    async def story(rig: Rig) -> None:
        child = await rig.child(0)
        (id_,) = rig.deliver(1)
        take(child)
        child.send(b"abc")
        rig.children.exited(0, 77, 3 << 8)
        rig.turn()
        assert rig.outcomes == [(id_, Outcome.LOST, None, b"exit code 3 (pid 77), on attempt 1")]

    play(story)
    assert "the child of slot 0, which has died, sends what is no answer" in caplog.text


def test_child_that_dies_right_after_its_rubbish_is_sent_no_signal(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
):
    killed: list[int] = []
    monkeypatch.setattr(module.lifeline, "kill_group", killed.append)

    async def story(rig: Rig) -> None:
        child = await rig.child(0)
        (id_,) = rig.deliver(1)
        take(child)
        child.send(b"abc")
        rig.children.read()
        rig.children.exited(0, 77, 3 << 8)
        rig.turn()
        assert rig.outcomes == [(id_, Outcome.LOST, None, b"exit code 3 (pid 77), on attempt 1")]
        assert killed == []

    play(story)


def test_answer_that_comes_after_rubbish_stands(clock: Clock, monkeypatch: pytest.MonkeyPatch):
    killed: list[int] = []
    monkeypatch.setattr(module.lifeline, "kill_group", killed.append)

    async def story(rig: Rig) -> None:
        child = await rig.child(0)
        (id_,) = rig.deliver(1)
        number = take(child)
        child.send(b"abc")
        answer(child, number)
        await rig.until(lambda: rig.outcomes and killed)
        rig.children.exited(0, killed[0], signal.SIGKILL)
        assert rig.outcomes == [(id_, Outcome.SUCCESS, "json", b"1")]

    play(story)


def test_child_that_no_descriptor_is_left_for_is_made_later(
    clock: Clock, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "_PAUSE_SECONDS", 0.001)

    async def story(rig: Rig) -> None:
        with no_descriptor_left(os.getpid()):
            rig.children.spawn(0)
        await rig.until(lambda: rig.spawned)
        assert [slot for slot, _ in rig.spawned] == [0]

    play(story)
    assert "no child for slot 0, which waits: [Errno 24]" in caplog.text


def test_task_that_no_descriptor_is_left_for_is_tried_again(
    clock: Clock, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "_PAUSE_SECONDS", 0.001)

    def refuse(*given: Any) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    async def story(rig: Rig) -> None:
        child = await rig.child(0)
        with monkeypatch.context() as patched:
            patched.setattr(packets, "send", refuse)
            changes = rig.changes
            rig.deliver(1)
        with pytest.raises(BlockingIOError):
            take(child)
        await rig.until(lambda: rig.changes > changes)
        rig.turn()
        assert take(child) == 1

    play(story)
    assert "add[00000000-0000-0000-0000-000000000001] waits: [Errno 24]" in caplog.text
