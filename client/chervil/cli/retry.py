"""`chervil retry`: runs tasks again that did not succeed."""

import json
from collections.abc import Sequence
from typing import Any

import click

from chervil.cli import exits
from chervil.cli.common import Common, common_of
from chervil.cli.connect import open_client
from chervil.cli.ids import TaskId, some
from chervil.cli.question import ask
from chervil.cli.terminal import printable, say
from chervil.client import Client, Status
from chervil.protocol import FINAL, Stage
from chervil.waiting import describe


@click.command(short_help="Run tasks again that did not succeed.")
@click.argument("ids", nargs=-1, type=TaskId(), metavar="[ID]...")
@click.option("--dead", is_flag=True, help="All dead letters, instead of IDs.")
@click.option("-Q", "--queue", metavar="QUEUE", help="With --dead: only those of this queue.")
@click.option("--task", metavar="NAME", help="With --dead: only those of this task.")
@click.option("-y", "--yes", is_flag=True, help="With --dead: do not ask.")
@click.pass_context
def retry(ctx: click.Context, /, ids: tuple[str, ...], dead: bool, **which: Any) -> int:
    """Run tasks again, under their own ids: those that failed, are dead letters, were revoked or expired.

    Each starts anew, with no attempts and no retries counted and without its expiry. For each ID that does
    not run again a line on stderr says why not.

    Exits with 1 if none of the IDs runs again.

    \b
    Examples:
      chervil retry 2f6c0c2e-5f5e-4b43-9a53-0f3e6f3c0a11
      chervil retry --dead --queue mail
    """
    if dead and ids:
        raise click.UsageError("IDs or --dead: give one", ctx)
    if not dead and any(which.values()):
        raise click.UsageError("--queue, --task and --yes go with --dead", ctx)
    if not dead and not ids:
        raise click.UsageError("which tasks? Give their IDs, or --dead for all dead letters", ctx)
    common = common_of(ctx)
    client = open_client(common)
    try:
        if dead:
            return _retry_dead(client, common, **which)
        return _retry_these(client, common, ids)
    finally:
        client.close()


def _retry_these(client: Client, common: Common, ids: Sequence[str]) -> int:
    # One request for each: their answers count only, and this tells which ones do not run.
    passed_over = [task_id for task_id in dict.fromkeys(ids) if not client.rerun([task_id])]
    asked = len(dict.fromkeys(ids))
    count = asked - len(passed_over)
    statuses = client.query(passed_over) if passed_over else []
    if common.json:
        reasons = [{"id": s.id, "stage": s.stage.name, "why": _why_not(s)} for s in statuses]
        click.echo(json.dumps({"rerun": count, "asked": asked, "passed_over": reasons}))
    else:
        for status in statuses:
            say(f"{status.id} is not run again: {_why_not(status)}")
        _say_how_many(count, asked)
    return exits.OK if count else exits.TASK_FAILED


def _retry_dead(client: Client, common: Common, *, queue: str | None, task: str | None, yes: bool) -> int:
    ids = [
        letter["id"]
        for letter in client.dead()
        if queue in (None, letter.get("queue")) and task in (None, letter.get("name"))
    ]
    if ids and not yes:
        letters = "1 dead letter" if len(ids) == 1 else f"{len(ids)} dead letters"
        ask(f"Run {letters} again?", unasked="--yes", declined="nothing was run again")
    count = client.rerun(ids) if ids else 0
    if common.json:
        click.echo(json.dumps({"rerun": count, "asked": len(ids)}))
    elif not ids:
        click.echo(printable(f"No dead letters{_of(task)}{f' in queue {queue}' if queue else ''}."))
    else:
        _say_how_many(count, len(ids))
        if count < len(ids):
            who = "The others" if count else "They"
            click.echo(f"{who} are no dead letters any more.", err=True)
    return exits.OK if count or not ids else exits.TASK_FAILED


def _of(task: str | None) -> str:
    return f" of task {task}" if task else ""


def _say_how_many(count: int, asked: int) -> None:
    if not count:
        click.echo("Nothing was run again.")
        return
    how_many = some(count) if count == asked else f"{count} of {some(asked)}"
    click.echo(f"{how_many} {'runs' if asked == 1 else 'run'} again.")


def _why_not(status: Status) -> str:
    match status.stage:
        case Stage.UNKNOWN:
            return "the broker knows no such task"
        case Stage.SUCCESS:
            return "it succeeded"
        case Stage.EVICTED:
            return "it ended, and its arguments were dropped; publish it anew"
    if status.stage in FINAL:
        return f"it ended as {status.stage.name}, and its arguments are gone; publish it anew"
    return f"it has not ended: {describe(status)}"
