"""`chervil purge`: throws away the tasks that wait in queues."""

import json
from typing import Any

import click

from chervil.cli import exits
from chervil.cli.common import common_of
from chervil.cli.connect import open_client
from chervil.cli.ids import some
from chervil.cli.question import ask
from chervil.cli.terminal import printable
from chervil.protocol import Stage


@click.command(short_help="Throw away the tasks that wait.")
@click.option("-Q", "--queues", metavar="A,B", default="", help="Only these queues; else all.")
@click.option("-f", "--force", is_flag=True, help="Do not ask.")
@click.pass_context
def purge(ctx: click.Context, queues: str, force: bool) -> int:
    """Throw away the tasks that wait: the queued ones, and those held until their time.

    Running tasks go on. Asks first, unless nothing waits.

    \b
    Example:
      chervil purge -Q mail
    """
    common = common_of(ctx)
    names = [name.strip() for name in queues.split(",") if name.strip()]
    client = open_client(common)
    try:
        if not force:
            report = client.stats()
            waiting = _waiting(report.get("queues", []), names)
            where = f"in {', '.join(names)}" if names else "in all queues"
            if not waiting and _lists_every_task(report):
                nothing = f"Nothing waits {where if names else 'in any queue'}."
                click.echo(json.dumps({"purged": 0}) if common.json else printable(nothing))
                return exits.OK
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


def _lists_every_task(report: dict[str, Any]) -> bool:
    """Whether no task waits in a queue that the report has no room for."""
    tasks = report.get("tasks", {})
    waiting = sum(tasks.get(stage.name, 0) for stage in (Stage.QUEUED, Stage.SCHEDULED, Stage.RETRY))
    return bool(waiting <= _waiting(report.get("queues", []), []))
