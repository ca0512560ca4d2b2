"""A delivered task as the link keeps it."""

from collections.abc import Iterable, Mapping
from typing import Any

from chervil.protocol import TaskOption, WireId
from chervil.protocol.rows import DeliveryRow
from chervil.protocol.vocabulary import DELIVERY_LIMIT_DEFAULT
from chervil_worker import packets
from chervil_worker.terms import PLAIN, Terms

_NO_OPTIONS: Mapping[int, Any] = {}


class Task:
    """A delivered task: what its row says, and the payload of the packet that a child is sent."""

    __slots__ = (
        "attempt", "id", "lease", "name", "number", "options", "payload", "session", "solo", "terms",
    )  # fmt: skip

    def __init__(
        self,
        task_id: WireId,
        lease: int,
        name: str,
        payload: bytes,
        *,
        attempt: int = 1,
        options: Mapping[int, Any] | None = None,
    ) -> None:
        self.id = task_id
        self.lease = lease
        self.name = name
        self.payload = payload
        #: Which attempt this is, as the broker counts them.
        self.attempt = attempt
        self.options = options or _NO_OPTIONS
        self.terms = PLAIN
        #: Claimed with the broker before it begins, in a slot of its own: it runs at most once, or a child
        #: may have begun it before (DELIVER's `redelivered`), and may have died of it, so may have the whole
        #: worker. The broker hears that it begins before it does: the next such death is charged to it.
        self.solo = False
        #: Names its packet; given by `Slots.deliver`, never used again.
        self.number = 0
        #: The session that its lease belongs to, as `Slots.session` counts them.
        self.session = 0

    @property
    def delivery_limit(self) -> int:
        """How many attempts may be lost before the broker gives up on it."""
        limit: int = self.options.get(TaskOption.DELIVERY_LIMIT, DELIVERY_LIMIT_DEFAULT)
        return limit


def from_rows(
    rows: Iterable[DeliveryRow], of_app: Mapping[str, Terms], body_limit: int, now: int
) -> list[Task]:
    """The tasks that these rows deliver. `of_app` are the terms of its tasks that are not plain, by name.

    A payload is what `Child.serve` reads; its deadline counts from `now`, in nanoseconds.
    """
    pack = packets.pack
    tasks = []
    for row in rows:
        options = row[8]
        deadline = None
        if options and (expires_ms := options.get(TaskOption.EXPIRES_MS)) is not None:
            deadline = now + expires_ms * 1_000_000
        name = row[5]
        payload = pack((row, deadline, body_limit))
        task = Task(row[0], row[1], name, payload, attempt=row[3] + 1, options=options)
        if options or row[2] or name in of_app:
            terms = of_app.get(name, PLAIN)
            task.terms = terms.called(options) if options else terms
            task.solo = task.terms.early or row[2]
        tasks.append(task)
    return tasks
