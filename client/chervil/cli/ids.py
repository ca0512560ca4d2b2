"""Task ids as they are typed."""

from typing import Any

import click

from chervil.protocol import to_wire


class TaskId(click.ParamType[str]):
    """A task's id: any text of 1 to 128 bytes."""

    name = "id"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            to_wire(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)
        return str(value)


def some(count: int) -> str:
    """`1 task`, `2 tasks`."""
    return "1 task" if count == 1 else f"{count} tasks"
