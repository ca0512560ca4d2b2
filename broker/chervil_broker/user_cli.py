"""`chervil broker user` and `chervil broker vhost`: changes of the users file."""

import json
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import click

from chervil.address import DEFAULT_VHOST
from chervil.statedir import NotPrivate
from chervil_broker.cli_types import OrNone, SizeType
from chervil_broker.sizes import show_size
from chervil_broker.users import ROLES, Quotas, User, UsersError, changing, load, users_path

_ROLE_NAMES = ", ".join(role.value for role in ROLES)


def _command(group: click.Group, name: str) -> Callable[[Callable[..., None]], click.Command]:
    """A command of the group that takes --users and whose errors are messages."""

    def decorate(function: Callable[..., None]) -> click.Command:
        @wraps(function)
        def run(*, users: str | None, data: str | None, **given: Any) -> None:
            try:
                function(users_path(users, data), **given)
            except (UsersError, NotPrivate) as error:
                raise click.ClickException(str(error)) from None

        option = click.option(
            "--users", metavar="FILE", help="The users file; users.json in the data folder unless given."
        )
        folder = click.option("--data", metavar="DIR", help="The broker's data folder, if it was named.")
        return group.command(name)(option(folder(run)))

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
    "--vhost", "vhosts", multiple=True, metavar="NAME,...", help="Vhosts it may use; default unless given."
)
def add_user(path: Path, name: str, roles: tuple[str, ...], vhosts: tuple[str, ...]) -> None:
    """Add user NAME and print its token, which is kept nowhere.

    Workers need the roles consume and publish (for tasks that send tasks); web applications publish;
    operators control; admin is all of them. `chervil broker user add shop --role publish > shop.token`
    """
    wanted, places = _words(roles), _words(vhosts) or [DEFAULT_VHOST]
    with changing(path) as users:
        token = users.add(name, wanted, places)
    _tell_token(f"user {name} added: {', '.join(wanted)}; vhosts: {', '.join(places)}", token)


@_command(user, "set")
@click.argument("name")
@click.option("--role", "roles", multiple=True, metavar="ROLE,...", help=f"{_ROLE_NAMES}.")
@click.option("--vhost", "vhosts", multiple=True, metavar="NAME,...", help="Vhosts it may use.")
def set_user(path: Path, name: str, roles: tuple[str, ...], vhosts: tuple[str, ...]) -> None:
    """Give user NAME these roles or vhosts, and no others; what is not given stays, and so does its token.

    Connections that lose a role or their vhost are ended; the others go on, with the new roles.
    """
    if not (roles or vhosts):
        raise click.UsageError("say what it may do from now on: --role, --vhost")
    with changing(path) as users:
        now = users.grant(name, _words(roles), _words(vhosts))
    click.echo(f"user {name} changed: {', '.join(_roles(now))}; vhosts: {', '.join(sorted(now.vhosts))}")


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
    found = load(path).users.values()
    if not (found or as_json):
        click.echo(f"no users in {path}; add one: chervil broker user add NAME --role publish")
        return
    rows = [{"name": each.name, "roles": _roles(each), "vhosts": sorted(each.vhosts)} for each in found]
    _tell_rows(rows, {"USER": "name", "ROLES": "roles", "VHOSTS": "vhosts"}, as_json=as_json)


@click.group("vhost", context_settings={"help_option_names": ["-h", "--help"]})
def vhost() -> None:
    """Vhosts: closed sets of queues, tasks and results, with quotas.

    A running broker notices a change by itself, within three seconds.
    """


def _quotas(function: Callable[..., None]) -> Callable[..., None]:
    """The options that make a Quotas: what is not given is None, and `none` is 0."""
    a_count = OrNone(click.INT)
    for option in (
        click.option("--max-connections", type=a_count, metavar="N", help="Connections at once."),
        click.option("--max-tasks", type=a_count, metavar="N", help="Tasks that are not finished."),
        click.option(
            "--max-memory", type=OrNone(SizeType()), metavar="SIZE", help="Memory of tasks and results."
        ),
    ):
        function = option(function)
    return function


def _changed(quotas: Quotas, given: dict[str, int | None]) -> Quotas:
    """The quotas with those that are given in place of what they were."""
    return quotas._replace(**{name: value or None for name, value in given.items() if value is not None})


@_command(vhost, "add")
@click.argument("name")
@_quotas
def add_vhost(path: Path, name: str, **given: int | None) -> None:
    """Add vhost NAME. Vhosts without --max-memory share equally what the others leave of the broker's."""
    with changing(path) as users:
        users.set_vhost(name, _changed(Quotas(), given), new=True)
    click.echo(f"vhost {name} added; its URL ends in /{name}")


@_command(vhost, "set")
@click.argument("name")
@_quotas
def set_vhost(path: Path, name: str, **given: int | None) -> None:
    """Set quotas of vhost NAME; those that are not given stay. `none` takes one away: --max-tasks none."""
    if all(value is None for value in given.values()):
        raise click.UsageError("say which quota: --max-memory, --max-tasks, --max-connections")
    with changing(path) as users:
        users.set_vhost(name, _changed(users.quotas(name), given), new=False)
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
    rows = [{"name": name, **quotas._asdict()} for name, quotas in load(path).vhosts.items()]
    columns = {
        "VHOST": "name",
        "MEMORY": "max_memory",
        "TASKS": "max_tasks",
        "CONNECTIONS": "max_connections",
    }
    _tell_rows(rows, columns, as_json=as_json)


def _words(given: tuple[str, ...]) -> list[str]:
    """The words of options that may be repeated, and hold several with commas."""
    return [word.strip() for group in given for word in group.split(",")]


def _roles(of: User) -> list[str]:
    return [role.value for role in ROLES if role in of.roles]


def _tell_token(what: str, token: str) -> None:
    """The token alone on standard output, so that it can go into a file; for people the rest."""
    click.echo(
        f"{what}\nits token, shown this once; a program reads it from the file in CHERVIL_TOKEN_FILE:",
        err=True,
    )
    sys.stderr.flush()
    click.echo(token)


def _tell_rows(rows: list[dict[str, Any]], columns: dict[str, str], *, as_json: bool) -> None:
    """The rows as JSON, or as a table of these columns: its heads, and what stands in a row for each."""
    if as_json:
        click.echo(json.dumps(rows))
        return
    table = [list(columns), *([_cell(key, row[key]) for key in columns.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for cells in table:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip())


def _cell(key: str, value: Any) -> str:
    if value is None:
        return "-"
    if key == "max_memory":
        return show_size(value)
    return ",".join(value) if isinstance(value, list) else str(value)
