"""Waiting for results: one WATCH, then whatever the broker pushes; no polling."""

from collections.abc import Callable
from typing import Generic

from chervil import exceptions
from chervil.asking import REQUEST_SECONDS, Status, refusal, status_of
from chervil.conversation import (
    PAUSE_FIRST,
    PAUSE_MOST,
    ClientClosed,
    L,
    Line,
    LineBroken,
    Lines,
    check_open,
)
from chervil.exceptions import AccessRefused, OperationalError
from chervil.exchange import Mailbox, Reply, Request, parts
from chervil.protocol import RequestRefused, WireId, to_wire
from chervil.protocol.messages import Status as StatusMessage
from chervil.waiting import last_known

#: Seconds of waiting in vain after which a waiter asks why.
ASK_WHY_AFTER = 2.0
#: Seconds that connecting and the first answer may take however short the timeout is: a broker nearby
#: needs a few milliseconds, and a timeout below that would never tell a result that is there.
FIRST_ANSWER_SECONDS = 0.1
#: Seconds beyond the timeout in which the broker may say where the open tasks are by then.
LAST_ANSWER_SECONDS = 0.25
#: Seconds without a word of the broker after which a waiter asks it something. A machine that lost its power
#: closes no connection, and who waits without a timeout would wait for ever.
QUIET_SECONDS = 20.0


