"""The link's side of its children: their sockets and processes. What to do with them the machine decides."""

import asyncio
import contextlib
import os
import signal
import socket
import time
from collections import deque
from collections.abc import Callable

from chervil.protocol import to_text
from chervil.protocol.limits import BODY_DEFAULT, FRAME_MAX
from chervil_worker import child, completion, control, lifeline, log, packets
from chervil_worker.endings import Why
from chervil_worker.machine import Machine

#: Seconds until that is tried again for which no descriptor was left: to send a task, to make a child.
_PAUSE_SECONDS = 1.0

#: Packets that are taken from one child before others have their turn: what its socket holds at once (278
#: with Linux's default buffer), and when it is dead all that it can have left there: the last parts of an
#: answer and answers to a look-ahead.
READS_MAX = 1024

#: Bytes of one answer: the largest row, and a failure record beside its body. Only user code that writes
#: where it should not sends more.
ANSWER_MAX = FRAME_MAX + BODY_DEFAULT

#: Children that the nursery may be asked for before it has answered. It answers as it forks, while the link
#: does not read: more than the control socket holds (278 messages with Linux's default buffer, fewer where
#: net.core.wmem_default is lower) and both would wait for each other.
ASKED_MAX = 64


class _Ends:
    """Both ends of a child's socket."""

    __slots__ = ("condemned", "number", "ours", "parts", "said_ready", "size", "stranger", "theirs")

    def __init__(self) -> None:
        self.ours, self.theirs = packets.pair()
        self.ours.setblocking(False)
        #: The child is ready, and the nursery has not told its process id yet.
        self.said_ready = False
        #: The child has said what it cannot have meant, and is as good as dead.
        self.condemned = False
        #: The packet whose answer goes on; what has come of that, and the bytes that came. Over ANSWER_MAX
        #: nothing is kept.
        self.number = 0
        self.parts: list[bytes] = []
        self.size = 0
        #: The number of the last part that was passed over, as nothing of that number runs.
        self.stranger: int | None = None

    def keep(self, number: int, payload: bytes) -> bool:
        """Keeps a part of the answer to a packet; False when that is larger than any."""
        if number != self.number:
            self.number, self.parts, self.size = number, [], 0
        self.size += len(payload)
        if self.size > ANSWER_MAX:
            self.parts = []
            return False
        self.parts.append(payload)
        return True

    def whole(self, number: int, payload: bytes) -> bytes:
        """The answer to a packet with its last part, after those before; empty if it was too large."""
        if number != self.number:
            return payload
        parts, size = [*self.parts, payload], self.size
        self.number, self.parts, self.size = 0, [], 0
        return b"".join(parts) if size <= ANSWER_MAX else b""

    def close(self) -> None:
        self.ours.close()
        self.theirs.close()


