"""`chervil forget`: drops ended tasks with their results."""

import json

import click

from chervil.cli import exits
from chervil.cli.common import common_of
from chervil.cli.connect import open_client
from chervil.cli.ids import TaskId, some


@click.command(short_help="Drop ended tasks and dead letters.")
@click.argument("ids", nargs=-1, required=True, type=TaskId(), metavar="ID...")
@click.pass_context
def forget(ctx: click.Context, ids: tuple[str, ...]) -> int:
    """Drop tasks that have ended, dead letters among them, with their results and their arguments.

    What has not ended is left alone. Exits with 1 if none was dropped.

    \b
    Example:
      chervil forget 2f6c0c2e-5f5e-4b43-9a53-0f3e6f3c0a11
    """
    common = common_of(ctx)
    asked = list(dict.fromkeys(ids))
    client = open_client(common)
    try:
        count = client.forget(asked)
    finally:
        client.close()
    if common.json:
        click.echo(json.dumps({"forgotten": count, "asked": len(asked)}))
    elif count == len(asked):
        click.echo(f"Dropped {some(count)}.")
    else:
        click.echo(f"Dropped {count} of {some(len(asked))}; the others have not ended, or are not known.")
    return exits.OK if count else exits.TASK_FAILED
