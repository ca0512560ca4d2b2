"""A number of seconds as it is typed."""

from math import isfinite
from typing import Any

import click


class Seconds(click.FloatRange):
    """Seconds that a clock can count: no comparison refuses NaN, and infinity is longer than any."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        seconds = super().convert(value, param, ctx)
        if not isfinite(seconds):
            self.fail(f"{value} is no number of seconds.", param, ctx)
        return seconds
