"""`chervil status`: what waits, who works, and what is wrong, for people and (--json) for programs."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import click

from chervil.cli import exits
from chervil.cli.common import Common, common_of
from chervil.cli.complaints import warn
from chervil.cli.connect import open_client

#: Why a queue does not move, in words (`waiting_for` of a queue in the report).
_WHY = {
    "no_consumer": "no worker consumes it",
    "unknown_task": "no worker knows its tasks",
    "no_credit": "all its workers are busy",
}


@click.command(short_help="Show queues, workers and warnings.")
@click.pass_context
def status(ctx: click.Context) -> int:
    """Show queues and workers, warnings first. With --json: the broker's whole report."""
    common = common_of(ctx)
    client = open_client(common)
    try:
        report = client.stats()
    finally:
        client.close()
    if common.json:
        click.echo(json.dumps(report, indent=2, sort_keys=True))
        return exits.OK
    _show(report, common)
    return exits.OK


def _show(report: Mapping[str, Any], common: Common) -> None:
    queues: list[dict[str, Any]] = list(report.get("queues", []))
    # What needs a hand comes first: a queue that waits for something that will not come by itself.
    queues.sort(key=lambda q: (q.get("waiting_for") not in {"no_consumer", "unknown_task"}, q["name"]))
    for text in report.get("warnings", []):
        warn(common, text)
    click.echo(_headline(report))
    if queues:
        click.echo()
        click.echo(table([_queue_head(), *(_queue_row(q) for q in queues)]))
    workers = sorted(report.get("workers", []), key=lambda w: w["name"])
    click.echo()
    if not workers:
        click.echo(f"No worker is connected; start one: chervil -A {common.app or 'MODULE'} worker")
        return
    click.echo(table([_worker_head(), *(_worker_row(w) for w in workers)]))


def _headline(report: Mapping[str, Any]) -> str:
    memory = report.get("memory", {})
    used, limit = memory.get("bytes", 0), memory.get("limit", 0)
    parts = [
        f"Chervil {report.get('version')}, up {span(report.get('uptime_ms', 0))}",
        "keeps tasks in memory only" if report.get("durability") == "memory" else "keeps tasks on disk",
        f"{used / 2**20:.0f} MiB of {limit / 2**20:.0f} MiB used",
    ]
    return "; ".join(parts)


def _queue_head() -> list[str]:
    return ["QUEUE", "READY", "SCHEDULED", "LEASED", "WORKERS", "OLDEST", ""]


def _queue_row(queue: Mapping[str, Any]) -> list[str]:
    oldest = queue.get("oldest_ms")
    why = _WHY.get(queue.get("waiting_for") or "", queue.get("waiting_for") or "")
    if unknown := queue.get("unknown_tasks"):
        why += f": {', '.join(unknown)}"
    counts = [str(queue.get(key, 0)) for key in ("ready", "scheduled", "leased", "consumers")]
    return [queue["name"], *counts, span(oldest) if oldest else "-", why]


def _worker_head() -> list[str]:
    return ["WORKER", "PID", "SLOTS", "LEASED", "DELIVERED", "CONNECTED", "QUEUES"]


def _worker_row(worker: Mapping[str, Any]) -> list[str]:
    return [
        worker["name"],
        str(worker.get("pid") or "-"),
        str(worker.get("concurrency") or "-"),
        str(worker.get("leased", 0)),
        str(worker.get("delivered", 0)),
        span(worker.get("connected_ms", 0)),
        ", ".join(worker.get("queues", [])),
    ]


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows as aligned columns two spaces apart: numbers and times to the right, the rest to the left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    left = [
        not all(cell[:1].isdigit() or cell == "-" for cell in column[1:])
        for column in zip(*rows, strict=True)
    ]
    lines = (
        "  ".join(
            cell.ljust(width) if to_left else cell.rjust(width)
            for cell, width, to_left in zip(row, widths, left, strict=True)
        )
        for row in rows
    )
    return "\n".join(line.rstrip() for line in lines)


def span(milliseconds: float) -> str:
    """A duration as people say it: `340 ms`, `12 s`, `5 min`, `3 h`, `2 d`."""
    seconds = milliseconds / 1000
    if seconds < 1:
        return f"{milliseconds:.0f} ms"
    for unit, size, until in (("s", 1, 120), ("min", 60, 7200), ("h", 3600, 172_800)):
        if seconds < until:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 86400:.0f} d"
