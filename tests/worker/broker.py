"""A scripted broker for worker tests: says what the test tells it to, keeps what it was told."""

import json
import select
import socket
import time
from collections.abc import Callable
from typing import Any

from chervil.protocol import Connection, Message, Outcome, Side
from chervil.protocol.limits import BODY_DEFAULT
from chervil.protocol.messages import (
    Complete,
    Completed,
    Credit,
    Deliver,
    Error,
    Goodbye,
    Heartbeat,
    Hello,
    Ok,
    Resume,
    Started,
    Subscribe,
    Welcome,
)
from chervil.protocol.rows import batches, weight
from chervil.serialization import encode

#: Seconds after which a test gives up on something that should come at once.
DEADLINE = 15.0


def row(
    number: int,
    name: str,
    *args: Any,
    lease: int = 1,
    options: dict[int, Any] | None = None,
    body: bytes | None = None,
    headers: dict[str, Any] | None = None,
) -> list[Any]:
    """A delivery row; `task_id(number)` is its id."""
    body = encode("json", [list(args), {}]) if body is None else body
    packed = encode("json", headers) if headers else None
    return [task_id(number), lease, False, 0, 0, name, "default", 0, options, packed, "json", body]


def task_id(number: int) -> bytes:
    return number.to_bytes(16, "big")