class Children:
    """The children of all slots.

    `changed` is called when there may be something to decide: it leads to `act`, once a loop turn.
    """

    def __init__(
        self, machine: Machine, count: int, nursery: socket.socket, changed: Callable[[], None]
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._machine = machine
        self._nursery = nursery
        self._changed = changed
        self._ends: list[_Ends | None] = [None] * count
        #: Slot -> the process id of its child, from its birth to its death.
        self._pids: dict[int, int] = {}
        #: Slots whose child the nursery is yet to be asked for.
        self._wanted: deque[int] = deque()
        #: Children that it was asked for, and that are neither born nor given up.
        self._asked = 0
        #: The children's sockets are not watched: more is untold than should be.
        self._choked = False
        self._closing = False

    def spawn(self, index: int) -> None:
        """Asks the nursery for a child, once it has answered enough of what it was asked before."""
        self._machine.slots.starting(index)
        self._wanted.append(index)
        self._ask()

    def born(self, index: int, pid: int) -> None:
        """The nursery has forked a slot's child."""
        self._pids[index] = pid
        self._asked -= 1
        ends = self._ends[index]
        if ends is not None and ends.said_ready:
            self._machine.ready(index)
            self._changed()
        self._ask()

    def exited(self, index: int, pid: int, status: int) -> None:
        """A child has ended."""
        self._pids.pop(index, None)
        if not pid:
            self._asked -= 1
        ends = self._ends[index]
        if ends is None:
            return
        self._read_all(index, ends)
        unread = packets.take_back(ends.theirs)
        self._forget(index)
        self._machine.exited(index, pid, status, unread, time.monotonic_ns())
        self._ask()
        self._changed()

    def act(self) -> None:
        """Does what the machine wants of the children: looks, signals, new ones, packets."""
        machine = self._machine
        while machine.looks:
            self._look(machine.looks.pop())
        if machine.kills:
            for kill in machine.kills:
                self._signal(kill.slot, kill.signal)
            machine.kills.clear()
        if machine.spawns:
            for index, delay_ns in machine.spawns:
                if delay_ns:
                    self._loop.call_later(delay_ns / 1e9, self.spawn, index)
                else:
                    self.spawn(index)
            machine.spawns.clear()
        if not self._closing:
            self._assign()
            self._watch(machine.choked)

    def read(self) -> None:
        """Takes in what all children have answered, unless too much is untold."""
        for index, ends in enumerate(self._ends):
            if ends is not None and not self._choked:
                self._read_all(index, ends)

    def bury(self) -> None:
        """The nursery is dead: kills all children; what they had not begun is the machine's again.

        What a child had begun and not answered is told when that child is dead, and not before: a task must
        not run twice at once.
        """
        self.kill()
        for index in range(len(self._ends)):
            self._look(index)
        self._closing = True
        self._watch(choked=False)
        for ends in self._ends:
            if ends is not None:
                # Then ours comes to its end when the last process that holds the child's is dead.
                ends.theirs.close()

    def close(self) -> None:
        """Closes all sockets: each child ends when it has finished what it runs."""
        self._closing = True
        for index in range(len(self._ends)):
            self._forget(index)

    def kill(self) -> None:
        """Kills what may be left when there is no nursery to do it."""
        for pid in self._pids.values():
            lifeline.kill_group(pid)

    def _ask(self) -> None:
        """Asks for the children that are wanted; the link keeps their ends too, to take packets back."""
        while self._wanted and self._asked < ASKED_MAX and not self._closing:
            try:
                ends = _Ends()
            except OSError as error:
                log.worker.error("no child for slot %d, which waits: %s", self._wanted[0], error)
                self._loop.call_later(_PAUSE_SECONDS, self._ask)
                return
            index = self._wanted.popleft()
            self._ends[index] = ends
            if not self._choked:
                self._loop.add_reader(ends.ours.fileno(), self._read, index, ends)
            self._asked += 1
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # its end is noticed elsewhere
                control.send(self._nursery, control.Spawn(index), [ends.theirs.fileno()])

    def _assign(self) -> None:
        """Sends what the slots should have."""
        for index, tasks in self._machine.assign(time.monotonic_ns()):
            ends = self._ends[index]
            assert ends is not None
            for at, task in enumerate(tasks):
                try:
                    packets.send(ends.ours, task.number, task.payload, (), packets.DONT_WAIT)
                except BlockingIOError:
                    self._machine.refused(index, tasks[at:])
                    break
                except OSError as error:  # no descriptor is left for a large payload
                    log.worker.warning("%s[%s] waits: %s", task.name, to_text(task.id), error)
                    self._machine.refused(index, tasks[at:])
                    self._loop.call_later(_PAUSE_SECONDS, self._changed)
                    break

    def _signal(self, index: int, number: int) -> None:
        """Sends a signal to the process group of a slot's child.

        The nursery may have waited for the child a moment ago and not told yet. Its number is not another's
        then: the system counts on and does not give a number out again so soon.
        """
        pid = self._pids.get(index)
        if pid is None:  # what it had sent was read when it was dead
            return
        if number == signal.SIGKILL:
            lifeline.kill_group(pid)
        else:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, number)

    def _watch(self, choked: bool) -> None:
        """Watches the children's sockets, or leaves their answers there: then they wait to send more."""
        if choked == self._choked:
            return
        self._choked = choked
        for index, ends in enumerate(self._ends):
            if ends is None:
                continue
            if choked:
                self._loop.remove_reader(ends.ours.fileno())
            else:
                self._loop.add_reader(ends.ours.fileno(), self._read, index, ends)

    def _forget(self, index: int) -> None:
        ends, self._ends[index] = self._ends[index], None
        if ends is not None:
            self._loop.remove_reader(ends.ours.fileno())
            ends.close()

    def _read(self, index: int, ends: _Ends) -> None:
        """A child has answered."""
        self._read_all(index, ends)
        self._changed()

    def _read_all(self, index: int, ends: _Ends) -> None:
        """Takes in what the child has answered: at most all that it was sent, its READY, and READS_MAX."""
        now = time.monotonic_ns()
        machine = self._machine
        for _ in range(READS_MAX):
            try:
                number, payload = packets.receive_plain(ends.ours)
            except BlockingIOError:
                return
            except EOFError:
                if self._closing:
                    self._forget(index)
                    machine.exited(index, self._pids.get(index, 0), None, (), now)
                    return
                # Until `bury` both ends are open here, so it was a packet without a byte.
                self._condemn(index, ends, Why.NO_ANSWER, now)
                continue
            except ValueError:
                self._condemn(index, ends, Why.NO_ANSWER, now)
                continue
            if number & packets.MORE:
                self._take_part(index, ends, number ^ packets.MORE, payload, now)
                continue
            if number == child.READY and not ends.said_ready:
                # A child that is sent a task can be sent a signal: its process id must be known.
                ends.said_ready = True
                if index in self._pids:
                    machine.ready(index)
                continue
            if number == ends.stranger and not machine.answering(index, number):
                continue
            parts = completion.read(ends.whole(number, payload))
            if parts is None:
                self._condemn(index, ends, Why.NO_ANSWER, now)
            elif not machine.answered(index, number, parts, now):
                return  # it was sent nothing else, so it has nothing else to say

    def _take_part(self, index: int, ends: _Ends, number: int, payload: bytes, now: int) -> None:
        """Part of an answer has come, or something that looks like it."""
        if not self._machine.answering(index, number):
            if ends.stranger is None:
                log.worker.error(
                    "a part of an answer that was not asked for is ignored, and so are others that this "
                    "child sends (slot %d, packet %d)", index, number,
                )  # fmt: skip
            ends.stranger = number
        elif not ends.keep(number, payload):
            self._condemn(index, ends, Why.NO_END, now)

    def _condemn(self, index: int, ends: _Ends, why: Why, now: int) -> None:
        """Has a child killed for what it sent, unless it is dead already."""
        if ends.condemned:
            return
        ends.condemned = True
        if why is Why.NO_END:
            what = f"answers more than {ANSWER_MAX} bytes"
        else:
            what = "sends what is no answer (does a task write to a file or socket that it has closed?)"
        pid = self._pids.get(index)
        if pid is None:
            log.worker.error("the child of slot %d, which has died, %s", index, what)
            return
        log.worker.error("child %d %s and is killed", pid, what)
        self._machine.condemned(index, why, now)
        self._changed()

    def _look(self, index: int) -> None:
        """Takes back what the child has not begun, and takes in what it has answered."""
        ends = self._ends[index]
        if ends is None or self._closing:
            return
        unread = packets.take_back(ends.theirs)
        # What was answered while we took is no longer the child's.
        self._read_all(index, ends)
        self._machine.looked(index, unread, time.monotonic_ns())
