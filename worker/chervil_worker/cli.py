"""`chervil worker`: the flags, made from WorkerOptions."""

from dataclasses import Field, fields
from typing import Any

import click

from chervil.cli.common import common_of
from chervil_worker.main import run
from chervil_worker.options import WorkerOptions


class _Names(click.ParamType[tuple[str, ...]]):
    """Names with commas between them."""

    name = "names"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        if isinstance(value, tuple):
            return value
        names = tuple(name.strip() for name in value.split(",") if name.strip())
        return tuple(dict.fromkeys(names)) or self.fail("at least one name is wanted", param, ctx)


def _flag(field: Field[Any]) -> click.Option:
    more: dict[str, Any] = {key: field.metadata[key] for key in ("help", "metavar") if key in field.metadata}
    kind: Any = str
    if "choices" in field.metadata:
        kind = click.Choice(field.metadata["choices"], case_sensitive=False)
    elif field.type is int:
        kind = int
    elif field.type == float | None:
        kind = float
    elif isinstance(field.default, tuple):
        kind = _Names()
    if field.metadata.get("show_default"):
        more["show_default"] = str(field.default)
    return click.Option([*field.metadata["flags"], field.name], type=kind, default=None, **more)


@click.pass_context
def _worker(ctx: click.Context, /, **given: Any) -> int:
    common = common_of(ctx)
    if common.app is None:
        raise click.UsageError("Which app? Say it with -A: chervil -A tasks worker", ctx)
    if common.verbose:
        given["loglevel"] = given["loglevel"] or ("DEBUG" if common.verbose > 1 else "INFO")
    try:
        options = WorkerOptions(**{name: value for name, value in given.items() if value is not None})
    except ValueError as error:
        raise click.UsageError(str(error), ctx) from None
    return run(options, common)


worker = click.Command(
    "worker",
    params=[_flag(field) for field in fields(WorkerOptions)],
    callback=_worker,
    short_help="Run a worker.",
    help="""Run a worker: it takes tasks from the broker and runs them in child processes.

TERM or Ctrl-C ends it once running tasks are done; the second one cuts them off, and they run again.

\b
Example:
  chervil -A tasks worker -c 4 -Q default,mail""",
)
