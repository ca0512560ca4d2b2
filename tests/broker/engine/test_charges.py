import sys

import pytest

from chervil.protocol import TaskOption
from chervil_broker.engine.charges import (
    CLASS_BYTES,
    FREE_BYTES,
    LEVEL_BYTES,
    QUEUE_BYTES,
    Charges,
    id_bytes,
    options_bytes,
    overhead_of,
    text_bytes,
)
from chervil_broker.engine.task import TASK_OVERHEAD
from tests.broker.engine.rig import Rig

STAMPS = TaskOption.STAMPS.value
MEMORY = 64 << 20
LONG = "\N{GRINNING FACE}" + "x" * 251


def real_bytes(value):
    """What CPython says that a value takes, with all that is in it; small numbers are shared by all."""
    size = sys.getsizeof(value)
    if isinstance(value, dict):
        return size + sum(real_bytes(key) + real_bytes(inner) for key, inner in value.items())
    if isinstance(value, list):
        return size + sum(map(real_bytes, value))
    return size


def grown(count):
    """A map that grew entry by entry, as one does that is decoded."""
    made = {}
    for number in range(count):
        made[10**15 + number] = 10**15
    return made


@pytest.mark.parametrize(
    "options",
    [
        {},
        {16: 5},
        {10: True, 12: True, 14: True, 16: 100, 18: 2**62, 20: 2**62},
        {1: b"r" * 16, 3: b"p" * 16, 9: LONG, 11: "x" * 255},
        {STAMPS: {"a": [{}] * 1000}},
        {STAMPS: {"a": [[[]] for _ in range(1000)]}},
        {STAMPS: {"a": [{"b": index} for index in range(1000)]}},
        {STAMPS: {"a": [1.5, None, 2**62, b"bytes", "text", LONG] * 20}},
        *[{STAMPS: {"a": [grown(count) for _ in range(50)]}} for count in (5, 6, 11, 22, 43, 86, 171)],
        {2**40 + 2 * n + 1: [n] for n in range(62)},
    ],
)
def test_options_are_charged_at_least_what_they_take(options):
    assert real_bytes(options) <= options_bytes(options) <= 4 * real_bytes(options) + 500


def test_options_however_deep_can_be_charged():
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    assert options_bytes({STAMPS: {"a": deep}}) > 100_000 * 64


def test_no_options_are_charged_nothing():
    assert options_bytes(None) == 0


@pytest.mark.parametrize("text", ["a", "x" * 255, "\xe4" * 100, LONG])
def test_text_is_charged_at_least_what_it_takes(text):
    assert sys.getsizeof(text) + (0 if text.isascii() else len(text.encode())) <= text_bytes(text)


def test_usual_names_and_ids_are_covered_by_the_overhead():
    assert overhead_of("project.package.tasks.resize", "thumbnails") == TASK_OVERHEAD
    assert id_bytes(b"i" * 16) == id_bytes("i" * 32) == 0


def test_long_names_and_ids_are_charged_more():
    rig = Rig()
    rig.publish(rig.row("i" * 128, name="n" * 255, queue="q" * 255), rig.row(LONG[:30]))
    task = rig.engine._state.tasks["i" * 128]
    assert task.overhead == TASK_OVERHEAD + 2 * (255 + 64) - 208 + 128 + 64
    assert rig.engine._state.tasks[LONG[:30]].overhead == TASK_OVERHEAD + 8 * 30 + 96
    worker = rig.worker("q" * 255, "q", credit=9)
    rig.succeed(worker, *rig.lease())
    state = rig.engine._state
    assert (state.memory, state.results.bytes) == (0, sum(task.weight() for task in state.tasks.values()))


def test_what_is_charged_counts_from_a_limit_on():
    charges = Charges()
    charges.bytes = FREE_BYTES
    assert (charges.counted, charges.counted_with(7)) == (0, 7)


def test_stamps_fill_the_memory_that_they_take():
    rig = Rig(MEMORY)
    stamps = {"a": [{}] * 60_000}
    accepted = 0
    while rig.publish(rig.row(f"t{accepted}", options={STAMPS: stamps})).accepted:
        accepted += 1
    assert accepted * real_bytes(stamps) <= MEMORY
    assert accepted > 2
    assert rig.engine.publishing_state == "full"


def test_queues_and_names_of_their_own_fill_the_memory_too():
    rig = Rig(MEMORY)
    made = 0
    refused = 0
    while not refused:
        rows = [rig.row(b"%016d" % n, name=f"n{n}", queue=f"q{n}") for n in range(made, made + 1000)]
        refused = len(rig.publish(*rows).exceptions or ())
        made += 1000
    state = rig.engine._state
    each = QUEUE_BYTES + LEVEL_BYTES + CLASS_BYTES
    assert len(state.tasks) * (each + TASK_OVERHEAD) <= MEMORY + FREE_BYTES
    memory = rig.engine.stats()["memory"]
    assert memory["other"] > len(state.tasks) * each - FREE_BYTES
    assert rig.engine.room() == 0
    rig.engine.purge(rig.publisher, 1, [])
    assert (state.charges.bytes, state.taken) == (0, 0)
    rig.pump()
    assert rig.engine.publishing_state == "open"


def test_a_retry_in_a_queue_of_a_long_name_is_charged_for_it():
    rig = Rig()
    worker = rig.worker("q", credit=1)
    rig.publish("a")
    (task,) = rig.lease()
    before = rig.engine._state.memory
    from_queue = {36: "q" * 255}
    rig.complete(worker, (task.id, task.lease, 3, None, 0, from_queue, None))
    assert task.overhead == overhead_of("add", "q" * 255) > TASK_OVERHEAD
    past = task.unusual.bytes
    assert rig.engine._state.memory == before + past + task.overhead - TASK_OVERHEAD


@pytest.mark.parametrize("options", [None, {2: 5000}])
def test_what_one_batch_makes_counts_for_its_later_rows(options):
    rig = Rig(8_000_000)
    rows = [rig.row("first", size=0)]
    rows += [rig.row(b"%016d" % n, queue=f"q{n}", options=options, size=0) for n in range(8000)]
    rows += [rig.row(f"last{n}", size=0) for n in range(100)]
    assert 3000 < rig.publish(*rows).accepted < 8000
    state = rig.engine._state
    assert state.memory < state.full_mark - 8192 < state.taken <= state.full_mark + 8192
