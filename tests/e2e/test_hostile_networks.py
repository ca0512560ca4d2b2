"""The figures of benchmarks/hostile.py, small and quick: each may be five times what is promised."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from benchmarks import hostile
from benchmarks.hostile import IDLE_KIB_MOST, SLOWER_MOST, Measured, Quiet, Row, Scale, Site

pytestmark = pytest.mark.e2e

TOLERANCE = 5
TRIES = 3
SMALL = Scale(idle=300, slow=100, storm=100, addresses=2, seconds=0.3)
#: A shared machine's scheduler alone makes somebody wait for so long now and then, in ms.
QUIET_P99_LEAST = 3.0

Attack = Callable[[Measured, Scale, Quiet], list[Row]]

both = pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    before = dict(os.environ)
    yield Site(tmp_path)
    os.environ.clear()
    os.environ.update(before)


def quiet(broker: Measured) -> Quiet:
    p50, p99 = hostile.quantiles(broker.publish(SMALL))
    return Quiet(p50, max(p99, QUIET_P99_LEAST))


def attacked(attack: Attack, broker: Measured, before: Quiet) -> list[Row]:
    """The rows of an attack that held up no bystander for longer than it may.

    A slow broker holds somebody up in each of the tries; a busy machine does that in one now and then.
    """
    for _ in range(TRIES):
        rows = attack(broker, SMALL, before)
        slower = rows[-1].ratio
        assert slower is not None
        if slower <= TOLERANCE * SLOWER_MOST:
            return rows
    raise AssertionError(rows)


@both
def test_idle_connections_cost_little_memory_and_slow_or_stormy_ones_do_not_hold_up_a_bystander(site, tls):
    with hostile.measured(site, tls=tls) as broker:
        before = quiet(broker)
        idle = attacked(hostile.idle, broker, before)
        assert idle[0].figure <= TOLERANCE * IDLE_KIB_MOST, idle
        assert idle[0].said == "lost: 0"
        for attack in (hostile.slow, hostile.storm):
            assert "refused: 0" in attacked(attack, broker, before)[-1].said


@both
def test_whoever_is_beyond_a_cap_is_closed_with_its_code_and_those_inside_stay(site, tls):
    with hostile.measured(site, tls=tls) as broker:
        rows = hostile.strangers_capped(broker)
        assert len(rows) == 2
        assert all(row.met for row in rows), rows
    with hostile.measured(site, "--max-connections", str(hostile.CONNECTIONS_CAP), tls=tls) as broker:
        (row,) = hostile.all_capped(broker)
        assert row.met, row
