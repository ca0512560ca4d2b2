"""Many workers' connections from one process: `python -m tests.machines.storm COUNT QUEUE`.

Each is a worker's own session with the broker, that is, its TLS, heartbeats and waits between attempts,
without children. It tells when all of them are connected, and again whenever all are back after a loss; and
when each of them has been delivered a task: none is given a second one before.
"""

import asyncio
import os
import sys
import time
from pathlib import Path
from typing import Any

from chervil.address import Found, find_broker
from chervil.protocol import Outcome, RequestRefused
from chervil.protocol.messages import Complete, Completed, Credit, Message, Ok, Resume, Subscribe, Welcome
from chervil.protocol.rows import DeliveryRow
from chervil_worker import session
from chervil_worker.reconnect import Reconnect


class Storm:
    """All of them together."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._connected: set[Caller] = set()
        self._served: set[Caller] = set()
        #: When the first one was lost after all had been there.
        self._began = time.monotonic()

    def connected(self, caller: "Caller") -> None:
        self._connected.add(caller)
        if len(self._connected) == self._count:
            print(f"connected {self._count} in {time.monotonic() - self._began:.3f} s", flush=True)

    def lost(self, caller: "Caller") -> None:
        if len(self._connected) == self._count:
            self._began = time.monotonic()
        self._connected.discard(caller)

    def served(self, caller: "Caller") -> None:
        self._served.add(caller)
        if len(self._served) == self._count:
            print(f"served {self._count}", flush=True)
            round_, self._served = self._served, set()
            for each in round_:
                each.take_another()


class Caller:
    """A worker with one slot, whose tasks take no time. What its session tells it is `session.Owner`."""

    def __init__(self, storm: Storm, found: Found, name: str, queue: str) -> None:
        self._storm = storm
        self._found = found
        self._name = name
        self._queue = queue
        self._session: session.Session | None = None
        self._resume: list[bytes] | None = None
        #: The last COMPLETE of this session, and the last that was answered.
        self._sequence = self._answered = 0
        #: Tasks that may be delivered on this connection.
        self._credit = 0
        #: Whether it has had its task of this round.
        self._is_served = False

    async def stay_connected(self) -> None:
        attempts = Reconnect()
        while True:
            # A COMPLETE that was not answered would have to be sent again; a new session is simpler.
            resume = self._resume if self._sequence == self._answered else None
            try:
                current, welcome = await session.connect(
                    self, self._found.url, self._found.files, self._name, resume
                )
            except (OSError, RequestRefused):
                delay, _ = attempts.failed(time.monotonic())
                await asyncio.sleep(delay)
                continue
            attempts.succeeded()
            self._take_up(current, welcome)
            await current.ended

    def take_another(self) -> None:
        """Its next round."""
        self._is_served = False
        self._credit += 1
        self._send(Credit(self._credit))

    def _take_up(self, current: session.Session, welcome: Welcome) -> None:
        self._session = current
        self._resume = [welcome.session, welcome.secret]
        messages: list[Message] = []
        if welcome.resumed:
            messages.append(Resume(1, [], self._sequence))
        else:
            self._sequence = self._answered = 0
        self._credit = 0 if self._is_served else 1
        self._send(*messages, Subscribe(2, [self._queue]), Credit(self._credit))

    def _send(self, *messages: Message) -> None:
        if self._session is not None and self._session.open:
            self._session.send(list(messages))

    # session.Owner

    def delivered(self, rows: list[DeliveryRow]) -> None:
        self._sequence += 1
        self._send(Complete(self._sequence, [[id_, lease, Outcome.SUCCESS] for id_, lease, *_ in rows]))
        self._is_served = True
        self._storm.served(self)

    def completed(self, message: Completed) -> None:
        self._answered = message.sequence

    def cancelled(self, rows: list[list[Any]]) -> None:
        """Nothing of it is left by then."""

    def ok(self, message: Ok) -> None:
        if message.request == 2:  # it is subscribed
            self._storm.connected(self)

    def lost(self) -> None:
        self._session = None
        self._storm.lost(self)


async def main() -> None:
    count, queue = int(sys.argv[1]), sys.argv[2]
    found = find_broker(None, None, Path.cwd())
    storm = Storm(count)
    callers = [Caller(storm, found, f"{queue}{number}@{os.getpid()}", queue) for number in range(count)]
    await asyncio.gather(*(caller.stay_connected() for caller in callers))


if __name__ == "__main__":
    asyncio.run(main())
