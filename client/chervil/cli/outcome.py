"""What came of a task, on stdout, stderr and in the exit code; for `call --wait` and `result`.

The broker's own answer is shown, not an exception rebuilt from it: so no app is needed to read it.
"""

import json
import sys
from typing import Any

import click

from chervil.cli import exits
from chervil.cli.common import Common
from chervil.cli.terminal import command, printable, say
from chervil.client import Client, Status
from chervil.protocol import FAILURE_CODEC, FINAL, FailureRecord, Info, Stage, unpack_failure
from chervil.serialization import decode
from chervil.waiting import advice, describe

#: How long a lost broker is waited for: a restart takes less, and a script should learn of an outage.
PATIENCE_SECONDS = 30.0


def show(status: Status, client: Client, common: Common, *, waited: float | None = None) -> int:
    """Prints one task's status and returns the exit code.

    A result goes to stdout, everything else to stderr; with --json all of it is one object on stdout.
    `waited` are the seconds after which the caller gave up, None where it did not wait.
    """
    stage = Stage(status.stage)
    record = unpack_failure(status.body) if status.codec == FAILURE_CODEC and status.body else None
    value = _value(status) if stage is Stage.SUCCESS else None
    if common.json:
        click.echo(json.dumps(_as_dict(status, value, record), default=str))
    elif stage is Stage.SUCCESS:
        click.echo(_as_text(value))
    else:
        if record is not None and record.traceback:
            click.echo(printable(record.traceback.rstrip(), keep="\n\t"), err=True)
        say(_in_words(status, record, client, waited))
    if stage is Stage.SUCCESS:
        return exits.OK
    if stage in (Stage.UNKNOWN, Stage.EVICTED):
        return exits.UNAVAILABLE
    return exits.TASK_FAILED if stage in FINAL else exits.TIMED_OUT


def wait_for(client: Client, task_id: str, timeout: float | None, common: Common) -> Status:
    """The status once the task has ended, or after `timeout` seconds; says on stderr why it waits."""

    def tell(statuses: list[Status]) -> None:
        for status in statuses:
            if not common.quiet and status.info.get(Info.WAITING_FOR):
                say(describe(status) + advice(common.app, status))

    def tell_of_loss(text: str) -> None:
        if not common.quiet:
            say(text)

    return client.wait([task_id], timeout, on_wait=tell, on_lost=tell_of_loss, patience=PATIENCE_SECONDS)[0]


def _value(status: Status) -> Any:
    if status.codec is None or status.body is None:
        return None
    return decode(status.codec, status.body)


def _in_words(status: Status, record: FailureRecord | None, client: Client, waited: float | None) -> str:
    stage = Stage(status.stage)
    if stage is Stage.UNKNOWN:
        return unknown(client, status.id)
    if stage is Stage.EVICTED:
        return (
            f"Error: task {status.id} ended, and its result was dropped: for room, because its time was "
            f"over, or because somebody forgot it. {_more(status)}"
        )
    if stage not in FINAL:
        if waited == 0:
            return f"Task {status.id} is not finished: {describe(status)}"
        gave_up = "" if waited is None else f"; gave up after {waited:g} s"
        return f"Task {status.id}: {describe(status)}{gave_up}"
    if record is None:
        return f"Task {status.id} ended as {stage.name}. {_more(status)}"
    if record.traceback:
        return f"Task {record.task_name}[{status.id}] ended as {stage.name}."
    message = f": {record.message}" if record.message else ""
    ended = f"Task {record.task_name}[{status.id}] ended as {stage.name}: {record.type}{message}"
    return f"{ended}\n{_more(status)}"


def unknown(client: Client, task_id: str) -> str:
    """What it means that the broker knows no such task."""
    return (
        f"Error: {client.found.redacted} (from {client.found.source}) knows no task {task_id}. "
        "Most likely the broker was restarted since, as this release keeps tasks in memory; else the "
        "task went to another broker (-b URL), or ended so long ago that its result was dropped."
    )


def _more(status: Status) -> str:
    return f"How it came to that: {command('why', status.id)}"


def _as_text(value: Any) -> str:
    """A result for stdout: text as it is (on a terminal without what would steer it), the rest as JSON."""
    if not isinstance(value, str):
        return json.dumps(value, default=str)
    return printable(value, keep="\n\t") if sys.stdout.isatty() else value


def _as_dict(status: Status, value: Any, record: FailureRecord | None) -> dict[str, Any]:
    answer: dict[str, Any] = {"id": status.id, "stage": Stage(status.stage).name}
    if status.stage == Stage.SUCCESS:
        answer["result"] = value
    if record is not None:
        answer["error"] = {
            "kind": record.kind,
            "type": record.type,
            "message": record.message,
            "traceback": record.traceback,
        }
    return answer
