"""The blocking client: publish, query, wait, stats and purge over a pool of lines."""

import os
import socket
from collections import deque
from collections.abc import Callable
from time import monotonic, sleep
from typing import Any, NamedTuple, TypeVar

from chervil.address import Found
from chervil.exceptions import AccessRefused, OperationalError, PublishRefused, PublishUnconfirmed
from chervil.line import Line, LineBroken, open_line
from chervil.pool import Pool
from chervil.protocol import FINAL, Code, LocalProtocolError, RequestRefused, Stage, WireId, to_text, to_wire
from chervil.protocol.limits import ROWS_MAX
from chervil.protocol.messages import Confirm, Ok, Report
from chervil.protocol.messages import Status as StatusMessage
from chervil.protocol.rows import TaskRow, batches, weight

T = TypeVar("T")

#: Frames sent ahead of their confirms: enough to keep the broker busy, at most 4 MiB under way.
PIPELINE = 16
#: Seconds in which a request that is no publish is answered.
REQUEST_SECONDS = 10.0
#: Seconds of waiting in vain after which a waiter asks why.
ASK_WHY_AFTER = 2.0
#: Seconds between attempts to reach a broker that went away: the first, and the longest.
PAUSE_FIRST = 0.05
PAUSE_MOST = 0.5

#: Reasons of a broker to end a connection after which another one may do.
_TRY_AGAIN = (None, "DONE", Code.SHUTDOWN, Code.SLOW, Code.TOO_MANY)


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


class Client:
    """Talks to one broker; may be used from several threads, and after a fork.

    Every method connects when it must. All raise OperationalError when the broker cannot be reached.
    """

    def __init__(
        self, found: Found, name: str | None = None, pool_limit: int = 10, connect_timeout: float = 4.0
    ) -> None:
        """`name` is what the broker's logs call this client; `pid@host` unless given."""
        self.found = found
        self._name = name
        self._connect_timeout = connect_timeout
        self._pool = Pool(self._connect, pool_limit)

    def publish(self, rows: list[TaskRow], deadline: float = 10.0) -> None:
        """Publishes tasks; returns when the broker has confirmed all of them.

        `deadline` in seconds. When the connection breaks the same rows are sent again, which makes no
        second task. Raises PublishRefused for rows that were not stored (the others are confirmed),
        PublishUnconfirmed when rows were sent and not confirmed before the deadline, OperationalError
        when nothing was sent at all.
        """
        end = monotonic() + deadline
        publication = _Publication(rows)
        pause = PAUSE_FIRST
        sent = False
        while True:
            try:
                line = self._pool.take(end)
            except OperationalError as error:
                if not sent:
                    raise
                reason, again = str(error), not isinstance(error, AccessRefused)
            else:
                before = line.written
                try:
                    publication.send(line, end)
                except (LineBroken, TimeoutError) as error:
                    sent = sent or line.written > before
                    self._pool.drop(line)
                    reason = str(error)
                    again = not isinstance(error, LineBroken) or error.code in _TRY_AGAIN
                except BaseException:
                    self._pool.drop(line)
                    raise
                else:
                    self._pool.give(line)
                    break
            if not again or monotonic() + pause >= end:
                raise PublishUnconfirmed(publication.open_ids(), reason, publication.refused_ids())
            sleep(pause)
            pause = min(2 * pause, PAUSE_MOST)
        if publication.refused:
            raise publication.refusal()

    def query(self, ids: list[str]) -> list[Status]:
        """What the broker knows of each task, in the order asked. Raises ValueError for what is no id."""
        wires = [to_wire(id_) for id_ in ids]

        def ask(line: Line, end: float) -> list[Status]:
            found: list[Status] = []
            for part in parts(wires):
                check_open(line)
                found += _statuses(line.ask(line.exchange.query(part), end))
            return found

        return self._ask(ask)

    def stats(self) -> dict[str, Any]:
        """The broker's report on itself (protocol.md, REPORT)."""

        def ask(line: Line, end: float) -> dict[str, Any]:
            reply = line.ask(line.exchange.stats(), end)
            assert isinstance(reply, Report)
            return reply.report

        return self._ask(ask)

    def purge(self, queues: list[str]) -> int:
        """Revokes the ready and scheduled tasks of queues (none named: of all); returns how many."""

        def ask(line: Line, end: float) -> int:
            reply = line.ask(line.exchange.purge(queues), end)
            assert isinstance(reply, Ok)
            return reply.value or 0

        return self._ask(ask)

    def wait(
        self,
        ids: list[str],
        timeout: float | None = None,
        on_wait: Callable[[list[Status]], None] | None = None,
        on_lost: Callable[[str], None] | None = None,
        patience: float | None = None,
    ) -> list[Status]:
        """Waits until all tasks are settled; returns their statuses in the order asked.

        After `timeout` seconds it returns what is known, unsettled ones included; with 0 it asks once, as
        `query` does. `on_wait` is called once, after ASK_WHY_AFTER seconds in vain, with the statuses of
        those that are open. When the connection breaks it calls `on_lost` with a line that says so, once
        for each loss, then connects and watches again, for `patience` seconds where they are given; when
        an answer stays away for REQUEST_SECONDS it tries once more.

        Raises OperationalError when the broker could not be reached at first, or not again before the
        timeout or within `patience`, when it refuses, or does not answer; chervil's TimeoutError when the
        timeout passes while the broker is away, or before it has said a word about some of the tasks.
        """
        from chervil.watching import Watching

        return Watching(
            self._pool, self.found, ids, timeout, on_wait, on_lost=on_lost, patience=patience
        ).run()

    def close(self) -> None:
        """Closes the idle connections; the client may be used again."""
        self._pool.close()

    def _ask(self, ask: Callable[[Line, float], T]) -> T:
        """Does a request that may be repeated: once more when a connection kept for reuse was broken."""
        end = monotonic() + REQUEST_SECONDS
        for last in (False, True):
            line = self._pool.take(end)
            try:
                answer = ask(line, end)
            except RequestRefused as error:
                self._pool.give(line)
                raise OperationalError(f"the broker refused: {error}") from None
            except (LineBroken, TimeoutError) as error:
                self._pool.drop(line)
                if last or isinstance(error, TimeoutError):
                    raise OperationalError(
                        f"no answer from the broker at {self.found.url.redacted}: {error}"
                    ) from None
            except BaseException:
                self._pool.drop(line)
                raise
            else:
                self._pool.give(line)
                return answer
        raise AssertionError

    def _connect(self, end: float | None) -> Line:
        name = self._name or f"{os.getpid()}@{socket.gethostname()}"
        return open_line(self.found, name, self._connect_timeout, end)


