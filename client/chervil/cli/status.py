"""`chervil status`: what waits, who works, and what is wrong, for people and (--json) for programs."""

import json
from collections.abc import Mapping
from typing import Any

import click

from chervil.cli import exits
from chervil.cli.clock import span
from chervil.cli.common import Common, common_of
from chervil.cli.complaints import warn
from chervil.cli.connect import open_client
from chervil.cli.story import KEPT_FOR
from chervil.cli.terminal import table, wrapped

#: Why a queue does not move, in words (`waiting_for` of a queue in the report).
_WHY = {
    "no_consumer": "no worker consumes it",
    "unknown_task": "no worker knows its tasks",
    "no_credit": "all its workers are busy",
}

QUEUE_HEAD = ("QUEUE", "READY", "SCHEDULED", "LEASED", "WORKERS", "OLDEST", "")
WORKER_HEAD = ("WORKER", "PID", "SLOTS", "LEASED", "DELIVERED", "CONNECTED", "QUEUES")

_ROOM = "start more workers, purge what is not needed, or start a broker with more --max-memory"

#: What it means for whoever publishes, by `publishing` in the report, and what to do.
_PUBLISHING = {
    "closed": "tasks take 80 % of the broker's memory: publishers wait until it is 70 %, except inside of "
    f"tasks; {_ROOM}",
    "full": f"tasks take 95 % of the broker's memory: nothing more is stored, workers go on; {_ROOM}",
}


@click.command(short_help="Show queues, workers and warnings.")
@click.pass_context
def status(ctx: click.Context) -> int:
    """Show queues and workers, warnings first. With --json: the broker's whole report.

    \b
    Example:
      chervil status --json | jq .dedup
    """
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
    for text in report.get("warnings", []):
        warn(common, text)
    if text := _PUBLISHING.get(report.get("publishing", "open")):
        warn(common, text)
    click.echo(wrapped(_headline(report)))
    for line in _aside(report):
        click.echo(wrapped(line))
    if queues := queue_rows(report):
        click.echo()
        click.echo(table([QUEUE_HEAD, *queues], give_way=(6, 0)))
    click.echo()
    if workers := worker_rows(report):
        click.echo(table([WORKER_HEAD, *workers], give_way=(6, 0)))
    else:
        click.echo(no_worker(common.app))


def no_worker(app: str | None) -> str:
    """What to do where no worker is connected."""
    return f"No worker is connected; start one: chervil -A {app or 'MODULE'} worker"


def queue_rows(report: Mapping[str, Any]) -> list[list[str]]:
    """Rows under QUEUE_HEAD. What needs a hand comes first: a queue that does not move by itself."""
    queues: list[dict[str, Any]] = list(report.get("queues", []))
    queues.sort(key=lambda q: (q.get("waiting_for") not in {"no_consumer", "unknown_task"}, q["name"]))
    return [_queue_row(queue) for queue in queues]


def worker_rows(report: Mapping[str, Any]) -> list[list[str]]:
    """Rows under WORKER_HEAD, by name."""
    return [_worker_row(worker) for worker in sorted(report.get("workers", []), key=lambda w: w["name"])]


def _aside(report: Mapping[str, Any]) -> list[str]:
    """Lines under the headline about what is not as it should be, and nothing where all is."""
    lines: list[str] = []
    if dead := report.get("tasks", {}).get("DEAD", 0):
        lines.append(f"{dead} dead letter{'' if dead == 1 else 's'}: chervil list dead")
    if suspended := report.get("suspended", 0):
        who = "1 worker has" if suspended == 1 else f"{suspended} workers have"
        whose = "its" if suspended == 1 else "their"
        lines.append(f"{who} lost the connection; {whose} tasks are kept {KEPT_FOR}")
    return lines


def _headline(report: Mapping[str, Any]) -> str:
    memory = report.get("memory", {})
    used, limit = memory.get("bytes", 0), memory.get("limit", 0)
    parts = [
        f"Chervil {report.get('version')}, up {span(report.get('uptime_ms', 0))}",
        "keeps tasks in memory only" if report.get("durability") == "memory" else "keeps tasks on disk",
        f"{used / 2**20:.0f} MiB of {limit / 2**20:.0f} MiB used",
    ]
    return "; ".join(parts)


def _queue_row(queue: Mapping[str, Any]) -> list[str]:
    oldest = queue.get("oldest_ms")
    why = _WHY.get(queue.get("waiting_for") or "", queue.get("waiting_for") or "")
    if unknown := queue.get("unknown_tasks"):
        why = f"no worker knows {', '.join(unknown)}"
    counts = [str(queue.get(key, 0)) for key in ("ready", "scheduled", "leased", "consumers")]
    return [queue["name"], *counts, span(oldest) if oldest else "-", why]


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
