"""Kinds of values on the command line."""

from typing import Any

import click

from chervil_broker.sizes import parse_size


class SizeType(click.ParamType[int]):
    """Bytes, written as 512MB and the like."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        try:
            return parse_size(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class OrNone(click.ParamType[int]):
    """A number from 1, or the word `none`, which is 0 here."""

    name = "number or none"

    def __init__(self, number: click.ParamType[int]) -> None:
        self._number = number

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if value == "none":
            return 0
        number: int = self._number.convert(value, param, ctx)
        if number < 1:
            self.fail(f"{value!r} is not 1 or more; without a limit it is: none", param, ctx)
        return number
