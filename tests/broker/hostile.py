"""Attacks on a running broker: send bytes, read what comes, and see that nothing is left of them."""

import contextlib
import os
from typing import Any

import msgpack

from chervil.protocol import Message, State
from chervil.protocol.messages import Complete, Completed, Confirm, Deliver, Error, Publish
from tests.broker.talk import House, Talker, Worker, task

#: Where the bystander works.
QUEUE = "bystander"


def frame(array: Any) -> bytes:
    """A frame with any msgpack value in it, whether it makes sense or not."""
    return framed(msgpack.packb(array, strict_types=False))


def framed(payload: bytes) -> bytes:
    return len(payload).to_bytes(4, "big") + payload


async def answers(talker: Talker) -> list[Message]:
    """Everything that the broker says until it closes, after this side has sent its last byte."""
    with contextlib.suppress(ConnectionError, OSError):
        talker.writer.write_eof()
    came = []
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            came.append(await talker.next())
    return came


def refusal(came: list[Message]) -> str | None:
    """The code with which the connection was ended; None where it was not."""
    return next((m.code for m in came if isinstance(m, Error) and m.request is None), None)


async def attack(house: House, *data: bytes, greeted: bool = True) -> list[Message]:
    """What a client is told that sends these bytes, each in a write of its own."""
    talker = await (house.guest("attacker") if greeted else house.connect())
    if not greeted:
        talker.connection.state = State.GREETING  # it takes what it sends for a HELLO
    with contextlib.suppress(ConnectionError):
        for part in data:
            talker.send_raw(part)
            await talker.writer.drain()
    return await answers(talker)


class Bystander:
    """An innocent worker that publishes, runs and completes a task of its own whenever it is asked to."""

    def __init__(self, house: House, worker: Worker) -> None:
        self._house = house
        self.talker = worker.talker
        self._sequence = 0

    async def delivered(self) -> list[list[Any]]:
        return (await self.talker.expect(Deliver)).tasks

    async def complete(self, delivery: list[Any]) -> None:
        """Asserts that its completion counts."""
        self._sequence += 1
        self.talker.send(Complete(self._sequence, [[delivery[0], delivery[1], 1]]))
        assert await self.talker.expect(Completed) == Completed(self._sequence)

    async def is_served(self) -> None:
        """Asserts that it is, and that nobody else is left in the broker."""
        row = task(os.urandom(16), queue=QUEUE)
        self.talker.send(Publish(self._sequence, [row]))
        assert (await self.talker.expect(Confirm)).accepted == 1
        (delivery,) = await self.delivered()
        assert (delivery[0], delivery[11]) == (row[0], row[7])
        await self.complete(delivery)
        await self._house.until(lambda: len(self._house.broker.peers) == 1)
        assert leftovers(self._house) == {}


def leftovers(house: House) -> dict[str, Any]:
    """What the broker holds beyond one idle consumer; nothing of it may stay."""
    broker = house.broker
    tasks = broker.default.engine.stats()["tasks"]
    unfinished = sum(tasks.get(name, 0) for name in ("SCHEDULED", "QUEUED", "LEASED", "STARTED", "RETRY"))
    held = {
        "peers": len(broker.peers) - 1,
        "served": len(broker.served) - 1,
        "sessions": len(broker.sessions) - 1,
        "strangers": len(broker.strangers),
        "partial bytes": broker.partial_bytes,
        "unfinished": unfinished,
        "bodies": len(broker.bodies),
    }
    return {name: amount for name, amount in held.items() if amount}


async def bystander(house: House) -> Bystander:
    return Bystander(house, await house.worker(name="bystander", credit=2**63 - 1, queue=QUEUE))
