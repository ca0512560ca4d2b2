"""Requests that may be repeated: what the broker knows, holds and is told to do."""

from collections.abc import Awaitable, Callable, Iterator
from typing import Any, NamedTuple, TypeVar

from chervil import conversation
from chervil.conversation import L, Line, LineBroken, Lines, check_open
from chervil.exceptions import AccessRefused, OperationalError
from chervil.exchange import Exchange, Request, parts
from chervil.protocol import FINAL, Code, RequestRefused, Stage, WireId, to_text
from chervil.protocol.messages import Ok, Report
from chervil.protocol.messages import Status as StatusMessage

T = TypeVar("T")

#: Seconds in which a request that is no publish is answered.
REQUEST_SECONDS = 10.0


class Status(NamedTuple):
    """What the broker knows of a task (protocol.md, STATUS)."""

    id: str
    stage: Stage
    #: The result's codec and bytes, where there is one.
    codec: str | None
    body: bytes | None
    #: By `protocol.Info`.
    info: dict[int, Any]

    @property
    def settled(self) -> bool:
        """Whether waiting on brings nothing: it is final, or not known."""
        return self.stage in FINAL or self.stage is Stage.UNKNOWN


def status_of(row: list[Any]) -> Status:
    """The status in a row of the wire."""
    id_, stage, codec, body, info = row
    return Status(to_text(id_), Stage(stage), codec, body, info or {})


async def query(
    lines: Lines[L], where: str, wires: list[WireId], seconds: float = REQUEST_SECONDS
) -> list[Status]:
    """What the broker knows of each task, in the order asked; the answer may take `seconds`."""

    async def ask(line: Line, end: float) -> list[Status]:
        known: dict[WireId, Status] = {}
        for part in parts(dict.fromkeys(wires)):
            check_open(line.exchange)
            reply = await conversation.ask(line, line.exchange.query(part), end)
            assert isinstance(reply, StatusMessage)
            known.update((row[0], status_of(row)) for row in reply.tasks)
        return [known[wire] for wire in wires]

    return await _repeat(lines, where, ask, seconds)


async def report(lines: Lines[L], where: str, request: Callable[[Exchange], Request]) -> dict[str, Any]:
    """What the broker reports on a request."""

    async def ask(line: Line, end: float) -> dict[str, Any]:
        reply = await conversation.ask(line, request(line.exchange), end)
        assert isinstance(reply, Report)
        return reply.report

    return await _repeat(lines, where, ask)


async def count(lines: Lines[L], where: str, requests: Callable[[Exchange], Iterator[Request]]) -> int:
    """How many something was done to, over all requests, which are made one by one."""

    async def ask(line: Line, end: float) -> int:
        making = requests(line.exchange)
        total = 0
        while True:
            check_open(line.exchange)
            request = next(making, None)
            if request is None:
                return total
            reply = await conversation.ask(line, request, end)
            assert isinstance(reply, Ok)
            total += reply.value or 0

    return await _repeat(lines, where, ask)


def refusal(error: RequestRefused, where: str) -> OperationalError:
    """What to raise where the broker refused a request."""
    if error.code == Code.FORBIDDEN:
        # The broker's message names the role that is missing.
        return AccessRefused(f"{where} does not allow this: {error.message}")
    return OperationalError(f"the broker refused: {error}")


async def _repeat(
    lines: Lines[L],
    where: str,
    ask: Callable[[L, float], Awaitable[T]],
    seconds: float = REQUEST_SECONDS,
) -> T:
    """Does a request: once more when a connection kept for reuse was broken."""
    end = lines.now() + seconds
    for last in (False, True):
        line = await lines.take(end)
        try:
            answer = await ask(line, end)
        except RequestRefused as error:
            lines.give(line)
            raise refusal(error, where) from None
        except (LineBroken, TimeoutError) as error:
            lines.drop(line, error)
            lines.renew()
            if last or isinstance(error, TimeoutError):
                raise OperationalError(f"no answer from {where}: {error}") from None
        except BaseException as error:
            lines.drop(line, error)
            raise
        else:
            lines.give(line)
            return answer
    raise AssertionError
