"""What a publisher of a run with faults publishes, and what it notes, whichever way it talks to the broker.

It chooses the ids of its tasks and notes each in its logbook before it is published. When it is killed and
started again it reads what it has noted before, publishes again some of those ids of which it was told
nothing, and goes on with the next.
"""

import json
import random
import time
import uuid
from collections.abc import Generator, Iterable
from pathlib import Path
from typing import NamedTuple

from chervil.asking import Status
from chervil.exceptions import ChervilError, OperationalError, PublishRefused, PublishUnconfirmed
from chervil.protocol.ids import to_wire
from chervil.protocol.rows import TaskRow, task_row
from chervil.protocol.vocabulary import TaskOption
from chervil.serialization import decode, encode
from tests.faults import tasks
from tests.faults.history import Told
from tests.faults.logbook import Logbook, read

#: Tasks published at once: one, two, or as many as are drawn up to one of these.
BATCHES_MOST = (1, 2, 40, 400)
#: What a repeated publish adds to its argument, so that a second task would give itself away.
OTHER = 1_000_000_000
#: Of ids that were confirmed, how many are published a second time; of batches, how many are waited for.
REPEATED = 0.01
WAITED_FOR = 0.05
#: What each fourth task carries beside its argument: so that the journal of a long run grows beyond what the
#: broker leaves alone, and is compacted under kills.
HEADERS = encode("json", {"padding": "x" * 3000})
#: Attempts at a batch while there is no broker, and seconds between them: it is away for a second or two.
ATTEMPTS = 40
PAUSE_SECONDS = 0.3
#: Seconds that a waiter waits.
WAIT_SECONDS = 8.0


class Call(NamedTuple):
    """A task to be published."""

    id: str
    task: str
    x: int

    def row(self) -> TaskRow:
        options = {int(TaskOption.DELAY_MS): self.x % 1000} if self.x % 20 == 1 else None
        name = f"{tasks.app.main}.{self.task}"
        headers = None if self.x % 4 else HEADERS
        body = encode("json", ([self.x], {}))
        return task_row([to_wire(self.id), name, "default", self.x % 10, options, headers, "json", body])


#: Yields what is to be published at once, and is sent what was raised by that, or None; returns the ids
#: that are to be waited for.
Rounds = Generator[list[Call], ChervilError | None, list[str]]


class Share:
    """One publisher's tasks."""

    def __init__(self, folder: Path, name: str, seed: int, count: int, end: float) -> None:
        """`count` tasks in all its lives, evenly until `end`, which is a time of the monotonic clock."""
        self._folder = folder
        self._name = name
        self._count = count
        self._began, self._end = time.monotonic(), end
        # A publisher that was started again does not repeat its first life.
        self._random = random.Random(f"{seed} {name} {time.monotonic_ns()}")
        self._book = Logbook(folder, name)
        noted = [
            publication for path in folder.glob(f"{name}.*.log") for publication in read(path).publications
        ]
        self._first = self._following = len({publication.id for publication in noted})
        self._noted = noted

    def unsure(self) -> list[Call]:
        """Half of what an earlier life was told nothing about."""
        told = {publication.id for publication in self._noted if publication.told is not Told.UNCONFIRMED}
        unsure = {each.id: each for each in self._noted if each.id not in told}
        self._noted = []
        return [
            Call(each.id, each.task, each.arguments[0])
            for each in unsure.values()
            if self._random.random() < 0.5
        ]

    def batch(self) -> list[Call]:
        """The next tasks; none when all have been drawn."""
        size = min(self._count - self._following, self._random.randint(1, self._random.choice(BATCHES_MOST)))
        numbers = range(self._following, self._following + size)
        self._following += size
        return [self._draw(number) for number in numbers]

    def pause(self) -> float:
        """Seconds to let pass now, so that all is published at the end; none where it is late."""
        part = (self._following - self._first) / max(1, self._count - self._first)
        due = self._began + part * (self._end - self._began)
        return self._random.uniform(0, 2) * max(0.0, due - time.monotonic())

    def rounds(self, calls: list[Call]) -> Rounds:
        """Publishes calls in one batch, and notes what it was told; then perhaps some of them once more."""
        for _ in range(ATTEMPTS):
            told = yield from self._round(calls)
            if set(told.values()) != {Told.REFUSED}:
                break
        unsure = [call for call in calls if told[call.id] is Told.UNCONFIRMED]
        if unsure and self._random.random() < 0.5:
            yield from self._round(unsure)
        confirmed = [call for call in calls if told[call.id] is Told.CONFIRMED]
        repeated = [call._replace(x=call.x + OTHER) for call in confirmed if self._random.random() < REPEATED]
        if repeated:
            yield from self._round(repeated)
        return [call.id for call in confirmed] if self._random.random() < WAITED_FOR else []

    def given(self, statuses: Iterable[Status]) -> None:
        """Notes what a wait gave."""
        for status in statuses:
            if status.settled:
                succeeded = status.stage.name == "SUCCESS" and status.body is not None
                value = decode(status.codec or "json", status.body) if succeeded and status.body else None
                self._book.given(status.id, status.stage.name, json.loads(json.dumps(value)))

    def _draw(self, number: int) -> Call:
        """Half of the ids are text, the others travel as 16 bytes."""
        (task,) = self._random.choices(list(tasks.SHARES), list(tasks.SHARES.values()))
        id_ = f"{self._name}-{number}"
        if number % 2:
            id_ = str(uuid.uuid5(uuid.NAMESPACE_OID, f"{self._folder} {id_}"))
        return Call(id_, task, self._random.randrange(OTHER))

    def _round(self, calls: list[Call]) -> Generator[list[Call], ChervilError | None, dict[str, Told]]:
        first = self._book.publish([(call.id, call.task, [call.x]) for call in calls])
        error = yield calls
        told = dict.fromkeys((call.id for call in calls), Told.CONFIRMED)
        match error:
            case None:
                pass
            case PublishRefused():
                told |= dict.fromkeys(error.task_ids, Told.REFUSED)
            case PublishUnconfirmed():
                told |= dict.fromkeys(error.task_ids, Told.UNCONFIRMED)
                told |= dict.fromkeys(error.refused_ids, Told.REFUSED)
            case OperationalError():
                # Its promise is that nothing was published.
                told = dict.fromkeys(told, Told.REFUSED)
            case _:
                raise error
        self._book.told(first, [told[call.id] for call in calls])
        return told
