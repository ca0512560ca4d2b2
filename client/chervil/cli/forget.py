"""`chervil forget`: drops ended tasks with their results."""

import json

import click

from chervil.cli import exits
from chervil.cli.common import common_of
from chervil.cli.connect import open_client
from chervil.cli.ids import TaskId, some
from chervil.cli.terminal import say
from chervil.client import Status
from chervil.protocol import FINAL, Stage
from chervil.waiting import describe


@click.command(short_help="Drop ended tasks and dead letters.")
@click.argument("ids", nargs=-1, required=True, type=TaskId(), metavar="ID...")
@click.pass_context
def forget(ctx: click.Context, ids: tuple[str, ...]) -> int:
    """Drop tasks that have ended, dead letters among them, with their results and their arguments.

    What has not ended is left alone. For each ID that was not dropped a line on stderr says why not.

    Exits with 1 if none was dropped.

    \b
    Example:
      chervil forget 2f6c0c2e-5f5e-4b43-9a53-0f3e6f3c0a11
    """
    common = common_of(ctx)
    asked = list(dict.fromkeys(ids))
    client = open_client(common)
    try:
        # One request for each: their answers count only, and this tells which ones were not dropped.
        passed_over = [task_id for task_id in asked if not client.forget([task_id])]
        statuses = client.query(passed_over) if passed_over else []
    finally:
        client.close()
    count = len(asked) - len(passed_over)
    if common.json:
        reasons = [{"id": s.id, "stage": s.stage.name, "why": _why_not(s)} for s in statuses]
        click.echo(json.dumps({"forgotten": count, "asked": len(asked), "passed_over": reasons}))
    else:
        for status in statuses:
            say(f"{status.id} was not dropped: {_why_not(status)}")
        how_many = some(count) if count == len(asked) else f"{count} of {some(len(asked))}"
        click.echo(f"Dropped {how_many}." if count else "Nothing was dropped.")
    return exits.OK if count else exits.TASK_FAILED


def _why_not(status: Status) -> str:
    match status.stage:
        case Stage.UNKNOWN:
            return "the broker knows no such task"
        case Stage.EVICTED:
            return "it is forgotten already"
    if status.stage in FINAL:
        return f"it has just ended as {status.stage.name}; forget it now"
    return f"it has not ended: {describe(status)}"
