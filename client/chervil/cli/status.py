"""`chervil status`: what waits, who works, and what is wrong, for people and (--json) for programs."""

import json
from collections.abc import Mapping
from typing import Any

import click

from chervil.address import DEFAULT_VHOST
from chervil.cli import exits
from chervil.cli.clock import span
from chervil.cli.common import Common, common_of
from chervil.cli.complaints import warn
from chervil.cli.connect import open_client
from chervil.cli.story import KEPT_FOR
from chervil.cli.terminal import table, wrapped
from chervil.protocol import FINAL, Stage

#: Why a queue does not move, in words (`waiting_for` of a queue in the report).
_WHY = {
    "no_consumer": "no worker consumes it",
    "unknown_task": "no worker knows its tasks",
    "no_credit": "all its workers are busy",
}

QUEUE_HEAD = ("QUEUE", "READY", "SCHEDULED", "LEASED", "WORKERS", "OLDEST", "")
WORKER_HEAD = ("WORKER", "PID", "SLOTS", "LEASED", "DELIVERED", "CONNECTED", "QUEUES")

#: Stages that count for a vhost's limit of tasks.
_UNFINISHED = frozenset(Stage) - FINAL - {Stage.UNKNOWN}

_ROOM = "start more workers, purge what is not needed"

#: With less of the memory taken, in percent, it is not memory that is short.
_OPEN_PERCENT = 70


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
    if text := _held_back(report):
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


def _held_back(report: Mapping[str, Any]) -> str | None:
    """What `publishing` in the report means for whoever publishes, and what to do; None where it is open."""
    state, vhost = report.get("publishing", "open"), report.get("vhost", DEFAULT_VHOST)
    if state not in {"closed", "full"}:
        return None
    whose, more = "the broker's memory", "start a broker with more --max-memory"
    if vhost != DEFAULT_VHOST:
        whose = f"the memory of vhost {vhost}"
        more = f"give it more: chervil broker vhost set {vhost} --max-memory, or the broker's --max-memory"
    if state == "closed":
        return (
            f"tasks take 80 % of {whose}: publishers wait until it is 70 %, except inside of tasks; "
            f"{_ROOM}, or {more}"
        )
    tasks = report.get("tasks", {})
    unfinished = sum(tasks.get(stage.name, 0) for stage in _UNFINISHED)
    limit = report.get("tasks_limit")
    if limit is not None and unfinished >= limit:
        return (
            f"vhost {vhost} holds its {limit} tasks: nothing more is stored, workers go on; {_ROOM}, or: "
            f"chervil broker vhost set {vhost} --max-tasks N"
        )
    memory = report.get("memory", {})
    taken = memory.get("bytes", 0) + memory.get("other", 0)
    if taken * 100 >= memory.get("limit", 0) * _OPEN_PERCENT:
        return f"tasks take 95 % of {whose}: nothing more is stored, workers go on; {_ROOM}, or {more}"
    return (
        f"nothing more is stored, though there is memory: vhost {vhost} may hold all the tasks that it may "
        f"(it holds {unfinished}; its --max-tasks: chervil broker vhost list), or the broker's disk is full "
        "(its log says so); workers go on"
    )


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
