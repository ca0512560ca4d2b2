"""Times and durations in words."""

import re
from datetime import UTC, datetime

import pytest

from chervil.cli.clock import clock, distance, span, time_or_day

#: 2026-01-31 12:00:00.120 UTC.
NOON = 1_769_860_800_120


@pytest.mark.usefixtures("berlin")
def test_a_moment_of_another_day_is_local_and_has_its_date() -> None:
    assert clock(NOON) == "2026-01-31 13:00:00.120"
    assert time_or_day(NOON) == "2026-01-31"


def test_a_moment_of_today_is_a_time() -> None:
    now = int(datetime.now(UTC).timestamp() * 1000)
    assert re.fullmatch(r"\d\d:\d\d:\d\d\.\d\d\d", clock(now))
    assert re.fullmatch(r"\d\d:\d\d:\d\d", time_or_day(now))


@pytest.mark.parametrize("moment", [None, "soon", 10**18, -(10**18)])
def test_what_is_no_moment_is_shown_as_it_came(moment: object) -> None:
    assert clock(moment) == time_or_day(moment) == str(moment)


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [
        (0, "0 ms"),
        (340, "340 ms"),
        (12_000, "12 s"),
        (300_000, "5 min"),
        (3 * 3_600_000, "3 h"),
        (3 * 86_400_000, "3 d"),
    ],
)
def test_durations_have_the_unit_that_people_use(milliseconds: int, text: str) -> None:
    assert span(milliseconds) == text


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [(0, "+0 ms"), (5, "+5 ms"), (1871, "+1.9 s"), (300_000, "+5 min"), (-2000, "-2.0 s"), (-3, "-3 ms")],
)
def test_distances_have_a_sign(milliseconds: int, text: str) -> None:
    assert distance(milliseconds) == text
