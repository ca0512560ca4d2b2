"""The link's side of its children: their sockets, and what goes in and out of them."""

import asyncio
import contextlib
import os
import signal
import socket
import time
from collections import deque
from typing import Protocol

from chervil.protocol import Outcome, to_text
from chervil_worker import child, control, lifeline, log, packets
from chervil_worker.slots import DEPTH_MAX, Slots, Task

#: Seconds until a task is tried again that could not be sent for want of descriptors.
_PAUSE_SECONDS = 1.0

#: Children that the nursery may be asked for before it has answered. It answers as it forks, while the link
#: does not read: more than the control socket holds (278 messages with Linux's default buffer, fewer where
#: net.core.wmem_default is lower) and both would wait for each other.
ASKED_MAX = 64


class Owner(Protocol):
    """Who is told what comes of the tasks."""

    def complete(
        self,
        task: Task,
        outcome: int,
        codec: str | None,
        body: bytes | None,
        options: dict[int, object] | None,
    ) -> None:
        """A task has come to this outcome."""

    def started(self, task: Task) -> None:
        """A task runs for longer than a short one."""

    def changed(self) -> None:
        """There are tasks to hand out, or there is something to tell the broker."""


class _Ends:
    """Both ends of a child's socket."""

    __slots__ = ("ours", "theirs")

    def __init__(self) -> None:
        self.ours, self.theirs = packets.pair()
        self.ours.setblocking(False)

    def close(self) -> None:
        self.ours.close()
        self.theirs.close()