class Watching(Generic[L]):
    """One `Client.wait`; see there."""

    def __init__(
        self,
        lines: Lines[L],
        where: str,
        ids: list[str],
        timeout: float | None,
        on_wait: Callable[[list[Status]], None] | None,
        *,
        on_lost: Callable[[str], None] | None,
        patience: float | None,
    ) -> None:
        """`where` names the broker in messages."""
        self._lines = lines
        self._where = where
        self._wires = [to_wire(id_) for id_ in ids]
        self._known: dict[WireId, Status] = {}
        self._open = dict.fromkeys(self._wires)
        self._timeout = timeout
        now = lines.now()
        #: When waiting ends.
        self._end = None if timeout is None else now + timeout
        #: By when each answer has to be there; None where only the broker's silence bounds it, as with a
        #: timeout of 0, which asks for an answer and not for waiting.
        self._limit = (
            now + max(timeout, FIRST_ANSWER_SECONDS) if timeout is not None and timeout > 0 else None
        )
        #: When to ask why; None once that is done.
        self._ask_at = None if on_wait is None else now + ASK_WHY_AFTER
        self._on_wait = on_wait
        self._on_lost = on_lost
        self._patience = patience
        #: When it was noticed that the broker is out of reach; None while it answers.
        self._lost_at: float | None = None

    async def run(self) -> list[Status]:
        pause = PAUSE_FIRST
        while self._open:
            try:
                await self._once()
            except RequestRefused as error:
                raise refusal(error, self._where) from None
            except (AccessRefused, ClientClosed):
                raise
            except (LineBroken, TimeoutError, OperationalError) as error:
                if not self._lines.reached and not self._past(self._limit):
                    raise
                left = None if self._end is None else self._end - self._lines.now()
                if left is not None and left < PAUSE_FIRST:
                    if self._lost_at is None and self._told_all():
                        break
                    raise self._too_late(error) from None
                self._lose()
                if not isinstance(error, OperationalError):
                    self._lines.renew()
                self._end_patience(error, pause)
                await self._lines.pause(pause if left is None else min(pause, left))
                pause = min(2 * pause, PAUSE_MOST)
            else:
                break
        return [self._known[wire] for wire in self._wires]

    def _lose(self) -> None:
        """Notes that the broker is out of reach, and says so once until it has answered again."""
        if self._lost_at is None:
            self._lost_at = self._lines.now()
            if self._on_lost is not None:
                self._on_lost(f"lost {self._where}; trying again until it is back")

    def _end_patience(self, error: Exception, pause: float) -> None:
        """Raises where the broker would still be away after the pause, and that is too long."""
        if self._patience is None or self._lost_at is None:
            return
        if self._lines.now() + pause >= self._lost_at + self._patience:
            raise OperationalError(
                f"lost {self._where}, and it did not come back within {self._patience:g} s: {error}"
            ) from None

    def _too_late(self, error: Exception) -> Exception:
        """What to raise where an attempt failed and the timeout leaves no room for another."""
        if self._limit is None:
            if isinstance(error, TimeoutError):
                return OperationalError(f"no answer from {self._where} within {REQUEST_SECONDS:g} s")
            return OperationalError(f"lost the broker while waiting: {error}")
        if self._lost_at is None:
            return exceptions.TimeoutError(f"{self._where} did not answer within {self._timeout:g} s")
        away = f"{self._where} has been out of reach for {self._lines.now() - self._lost_at:.0f} s"
        known = [self._known[wire] for wire in self._open if wire in self._known]
        if not known:
            return exceptions.TimeoutError(f"{away}: {error}")
        return exceptions.TimeoutError(f"{away}; last known: {last_known(known)}")

    def _told_all(self) -> bool:
        """Whether the broker has said of each task where it is."""
        return len(self._known) == len(set(self._wires))

    async def _once(self) -> None:
        """Waits on one line, until everything is settled or time is up."""
        lines = self._lines
        line = await lines.take_beside(self._limit)
        mailbox = Mailbox()
        try:
            # The first answer is waited for even where the timeout is 0: it is what the caller asks.
            await self._ask(line, lambda ids: line.exchange.watch(mailbox, ids), self._limit)
            self._lost_at = None
            await self._receive(line, mailbox)
            leave = line.exchange.unwatch(mailbox, self._open)
            if leave:
                await line.send(leave, lines.now() + LAST_ANSWER_SECONDS)
        except BaseException as error:
            # Others may go on using the line.
            leave = line.exchange.unwatch(mailbox, self._wires)
            if leave:
                line.post(leave)
            lines.drop_beside(line, error)
            raise
        lines.give_beside(line)

    async def _receive(self, line: L, mailbox: Mailbox) -> None:
        heard_at = self._lines.now()
        while True:
            for row in mailbox.take():
                self._settle(row[0], status_of(row))
            if not self._open:
                return
            check_open(line.exchange)
            heard_at = max(heard_at, line.heard_at)
            quiet_at = heard_at + QUIET_SECONDS
            until = min(at for at in (self._end, self._ask_at, quiet_at) if at is not None)
            try:
                await line.news(mailbox, until)
            except TimeoutError:
                if self._past(self._end):
                    await self._ask(line, line.exchange.query, self._lines.now() + LAST_ANSWER_SECONDS)
                    return
                if self._past(self._ask_at):
                    await self._ask_why(line)
                elif self._lines.now() < max(heard_at, line.heard_at) + QUIET_SECONDS:
                    continue
                else:
                    await self._ask_whether_it_lives(line)
            heard_at = self._lines.now()

    async def _ask_why(self, line: Line) -> None:
        await self._ask(line, line.exchange.query, self._limit)
        if self._on_wait is not None and self._open:
            self._on_wait([self._known[wire] for wire in self._open])
        self._ask_at = None

    async def _ask_whether_it_lives(self, line: Line) -> None:
        """Asks for a word; raises LineBroken where none comes."""
        one = next(iter(self._open))
        try:
            await self._answer(line, line.exchange.query([one]), self._limit)
        except TimeoutError:
            if self._past(self._limit):
                raise
            raise LineBroken(
                f"no word from {self._where} for {QUIET_SECONDS + REQUEST_SECONDS:g} s"
            ) from None

    async def _ask(self, line: Line, request: Callable[[list[WireId]], Request], end: float | None) -> None:
        """Learns where the open ones are by now, before `end`."""
        for part in parts(list(self._open)):
            check_open(line.exchange)
            reply = await self._answer(line, request(part), end)
            assert isinstance(reply, StatusMessage)
            for row in reply.tasks:
                self._settle(row[0], status_of(row))

    async def _answer(self, line: Line, request: Request, end: float | None) -> Reply:
        """As `conversation.ask`; raises TimeoutError where nothing is heard for REQUEST_SECONDS too.

        The answer itself may take longer than that: large results come slowly over a slow network, and to
        begin again would bring them no sooner.
        """
        number, data = request
        exchange = line.exchange
        heard_at = self._lines.now()

        def until() -> float:
            silent_at = heard_at + REQUEST_SECONDS
            return silent_at if end is None else min(silent_at, end)

        try:
            await line.send(data, until())
            while (reply := exchange.take(number)) is None:
                check_open(exchange)
                try:
                    await line.news(number, until())
                except TimeoutError:
                    # On a shared line others may have heard of it, or parts of the answer have come.
                    if self._past(end) or line.heard_at <= heard_at:
                        raise
                    heard_at = line.heard_at
                else:
                    heard_at = self._lines.now()
        except RequestRefused:
            raise
        except BaseException:
            exchange.abandon(number)
            raise
        return reply

    def _settle(self, wire: WireId, status: Status) -> None:
        self._known[wire] = status
        if status.settled:
            self._open.pop(wire, None)

    def _past(self, end: float | None) -> bool:
        return end is not None and self._lines.now() >= end
