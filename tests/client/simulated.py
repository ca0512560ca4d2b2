"""Lines without sockets, on a clock that moves only when somebody waits: what drives the client's operations
in tests of their decisions.

`Simulation.drive` runs one operation. Each thing it awaits is a step, at which it can be cut short.
"""

import heapq
from collections.abc import Callable, Coroutine, Generator, Hashable
from itertools import count
from typing import Any

from chervil.conversation import LineBroken
from chervil.exceptions import OperationalError
from chervil.exchange import Exchange
from chervil.protocol import Connection, RemoteProtocolError, Side, Stage
from chervil.protocol import messages as m


class Cut(BaseException):
    """Thrown into an operation: a cancellation, or a Ctrl-C."""


class Step:
    """Suspends an operation once."""

    def __init__(self, what: str) -> None:
        self.what = what

    def __await__(self) -> Generator["Step", None, None]:
        yield self


class Simulation:
    """A clock, a broker of a few lines, and `conversation.Lines` that lead to it.

    `answer` takes (line, message) and gives the messages that the broker answers with; the default answers
    as a broker does whose tasks never finish.
    """

    def __init__(self) -> None:
        self.clock = 100.0
        self.up = True
        self.answer: Callable[[SimulatedLine, Any], list[m.Message]] = answer
        self.lines: list[SimulatedLine] = []
        #: What was done to the lines that were taken.
        self.given: list[str] = []
        self.steps: list[str] = []
        #: Messages that the broker was sent, all lines together.
        self.received: list[Any] = []
        #: Whether every operation gets the same line, as on an event loop.
        self.shared = False
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = count()

    def at(self, clock: float, happen: Callable[[], None]) -> None:
        """Has something happen at a time."""
        heapq.heappush(self._events, (clock, next(self._numbers), happen))

    def drive(self, operation: Coroutine[Any, Any, Any], cut_at: int | None = None) -> Any:
        """Runs an operation to its end; `cut_at` throws Cut into its step of that number, from 0."""
        number = 0
        try:
            step = operation.send(None)
            while True:
                self.steps.append(step.what)
                step = operation.throw(Cut()) if number == cut_at else operation.send(None)
                number += 1
        except StopIteration as done:
            return done.value

    def advance(self, until: float) -> None:
        """Moves the clock to the next thing that happens, at most to `until`."""
        if self._events and self._events[0][0] <= until:
            clock, _, happen = heapq.heappop(self._events)
            self.clock = max(self.clock, clock)
            happen()
        else:
            assert until < float("inf"), "nothing will ever happen"
            self.clock = max(self.clock, until)

    def down(self) -> None:
        """The broker dies, with all its connections."""
        self.up = False
        for line in self.lines:
            line.broken = True

    def back(self) -> None:
        """It can be connected to again."""
        self.up = True

    def unplug(self) -> None:
        """The cable is pulled: nothing gets through, nobody is told, and no connection can be made."""
        self.up = False
        for line in self.lines:
            line.dead = True

    def tell(self, message: m.Message) -> None:
        """The broker says something on the newest line."""
        self.lines[-1].tell(message)

    # conversation.Lines

    def now(self) -> float:
        return self.clock

    @property
    def reached(self) -> bool:
        return bool(self.lines)

    async def pause(self, seconds: float) -> None:
        await Step("pause")
        end = self.clock + seconds
        while self.clock < end:
            self.advance(end)

    async def take(self, end: float | None) -> "SimulatedLine":
        await Step("take")
        if self.shared and self.lines and not self.lines[-1].broken:
            return self.lines[-1]
        if not self.up:
            raise OperationalError("cannot reach the broker")
        self.lines.append(SimulatedLine(self))
        return self.lines[-1]

    take_beside = take

    def give(self, line: "SimulatedLine") -> None:
        self.given.append("give")

    give_beside = give

    def drop(self, line: "SimulatedLine", error: BaseException) -> None:
        self.given.append(f"drop {type(error).__name__}")
        if isinstance(error, TimeoutError) and line.dead:
            line.broken = True

    drop_beside = drop

    def renew(self) -> None:
        self.given.append("renew")


class SimulatedLine:
    """A greeted `conversation.Line`."""

    def __init__(self, simulation: Simulation) -> None:
        self.simulation = simulation
        self.exchange = Exchange()
        self.heard_at = simulation.clock
        self.broken = False
        #: Whether nothing gets through on it any more, and nobody was told.
        self.dead = False
        self.taken_in = 0
        self.inbox: list[bytes] = []
        self.peer = Connection(Side.BROKER)
        list(self.peer.receive(self.exchange.hello("simulated")))
        self.tell(m.Welcome(1, [], bytes(16), bytes(16), bytes(32), resumed=False, heartbeat_ms=10_000))
        self.exchange.receive(self.inbox.pop())
        self.peer.accept_frames_up_to(1 << 25)

    def tell(self, message: m.Message) -> None:
        if not self.dead:
            self.inbox.append(self.peer.send(message))

    async def send(self, data: bytes, end: float | None) -> None:
        await Step("send")
        if self.broken:
            raise LineBroken("broken")
        self.post(data)

    def post(self, data: bytes) -> None:
        if self.broken or self.dead:
            return
        for message in self.peer.receive(data):
            self.simulation.received.append(message)
            for reply in self.simulation.answer(self, message):
                self.tell(reply)

    async def news(self, about: Hashable, end: float | None) -> None:
        taken_in = self.taken_in
        await Step("news")
        if self.taken_in != taken_in:  # by somebody else who waits on this line
            return
        simulation = self.simulation
        while not self.inbox:
            if self.broken:
                raise LineBroken("broken")
            if end is not None and simulation.clock >= end:
                raise TimeoutError("the deadline has passed")
            simulation.advance(float("inf") if end is None else end)
        self.heard_at = simulation.clock
        self.taken_in += 1
        try:
            self.exchange.receive(self.inbox.pop(0))
        except RemoteProtocolError as error:
            self.broken = True
            raise LineBroken(str(error), error.code) from error


def status(id_: Any, stage: Stage = Stage.QUEUED) -> list[Any]:
    return [id_, int(stage), None, None, None]


def answer(line: SimulatedLine, message: Any) -> list[m.Message]:
    """What a broker answers that has all tasks, and finishes none."""
    match message:
        case m.Publish():
            return [m.Confirm(message.request, len(message.tasks))]
        case m.Watch() | m.Query():
            return [m.Status(message.request, [status(id_) for id_ in message.ids])]
        case m.Purge() | m.Revoke() | m.Rerun() | m.Forget():
            return [m.Ok(message.request, 1)]
        case m.Stats() | m.History() | m.List():
            return [m.Report(message.request, {})]
    return []


def row(id_: Any = "a", body: bytes = b"[[],{}]") -> list[Any]:
    return [id_, "t", "default", 0, None, None, "json", body]
