"""Answers that come in parts, and what happens where the link has no descriptor left; see test_children.py."""

import errno
import os
import signal
from typing import Any

import pytest

from chervil.protocol import Outcome
from chervil_worker import children as module
from chervil_worker import packets
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
        assert sum(len(part) for ends in rig.children._ends if ends for part in ends.parts) == 10

    play(story)
    assert "answers more than 10 bytes and is killed" in caplog.text


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
