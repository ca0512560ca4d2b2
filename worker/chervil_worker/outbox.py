"""What the link has to tell the broker of its tasks, gathered into few frames: no I/O."""

from collections.abc import Iterator
from typing import Any

from chervil.protocol import Message, Outcome
from chervil.protocol.limits import BODY_MAX, ROWS_MAX
from chervil.protocol.messages import Complete, Completed, Credit, Started
from chervil.protocol.rows import CompletionRow, batches, weight
from chervil_worker.tasks import Task

#: Completions that may be unanswered before the broker gets no further credit and children are not read
#: any more: they are kept until it answers, and a broker that does not is in trouble or away. With what
#: all slots may hold it stays under INVENTORY_MAX.
UNANSWERED_MAX = 4 * ROWS_MAX
#: The same in bytes of their bodies: four of the largest.
UNANSWERED_BYTES_MAX = 4 * BODY_MAX


class Outbox:
    """Completions, STARTED reports and credit of one session."""

    def __init__(self) -> None:
        self._rows: list[CompletionRow] = []
        self._started: list[list[object]] = []
        self._sequence = 0
        #: Sequence -> (rows, bytes of their bodies) of COMPLETEs that were not answered.
        self._unanswered: dict[int, tuple[list[CompletionRow], int]] = {}
        self._unanswered_rows = 0
        self._unanswered_bytes = 0
        #: How many of `_rows` were weighed, and the bytes of their bodies.
        self._weighed = 0
        self._bytes = 0
        self._credit = 0
        self._credit_most = 0

    def complete(
        self,
        task: Task,
        outcome: int,
        codec: str | None = None,
        body: bytes | None = None,
        options: dict[int, object] | None = None,
    ) -> None:
        """A task has come to this outcome."""
        self._rows.append([task.id, task.lease, outcome, codec, body, options])

    def answered(self, task: Task, parts: list[Any]) -> None:
        """A child has answered [outcome, codec?, body?, options?]."""
        self._rows.append([task.id, task.lease, *parts])

    def release(self, task: Task) -> None:
        """A task goes back unstarted."""
        self._rows.append([task.id, task.lease, Outcome.RELEASE])

    def started(self, task: Task) -> None:
        """A task runs for longer than a short one."""
        self._started.append([task.id, task.lease])

    def flush(self, credit: int, capacity: int) -> list[Message]:
        """The messages to send now.

        `credit` is what may have been delivered in all. A raise is told when it comes to half of
        `capacity` (what all slots may hold), so that the broker hears of it a few times a round and not at
        every task; a cut is told at once.
        """
        messages: list[Message] = []
        if self._started:
            messages += [
                Started(self._started[at : at + ROWS_MAX]) for at in range(0, len(self._started), ROWS_MAX)
            ]
            self._started = []
        if self._rows:
            self._complete(messages)
        if credit < self._credit or (
            credit > self._credit and not self.full and self._worth(credit, capacity)
        ):
            self._credit = credit
            self._credit_most = max(self._credit_most, credit)
            messages.append(Credit(credit))
        return messages

    def completed(self, message: Completed) -> list[tuple[CompletionRow, int]]:
        """The broker has answered a COMPLETE: its rows that were not applied, each with the verdict."""
        rows, size = self._unanswered.pop(message.sequence, ([], 0))
        self._unanswered_rows -= len(rows)
        self._unanswered_bytes -= size
        return [(rows[at], verdict) for at, verdict in message.exceptions or () if at < len(rows)]

    @property
    def unanswered(self) -> int:
        """Completions that the broker has not answered, or was not sent yet."""
        return self._unanswered_rows + len(self._rows)

    @property
    def full(self) -> bool:
        """Whether more is unanswered than should be."""
        return (
            self._unanswered_rows + len(self._rows) >= UNANSWERED_MAX
            or self._unanswered_bytes + self._bytes >= UNANSWERED_BYTES_MAX
        )

    def weigh(self) -> None:
        """Counts the bytes that wait to be sent. To be called while nothing is flushed, as `full` asks."""
        self._bytes += sum(_size(row) for row in self._rows[self._weighed :])
        self._weighed = len(self._rows)

    @property
    def allowed(self) -> int:
        """How many tasks the broker may have delivered on this connection: the most it was ever told."""
        return self._credit_most

    # Another connection of the same session

    @property
    def sequence(self) -> int:
        """The last one that was sent."""
        return self._sequence

    def untold(self) -> Iterator[CompletionRow]:
        """The completions that the broker has not answered, or was not sent yet."""
        for rows, _ in self._unanswered.values():
            yield from rows
        yield from self._rows

    def resend(self) -> list[Message]:
        """The COMPLETEs that were not answered, once more; credit counts from 0 again.

        Reports of long runs are dropped: the inventory says which tasks have begun.
        """
        self._credit = self._credit_most = 0
        self._started = []
        return [Complete(sequence, rows) for sequence, (rows, _) in self._unanswered.items()]

    def _worth(self, credit: int, capacity: int) -> bool:
        return credit - self._credit >= max(1, capacity // 2)

    def _complete(self, messages: list[Message]) -> None:
        rows, self._rows = self._rows, []
        self._weighed = self._bytes = 0
        weights = [weight(row[4], None, row[5]) if len(row) > 3 else weight(None, None, None) for row in rows]
        for batch in batches(rows, weights):
            self._sequence += 1
            size = sum(_size(row) for row in batch)
            self._unanswered[self._sequence] = (batch, size)
            self._unanswered_rows += len(batch)
            self._unanswered_bytes += size
            messages.append(Complete(self._sequence, batch))


def _size(row: CompletionRow) -> int:
    """Bytes of a row's body."""
    return len(row[4]) if len(row) > 3 and row[4] else 0
