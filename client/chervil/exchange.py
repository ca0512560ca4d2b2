"""A client's side of a connection without I/O: requests out, replies paired with them, results kept.

The blocking client and an asyncio one both stand on it.
"""

from collections.abc import Callable, Iterable
from typing import Any

from chervil.protocol import FINAL, Connection, Message, RequestRefused, Side, Stage, State, WireId
from chervil.protocol.messages import (
    VERSION,
    Confirm,
    Error,
    Goodbye,
    Hello,
    Ok,
    Publish,
    Purge,
    Query,
    Report,
    Result,
    Stats,
    Status,
    Unwatch,
    Watch,
    Welcome,
)
from chervil.protocol.rows import StatusRow, TaskRow

Reply = Confirm | Status | Ok | Report
_REPLIES = (Confirm, Ok, Report)
#: Stages about which WATCH promises no RESULT.
_SETTLED = frozenset({*FINAL, Stage.UNKNOWN})
#: A request's id and the bytes to put on the wire.
Request = tuple[int, bytes]


class Exchange:
    """Pairs replies with requests and keeps the results that the broker pushes.

    Each request method gives (request id, bytes to send). `receive` takes what came; after it `take` has
    the reply. Raises LocalProtocolError for what may not be sent and RemoteProtocolError for what may not
    come; after the latter, and once `ended` says something, the connection is of no further use.
    """

    def __init__(self) -> None:
        self._connection = Connection(Side.CLIENT)
        self._last_request = 0
        #: Replies that were not taken yet: at most one for each request that was made.
        self._replies: dict[int, Reply | Error] = {}
        #: Rows of a STATUS of which more is to come.
        self._parts: dict[int, list[StatusRow]] = {}
        #: Ids whose result is awaited; a result of any other is dropped, so this bounds `_results`.
        self._watched: set[WireId] = set()
        self._results: list[StatusRow] = []
        self.welcome: Welcome | None = None
        #: Why the broker ended the connection, or None.
        self.ended: RequestRefused | None = None

    @property
    def usable(self) -> bool:
        """Whether requests may be made."""
        return self._connection.state is State.READY and self.ended is None

    def hello(self, name: str, token: str | None = None, vhost: str | None = None) -> bytes:
        return self._connection.send(Hello(VERSION, VERSION, [], name, token, vhost))

    def goodbye(self) -> bytes:
        return self._connection.send(Goodbye("DONE"))

    def publish(self, rows: list[TaskRow]) -> Request:
        """At most what fits a frame (`protocol.rows.batches`); answered by Confirm."""
        # Written out, because it is what every `delay` does.
        self._last_request = request = self._last_request + 1
        return request, self._connection.send(Publish(request, rows))

    def watch(self, ids: list[WireId]) -> Request:
        """At most ROWS_MAX ids; answered by Status, and later by one result for each unfinished id."""
        self._watched.update(ids)
        return self._request(Watch, ids)

    def unwatch(self, ids: Iterable[WireId]) -> bytes:
        ids = list(ids)
        self._watched.difference_update(ids)
        return self._connection.send(Unwatch(ids))

    def query(self, ids: list[WireId]) -> Request:
        """At most ROWS_MAX ids; answered by Status."""
        return self._request(Query, ids)

    def purge(self, queues: list[str]) -> Request:
        """Answered by Ok, whose value counts the tasks."""
        return self._request(Purge, queues)

    def stats(self) -> Request:
        """Answered by Report."""
        return self._request(Stats)

    def receive(self, data: bytes) -> None:
        """Takes bytes from the broker."""
        for message in self._connection.receive(data):
            if isinstance(message, Status):
                self._collect(message)
            elif isinstance(message, _REPLIES):
                self._replies[message.request] = message
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

    def take_results(self) -> list[StatusRow]:
        """The results that came since the last time."""
        results, self._results = self._results, []
        return results

    def _request(self, message: Callable[..., Message], *fields: Any) -> Request:
        self._last_request += 1
        request = self._last_request
        return request, self._connection.send(message(request, *fields))

    def _collect(self, part: Status) -> None:
        """A STATUS, or a part of one; what is settled in it will not be pushed."""
        self._watched.difference_update([row[0] for row in part.tasks if row[1] in _SETTLED])
        before = self._parts.pop(part.request, None)
        whole = part.tasks if before is None else before + part.tasks
        if part.more:
            self._parts[part.request] = whole
        else:
            self._replies[part.request] = Status(part.request, whole)

    def _keep(self, rows: list[StatusRow]) -> None:
        for row in rows:
            if row[0] in self._watched:
                self._watched.discard(row[0])
                self._results.append(row)

    def _control(self, message: Message) -> None:
        if isinstance(message, Welcome):
            self.welcome = message
        elif isinstance(message, Goodbye):
            self.ended = RequestRefused(message.code, message.message or "the broker said goodbye")
        elif isinstance(message, Error):
            if message.request is None:
                self.ended = RequestRefused(message.code, message.message)
            else:
                self._replies[message.request] = message
