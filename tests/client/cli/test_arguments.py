"""What is typed after `chervil call NAME`."""

from datetime import UTC, datetime
from typing import Any

import click
import pytest

from chervil.cli.arguments import Time, json_of, mark_negatives, split, value_of


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2", 2), ("-2", -2), ("2.5", 2.5), ("-1e3", -1000.0), ("true", True), ("null", None),
        ("[1, 2]", [1, 2]), ('{"a": 1}', {"a": 1}), ('"2"', "2"), ("hello", "hello"), ("", ""),
        ("2024-01-31", "2024-01-31"), ("NaN", "NaN"), ("Infinity", "Infinity"), ("[1,", "[1,"), ("'x'", "'x'"),
    ],
)  # fmt: skip
def test_a_value_is_json_else_text(text: str, value: Any) -> None:
    assert value_of(text) == value
    assert type(value_of(text)) is type(value)


def test_key_value_pairs_become_keyword_arguments() -> None:
    assert split(["1", "x=2", "name=Ada", "empty=", "t=a=b"]) == (
        [1],
        {"x": 2, "name": "Ada", "empty": "", "t": "a=b"},
    )


@pytest.mark.parametrize("text", ["http://h/?a=b", "1=2", "a b=c", "=x"])
def test_text_with_an_equals_sign_that_is_no_keyword_stays_text(text: str) -> None:
    assert split([text]) == ([text], {})


def test_a_json_string_may_look_like_a_keyword() -> None:
    assert split(['"a=b"']) == (["a=b"], {})


def test_a_keyword_given_twice_is_refused() -> None:
    with pytest.raises(click.UsageError, match="x= is given twice"):
        split(["x=1", "x=2"])


def test_negative_numbers_are_hidden_from_the_parser_and_option_values_are_not() -> None:
    marked = mark_negatives(["-2", "--countdown", "-5", "-x", "--", "-3"], ["--countdown"])
    assert marked == ["\0-2", "--countdown", "-5", "-x", "--", "-3"]
    assert value_of(marked[0]) == -2


def convert(kind: type, text: str | None) -> Any:
    option = click.Option(["--it"])
    return json_of(kind, "a list")(click.Context(click.Command("x")), option, text)


def test_json_options_want_their_kind() -> None:
    assert convert(list, "[1]") == [1]
    assert convert(list, None) is None
    with pytest.raises(click.BadParameter, match="it wants a list, not 1"):
        convert(list, "1")
    with pytest.raises(click.BadParameter, match="is not JSON"):
        convert(list, "[1")


def test_times_are_iso_and_where_allowed_seconds() -> None:
    assert Time().convert("2030-01-31T12:00:00+00:00", None, None) == datetime(2030, 1, 31, 12, tzinfo=UTC)
    assert Time(seconds=True).convert("30", None, None) == 30.0
    with pytest.raises(click.BadParameter, match="'30' is no time; write 2030-"):
        Time().convert("30", None, None)
    with pytest.raises(click.BadParameter, match="write seconds or 2030-"):
        Time(seconds=True).convert("soon", None, None)