class _Publication:
    """The rows of one `publish` in frames, and what the broker said of each."""

    def __init__(self, rows: list[TaskRow]) -> None:
        #: Frames that are not confirmed yet, in order.
        self._frames = deque(
            (rows,) if len(rows) == 1 else batches(rows, [weight(row[7], row[5], row[4]) for row in rows])
        )
        #: (id, code, message) of rows that were not stored.
        self.refused: list[tuple[WireId, str, str]] = []

    def send(self, line: Line, end: float) -> None:
        """Sends all frames that are not confirmed and waits for their confirms."""
        frames = self._frames
        under_way: deque[int] = deque()
        following = 0
        while frames:
            while following < len(frames) and following < PIPELINE:
                try:
                    request, data = line.exchange.publish(frames[following])
                except LocalProtocolError as error:
                    check_open(line)
                    raise PublishRefused(self.open_ids(), error.code, error.message) from None
                line.send(data, end)
                under_way.append(request)
                following += 1
            try:
                reply = line.reply(under_way.popleft(), end)
            except RequestRefused as error:
                self.refused += [(row[0], error.code, error.message) for row in frames[0]]
            else:
                assert isinstance(reply, Confirm)
                if reply.exceptions:
                    self._note(frames[0], reply.exceptions)
            frames.popleft()
            following -= 1

    def _note(self, rows: list[TaskRow], exceptions: list[list[Any]]) -> None:
        for index, code, message in exceptions:
            # A duplicate was confirmed before: by an attempt of ours, or by whoever chose the id.
            if code != Code.DUPLICATE:
                self.refused.append((rows[index][0], code, message))

    def open_ids(self) -> list[str]:
        return [to_text(row[0]) for rows in self._frames for row in rows]

    def refusal(self) -> PublishRefused:
        _, code, message = self.refused[0]
        return PublishRefused(self.refused_ids(), code, message)

    def refused_ids(self) -> list[str]:
        return [to_text(id_) for id_, _, _ in self.refused]


def parts(wires: list[WireId]) -> list[list[WireId]]:
    """Ids in as many as a frame may hold."""
    return [wires[at : at + ROWS_MAX] for at in range(0, len(wires), ROWS_MAX)]


def check_open(line: Line) -> None:
    """Raises LineBroken where the broker has said goodbye: it may be asked nothing more."""
    ended = line.exchange.ended
    if ended is not None:
        raise LineBroken(str(ended), ended.code)


def _statuses(reply: object) -> list[Status]:
    assert isinstance(reply, StatusMessage)
    return [status_of(row) for row in reply.tasks]


def status_of(row: list[Any]) -> Status:
    """The status in a row of the wire."""
    id_, stage, codec, body, info = row
    return Status(to_text(id_), Stage(stage), codec, body, info or {})
