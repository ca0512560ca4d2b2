"""A client's side of a connection without I/O: requests out, replies paired with them, results kept.

The blocking client and the asyncio one both stand on it. It trusts the broker with nothing: what it keeps is
bounded by what was asked for, and an answer that fits no question ends the connection.
"""

from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import Any

from chervil.protocol import (
    FINAL,
    Code,
    Connection,
    Message,
    RemoteProtocolError,
    RequestRefused,
    Side,
    Stage,
    State,
    WireId,
)
from chervil.protocol.limits import FRAME_BATCH, ROWS_MAX
from chervil.protocol.messages import (
    VERSION,
    Confirm,
    Error,
    Forget,
    Goodbye,
    Hello,
    History,
    List,
    Ok,
    Publish,
    Purge,
    Query,
    Report,
    Rerun,
    Result,
    Revoke,
    Stats,
    Status,
    Unwatch,
    Watch,
    Welcome,
    Window,
)
from chervil.protocol.rows import StatusRow, TaskRow

Reply = Confirm | Status | Ok | Report
_REPLIES = (Confirm, Ok, Report)
#: Stages about which WATCH promises no RESULT.
_SETTLED = frozenset({*FINAL, Stage.UNKNOWN})
#: A request's id and the bytes to put on the wire.
Request = tuple[int, bytes]
#: Requests nobody waits for any more whose answers have not come. With so many of them the broker is
#: behind for good, and another connection is the better way to find out.
ABANDONED_MAX = 1000
#: What there may be news of besides requests and mailboxes: the greeting, and the publisher's window.
WELCOME = "welcome"
WINDOW = "window"
#: What an id takes in a frame besides its own bytes, at most.
_ID_HEAD = 3
#: What a frame of ids holds besides them, at most.
_IDS_HEAD = 64


class Mailbox:
    """Where results are put for one who waits."""

    __slots__ = ("__weakref__", "rows")

    def __init__(self) -> None:
        #: What came since `take`; at most a row for each id that it watches.
        self.rows: list[StatusRow] = []

    def take(self) -> list[StatusRow]:
        rows, self.rows = self.rows, []
        return rows


