"""Errors as people read them: what happened, to what, what to type next; and the exit code that says so.

No traceback for a user's mistake: --debug shows it. Imported only once something went wrong.
"""

import sys
import traceback
from types import TracebackType

import click

from chervil import exceptions
from chervil.cli import exits
from chervil.cli.common import Common
from chervil.cli.terminal import printable, say, wrapped

#: Refusals by the broker that the same command can never get past; others depend on the broker's state.
_USERS_MISTAKE = frozenset({"BODY_TOO_LARGE", "BAD_TASK", "BAD_FIELD", "UNKNOWN_OPTION", "NOT_IMPLEMENTED"})

_UNAVAILABLE = (
    exceptions.OperationalError,
    exceptions.PublishUnconfirmed,
    exceptions.UnknownTask,
    OSError,
)


def complain(error: Exception, common: Common) -> int:
    """Writes one error to stderr and returns the exit code for it."""
    if common.debug and not isinstance(error, click.UsageError):
        click.echo(_safe("".join(traceback.format_exception(error))), err=True, nl=False)
        return _code(error)
    if isinstance(error, click.ClickException):
        error.show()
        return error.exit_code
    if isinstance(error, exceptions.ChervilError | OSError):
        say(f"Error: {error}")
        if isinstance(error, exceptions.AppNotFound) and isinstance(error.__cause__, Exception):
            click.echo(_safe(users_frames(error.__cause__)), err=True, nl=False)
        return _code(error)
    # Ours, and not the user's: say everything at once, so that a report holds it.
    click.echo(_safe("".join(traceback.format_exception(error))), err=True, nl=False)
    click.echo("This is a bug in Chervil; please report it with the lines above.", err=True)
    return exits.TASK_FAILED


def users_frames(cause: Exception) -> str:
    """The traceback of an error in an app's own code, from the user's first frame on; "" if none is theirs.

    What stands above it (importlib, this program) tells the user nothing.
    """
    frame: TracebackType | None = cause.__traceback__
    while frame is not None and _is_machinery(frame.tb_frame.f_code.co_filename):
        frame = frame.tb_next
    if frame is None and not isinstance(cause, SyntaxError):
        return ""
    return "".join(traceback.format_exception(type(cause), cause, frame))


def _is_machinery(filename: str) -> bool:
    folder = __file__.removesuffix("cli/complaints.py")
    return filename.startswith(("<frozen importlib", folder)) or "/importlib/" in filename


def _code(error: Exception) -> int:
    if isinstance(error, click.ClickException):
        return error.exit_code
    if isinstance(error, exceptions.PublishRefused):
        return exits.USAGE if error.code in _USERS_MISTAKE else exits.UNAVAILABLE
    if isinstance(error, exceptions.TimeoutError):
        return exits.TIMED_OUT
    if isinstance(error, _UNAVAILABLE):
        return exits.UNAVAILABLE
    return exits.USAGE


def warn(common: Common, text: str) -> None:
    """One line on stderr that starts with "Warning"."""
    prefix = click.style("Warning:", fg="yellow") if common.color and sys.stderr.isatty() else "Warning:"
    click.echo(f"{prefix} {wrapped(text, indent=len('Warning: '), err=True)}", err=True)


def _safe(text: str) -> str:
    return printable(text, keep="\n\t")
