"""A task's arguments as they are typed after `chervil call NAME`.

    2  -2  2.5  true  null  [1,2]  '"x"'     JSON
    hello  2024-01-31  ./file                text, as it is no JSON
    key=VALUE                                a keyword argument, VALUE as above

Text that looks like JSON or like key=VALUE is written as a JSON string: '"2"', '"a=b"'.
"""

import json
import re
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import click

#: Stands before a negative number on its way through click's parser, which would take it for an option.
#: No argument of a process can hold a NUL.
_MARK = "\0"

_NEGATIVE = re.compile(r"-\d")


def mark_negatives(args: Sequence[str], takes_value: Iterable[str]) -> list[str]:
    """Hides negative numbers from click's parser, except those that are an option's value.

    `takes_value` are the options that take one. `value_of` removes the mark.
    """
    valued = set(takes_value)
    marked: list[str] = []
    for index, arg in enumerate(args):
        if arg == "--":
            return [*marked, *args[index:]]
        is_value = index > 0 and args[index - 1] in valued
        marked.append(_MARK + arg if _NEGATIVE.match(arg) and not is_value else arg)
    return marked


def value_of(text: str) -> Any:
    """What a typed VALUE means: JSON, else text."""
    text = text.removeprefix(_MARK)
    try:
        return json.loads(text, parse_constant=_no_json)
    except ValueError:
        return text


def split(values: Sequence[str]) -> tuple[list[Any], dict[str, Any]]:
    """Typed values as (args, kwargs); raises click.UsageError when a keyword comes twice."""
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    for text in values:
        key, equals, value = text.partition("=")
        if not (equals and key.isidentifier()):
            args.append(value_of(text))
        elif key in kwargs:
            raise click.UsageError(f"{key}= is given twice")
        else:
            kwargs[key] = value_of(value)
    return args, kwargs


def json_of(kind: type, what: str) -> Any:
    """A click callback: the option's text as JSON of this kind (list or dict), None where not given."""

    def convert(ctx: click.Context, param: click.Parameter, text: str | None) -> Any:
        if text is None:
            return None
        try:
            value = json.loads(text)
        except ValueError as error:
            raise click.BadParameter(f"{text!r} is not JSON ({error}); it wants {what}") from None
        if not isinstance(value, kind):
            raise click.BadParameter(f"it wants {what}, not {text}")
        return value

    return convert


class Time(click.ParamType[datetime | float]):
    """A point in time in ISO 8601, or (`seconds`) a number of seconds from now."""

    name = "time"

    def __init__(self, *, seconds: bool = False) -> None:
        self._seconds = seconds

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> datetime | float:
        if self._seconds:
            try:
                return float(value)
            except ValueError:
                pass
        try:
            return datetime.fromisoformat(value)
        except ValueError:
            also = "seconds or " if self._seconds else ""
            self.fail(f"{value!r} is no time; write {also}2030-01-31T12:00:00+00:00", param, ctx)


def _no_json(text: str) -> Any:
    raise ValueError(f"{text} is Python's, not JSON")
