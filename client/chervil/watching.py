"""Waiting for results: one WATCH, then whatever the broker pushes; no polling."""

from collections.abc import Callable
from typing import Generic

from chervil import conversation, exceptions
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
from chervil.exchange import Mailbox, Request, parts
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
        #: By when each answer has to be there; None where only REQUEST_SECONDS bounds it, as with a
        #: timeout of 0, which asks for an answer and not for waiting.
        self._limit = (
            now + max(timeout, FIRST_ANSWER_SECONDS) if timeout is not None and timeout > 0 else None
        )
        #: When to ask why; None once that is done.
        self._ask_at = None if on_wait is None else now + ASK_WHY_AFTER
        self._on_wait = on_wait
        self._on_lost = on_lost
        self._patience = patience
        #: When the connection broke; None while the broker answers.
        self._lost_at: float | None = None
        #: Whether the attempt before this one ended because an answer stayed away.
        self._silent = False

    async def run(self) -> list[Status]:
        pause = PAUSE_FIRST
        while self._open:
            try:
                await self._once()
            except RequestRefused as error:
                raise refusal(error, self._where) from None
            except (AccessRefused, ClientClosed):
                raise
            except TimeoutError as error:
                if self._told_all_at(self._end):
                    break
                self._bear_silence(error)
            except (LineBroken, OperationalError) as error:
                went_away = isinstance(error, LineBroken) or (self._lines.reached and not self._silent)
                if went_away:
                    self._lose()
                if self._told_all_at(self._limit):
                    break
                if isinstance(error, OperationalError):
                    self._end_at_limit(error)
                if not went_away:
                    raise
                if self._end is not None and self._lines.now() + pause >= self._end:
                    if self._told_all():
                        break
                    raise OperationalError(f"lost the broker while waiting: {error}") from None
                self._end_patience(error, pause)
                await self._lines.pause(pause)
                pause = min(2 * pause, PAUSE_MOST)
            else:
                break
        if self._open and self._lost_at is not None:
            raise exceptions.TimeoutError(
                f"{self._where} has been out of reach for {self._lines.now() - self._lost_at:.0f} s; "
                f"last known: {last_known([self._known[wire] for wire in self._open])}"
            )
        return [self._known[wire] for wire in self._wires]

    def _lose(self) -> None:
        """Notes that the connection broke, and says so once until the broker has answered again."""
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

    def _bear_silence(self, error: TimeoutError) -> None:
        """Prepares another attempt after an answer that did not come, or raises."""
        self._end_at_limit(error)
        if self._silent or self._past(self._end):
            raise OperationalError(f"no answer from {self._where} within {REQUEST_SECONDS:g} s") from None
        self._silent = True
        # The next attempt is to have a new connection: those that are kept may be as dead as this one.
        self._lines.renew()

    def _end_at_limit(self, error: Exception) -> None:
        """Raises where the caller's timeout is why there is no connection or no answer."""
        if self._past(self._limit):
            raise exceptions.TimeoutError(
                f"{self._where} did not answer within {self._timeout:g} s"
            ) from None

    def _told_all(self) -> bool:
        """Whether the broker has said of each task where it is."""
        return len(self._known) == len(set(self._wires))

    def _told_all_at(self, end: float | None) -> bool:
        return self._past(end) and self._told_all()

    async def _once(self) -> None:
        """Waits on one line, until everything is settled or time is up."""
        lines = self._lines
        line = await lines.take_beside(self._limit)
        mailbox = Mailbox()
        try:
            # The first answer is waited for even where the timeout is 0: it is what the caller asks.
            await self._ask(line, lambda ids: line.exchange.watch(mailbox, ids), self._answer_by())
            self._silent = False
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
        await self._ask(line, line.exchange.query, self._answer_by())
        if self._on_wait is not None and self._open:
            self._on_wait([self._known[wire] for wire in self._open])
        self._ask_at = None

    async def _ask_whether_it_lives(self, line: Line) -> None:
        """Asks for a word; raises LineBroken where none comes."""
        one = next(iter(self._open))
        try:
            await conversation.ask(line, line.exchange.query([one]), self._answer_by())
        except TimeoutError:
            if self._past(self._limit):
                raise
            raise LineBroken(
                f"no word from {self._where} for {QUIET_SECONDS + REQUEST_SECONDS:g} s"
            ) from None

    async def _ask(self, line: Line, request: Callable[[list[WireId]], Request], end: float) -> None:
        """Learns where the open ones are by now."""
        for part in parts(list(self._open)):
            check_open(line.exchange)
            reply = await conversation.ask(line, request(part), end)
            assert isinstance(reply, StatusMessage)
            for row in reply.tasks:
                self._settle(row[0], status_of(row))

    def _settle(self, wire: WireId, status: Status) -> None:
        self._known[wire] = status
        if status.settled:
            self._open.pop(wire, None)

    def _answer_by(self) -> float:
        end = self._lines.now() + REQUEST_SECONDS
        return end if self._limit is None else min(end, self._limit)

    def _past(self, end: float | None) -> bool:
        return end is not None and self._lines.now() >= end
