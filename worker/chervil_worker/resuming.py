"""Taking a session up again on another connection: the inventory, in frames (protocol.md, RESUME)."""

from collections.abc import Callable, Iterable
from typing import Any

from chervil.protocol import Outcome, ReleaseOption, WireId
from chervil.protocol.limits import ID_MAX
from chervil.protocol.messages import Resume
from chervil.protocol.rows import CompletionRow, batches
from chervil_worker.tasks import Task

#: States of an inventory row.
UNSTARTED, CLAIMED = 0, 1

#: An upper bound of a row's bytes without its id: a list, a lease, a state and the id's own head.
_ROW_OVERHEAD = 16


def inventory(
    unstarted: Iterable[Task], claimed: Iterable[Task], untold: Iterable[CompletionRow]
) -> list[list[Any]]:
    """Rows for all that is held: what no child has begun, what one has, and what is completed without an
    answer. What was released unstarted is unstarted until the broker has heard of that."""
    return [
        *[[task.id, task.lease, UNSTARTED] for task in unstarted],
        *[[task.id, task.lease, CLAIMED] for task in claimed],
        *[[row[0], row[1], UNSTARTED if _is_unstarted(row) else CLAIMED] for row in untold],
    ]


def resume(rows: list[list[Any]], sequence: int, new_request: Callable[[], int]) -> list[Resume]:
    """The inventory in parts that fit a frame each; at least one."""
    parts = list(batches(rows, [_weight(row[0]) for row in rows])) or [[]]
    last = len(parts) - 1
    return [Resume(new_request(), part, sequence, at < last) for at, part in enumerate(parts)]


def _is_unstarted(row: CompletionRow) -> bool:
    """Whether a completion says that no child had begun the task."""
    if row[2] != Outcome.RELEASE:
        return False
    options = row[5] if len(row) > 5 else None
    return not (options and options.get(ReleaseOption.CLAIMED))


def _weight(task_id: WireId) -> int:
    return _ROW_OVERHEAD + (len(task_id) if isinstance(task_id, bytes) else ID_MAX)
