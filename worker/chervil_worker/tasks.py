"""A delivered task as the link keeps it, and the terms on which it runs."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from chervil.protocol import TaskOption, WireId


class TaskTerms(NamedTuple):
    """What was agreed for a task about its end: by the call, else by the app (control.Manifest.limits)."""

    #: How long it may run, in nanoseconds; None: for ever.
    limit_ns: int | None = None
    #: At most once: claimed as such with the broker before it begins.
    early: bool = False
    #: It is FAILURE when its process dies, and only the app says so: the broker does not know.
    fail_on_lost: bool = False
    #: A child may have begun it before (DELIVER's `redelivered`), and may have died of it, so may have the
    #: whole worker. The broker hears that it begins before it does: the next such death is charged to it.
    suspect: bool = False

    @property
    def solo(self) -> bool:
        """Whether it is claimed with the broker before it begins, in a slot of its own."""
        return self.early or self.suspect


#: Those of most tasks.
PLAIN = TaskTerms()


def terms(
    options: dict[int, Any] | None, of_app: Sequence[Any] | None, *, redelivered: bool = False
) -> TaskTerms:
    """The terms of a task: its row's options first, then what its app says of tasks of that name."""
    limit_ms, early, fail_on_lost = of_app or (None, False, False)
    if options:
        limit_ms = options.get(TaskOption.TIME_LIMIT_MS, limit_ms)
        early = options.get(TaskOption.EARLY_ACK, early)
        # Where the row says it the broker sees to it.
        fail_on_lost = fail_on_lost and TaskOption.FAIL_ON_LOST not in options
    return TaskTerms(limit_ms * 1_000_000 if limit_ms else None, early, fail_on_lost, redelivered)


class Task:
    """A delivered task: what its row says, and the payload of the packet that a child is sent."""

    __slots__ = ("attempt", "id", "lease", "name", "number", "payload", "session", "terms")

    def __init__(self, task_id: WireId, lease: int, name: str, payload: bytes, attempt: int = 1) -> None:
        self.id = task_id
        self.lease = lease
        self.name = name
        self.payload = payload
        #: Which attempt this is, as the broker counts them.
        self.attempt = attempt
        self.terms = PLAIN
        #: Names its packet; given by `Slots.deliver`, never used again.
        self.number = 0
        #: The session that its lease belongs to, as `Slots.session` counts them.
        self.session = 0
