"""`chervil why`: a task's life, and what it waits for."""

import json
from collections.abc import Mapping
from typing import Any

import click

from chervil.cli import exits
from chervil.cli.called import called_with, with_arguments
from chervil.cli.common import common_of
from chervil.cli.connect import open_client
from chervil.cli.ids import TaskId
from chervil.cli.outcome import unknown
from chervil.cli.story import headline, prospect, tell
from chervil.cli.terminal import one_line, say, wrapped
from chervil.client import Client
from chervil.exceptions import AccessRefused


@click.command(short_help="Tell the life of a task, and what it waits for.")
@click.argument("id", type=TaskId())
@click.pass_context
def why(ctx: click.Context, id: str) -> int:  # noqa: A002
    """Tell what the task ID was called with, its life, one line an event, and what it waits for now.

    Times are local, each with its distance to the event before. With --json: the broker's report, with
    times in milliseconds since the epoch, args and kwargs.

    Exits with 69 if the broker does not know the task.

    \b
    Example:
      chervil why 2f6c0c2e-5f5e-4b43-9a53-0f3e6f3c0a11
    """
    common = common_of(ctx)
    client = open_client(common)
    try:
        report = client.history(id)
        away, pids = (False, []) if common.json else _holder(client, report)
    finally:
        client.close()
    is_unknown = report.get("stage") == "UNKNOWN"
    if common.json:
        click.echo(json.dumps(with_arguments(report), indent=2, default=str))
    elif is_unknown:
        say(unknown(client, id))
    else:
        _show(report, prospect(report, common.app, away=away, pids=pids))
    return exits.UNAVAILABLE if is_unknown else exits.OK


def _holder(client: Client, report: Mapping[str, Any]) -> tuple[bool, list[int]]:
    """Whether the worker that has the task has lost the connection, and its process id.

    Several ids where workers of one name are connected; none where that is not known.
    """
    if report.get("stage") not in ("LEASED", "STARTED"):
        return False, []
    try:
        stats = client.stats()
    except AccessRefused:  # a life may be asked for without the role control, which this wants
        return False, []
    workers = [worker for worker in stats.get("workers", ()) if worker.get("name") == report.get("worker")]
    pids = [worker["pid"] for worker in workers if worker.get("pid") and worker.get("leased")]
    return bool(stats.get("suspended")) and not workers, pids


def _show(report: Mapping[str, Any], what_now: str) -> None:
    click.echo(wrapped(headline(report)))
    if (call := called_with(report)) is not None:
        click.echo(one_line(f"Called with: {call}"))
    lines = list(tell(report))
    time = max((len(line.time) for line in lines), default=0)
    after = max((len(line.after) for line in lines), default=0)
    for line in lines:
        start = f"{line.time:>{time}}  {line.after:>{after}}  "
        click.echo(start + wrapped(line.text, indent=len(start)))
    if what_now:
        click.echo(wrapped(what_now))
