"""`chervil list KIND`: what there is, one line each."""

import json
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Any

import click

from chervil.cli import exits
from chervil.cli.clock import time_or_day
from chervil.cli.common import Common, common_of, did_you_mean
from chervil.cli.connect import open_client
from chervil.cli.status import QUEUE_HEAD, WORKER_HEAD, no_worker, queue_rows, worker_rows
from chervil.cli.terminal import columns, cut, printable, table
from chervil.client import Client

_LATER = ("tasks", "schedules")

_DEAD_HEAD = ("ID", "TASK", "QUEUE", "ATTEMPTS", "SINCE", "REASON")


@click.command("list", short_help="List dead letters, queues or workers.")
@click.argument("kind", metavar="dead|queues|workers")
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, metavar="N",
              help="Show this many at most.")  # fmt: skip
@click.pass_context
def listing(ctx: click.Context, kind: str, limit: int) -> int:
    """List dead letters (oldest first), queues or workers.

    A dead letter is a task that the system gave up on and keeps: its process died too often, no worker could
    read it, it rejected itself, or no worker knew its name for ten minutes.

    With --json each is one JSON object on a line of its own, nothing cut.

    \b
    Examples:
      chervil list dead
      chervil list dead --json | jq -r .reason | sort | uniq -c
    """
    if kind not in _KINDS:
        raise click.UsageError(_no_such(kind), ctx)
    common = common_of(ctx)
    client = open_client(common)
    try:
        _KINDS[kind](client, common, limit)
    finally:
        client.close()
    return exits.OK


def _no_such(kind: str) -> str:
    if kind in _LATER:
        return f"`chervil list {kind}` is not in this release; there is: {', '.join(_KINDS)}"
    hint = did_you_mean(kind, _KINDS) or f" There is: {', '.join(_KINDS)}."
    return f"nothing to list is called {kind!r}.{hint}"


def _dead(client: Client, common: Common, limit: int) -> None:
    found = list(islice(client.dead(), limit + 1))
    letters = found[:limit]
    if common.json:
        _as_json(letters)
    elif not letters:
        click.echo("No dead letters.")
    else:
        click.echo(_dead_table(letters))
    if not common.quiet and len(found) > limit:
        click.echo(f"There are more: --limit {10 * limit}", err=True)
    if not common.quiet and not common.json and letters:
        click.echo("What became of one: chervil why ID; run again: chervil retry ID, or --dead", err=True)


def _dead_table(letters: Sequence[Mapping[str, Any]]) -> str:
    rows = [_DEAD_HEAD, *map(_dead_row, letters)]
    width = columns()
    if width is None:
        return table(rows)
    # Beside ids of 36 columns there is no room for names and reasons: they have a line of their own.
    head, *lines = table([(row[0], *row[2:5]) for row in rows], give_way=(1,)).splitlines()
    told = [cut(printable(f"  {row[1]}: {row[5]}"), width) for row in rows[1:]]
    return "\n".join([head, *(f"{line}\n{text}" for line, text in zip(lines, told, strict=True))])


def _dead_row(letter: Mapping[str, Any]) -> Sequence[str]:
    known = [str(letter.get(key)) for key in ("id", "name", "queue", "attempts")]
    return [*known, time_or_day(letter.get("since_ms")), str(letter.get("reason") or "-")]


def _queues(client: Client, common: Common, limit: int) -> None:
    report = client.stats()
    if common.json:
        _as_json(report.get("queues", [])[:limit])
    elif rows := queue_rows(report):
        click.echo(table([QUEUE_HEAD, *rows[:limit]], give_way=(6, 0)))
    else:
        click.echo("No queues.")


def _workers(client: Client, common: Common, limit: int) -> None:
    report = client.stats()
    if common.json:
        _as_json(report.get("workers", [])[:limit])
    elif rows := worker_rows(report):
        click.echo(table([WORKER_HEAD, *rows[:limit]], give_way=(6, 0)))
    else:
        click.echo(no_worker(common.app))


def _as_json(items: Sequence[Mapping[str, Any]]) -> None:
    for item in items:
        click.echo(json.dumps(item, default=str))


_KINDS: dict[str, Callable[[Client, Common, int], None]] = {
    "dead": _dead,
    "queues": _queues,
    "workers": _workers,
}
