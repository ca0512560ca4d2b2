"""`chervil why`: a task's life, and what it waits for."""

import json
from collections.abc import Mapping
from typing import Any

import click

from chervil.cli import exits
from chervil.cli.common import common_of
from chervil.cli.connect import open_client
from chervil.cli.ids import TaskId
from chervil.cli.outcome import unknown
from chervil.cli.story import headline, prospect, tell
from chervil.cli.terminal import say, wrapped
from chervil.client import Client


@click.command(short_help="Tell the life of a task, and what it waits for.")
@click.argument("id", type=TaskId())
@click.pass_context
def why(ctx: click.Context, id: str) -> int:  # noqa: A002
    """Tell the life of the task ID, one line an event, and what it waits for now.

    Times are local, each with its distance to the event before. With --json: the broker's report, with
    times in milliseconds since the epoch.

    Exits with 69 if the broker does not know the task.

    \b
    Example:
      chervil why 2f6c0c2e-5f5e-4b43-9a53-0f3e6f3c0a11
    """
    common = common_of(ctx)
    client = open_client(common)
    try:
        report = client.history(id)
        away = not common.json and _is_away(client, report)
    finally:
        client.close()
    is_unknown = report.get("stage") == "UNKNOWN"
    if common.json:
        click.echo(json.dumps(report, indent=2, default=str))
    elif is_unknown:
        say(unknown(client, id))
    else:
        _show(report, common.app, away=away)
    return exits.UNAVAILABLE if is_unknown else exits.OK


def _is_away(client: Client, report: Mapping[str, Any]) -> bool:
    """Whether the worker that has the task has lost the connection."""
    if report.get("stage") not in ("LEASED", "STARTED"):
        return False
    stats = client.stats()
    connected = {worker.get("name") for worker in stats.get("workers", ())}
    return bool(stats.get("suspended")) and report.get("worker") not in connected


def _show(report: Mapping[str, Any], app: str | None, *, away: bool) -> None:
    click.echo(wrapped(headline(report)))
    lines = list(tell(report))
    time = max((len(line.time) for line in lines), default=0)
    after = max((len(line.after) for line in lines), default=0)
    for line in lines:
        start = f"{line.time:>{time}}  {line.after:>{after}}  "
        click.echo(start + wrapped(line.text, indent=len(start)))
    if what_now := prospect(report, app, away=away):
        click.echo(wrapped(what_now))
