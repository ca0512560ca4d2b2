"""Children without processes: the owner, the nursery and each child are the test, the sockets are real."""

import asyncio
import socket
from collections.abc import Callable, Coroutine
from typing import Any

from chervil.protocol import Outcome
from chervil_worker import control, log, packets
from chervil_worker.child import READY
from chervil_worker.children import Children
from chervil_worker.machine import Machine
from chervil_worker.slots import Slots
from chervil_worker.tasks import Task
from tests.worker.broker import DEADLINE, task_id


class Clock:
    """Stands in for `time` in the module: a run is a long one when the test says so, not the machine."""

    def __init__(self) -> None:
        self.now = 0

    def monotonic_ns(self) -> int:
        return self.now


#: Process ids of children that are not there: more than the system has.
_NOBODY = 2**22 + 1


class Rig:
    """Children on real sockets and a machine without a broker: the nursery and each child are the test.

    What the machine would tell the broker stays in its outbox.
    """

    def __init__(self, count: int) -> None:
        self.machine = Machine(count, ["q"], ["add"], {}, 1)
        self._count = count
        self._link_end, self._nursery = packets.pair()
        self.children = Children(self.machine, count, self._link_end, self.changed)
        self.changes = 0
        #: (slot, the child's end) of each child that was asked for.
        self.spawned: list[tuple[int, socket.socket]] = []
        #: Whether the nursery tells of a child as soon as it is asked for one.
        self.prompt = True
        self._something = asyncio.Event()
        self._ids = 0
        self._forgotten = 0
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._nursery.fileno(), self._hear)

    @property
    def slots(self) -> Slots:
        return self.machine.slots

    @property
    def outcomes(self) -> list[tuple[bytes | str, int, str | None, bytes | None]]:
        """(id, outcome, codec, body) of what the machine would tell the broker."""
        rows = [[*row, None, None][:5] for row in self.machine.outbox.untold()]
        return [(row[0], row[2], row[3], row[4]) for row in rows[self._forgotten :]]

    @property
    def reported(self) -> list[object]:
        """The ids of tasks that the machine would report as started."""
        return [row[0] for row in self.machine.outbox._started]

    def _hear(self) -> None:
        received = control.receive(self._nursery)
        assert received is not None
        message, (descriptor,) = received
        assert isinstance(message, control.Spawn)
        self.spawned.append((message.slot, socket.socket(fileno=descriptor)))
        if self.prompt:
            self.children.born(message.slot, _NOBODY + len(self.spawned))
        self._something.set()

    def changed(self) -> None:
        self.changes += 1
        self._loop.call_soon(self.turn)
        self._something.set()

    def turn(self) -> None:
        """What the link does at the end of a loop turn."""
        self.children.act()
        self.machine.flush(0)
        log.write(self.machine.lines)
        self.machine.lines.clear()
        self._something.set()

    def look(self) -> None:
        """Has every slot looked into."""
        self.machine.looks.update(range(self._count))
        self.turn()

    def tick(self, now: int) -> None:
        """What the link does when its timer goes off."""
        self.children.read()
        self.machine.tick(now)
        self.turn()

    # What a test does

    async def until(self, condition: Callable[[], Any]) -> None:
        async with asyncio.timeout(DEADLINE):
            while not condition():
                self._something.clear()
                await self._something.wait()

    async def child(self, index: int) -> socket.socket:
        """A new child of a slot, that is ready."""
        before = len(self.spawned)
        self.children.spawn(index)
        return await self.ready_child(before)

    async def ready_child(self, number: int) -> socket.socket:
        """The child that was asked for as the `number`th, once it is ready."""
        await self.until(lambda: len(self.spawned) > number)
        changes = self.changes
        packets.send(self.spawned[number][1], READY, b"")
        await self.until(lambda: self.changes > changes)
        return self.spawned[number][1]

    def deliver(self, count: int, payload: bytes = b"row") -> list[bytes]:
        """Delivers so many tasks and hands out what there is room for; the tasks' ids."""
        ids = [task_id(self._ids + n) for n in range(1, count + 1)]
        self._ids += count
        self.slots.deliver([Task(each, 1, "add", payload) for each in ids])
        self.turn()
        return ids

    async def deepen(self, child: socket.socket, depth: int) -> None:
        """Lets a child answer until its slot is sent `depth` tasks at once."""
        while self.slots.capacity < depth:
            done = len(self.outcomes) + len(self.deliver(1))
            answer(child, take(child))
            await self.until(lambda done=done: len(self.outcomes) == done)
        self.forget()

    def forget(self) -> None:
        """Leaves out of `outcomes` what is there now."""
        self._forgotten += len(self.outcomes)

    def close(self) -> None:
        self.children.close()
        asyncio.get_running_loop().remove_reader(self._nursery.fileno())
        for end in (self._link_end, self._nursery, *[sock for _, sock in self.spawned]):
            end.close()


def take(child: socket.socket) -> int:
    """The number of the packet that a child reads next."""
    packet = packets.receive(child, packets.DONT_WAIT)
    assert packet is not None
    return packet.number


def receive_answer(link: socket.socket) -> packets.Packet | None:
    """What a child answers next, put together from its parts; None at its end."""
    parts = []
    while (packet := packets.receive(link)) is not None:
        assert packet.payload is not None
        parts.append(packet.payload)
        if not packet.number & packets.MORE:
            return packets.Packet(packet.number, b"".join(parts), packet.descriptors)
    return None


def unread(child: socket.socket) -> int:
    """How many packets a child has before it; they are read then."""
    return len(packets.take_back(child))


def answer(child: socket.socket, number: int, value: bytes = b"1") -> None:
    packets.send_in_parts(child, number, packets.pack([Outcome.SUCCESS, "json", value, None]))


def play(story: Callable[[Rig], Coroutine[Any, Any, None]], count: int = 1) -> None:
    """Runs a story with a rig of so many slots."""

    async def live() -> None:
        rig = Rig(count)
        try:
            await story(rig)
        finally:
            rig.close()

    asyncio.run(live())
