"""`chervil call`: sends one task."""

import json
import sys
from functools import partial
from time import monotonic
from typing import Any, cast

import click

from chervil.app import Chervil
from chervil.asking import REQUEST_SECONDS
from chervil.cli import exits
from chervil.cli.arguments import Time, json_of, mark_negatives, split
from chervil.cli.common import Common, common_of, did_you_mean
from chervil.cli.connect import app_for
from chervil.cli.outcome import show, wait_for
from chervil.cli.seconds import Seconds
from chervil.cli.terminal import printable, say
from chervil.options import CallOptions
from chervil.protocol import Stage
from chervil.watching import FIRST_ANSWER_SECONDS

#: How many task names are shown to someone who typed one that is like none of them.
_NAMES_SHOWN = 10


class _Call(click.Command):
    """A command whose arguments may be negative numbers; unknown options are still refused."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        takes_value = [
            name
            for option in self.params
            if isinstance(option, click.Option) and not (option.is_flag or option.count)
            for name in option.opts
        ]
        return super().parse_args(ctx, mark_negatives(args, takes_value))


@click.command(cls=_Call, short_help="Send one task, and wait for its result if asked.")
@click.argument("name")
@click.argument("values", nargs=-1, metavar="[VALUE|key=VALUE]...")
@click.option("-a", "--args", "json_args", metavar="JSON", callback=json_of(list, "a list, such as '[2, 3]'"),
              help="Positional arguments as one JSON list.")  # fmt: skip
@click.option("-k", "--kwargs", "json_kwargs", metavar="JSON",
              callback=json_of(dict, """an object, such as '{"x": 2}'"""),
              help="Keyword arguments as one JSON object.")  # fmt: skip
@click.option("-w", "--wait", is_flag=True, help="Wait for the result and print it.")
@click.option("--timeout", type=Seconds(0), metavar="SECONDS", help="Take this long at most.")
@click.option("-Q", "--queue", metavar="QUEUE", help="The queue to put it in.")
@click.option("--countdown", type=Seconds(0), metavar="SECONDS", help="Run it this much later.")
@click.option("--eta", type=Time(), metavar="TIME", help="Run it at this time (ISO 8601).")
@click.option(
    "--expires", type=Time(seconds=True), metavar="SECONDS|TIME", help="Do not start it after this."
)
@click.option("--priority", type=click.IntRange(0, 9), metavar="0-9", help="9 goes first.")
@click.option("--task-id", metavar="ID", help="The id to give it; a known id is not sent again.")
@click.pass_context
def call(ctx: click.Context, /, name: str, values: tuple[str, ...], **given: Any) -> int:
    """Send one task: print its id, or with --wait its result.

    Each VALUE is JSON, else text. With -A the name and the number and names of the arguments are
    checked before anything is sent; without it the task goes out by its name.

    The broker makes no second task of an id that it knows: what is shown then is that task's, and a line
    on stderr says so.

    --timeout is for all of it: a full broker is waited for no longer than that either.

    Exits with 1 and the traceback if the task failed, with 1 too if it was parked, revoked or expired, with
    124 if it did not end in time, with 69 if the broker was lost and not back within 30 s.

    \b
    Examples:
      chervil -A tasks call tasks.add 2 3 --wait
      chervil call tasks.greet name=Ada urgent=true --queue mail
    """
    wait, timeout = given.pop("wait"), given.pop("timeout")
    if timeout is not None and not wait:
        raise click.UsageError("--timeout says how long to wait: it goes with --wait", ctx)
    if given["countdown"] is not None and given["eta"] is not None:
        raise click.UsageError("--countdown and --eta both say when: give one", ctx)
    args, kwargs = split(values)
    args = [*(given.pop("json_args") or []), *args]
    json_kwargs = given.pop("json_kwargs") or {}
    if doubled := kwargs.keys() & json_kwargs.keys():
        names = ", ".join(sorted(doubled))
        raise click.UsageError(f"given twice, in --kwargs and as key=VALUE: {names}", ctx)
    options = cast("CallOptions", {key: value for key, value in given.items() if value is not None})
    common = common_of(ctx)
    app = app_for(common)
    if common.app is not None:
        _check(app, name, args, {**json_kwargs, **kwargs})
    deadline = _Deadline(timeout)
    try:
        known = _is_known(app, options.get("task_id"), deadline)
        seconds = deadline.for_an_answer(app.conf.task_publish_timeout)
        tell = partial(_tell_of_waiting, seconds, common)
        kwargs = {**json_kwargs, **kwargs}
        task_id = app.publisher.send(name, args, kwargs, options, deadline=seconds, on_full=tell).id
    except ValueError as error:  # of an option or the id: all that is left to be wrong
        raise click.UsageError(str(error), ctx) from error
    if known and not common.quiet:
        what = "result" if wait else "id"
        click.echo(f"{printable(task_id)} is known already; this is its {what}", err=True)
    if not wait:
        click.echo(json.dumps({"id": task_id}) if common.json else printable(task_id))
        return exits.OK
    return show(wait_for(app.client, task_id, deadline.left(), common), app.client, common, waited=timeout)


class _Deadline:
    """What is left of --timeout, which is for all that the broker is asked."""

    def __init__(self, seconds: float | None) -> None:
        self._end = None if seconds is None else monotonic() + seconds

    def left(self) -> float | None:
        """Seconds until then; None where there is no such time."""
        return None if self._end is None else max(0.0, self._end - monotonic())

    def for_an_answer(self, most: float) -> float:
        """How many seconds to wait for an answer, even where no time is left."""
        left = self.left()
        return most if left is None else min(most, max(left, FIRST_ANSWER_SECONDS))


def _is_known(app: Chervil, task_id: str | None, deadline: _Deadline) -> bool:
    """Whether the broker knows the id before anything is published under it."""
    if task_id is None:
        return False
    (status,) = app.client.query([task_id], deadline.for_an_answer(REQUEST_SECONDS))
    return status.stage is not Stage.UNKNOWN


def _tell_of_waiting(seconds: float, common: Common) -> None:
    """Says to who sits there that a full broker is waited for; a program sees by what it ends with."""
    if sys.stderr.isatty() and not common.quiet:
        say(f"the broker is full; waiting for room for up to {round(seconds, 1):g} s")


def _check(app: Chervil, name: str, args: list[Any], kwargs: dict[str, Any]) -> None:
    """Raises click.UsageError unless the app has this task and it takes these arguments."""
    task = app.tasks.get(name)
    if task is None:
        raise click.UsageError(f"no task {name!r} in this app.{_near(name, sorted(app.tasks))}")
    try:
        task.check_arguments(args, kwargs)
    except TypeError as error:
        raise click.UsageError(str(error)) from error


def _near(name: str, known: list[str]) -> str:
    # A name without its module is the likeliest slip of all.
    same = [task for task in known if task.rpartition(".")[2] == name]
    if len(same) == 1:
        return f" Did you mean {same[0]!r}?"
    if hint := did_you_mean(name, known):
        return hint
    more = f" and {len(known) - _NAMES_SHOWN} more" if len(known) > _NAMES_SHOWN else ""
    return f" It has: {', '.join(known[:_NAMES_SHOWN])}{more}." if known else " It has none."
