"""`chervil broker user` and `chervil broker vhost`: changes of the users file."""

import json
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import click

from chervil.address import DEFAULT_VHOST
from chervil_broker.cli_types import SizeType
from chervil_broker.sizes import show_size
from chervil_broker.users import ROLES, Quotas, UsersError, changing, load, users_path

_ROLE_NAMES = ", ".join(role.value for role in ROLES)


def _command(group: click.Group, name: str) -> Callable[[Callable[..., None]], click.Command]:
    """A command of the group that takes --users and whose errors are messages."""

    def decorate(function: Callable[..., None]) -> click.Command:
        @wraps(function)
        def run(*, users: str | None, **given: Any) -> None:
            try:
                function(users_path(users), **given)
            except UsersError as error:
                raise click.ClickException(str(error)) from None

        option = click.option(
            "--users", metavar="FILE", help="The users file; users.json in the data folder unless given."
        )
        return group.command(name)(option(run))

    return decorate


@click.group("user", context_settings={"help_option_names": ["-h", "--help"]})
def user() -> None:
    """Users: who may connect to the broker, with which token, for what.

    A running broker notices a change by itself, within three seconds.
    """


@_command(user, "add")
@click.argument("name")
@click.option("--role", "roles", multiple=True, required=True, metavar="ROLE,...", help=f"{_ROLE_NAMES}.")
@click.option(
    "--vhost", "vhosts", multiple=True, metavar="NAME", help="Vhosts it may use; default unless given."
)
def add_user(path: Path, name: str, roles: tuple[str, ...], vhosts: tuple[str, ...]) -> None:
    """Add user NAME and print its token, which is kept nowhere.

    Workers need the roles consume and publish (for tasks that send tasks); web applications publish;
    operators control; admin is all of them. `chervil broker user add shop --role publish > shop.token`
    """
    wanted = [role.strip() for group in roles for role in group.split(",")]
    with changing(path) as users:
        token = users.add(name, wanted, vhosts or (DEFAULT_VHOST,))
    _tell_token(
        f"user {name} added: {', '.join(wanted)}; vhosts: {', '.join(vhosts) or DEFAULT_VHOST}", token
    )


@_command(user, "rotate")
@click.argument("name")
def rotate_user(path: Path, name: str) -> None:
    """Give user NAME a new token and print it; connections with the old one are ended.

    To change without a pause, add a second user, move the programs to it, and remove the first.
    """
    with changing(path) as users:
        token = users.rotate(name)
    _tell_token(f"user {name} has a new token; the old one is worth nothing now", token)


@_command(user, "remove")
@click.argument("name")
def remove_user(path: Path, name: str) -> None:
    """Remove user NAME; its connections are ended."""
    with changing(path) as users:
        users.remove(name)
    click.echo(f"user {name} removed")


@_command(user, "list")
@click.option("--json", "as_json", is_flag=True, help="Answer in JSON.")
def list_users(path: Path, *, as_json: bool) -> None:
    """List users, their roles and vhosts."""
    rows = [
        {
            "name": found.name,
            "roles": [role.value for role in ROLES if role in found.roles],
            "vhosts": sorted(found.vhosts),
        }
        for found in load(path).users.values()
    ]
    if as_json:
        click.echo(json.dumps(rows))
    elif not rows:
        click.echo(f"no users in {path}; add one: chervil broker user add NAME --role publish")
    else:
        _table(
            ["USER", "ROLES", "VHOSTS"],
            [[r["name"], *map(",".join, (r["roles"], r["vhosts"]))] for r in rows],
        )


@click.group("vhost", context_settings={"help_option_names": ["-h", "--help"]})
def vhost() -> None:
    """Vhosts: closed sets of queues, tasks and results, with quotas.

    A running broker notices a change by itself, within three seconds.
    """


def _quotas(function: Callable[..., None]) -> Callable[..., None]:
    """The options that make a Quotas."""
    a_count = click.IntRange(min=1)
    for option in (
        click.option("--max-connections", type=a_count, metavar="N", help="Connections at once."),
        click.option("--max-tasks", type=a_count, metavar="N", help="Tasks that are not finished."),
        click.option("--max-memory", type=SizeType(), metavar="SIZE", help="Memory of tasks and results."),
    ):
        function = option(function)
    return function


@_command(vhost, "add")
@click.argument("name")
@_quotas
def add_vhost(path: Path, name: str, **quotas: int | None) -> None:
    """Add vhost NAME. Vhosts without --max-memory share equally what the others leave of the broker's."""
    with changing(path) as users:
        users.set_vhost(name, Quotas(**quotas), new=True)
    click.echo(f"vhost {name} added; its URL ends in /{name}")


@_command(vhost, "set")
@click.argument("name")
@_quotas
def set_vhost(path: Path, name: str, **quotas: int | None) -> None:
    """Set the quotas of vhost NAME: those that are given, and no others."""
    with changing(path) as users:
        users.set_vhost(name, Quotas(**quotas), new=False)
    click.echo(f"vhost {name} changed")


@_command(vhost, "remove")
@click.argument("name")
def remove_vhost(path: Path, name: str) -> None:
    """Remove vhost NAME; its connections are ended. Its tasks are there again if it is added again."""
    with changing(path) as users:
        users.remove_vhost(name)
    click.echo(f"vhost {name} removed")


@_command(vhost, "list")
@click.option("--json", "as_json", is_flag=True, help="Answer in JSON.")
def list_vhosts(path: Path, *, as_json: bool) -> None:
    """List vhosts and their quotas."""
    vhosts = load(path).vhosts
    if as_json:
        click.echo(json.dumps([{"name": name, **quotas._asdict()} for name, quotas in vhosts.items()]))
        return
    rows = []
    for name, quotas in vhosts.items():
        memory = "-" if quotas.max_memory is None else show_size(quotas.max_memory)
        rows.append([name, memory, str(quotas.max_tasks or "-"), str(quotas.max_connections or "-")])
    _table(["VHOST", "MEMORY", "TASKS", "CONNECTIONS"], rows)


def _tell_token(what: str, token: str) -> None:
    """The token alone on standard output, so that it can go into a file; for people the rest."""
    click.echo(
        f"{what}\nits token, shown this once; a program reads it from the file in CHERVIL_TOKEN_FILE:",
        err=True,
    )
    sys.stderr.flush()
    click.echo(token)


def _table(head: list[str], rows: list[list[Any]]) -> None:
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    for row in [head, *rows]:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
