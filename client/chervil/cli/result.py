"""`chervil result`: what came of a task."""

import click

from chervil.cli.common import common_of
from chervil.cli.connect import open_client
from chervil.cli.outcome import show, wait_for
from chervil.protocol import to_wire


@click.command(short_help="Show what came of a task.")
@click.argument("id")
@click.option("-w", "--wait", is_flag=True, help="Wait until it has ended.")
@click.option("--timeout", type=click.FloatRange(0), metavar="SECONDS", help="Wait this long at most.")
@click.pass_context
def result(ctx: click.Context, id: str, wait: bool, timeout: float | None) -> int:  # noqa: A002
    """Print the result of the task ID.

    Exits with 1 and the traceback if it failed, 124 if it has not ended (yet), 69 if the broker does not
    know it, or was lost and not back within 30 s.
    """
    if timeout is not None and not wait:
        raise click.UsageError("--timeout says how long to wait: it goes with --wait", ctx)
    try:
        to_wire(id)
    except ValueError as error:
        raise click.UsageError(str(error), ctx) from error
    common = common_of(ctx)
    client = open_client(common)
    try:
        status = wait_for(client, id, timeout, common) if wait else client.query([id])[0]
        return show(status, client, common, waited=timeout)
    finally:
        client.close()