class Exchange:
    """Pairs replies with requests and hands out the results that the broker pushes.

    Each request method gives (request id, bytes to send). `receive` takes what came; after it `take` has
    the reply. Raises LocalProtocolError for what may not be sent and RemoteProtocolError for what may not
    come; after the latter, and once `ended` says something, the connection is of no further use.
    """

    def __init__(self, tell: Callable[[Hashable], None] | None = None) -> None:
        """`tell` is called with each request id, Mailbox, WELCOME or WINDOW of which there is news."""
        self._connection = Connection(Side.CLIENT)
        self._tell = tell
        self._last_request = 0
        #: What is to come for each request under way: the reply's class, and how many rows a CONFIRM may
        #: except or which ids a STATUS has to name.
        self._expected: dict[int, tuple[type, Any]] = {}
        #: Those among them that nobody waits for any more.
        self._abandoned: set[int] = set()
        #: Replies that were not taken yet: at most one for each request that was made.
        self._replies: dict[int, Reply | Error] = {}
        #: Rows of a STATUS of which more is to come.
        self._parts: dict[int, list[StatusRow]] = {}
        #: Who waits for the result of which id; a result of any other is dropped.
        self._watched: dict[WireId, list[Mailbox]] = {}
        self.welcome: Welcome | None = None
        #: Why the broker ended the connection, or None.
        self.ended: RequestRefused | None = None
        #: Bytes of bodies and headers published on this connection, and how many the broker lets it
        #: publish; None until it has said.
        self.published = 0
        self.window: int | None = None

    @property
    def usable(self) -> bool:
        """Whether requests may be made."""
        return self._connection.state is State.READY and self.ended is None and not self.overdue

    @property
    def overdue(self) -> bool:
        """Whether so many requests were given up that another connection is better."""
        return len(self._abandoned) > ABANDONED_MAX

    @property
    def window_open(self) -> bool:
        """Whether a publisher that can wait may send now.

        One frame may go beyond the limit: else a row larger than what the broker opens would never leave.
        """
        return self.window is None or self.published < self.window

    def hello(self, name: str, token: str | None = None, vhost: str | None = None) -> bytes:
        return self._connection.send(Hello(VERSION, VERSION, [], name, token, vhost))

    def goodbye(self) -> bytes:
        return self._connection.send(Goodbye("DONE"))

    def publish(self, rows: list[TaskRow]) -> Request:
        """At most what fits a frame (`protocol.rows.batches`); answered by Confirm."""
        # Written out, because it is what every `delay` does.
        request = self._last_request + 1
        data = self._connection.send(Publish(request, rows))
        self._last_request = request
        self._expected[request] = (Confirm, len(rows))
        for row in rows:
            self.published += len(row[7])
            if row[5] is not None:
                self.published += len(row[5])
        return request, data

    def watch(self, mailbox: Mailbox, ids: list[WireId]) -> Request:
        """At most a part of `parts`; answered by Status, and later by a result for each unfinished id."""
        request = self._request(Watch, ids, reply=Status, about=ids)
        for id_ in ids:
            boxes = self._watched.setdefault(id_, [])
            if mailbox not in boxes:
                boxes.append(mailbox)
        return request

    def unwatch(self, mailbox: Mailbox, ids: Iterable[WireId]) -> bytes:
        """Ends a mailbox's watch of ids; the frames to send, none where somebody else waits for them."""
        alone = []
        for id_ in ids:
            boxes = self._watched.get(id_)
            if boxes is not None and mailbox in boxes:
                boxes.remove(mailbox)
                if not boxes:
                    del self._watched[id_]
                    alone.append(id_)
        if not self.usable:
            return b""
        return b"".join(self._connection.send(Unwatch(part)) for part in parts(alone))

    def query(self, ids: list[WireId]) -> Request:
        """At most a part of `parts`, each id once; answered by Status."""
        return self._request(Query, ids, reply=Status, about=ids)

    def forget(self, ids: list[WireId]) -> Request:
        """Answered by Ok, whose value counts those that were dropped."""
        return self._request(Forget, ids, reply=Ok)

    def history(self, id_: WireId) -> Request:
        """Answered by Report."""
        return self._request(History, id_, reply=Report)

    def revoke(self, ids: list[WireId], terminate: bool, signal: int | None) -> Request:
        """Answered by Ok, whose value counts those that were not final."""
        return self._request(Revoke, ids, terminate, signal, reply=Ok)

    def rerun(self, ids: list[WireId]) -> Request:
        """Answered by Ok, whose value counts those that run again."""
        return self._request(Rerun, ids, reply=Ok)

    def page(self, kind: str, cursor: str | None, limit: int) -> Request:
        """A page of LIST; answered by Report, whose `cursor` is what the next page is asked with."""
        return self._request(List, kind, cursor, limit, reply=Report)

    def purge(self, queues: list[str]) -> Request:
        """Answered by Ok, whose value counts the tasks."""
        return self._request(Purge, queues, reply=Ok)

    def stats(self) -> Request:
        """Answered by Report."""
        return self._request(Stats, reply=Report)

    def receive(self, data: bytes) -> None:
        """Takes bytes from the broker."""
        for message in self._connection.receive(data):
            if isinstance(message, _REPLIES):
                self._answer(message.request, message)
            elif isinstance(message, Status):
                self._collect(message)
            elif isinstance(message, Result):
                self._keep(message.tasks)
            else:
                self._control(message)

    def take(self, request: int) -> Reply | None:
        """The reply to a request, once; None while it has not come. Raises RequestRefused."""
        reply = self._replies.pop(request, None)
        if isinstance(reply, Error):
            raise RequestRefused(reply.code, reply.message)
        return reply

    def abandon(self, request: int) -> None:
        """Nobody waits for this reply any more; should it come, it is dropped."""
        self._replies.pop(request, None)
        if request in self._expected:
            self._abandoned.add(request)

    def _request(
        self, message: Callable[..., Message], *fields: Any, reply: type, about: Any = None
    ) -> Request:
        request = self._last_request + 1
        data = self._connection.send(message(request, *fields))
        self._last_request = request
        self._expected[request] = (reply, about)
        return request, data

    def _answer(self, request: int, reply: Reply | Error) -> None:
        expected = self._expected.pop(request, None)
        if expected is None:
            raise _breach(f"{type(reply).__name__.upper()} answers request {request}, which is not open")
        kind, about = expected
        if type(reply) is Error:
            self._parts.pop(request, None)
        elif type(reply) is not kind:
            raise _breach(f"{type(reply).__name__.upper()} answers what wants {kind.__name__.upper()}")
        elif type(reply) is Confirm and reply.exceptions:
            _check_exceptions(reply.exceptions, about)
        if self._abandoned and request in self._abandoned:
            self._abandoned.discard(request)
            return
        self._replies[request] = reply
        if self._tell is not None:
            self._tell(request)

    def _collect(self, part: Status) -> None:
        """A STATUS, or a part of one; what is settled in it will not be pushed."""
        request = part.request
        kind, asked = self._expected.get(request, (None, ()))
        if kind is not Status:
            raise _breach(f"STATUS answers request {request}, which asked for none")
        whole = self._parts.setdefault(request, [])
        at = len(whole)
        whole += part.tasks
        if [row[0] for row in part.tasks] != asked[at : len(whole)]:
            raise _breach(f"STATUS of request {request} names other ids than were asked for")
        if part.more and not part.tasks:
            raise _breach(f"STATUS of request {request} goes on without a row")
        for row in part.tasks:
            if row[1] in _SETTLED and row[0] in self._watched:
                self._deliver(row)
        if not part.more:
            if len(whole) != len(asked):
                raise _breach(f"STATUS of request {request} has {len(whole)} rows of {len(asked)}")
            del self._parts[request]
            self._answer(request, Status(request, whole))

    def _keep(self, rows: list[StatusRow]) -> None:
        for row in rows:
            if row[1] not in FINAL:
                raise _breach(f"RESULT of a task that is {Stage(row[1]).name}")
            if row[0] in self._watched:
                self._deliver(row)

    def _deliver(self, row: StatusRow) -> None:
        for mailbox in self._watched.pop(row[0]):
            mailbox.rows.append(row)
            self._say(mailbox)

    def _say(self, about: Hashable) -> None:
        if self._tell is not None:
            self._tell(about)

    def _control(self, message: Message) -> None:
        if isinstance(message, Welcome):
            if message.version != VERSION:
                raise RemoteProtocolError(
                    Code.VERSION_UNSUPPORTED,
                    f"WELCOME in version {message.version}; {VERSION} is what was offered",
                )
            self.welcome = message
            self._say(WELCOME)
        elif isinstance(message, Window):
            # The newest one counts: a window is closed by a lower limit.
            self.window = message.limit
            self._say(WINDOW)
        elif isinstance(message, Goodbye):
            self.ended = RequestRefused(message.code, message.message or "the broker said goodbye")
        elif isinstance(message, Error):
            if message.request is None:
                self.ended = RequestRefused(message.code, message.message)
            else:
                self._answer(message.request, message)


def parts(ids: Iterable[WireId]) -> Iterator[list[WireId]]:
    """Ids in as many as a frame may hold: ROWS_MAX of them, and FRAME_BATCH bytes."""
    part: list[WireId] = []
    size = _IDS_HEAD
    for id_ in ids:
        length = _ID_HEAD + len(id_ if type(id_) is bytes else id_.encode())  # type: ignore[union-attr]
        if len(part) >= ROWS_MAX or size + length > FRAME_BATCH:
            yield part
            part, size = [], _IDS_HEAD
        part.append(id_)
        size += length
    if part:
        yield part


def _check_exceptions(exceptions: list[list[Any]], rows: int) -> None:
    """Raises RemoteProtocolError unless each names another row of the PUBLISH."""
    indexes = {exception[0] for exception in exceptions}
    if len(indexes) != len(exceptions) or max(indexes) >= rows:
        raise _breach(f"CONFIRM of {rows} rows has exceptions for others")


def _breach(message: str) -> RemoteProtocolError:
    return RemoteProtocolError(Code.BAD_STATE, message)
