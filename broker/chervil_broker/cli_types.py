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
