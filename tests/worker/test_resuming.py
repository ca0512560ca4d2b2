from itertools import count
from typing import Any

import pytest

from chervil.protocol import Connection, Outcome, Side
from chervil.protocol.limits import FRAME_BATCH, INVENTORY_MAX, ROWS_MAX
from chervil_worker import outbox
from chervil_worker.options import CONCURRENCY_MAX
from chervil_worker.resuming import CLAIMED, UNSTARTED, inventory, resume
from chervil_worker.slots import DEPTH_MAX
from chervil_worker.tasks import Task


def test_inventory_says_what_has_begun():
    unstarted, claimed = [Task(bytes([n] * 16), n, "t", b"") for n in range(2)]
    assert inventory([unstarted], [claimed], []) == [
        [unstarted.id, 0, UNSTARTED],
        [claimed.id, 1, CLAIMED],
    ]


@pytest.mark.parametrize(
    ("completion", "state"),
    [
        ([Outcome.SUCCESS, "json", b"1", None], CLAIMED),
        ([Outcome.LOST, None, b"SIGKILL", None], CLAIMED),
        ([Outcome.RELEASE], UNSTARTED),
        ([Outcome.RELEASE, None, b"no descriptor", None], UNSTARTED),
        ([Outcome.RELEASE, None, b"worker stopped", {2: True}], CLAIMED),
    ],
)
def test_completion_that_was_not_answered_says_whether_a_child_had_begun(completion: list[Any], state: int):
    assert inventory([], [], [[bytes(16), 2, *completion]]) == [[bytes(16), 2, state]]


@pytest.mark.parametrize("task_id", [bytes(16), "\N{EURO SIGN}" * 42])
def test_long_inventory_is_split_into_parts_that_fit_a_frame(task_id: bytes | str):
    rows = [[task_id, n, 1] for n in range(20_000)]
    requests = count(7)
    parts = resume(rows, 3, lambda: next(requests))
    assert [row for part in parts for row in part.inventory] == rows
    assert [part.more for part in parts] == [True] * (len(parts) - 1) + [False]
    assert [part.request for part in parts] == list(range(7, 7 + len(parts)))
    assert {part.sequence for part in parts} == {3}
    connection = Connection(Side.BROKER)
    for part in parts:
        assert len(part.inventory) <= ROWS_MAX
        assert len(connection._writer.frame((7, *part))) - 4 <= FRAME_BATCH


def test_empty_inventory_is_one_part():
    assert [part.inventory for part in resume([], 0, lambda: 1)] == [[]]


def test_all_that_a_worker_can_hold_fits_an_inventory():
    assert outbox.UNANSWERED_MAX + 2 * DEPTH_MAX * CONCURRENCY_MAX <= INVENTORY_MAX
