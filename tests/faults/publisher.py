"""A publisher of a run with faults: `python -m tests.faults.publisher URL FOLDER NAME SEED COUNT SECONDS`.

It chooses the ids of its tasks and notes each in its logbook before it is published. When it is killed and
started again it reads what it has noted before, publishes again some of those ids of which it was told
nothing, and goes on with the next.
"""

import json
import random
import sys
import time
import uuid
from pathlib import Path

from chervil.client import Client
from chervil.exceptions import ChervilError, OperationalError, PublishRefused, PublishUnconfirmed
from chervil.protocol.ids import to_wire
from chervil.protocol.rows import TaskRow, task_row
from chervil.protocol.vocabulary import TaskOption
from chervil.serialization import decode, encode
from tests.faults import tasks
from tests.faults.history import Publication, Told
from tests.faults.logbook import Logbook, read

BATCH_MOST = 40
#: Seconds that a waiter waits.
WAIT_SECONDS = 8.0
#: What a repeated publish adds to its argument, so that a second task would give itself away.
OTHER = 1_000_000_000
#: Of ids that were confirmed, how many are published a second time; of batches, how many are waited for.
REPEATED = 0.02
WAITED_FOR = 0.05


class Publisher:
    """Publishes its share of a run's tasks, in the time it is given."""

    def __init__(self, folder: Path, name: str, seed: int) -> None:
        self._folder = folder
        self._name = name
        # A publisher that was started again does not repeat its first life.
        self._random = random.Random(f"{seed} {name} {time.monotonic_ns()}")
        self._book = Logbook(folder, name)
        self._client: Client = tasks.app.client

    def run(self, count: int, seconds: float) -> None:
        """Until `count` ids are noted, those of earlier lives included; `seconds` is the time for all."""
        noted = [
            publication
            for path in self._folder.glob(f"{self._name}.*.log")
            for publication in read(path).publications
        ]
        following = len({publication.id for publication in noted})
        self._say_again(noted)
        pace = seconds / max(1, count)
        while following < count:
            size = min(count - following, self._random.choice((1, 1, 2, self._random.randint(1, BATCH_MOST))))
            self._publish([self._draw(number) for number in range(following, following + size)])
            following += size
            time.sleep(self._random.uniform(0, 2 * pace * size))

    def _say_again(self, noted: list[Publication]) -> None:
        """Publishes anew half of what an earlier life was told nothing about."""
        told = {publication.id for publication in noted if publication.told is not Told.UNCONFIRMED}
        unsure = [publication for publication in noted if publication.id not in told]
        again = [(each.id, each.task, each.arguments[0]) for each in unsure if self._random.random() < 0.5]
        if again:
            self._publish(again)

    def _draw(self, number: int) -> tuple[str, str, int]:
        """(id, task, argument) of a new task; half of the ids are text, the others travel as 16 bytes."""
        (task,) = self._random.choices(list(tasks.SHARES), list(tasks.SHARES.values()))
        id_ = f"{self._name}-{number}"
        if number % 2:
            id_ = str(uuid.uuid5(uuid.NAMESPACE_OID, f"{self._folder} {id_}"))
        return id_, task, self._random.randrange(OTHER)

    def _publish(self, calls: list[tuple[str, str, int]]) -> None:
        """Publishes calls in one batch, and notes what it was told; then perhaps once more, and waits."""
        told = self._send(calls)
        unsure = [call for call in calls if told[call[0]] is Told.UNCONFIRMED]
        if unsure and self._random.random() < 0.5:
            self._send(unsure)
        confirmed = [call for call in calls if told[call[0]] is Told.CONFIRMED]
        repeated = [(id_, task, x + OTHER) for id_, task, x in confirmed if self._random.random() < REPEATED]
        if repeated:
            self._send(repeated)
        if confirmed and self._random.random() < WAITED_FOR:
            self._wait([id_ for id_, _, _ in confirmed])

    def _send(self, calls: list[tuple[str, str, int]]) -> dict[str, Told]:
        numbers = [self._book.publish(id_, task, [x]) for id_, task, x in calls]
        told = dict.fromkeys((id_ for id_, _, _ in calls), Told.CONFIRMED)
        try:
            self._client.publish([self._row(*call) for call in calls])
        except PublishRefused as error:
            told |= dict.fromkeys(error.task_ids, Told.REFUSED)
        except PublishUnconfirmed as error:
            told |= dict.fromkeys(error.task_ids, Told.UNCONFIRMED)
            told |= dict.fromkeys(error.refused_ids, Told.REFUSED)
        except OperationalError:
            # Its promise is that nothing was published.
            told = dict.fromkeys(told, Told.REFUSED)
        for number, (id_, _, _) in zip(numbers, calls, strict=True):
            self._book.told(number, told[id_])
        return told

    def _row(self, id_: str, task: str, x: int) -> TaskRow:
        options = {int(TaskOption.DELAY_MS): self._random.randrange(1000)} if x % 20 == 0 else None
        name = f"{tasks.app.main}.{task}"
        body = encode("json", ([x], {}))
        return task_row([to_wire(id_), name, "default", x % 10, options, None, "json", body])

    def _wait(self, ids: list[str]) -> None:
        try:
            statuses = self._client.wait(ids, WAIT_SECONDS)
        except ChervilError:
            return  # it may give up; it may not be told anything wrong
        for status in statuses:
            if status.settled:
                succeeded = status.stage.name == "SUCCESS" and status.body is not None
                value = decode(status.codec or "json", status.body) if succeeded and status.body else None
                self._book.given(status.id, status.stage.name, json.loads(json.dumps(value)))


def main() -> None:
    url, folder, name, seed, count, seconds = sys.argv[1:]
    tasks.app.conf.broker_url = url
    Publisher(Path(folder), name, int(seed)).run(int(count), float(seconds))


if __name__ == "__main__":
    main()