class Children:
    """The children of all slots."""

    def __init__(
        self,
        slots: Slots,
        count: int,
        nursery: socket.socket,
        owner: Owner,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._slots = slots
        self._nursery = nursery
        self._owner = owner
        self._ends: list[_Ends | None] = [None] * count
        #: Slot -> the process id of its child, from its birth to its death.
        self._pids: dict[int, int] = {}
        #: Slots whose child the nursery is yet to be asked for.
        self._wanted: deque[int] = deque()
        #: Children that it was asked for, and that are neither born nor given up.
        self._asked = 0
        self._timer: asyncio.TimerHandle | None = None
        self._closing = False

    def spawn(self, index: int) -> None:
        """Asks the nursery for a child, once it has answered enough of what it was asked before."""
        self._slots.starting(index)
        self._wanted.append(index)
        self._ask()

    def born(self, index: int, pid: int) -> None:
        """The nursery has forked a slot's child."""
        self._pids[index] = pid
        self._asked -= 1
        self._ask()

    def assign(self) -> None:
        """Sends what the slots should have, and looks after long runs."""
        if self._closing:
            return
        for index, tasks in self._slots.assign(time.monotonic_ns()):
            ends = self._ends[index]
            assert ends is not None
            for at, task in enumerate(tasks):
                try:
                    packets.send(ends.ours, task.number, task.payload, (), packets.DONT_WAIT)
                except BlockingIOError:
                    self._slots.refused(index, tasks[at:])
                    break
                except OSError as error:  # no descriptor is left for a large payload
                    log.worker.warning("%s[%s] waits: %s", task.name, to_text(task.id), error)
                    self._slots.refused(index, tasks[at:])
                    self._loop.call_later(_PAUSE_SECONDS, self._owner.changed)
                    break
        if self._timer is None:
            self._arm()

    def take_back_all(self) -> None:
        """Everything that no child has begun is ours again."""
        for index in range(len(self._ends)):
            self._take_back(index)
        self._owner.changed()

    def exited(self, index: int, pid: int, status: int) -> None:
        """A child has ended: what it answered stands, what it ran is lost, the rest is ours again."""
        self._pids.pop(index, None)
        if not pid:
            self._asked -= 1
        ends = self._ends[index]
        if ends is None:
            return
        self._read_all(index, ends)
        unread = packets.take_back(ends.theirs)
        how = f"{describe(status)} (pid {pid})" if pid else "it could not be forked"
        lost, delay_ns = self._ended(index, unread, how)
        if not lost:
            log.worker.warning("a child died without a task: %s", how)
        if delay_ns:
            log.worker.warning("it is replaced in %d s, as it had taken no task at all", delay_ns // 10**9)
            self._loop.call_later(delay_ns / 1e9, self.spawn, index)
        else:
            self.spawn(index)
        self._ask()
        self._owner.changed()

    def bury(self) -> None:
        """The nursery is dead: kills all children; what they had not begun is ours again.

        What a child had begun and not answered is told as lost when that child is dead, and not before:
        a task must not run twice at once.
        """
        self.kill()
        self.take_back_all()
        self._stop()
        for ends in self._ends:
            if ends is not None:
                # Then ours comes to its end when the last process that holds the child's is dead.
                ends.theirs.close()

    def close(self) -> None:
        """Closes all sockets: each child ends when it has finished what it runs."""
        self._stop()
        for index in range(len(self._ends)):
            self._forget(index)

    def kill(self) -> None:
        """Kills what may be left when there is no nursery to do it."""
        for pid in self._pids.values():
            lifeline.kill_group(pid)

    def _ask(self) -> None:
        """Asks for the children that are wanted; the link keeps their ends too, to take packets back."""
        while self._wanted and self._asked < ASKED_MAX and not self._closing:
            index = self._wanted.popleft()
            ends = _Ends()
            self._ends[index] = ends
            self._loop.add_reader(ends.ours.fileno(), self._read, index, ends)
            self._asked += 1
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # its end is noticed elsewhere
                control.send(self._nursery, control.Spawn(index), [ends.theirs.fileno()])

    def _stop(self) -> None:
        """From here on no child is made and none is sent anything."""
        self._closing = True
        if self._timer is not None:
            self._timer.cancel()

    def _ended(self, index: int, unread: list[int], how: str) -> tuple[list[Task], int]:
        """A child is dead and all that it answered is read: tells what is lost; see `Slots.died`."""
        self._forget(index)
        lost, delay_ns = self._slots.died(index, unread, time.monotonic_ns())
        for task in lost:
            log.worker.error(
                "%s[%s] lost on attempt %d: its process died: %s",
                task.name, to_text(task.id), task.attempt, how,
                extra={"task_name": task.name, "task_id": to_text(task.id)},
            )  # fmt: skip
            told = f"{how}, on attempt {task.attempt}"
            self._owner.complete(task, Outcome.LOST, None, told.encode(), None)
        return lost, delay_ns

    def _forget(self, index: int) -> None:
        ends, self._ends[index] = self._ends[index], None
        if ends is not None:
            self._loop.remove_reader(ends.ours.fileno())
            ends.close()

    def _read(self, index: int, ends: _Ends) -> None:
        """A child has answered."""
        self._read_all(index, ends)
        self._owner.changed()

    def _read_all(self, index: int, ends: _Ends) -> None:
        """Takes in what the child has answered: at most all that it was sent, and its READY."""
        now = time.monotonic_ns()
        for _ in range(DEPTH_MAX + 1):
            try:
                packet = packets.receive(ends.ours)
            except BlockingIOError:
                return
            if packet is None:
                assert self._closing, "until `bury` both ends are open here, so there is no end of file"
                self._ended(index, [], "the worker's nursery died")
                return
            number, payload, _ = packet
            if number == child.READY:
                self._slots.ready(index)
                continue
            task = self._slots.answered(index, number, now)
            if task is None:  # user code is free to fork, or to write where it should not
                log.worker.error(
                    "an answer that was not asked for, or came before, is ignored (slot %d, packet %d)",
                    index, number,
                )  # fmt: skip
                continue
            outcome, codec, body, options = packets.unpack(payload)
            self._owner.complete(task, outcome, codec, body, options)
            if not self._slots.load(index):
                return  # it was sent nothing else, so it has nothing else to say

    def _take_back(self, index: int) -> None:
        ends = self._ends[index]
        if ends is None or self._closing:
            return
        unread = packets.take_back(ends.theirs)
        # What was answered while we took is no longer the child's.
        self._read_all(index, ends)
        self._slots.took_back(index, unread, time.monotonic_ns())

    def _arm(self) -> None:
        """Sets the timer for the next look at long runs; none while nothing runs, or all is known."""
        due = self._slots.next_check()
        if due is None:
            self._timer = None
        else:
            self._timer = self._loop.call_later(max(0, due - time.monotonic_ns()) / 1e9, self._check)

    def _check(self) -> None:
        """Long runs keep no others waiting: what lies behind them is taken back."""
        self._timer = None
        for index, ends in enumerate(self._ends):
            if ends is not None:
                self._read_all(index, ends)
        now = time.monotonic_ns()
        for index in self._slots.overdue(now):
            ends = self._ends[index]
            assert ends is not None
            head = self._slots.took_back(index, packets.take_back(ends.theirs), now)
            if head is not None:
                self._owner.started(head)
        self._owner.changed()


def describe(status: int) -> str:
    """How a process ended, from what waitpid says: "SIGKILL" or "exit code 3"."""
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
