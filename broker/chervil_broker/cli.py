"""`chervil broker`: the flags, made from BrokerOptions."""

import logging
from dataclasses import fields
from typing import Any

import click

from chervil_broker.cli_types import SizeType
from chervil_broker.daemon import BrokerFailed, run
from chervil_broker.durability import JournalFailed
from chervil_broker.journal.lock import FolderInUse
from chervil_broker.journal.reader import Damage
from chervil_broker.journal_cli import backup, check, dump, repair, restore
from chervil_broker.listen import ListenError
from chervil_broker.log import set_up
from chervil_broker.options import BrokerOptions
from chervil_broker.user_cli import user, vhost
from chervil_broker.users import UsersError

#: Fields that are sizes: their flags take 512MB and the like.
_SIZES = frozenset({"max_memory", "body_limit"})


def _flags() -> list[click.Parameter]:
    flags: list[click.Parameter] = []
    for field in fields(BrokerOptions):
        name = "--" + field.name.replace("_", "-")
        more: dict[str, Any] = {"help": field.metadata["help"]}
        if field.name in _SIZES:
            more["type"] = SizeType()
        elif field.type in (bool, "bool"):
            more["is_flag"] = True
        elif field.name == "bind":
            more |= {"multiple": True, "metavar": "HOST:PORT"}
        elif type(field.default) is int:
            more |= {"type": int, "default": field.default, "show_default": True, "metavar": "N"}
        elif "choices" in field.metadata:
            more |= {
                "type": click.Choice(field.metadata["choices"]),
                "default": field.default,
                "show_default": True,
            }
        else:
            more["metavar"] = "PATH"
        flags.append(click.Option([name], **more))
    return flags


class _NotByItself(click.ClickException):
    """Starting again does not help until somebody has done something: service managers are not to try."""

    exit_code = 2


@click.pass_context
def _broker(ctx: click.Context, /, **given: Any) -> None:
    if ctx.invoked_subcommand is not None:
        return
    try:
        options = BrokerOptions(**{name: value for name, value in given.items() if value is not None})
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    set_up(options.log_format, _level(ctx))
    try:
        run(options)
    except UsersError as error:
        raise _NotByItself(str(error)) from None
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    except Damage as damage:
        raise _NotByItself(damage.advice(options.folder)) from None
    except (ListenError, FolderInUse, JournalFailed, BrokerFailed) as error:
        raise click.ClickException(str(error)) from None


def _level(ctx: click.Context) -> int:
    """The log level that -q and -v ask for, where this command hangs under one that has them."""
    if getattr(ctx.obj, "quiet", False):
        return logging.WARNING
    return logging.DEBUG if getattr(ctx.obj, "verbose", 0) else logging.INFO


broker = click.Group(
    "broker",
    commands=[user, vhost, check, repair, dump, backup, restore],
    invoke_without_command=True,
    params=_flags(),
    callback=_broker,
    context_settings={"help_option_names": ["-h", "--help"]},
    short_help="Start a broker.",
    help="""Start a broker: it holds tasks until workers run them, and results until callers fetch them.

Listens on 127.0.0.1:2437 unless told otherwise, and asks for a token that it leaves where programs of
the same user find it. Ends in order on SIGTERM or Ctrl-C.""",
)