class ScriptedBroker:
    """Listens on a Unix socket, or with no path on a TCP port; serves one connection at a time."""

    def __init__(self, path: str | None = None) -> None:
        if path is None:
            self._listener = socket.socket()
            self._listener.bind(("127.0.0.1", 0))
            self.url = f"chervil://127.0.0.1:{self._listener.getsockname()[1]}"
        else:
            self._listener = socket.socket(socket.AF_UNIX)
            self._listener.bind(path)
            self.url = f"chervil+unix://{path}"
        self._listener.listen()
        self._listener.settimeout(DEADLINE)
        self.hello: Hello | None = None
        self._sock: socket.socket | None = None
        self._start()

    subscribed: Subscribe | None

    def _start(self) -> None:
        self.connection = Connection(Side.BROKER)
        self.credit = 0
        self.delivered = 0
        self.subscribed = None
        self.rows: list[list[Any]] = []
        self.started: list[bytes] = []
        self.heartbeats = 0
        self.said_goodbye = False
        self.answers_completions = True
        #: Whether it takes this worker on.
        self.may_consume = True
        #: What it says to claims: how many rows are in force.
        self.grants = 1
        #: Claims of tasks that run at most once: [id, lease, True].
        self.claims: list[list[Any]] = []
        #: The inventory of a resumed session: (id, lease) -> state.
        self.inventory: dict[tuple[bytes, int], int] | None = None
        self.inbox: list[Message] = []

    def accept(self) -> Hello:
        """Waits for a worker and its HELLO."""
        self._start()
        self._sock, _ = self._listener.accept()
        self.until(lambda: self.inbox)
        hello = self.inbox[0]
        assert isinstance(hello, Hello)
        self.hello = hello
        return hello

    def welcome(
        self,
        heartbeat_ms: int = 10_000,
        body_limit: int = BODY_DEFAULT,
        *,
        resumed: bool = False,
        instance: bytes = b"i",
    ) -> Subscribe:
        """Says WELCOME and waits for the subscription and, in a new session, for some credit."""
        self.connection.accept_frames_up_to(1 << 24)
        options = {1: "memory", 5: body_limit}
        self.send(Welcome(1, [], instance * 16, b"s" * 16, b"x" * 32, resumed, heartbeat_ms, options))
        self.until(lambda: self.subscribed is not None and (resumed or self.credit > 0))
        assert self.subscribed is not None
        return self.subscribed

    def greet(self, **options: Any) -> Subscribe:
        self.accept()
        return self.welcome(**options)

    def deliver(self, *rows: list[Any]) -> None:
        """Delivers within the credit, waiting for more where it must."""
        left = list(rows)
        while left:
            self.until(lambda: self.credit > self.delivered)
            batch, left = left[: self.credit - self.delivered], left[self.credit - self.delivered :]
            self.delivered += len(batch)
            weights = [weight(row[11], row[9], row[8]) for row in batch]
            self.send(*[Deliver(part) for part in batches(batch, weights)])

    def deliver_anyway(self, *rows: list[Any]) -> None:
        """Delivers rows as if there had been credit when they left."""
        self.delivered += len(rows)
        self.send(Deliver(list(rows)))

    def send(self, *messages: Message) -> None:
        assert self._sock is not None
        self._sock.sendall(b"".join(self.connection.send(message) for message in messages))

    def outcomes(self) -> dict[bytes, int]:
        """What came of which task; fails when a task was completed twice under one lease."""
        keys = [(row[0], row[1]) for row in self.rows]
        assert len(keys) == len(set(keys)), "a task was completed twice"
        return {row[0]: row[2] for row in self.rows}

    def until(self, condition: Callable[[], Any], seconds: float = DEADLINE) -> None:
        """Takes in what comes until `condition` holds."""
        deadline = time.monotonic() + seconds
        while not condition():
            left = deadline - time.monotonic()
            assert left > 0, f"waited {seconds} s in vain; last words {self.inbox[-5:]}"
            self._take_in(left)

    def until_closed(self, seconds: float = DEADLINE) -> None:
        self.until(lambda: self._sock is None, seconds)

    def hang_up(self) -> None:
        assert self._sock is not None
        self._sock.close()
        self._sock = None

    def stop_listening(self) -> None:
        self._listener.close()

    def close(self) -> None:
        self._listener.close()
        if self._sock is not None:
            self._sock.close()

    def _take_in(self, seconds: float) -> None:
        assert self._sock is not None
        if not select.select([self._sock], [], [], seconds)[0]:
            return
        try:
            data = self._sock.recv(1 << 20)
        except ConnectionResetError:
            data = b""
        if not data:
            self.hang_up()
            return
        for message in self.connection.receive(data):
            self._hear(message)

    def _hear(self, message: Message) -> None:
        self.inbox.append(message)
        if isinstance(message, Credit):
            self.credit = message.limit
        elif isinstance(message, Complete):
            self.rows += message.tasks
            if self.answers_completions:
                self.send(Completed(message.sequence))
        elif isinstance(message, Started) and message.request is not None:
            self.claims += message.tasks
            self.send(Ok(message.request, self.grants))
        elif isinstance(message, Started):
            self.started += [started[0] for started in message.tasks]
        elif isinstance(message, Resume):
            self.inventory = (self.inventory or {}) | {
                (id_, lease): state for id_, lease, state in message.inventory
            }
            self.send(Ok(message.request, len(message.inventory)))
        elif isinstance(message, Subscribe):
            self.subscribed = message
            if self.may_consume:
                self.send(Ok(message.request))
            else:
                self.send(Error(message.request, "FORBIDDEN", "SUBSCRIBE needs the role consume"))
        elif isinstance(message, Heartbeat):
            self.heartbeats += 1
        elif isinstance(message, Goodbye):
            self.said_goodbye = True
            self.send(Goodbye("DONE"))


def results(broker: ScriptedBroker) -> dict[bytes, object]:
    return {row[0]: json.loads(row[4]) for row in broker.rows if row[2] == Outcome.SUCCESS and row[4]}


def run_all(broker: ScriptedBroker, rows: list[list[Any]]) -> None:
    """Delivers rows, and again under the next lease what is released, until each has come to an end.

    Anything may be released on a slow machine, where every run looks like a long one.
    """
    while rows:
        done = len(broker.rows)
        broker.deliver(*rows)
        keys = {(row[0], row[1]) for row in rows}
        broker.until(lambda keys=keys: keys <= {(row[0], row[1]) for row in broker.rows})
        released = {row[0] for row in broker.rows[done:] if row[2] == Outcome.RELEASE}
        rows = [[row[0], row[1] + 1, *row[2:]] for row in rows if row[0] in released]
