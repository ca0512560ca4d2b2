"""Broker time over restarts."""

import pytest

from chervil_broker.clock import GAP_MAX, Clock

HOUR = 3600 * 10**9


def clock_at(monotonic: int, wall: int) -> Clock:
    return Clock(lambda: monotonic, lambda: wall)


def test_broker_time_is_the_monotonic_clock_at_first():
    clock = clock_at(5, 100)
    assert (clock.now(), clock.wall()) == (5, 100)


@pytest.mark.parametrize(
    ("wall_gap", "counted"),
    [(0, 0), (HOUR, HOUR), (-HOUR, 0), (10 * 365 * 24 * HOUR, GAP_MAX), (-10 * 365 * 24 * HOUR, 0)],
)
def test_broker_time_goes_on_by_what_the_wall_clock_says_within_bounds(wall_gap, counted):
    clock = clock_at(7, 1000 * HOUR + wall_gap)
    clock.go_on(500 * HOUR, 1000 * HOUR)
    assert clock.now() == 500 * HOUR + counted
    assert clock.wall() == 1000 * HOUR + wall_gap


def test_a_step_of_the_wall_clock_while_it_runs_does_not_move_broker_time():
    times = {"monotonic": 7, "wall": 1000 * HOUR}
    clock = Clock(lambda: times["monotonic"], lambda: times["wall"])
    clock.go_on(500 * HOUR, 1000 * HOUR)
    times.update(monotonic=8, wall=2000 * HOUR)
    assert clock.now() == 500 * HOUR + 1


def test_seconds_are_those_of_the_systems_clock():
    clock = clock_at(3 * 10**9, 0)
    clock.go_on(500 * HOUR, 0)
    assert clock.seconds(clock.now()) == 3.0
    assert clock.seconds(clock.now() + 2 * 10**9) == 5.0
