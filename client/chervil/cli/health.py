"""`chervil health`: is a broker there? Quick enough for a container's health check: loads no app."""

import json
from contextlib import suppress
from typing import Any

import click

from chervil.cli import exits
from chervil.cli.common import common_of


@click.command(short_help="Exit 0 if the broker answers, 69 if not.")
@click.option("--timeout", type=click.FloatRange(0.1), default=2.0, show_default=True, metavar="SECONDS",
              help="Wait this long at most.")  # fmt: skip
@click.pass_context
def health(ctx: click.Context, timeout: float) -> int:
    """Exit 0 with one line if the broker answers, 69 if not.

    No role is needed: to be let in is an answer. The app is not loaded: name its broker with -b,
    CHERVIL_BROKER_URL or [tool.chervil] where it is not the default, and its files for TLS with
    CHERVIL_TLS_CA, CHERVIL_TLS_CERT and CHERVIL_TLS_KEY.

    \b
    Example:
      chervil health --timeout 1
    """
    from chervil.client import Client
    from chervil.exceptions import AccessRefused

    common = common_of(ctx)
    client = Client(common.found(), connect_timeout=timeout)
    report: dict[str, Any] = {}
    try:
        client.reach()
        with suppress(AccessRefused):  # what the broker holds is for the role "control"
            report = client.stats()
    finally:
        client.close()
    if common.json:
        keys = ("version", "instance", "durability", "uptime_ms")
        click.echo(json.dumps({key: report.get(key) for key in keys}))
    elif not common.quiet:
        about = f", Chervil {report.get('version')}, up {int(report.get('uptime_ms', 0)) // 1000} s"
        click.echo(f"ok: {client.found.redacted}{about if report else ''}")
    return exits.OK
