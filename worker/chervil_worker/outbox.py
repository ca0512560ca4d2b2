"""What the link has to tell the broker of its tasks, gathered into few frames: no I/O."""

from chervil.protocol import Message, Outcome
from chervil.protocol.limits import BODY_MAX, ROWS_MAX
from chervil.protocol.messages import Complete, Completed, Credit, Started
from chervil.protocol.rows import CompletionRow, batches, weight
from chervil_worker.slots import Task

#: Completions that may be unanswered before the broker gets no further credit: they are kept until it
#: answers, and a broker that does not is in trouble.
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
        self._credit = 0

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
        full = self._unanswered_rows >= UNANSWERED_MAX or self._unanswered_bytes >= UNANSWERED_BYTES_MAX
        if credit < self._credit or (credit > self._credit and not full and self._worth(credit, capacity)):
            self._credit = credit
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

    def _worth(self, credit: int, capacity: int) -> bool:
        return credit - self._credit >= max(1, capacity // 2)

    def _complete(self, messages: list[Message]) -> None:
        rows, self._rows = self._rows, []
        weights = [weight(row[4], None, row[5]) if len(row) > 3 else weight(None, None, None) for row in rows]
        for batch in batches(rows, weights):
            self._sequence += 1
            size = sum(len(row[4]) for row in batch if len(row) > 3 and row[4])
            self._unanswered[self._sequence] = (batch, size)
            self._unanswered_rows += len(batch)
            self._unanswered_bytes += size
            messages.append(Complete(self._sequence, batch))
