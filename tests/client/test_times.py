from datetime import UTC, datetime, timedelta

import pytest

from chervil.times import absolute_ms, relative_ms, zone


@pytest.mark.parametrize(("value", "ms"), [(0, 0), (1.5, 1500), (timedelta(minutes=1), 60_000)])
def test_seconds_and_timedeltas_are_milliseconds(value, ms):
    assert relative_ms(value, "countdown") == ms


@pytest.mark.parametrize("value", [-1, float("nan"), float("inf"), 1e12, timedelta(days=-1)])
def test_values_out_of_range_are_refused(value):
    with pytest.raises(ValueError, match="countdown wants"):
        relative_ms(value, "countdown")


@pytest.mark.parametrize(("value", "shown"), [(-5.0, "-5"), (-0.5, "-0.5"), (timedelta(days=-1), "-86400")])
def test_a_value_out_of_range_is_shown_as_seconds(value, shown):
    with pytest.raises(
        ValueError, match=rf"^expires wants seconds from 0 \(at most 100 years\), not {shown}$"
    ):
        relative_ms(value, "expires")


@pytest.mark.parametrize("value", ["5", True, None])
def test_other_types_are_refused(value):
    with pytest.raises(TypeError, match="countdown wants seconds"):
        relative_ms(value, "countdown")


NAIVE = datetime(1970, 1, 2)  # noqa: DTZ001  # naive is the point


def test_naive_times_are_in_the_zone():
    assert absolute_ms(NAIVE, "eta", "UTC") == 86_400_000
    assert absolute_ms(NAIVE, "eta", "Europe/Berlin") == 86_400_000 - 3_600_000
    assert absolute_ms(datetime(1970, 1, 2, tzinfo=UTC), "eta", "Europe/Berlin") == 86_400_000


def test_the_far_past_is_the_epoch():
    assert absolute_ms(datetime(1900, 1, 1, tzinfo=UTC), "eta", "UTC") == 0


def test_an_eta_is_a_datetime():
    with pytest.raises(TypeError, match="eta wants a datetime"):
        absolute_ms(5, "eta", "UTC")


@pytest.mark.parametrize("name", ["Mars/Olympus", "../etc/passwd", "/x"])
def test_unknown_zones_are_refused(name):
    with pytest.raises(ValueError, match="no time zone"):
        zone(name)
