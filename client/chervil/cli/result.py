"""`chervil result`: what came of a task."""

import click

from chervil.cli import exits
from chervil.cli.common import common_of
from chervil.cli.connect import open_client
from chervil.cli.ids import TaskId
from chervil.cli.outcome import show, wait_for
from chervil.cli.terminal import say
from chervil.client import Client
from chervil.protocol import Stage


@click.command(short_help="Show what came of a task.")
@click.argument("id", type=TaskId())
@click.option("-w", "--wait", is_flag=True, help="Wait until it has ended.")
@click.option("--timeout", type=click.FloatRange(0), metavar="SECONDS", help="Wait this long at most.")
@click.pass_context
def result(ctx: click.Context, id: str, wait: bool, timeout: float | None) -> int:  # noqa: A002
    """Print the result of the task ID.

    Exits with 1 if it failed (the traceback goes to stderr), is parked as a dead letter, was revoked or
    expired; with 124 if it has not ended (yet); with 69 if the broker does not know it or has dropped its
    result, or was lost and not back within 30 s.

    \b
    Example:
      chervil result 2f6c0c2e-5f5e-4b43-9a53-0f3e6f3c0a11 --wait
    """
    if timeout is not None and not wait:
        raise click.UsageError("--timeout says how long to wait: it goes with --wait", ctx)
    common = common_of(ctx)
    client = open_client(common)
    try:
        status = wait_for(client, id, timeout, common) if wait else client.query([id])[0]
        if status.stage is Stage.EVICTED and not common.json and _is_forgotten(client, id):
            say(f"Error: task {id} ended and is forgotten: neither its result nor its story is kept.")
            return exits.UNAVAILABLE
        return show(status, client, common, waited=timeout)
    finally:
        client.close()


def _is_forgotten(client: Client, task_id: str) -> bool:
    """Whether the broker knows of an evicted task no more than that: `why` has nothing to tell then."""
    report = client.history(task_id)
    return report.get("stage") == Stage.EVICTED.name and "name" not in report
