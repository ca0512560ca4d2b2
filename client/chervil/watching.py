"""Waiting for results: one WATCH, then whatever the broker pushes; no polling."""

from collections.abc import Callable
from time import monotonic, sleep

from chervil.client import ASK_WHY_AFTER, PAUSE_FIRST, PAUSE_MOST, REQUEST_SECONDS, Status, status_of
from chervil.exceptions import AccessRefused, OperationalError
from chervil.line import Line, LineBroken
from chervil.pool import Pool
from chervil.protocol import RequestRefused, WireId, to_wire
from chervil.protocol.limits import ROWS_MAX
from chervil.protocol.messages import Status as StatusMessage


class Watching:
    """One `Client.wait`; see there."""

    def __init__(
        self,
        pool: Pool,
        ids: list[str],
        timeout: float | None,
        on_wait: Callable[[list[Status]], None] | None,
    ) -> None:
        self._pool = pool
        self._wires = [to_wire(id_) for id_ in ids]
        self._known: dict[WireId, Status] = {}
        self._open = dict.fromkeys(self._wires)
        now = monotonic()
        self._end = None if timeout is None else now + timeout
        #: When to ask why; None once that is done.
        self._ask_at = None if on_wait is None else now + ASK_WHY_AFTER
        self._on_wait = on_wait

    def run(self) -> list[Status]:
        pause = PAUSE_FIRST
        while self._open:
            try:
                self._once()
            except (AccessRefused, RequestRefused):
                raise
            except (LineBroken, OperationalError) as error:
                if isinstance(error, OperationalError) and not self._known:
                    raise
                if self._end is not None and monotonic() + pause >= self._end:
                    if len(self._known) < len(self._wires):
                        raise OperationalError(f"lost the broker while waiting: {error}") from error
                    break
                sleep(pause)
                pause = min(2 * pause, PAUSE_MOST)
            else:
                break
        return [self._known[wire] for wire in self._wires]

    def _once(self) -> None:
        """Waits on one line, until everything is settled or time is up."""
        line = self._pool.take_beside(None)
        try:
            self._watch(line)
            self._receive(line)
            if self._open:
                line.send(line.exchange.unwatch(self._open), self._answer_by())
        except BaseException:
            line.socket.close()
            raise
        self._pool.give_beside(line)

    def _watch(self, line: Line) -> None:
        # The first answer is waited for even where the timeout is 0: it is what the caller asks.
        wires = list(self._open)
        for at in range(0, len(wires), ROWS_MAX):
            self._note(line.ask(line.exchange.watch(wires[at : at + ROWS_MAX]), self._answer_by()))

    def _receive(self, line: Line) -> None:
        while True:
            for row in line.exchange.take_results():
                self._settle(row[0], status_of(row))
            if not self._open:
                return
            if line.exchange.ended is not None:
                raise LineBroken(str(line.exchange.ended), line.exchange.ended.code)
            until = self._end
            if self._ask_at is not None:
                until = self._ask_at if until is None else min(until, self._ask_at)
            try:
                line.receive(until)
            except TimeoutError:
                if self._end is not None and monotonic() >= self._end:
                    self._ask(line)
                    return
                self._ask(line)
                if self._on_wait is not None and self._open:
                    self._on_wait([self._known[wire] for wire in self._open])
                self._ask_at = None

    def _ask(self, line: Line) -> None:
        """Learns where the open ones are by now."""
        wires = list(self._open)
        for at in range(0, len(wires), ROWS_MAX):
            self._note(line.ask(line.exchange.query(wires[at : at + ROWS_MAX]), self._answer_by()))

    def _note(self, reply: object) -> None:
        assert isinstance(reply, StatusMessage)
        for row in reply.tasks:
            self._settle(row[0], status_of(row))

    def _settle(self, wire: WireId, status: Status) -> None:
        self._known[wire] = status
        if status.settled:
            self._open.pop(wire, None)

    def _answer_by(self) -> float:
        return monotonic() + REQUEST_SECONDS
