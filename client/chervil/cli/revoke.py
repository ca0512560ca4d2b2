"""`chervil revoke`: calls tasks off."""

import json
from typing import Any

import click

from chervil.cli import exits
from chervil.cli.common import common_of
from chervil.cli.connect import open_client
from chervil.cli.ids import TaskId
from chervil.cli.terminal import command, wrapped
from chervil.client import Status
from chervil.protocol import FINAL, Info, Stage
from chervil.protocol.vocabulary import SIGNAL_MAX
from chervil.waiting import describe

#: Signals by name. Their numbers on Linux are what travels, whatever system this runs on.
SIGNALS = {
    "HUP": 1, "INT": 2, "QUIT": 3, "ABRT": 6, "KILL": 9, "USR1": 10, "USR2": 12, "ALRM": 14, "TERM": 15,
}  # fmt: skip


class Signal(click.ParamType[int]):
    """A signal's name, with or without SIG, or its number on Linux."""

    name = "signal"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        text = str(value).upper().removeprefix("SIG")
        number = int(text) if text.isdecimal() else SIGNALS.get(text, 0)
        if not 1 <= number <= SIGNAL_MAX:
            self.fail(f"{value!r} is no signal; write {', '.join(SIGNALS)} or 1 to {SIGNAL_MAX}", param, ctx)
        return number


@click.command(short_help="Call tasks off.")
@click.argument("ids", nargs=-1, required=True, type=TaskId(), metavar="ID...")
@click.option("--terminate", is_flag=True, help="End running ones too, by a signal; killed 10 s later.")
@click.option("--signal", type=Signal(), metavar="SIG", help="That signal, for --terminate; else TERM.")
@click.pass_context
def revoke(ctx: click.Context, ids: tuple[str, ...], terminate: bool, signal: int | None) -> int:
    """Call tasks off: what waits will not run. What runs goes on, unless --terminate ends it.

    An ID that the broker does not know is remembered: if it is published later, it does not run.

    Prints a line for each ID. Exits with 1 if all of them had ended before.

    \b
    Examples:
      chervil revoke 2f6c0c2e-5f5e-4b43-9a53-0f3e6f3c0a11
      chervil revoke --terminate --signal USR1 order-17
    """
    if signal is not None and not terminate:
        raise click.UsageError("--signal is for running tasks: it goes with --terminate", ctx)
    common = common_of(ctx)
    asked = list(dict.fromkeys(ids))
    client = open_client(common)
    try:
        count = client.revoke(asked, terminate, signal)
        statuses = client.query(asked)
    finally:
        client.close()
    if common.json:
        stages = [{"id": status.id, "stage": status.stage.name} for status in statuses]
        click.echo(json.dumps({"revoked": count, "asked": len(asked), "tasks": stages}))
    else:
        for status in statuses:
            click.echo(wrapped(f"{status.id}: {_in_words(status, terminate)}"))
    return exits.OK if count else exits.TASK_FAILED


def _in_words(status: Status, terminate: bool) -> str:
    """What the broker says of a task right after it was asked to call it off."""
    worker = status.info.get(Info.WORKER) or "a worker"
    if status.stage is Stage.REVOKED:
        return "revoked"
    if status.stage is Stage.UNKNOWN:
        return "not known here; it will not run if it is published later"
    if status.stage in FINAL:
        return f"it had ended: {status.stage.name}"
    if status.stage not in (Stage.LEASED, Stage.STARTED):  # somebody had it run again meanwhile
        return f"now {describe(status)}"
    if terminate:
        return f"being ended on {worker}; killed if it still runs in 10 s"
    if status.stage is Stage.STARTED:
        return f"it runs on {worker}, and goes on; end it: {command('revoke --terminate', status.id)}"
    return f"{worker} has it, and is told not to begin it"
