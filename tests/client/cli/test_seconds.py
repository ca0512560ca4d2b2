import click
import pytest

from chervil.cli.seconds import Seconds


@pytest.mark.parametrize("typed", ["nan", "-nan", "inf", "1e999"])
def test_what_is_no_number_of_seconds_is_refused(typed: str) -> None:
    with pytest.raises(click.BadParameter, match=f"^{typed} is no number of seconds"):
        Seconds().convert(typed, None, None)


@pytest.mark.parametrize(("typed", "seconds"), [("0", 0.0), ("2.5", 2.5), ("1e3", 1000.0)])
def test_numbers_are_seconds(typed: str, seconds: float) -> None:
    assert Seconds(0).convert(typed, None, None) == seconds


def test_range_holds() -> None:
    with pytest.raises(click.BadParameter, match="not in the range"):
        Seconds(0).convert("-1", None, None)
