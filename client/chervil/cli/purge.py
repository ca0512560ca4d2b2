"""`chervil purge`: throws away the tasks that wait in queues."""

import json

import click

from chervil.cli import exits
from chervil.cli.common import common_of
from chervil.cli.connect import open_client
from chervil.cli.ids import some
from chervil.cli.question import ask


@click.command(short_help="Throw away the tasks that wait.")
@click.option("-Q", "--queues", metavar="A,B", default="", help="Only these queues; else all.")
@click.option("-f", "--force", is_flag=True, help="Do not ask.")
@click.pass_context
def purge(ctx: click.Context, queues: str, force: bool) -> int:
    """Throw away the tasks that wait: the queued ones, and those held until their time.

    Running tasks go on.

    \b
    Example:
      chervil purge -Q mail
    """
    common = common_of(ctx)
    names = [name.strip() for name in queues.split(",") if name.strip()]
    client = open_client(common)
    try:
        if not force:
            waiting = _waiting(client.stats().get("queues", []), names)
            where = f"in {', '.join(names)}" if names else "in all queues"
            question = f"Throw away {waiting} waiting {'task' if waiting == 1 else 'tasks'} {where}?"
            ask(question, unasked="-f", declined="nothing was purged")
        count = client.purge(names)
    finally:
        client.close()
    click.echo(json.dumps({"purged": count}) if common.json else f"Purged {some(count)}.")
    return exits.OK


def _waiting(queues: list[dict[str, object]], names: list[str]) -> int:
    chosen = [q for q in queues if not names or q.get("name") in names]
    return sum(int(str(q.get("ready", 0))) + int(str(q.get("scheduled", 0))) for q in chosen)
