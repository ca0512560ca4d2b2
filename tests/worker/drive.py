"""A machine with children that are only told about: no process, no socket, no clock."""

from collections import deque
from typing import Any

from chervil.protocol import Message, Outcome, WelcomeOption, unpack_failure
from chervil.protocol.messages import Complete, Completed, Resume, Started, Welcome
from chervil_worker.machine import Kill, Machine, Spawn
from chervil_worker.slot import LONG_RUN_NS
from chervil_worker.tasks import Task
from chervil_worker.terms import Terms
from tests.worker.broker import row

#: A run that is known to be long by then.
LATER = LONG_RUN_NS + 1
SECOND = 10**9

SUCCESS = [Outcome.SUCCESS, "json", b"1", None]


def welcome(
    *, resumed: bool = False, instance: bytes = b"i", session: bytes = b"s", durability: str | None = None
) -> Welcome:
    options = None if durability is None else {int(WelcomeOption.DURABILITY): durability}
    return Welcome(1, [], instance * 16, session * 16, b"x" * 32, resumed, 10_000, options)


class Child:
    """One life of a slot's child."""

    def __init__(self) -> None:
        self.unread: deque[Task] = deque()
        self.runs: Task | None = None
        #: What it has answered and nobody has read: (number, parts).
        self.answers: deque[tuple[int, list[Any]]] = deque()
        self.signals: list[int] = []


class Drive:
    """What the link is to a machine, and what children are to the link."""

    def __init__(self, count: int = 1, terms: dict[str, Terms] | None = None) -> None:
        self.machine = Machine(count, ["q"], ["add"], terms or {}, 7)
        self.now = 0
        self.children: dict[int, Child] = {}
        self.sent: list[Message] = []
        self.kills: list[Kill] = []
        self.spawns: list[Spawn] = []
        self.said: list[str] = []
        #: What the sockets hold.
        self.socket_room = 1000
        for index in range(count):
            self.child_is_ready(index)

    # What the link does

    def turn(self) -> list[Message]:
        """One turn; the messages that it sends."""
        machine = self.machine
        while machine.looks:
            self._look(machine.looks.pop())
        for kill in machine.kills:
            self.kills.append(kill)
            self.children[kill.slot].signals.append(kill.signal)
        machine.kills.clear()
        self.spawns += machine.spawns
        machine.spawns.clear()
        for index, tasks in machine.assign(self.now):
            child = self.children[index]
            room = max(0, self.socket_room - len(child.unread))
            child.unread.extend(tasks[:room])
            if tasks[room:]:
                machine.refused(index, tasks[room:])
        messages = machine.flush(self.now)
        self.said += [line.text for line in machine.lines]
        machine.lines.clear()
        self.sent += messages
        return messages

    def tick(self, nanoseconds: int = 0) -> list[Message]:
        self.now += nanoseconds
        self.machine.tick(self.now)
        return self.turn()

    def _look(self, index: int) -> None:
        child = self.children.get(index)
        if child is None:
            return
        unread = [task.number for task in child.unread]
        child.unread.clear()
        self.read(index)
        self.machine.looked(index, unread, self.now)

    def read(self, index: int) -> None:
        """The link reads what a child has answered."""
        child = self.children[index]
        while child.answers:
            number, parts = child.answers.popleft()
            self.machine.answered(index, number, parts, self.now)

    # What children do

    def child_is_ready(self, index: int) -> None:
        self.children[index] = Child()
        self.machine.slots.starting(index)
        self.machine.ready(index)

    def begin(self, index: int = 0) -> Task:
        """A child reads its next packet."""
        child = self.children[index]
        assert child.runs is None
        child.runs = child.unread.popleft()
        return child.runs

    def answer(self, index: int = 0, parts: list[Any] | None = None) -> None:
        """A child answers what it runs; see `read`."""
        child = self.children[index]
        assert child.runs is not None
        child.answers.append((child.runs.number, parts or SUCCESS))
        child.runs = None

    def finish(self, index: int = 0) -> list[Message]:
        """A child answers what it runs, and the link reads it."""
        self.answer(index)
        self.read(index)
        return self.turn()

    def die(self, index: int = 0, status: int | None = 9) -> list[Message]:
        """A child dies, and the link hears of it."""
        child = self.children[index]
        self.read(index)
        del self.children[index]
        self.machine.exited(index, 77, status, [task.number for task in child.unread], self.now)
        return self.turn()

    # What the broker does

    def connect(self, **given: Any) -> list[Message]:
        self.machine.welcomed(welcome(**given))
        return self.turn()

    def lose(self) -> None:
        self.machine.lost(self.now)
        self.turn()

    def deliver(self, *numbers: int, name: str = "add", lease: int = 1, **options: Any) -> list[Message]:
        rows = [row(n, name, lease=lease, options=options.get("options")) for n in numbers]
        self.machine.delivered(rows, self.now)
        return self.turn()

    def cancel(self, number: int, signal: int | None = None, lease: int = 1) -> list[Message]:
        self.machine.cancelled([[number.to_bytes(16, "big"), lease, signal]])
        return self.turn()

    def grant(self) -> list[Message]:
        """The broker says OK to all claims."""
        for started in of_kind(self.sent, Started):
            if started.request is not None:
                self.machine.ok(started.request, len(started.tasks))
        return self.turn()

    def confirm(self) -> None:
        """The broker answers all COMPLETEs."""
        for complete in of_kind(self.sent, Complete):
            self.machine.completed(Completed(complete.sequence))

    def deepen(self, index: int = 0) -> None:
        """Short runs until a slot is as deep as it gets; the broker has heard of them."""
        number = 10_000
        while self.machine.slots.capacity < 32 * len(self.children):
            self.deliver(number)
            self.begin(index)
            self.finish(index)
            number += 1
        self.confirm()
        self.sent.clear()


def of_kind(messages: list[Message], kind: type) -> list[Any]:
    return [message for message in messages if isinstance(message, kind)]


def completions(messages: list[Message]) -> list[list[Any]]:
    """[number, lease, outcome, codec, body, options] of all rows in COMPLETEs."""
    return [
        [int.from_bytes(row[0], "big"), *[*row, None, None, None][1:6]]
        for message in of_kind(messages, Complete)
        for row in message.tasks
    ]


def outcomes(messages: list[Message]) -> dict[int, int]:
    return {row[0]: row[2] for row in completions(messages)}


def failure(completion: list[Any]) -> tuple[str, str, str | None]:
    """(kind, type, message) of the record in a completion."""
    record = unpack_failure(completion[4])
    return record.kind, record.type, record.message


def inventory_of(messages: list[Message]) -> dict[int, int]:
    """number -> state."""
    return {
        int.from_bytes(id_, "big"): state
        for resume in of_kind(messages, Resume)
        for id_, _, state in resume.inventory
    }


def connected(count: int = 1, terms: dict[str, Terms] | None = None) -> Drive:
    drive = Drive(count, terms)
    drive.connect()
    return drive
