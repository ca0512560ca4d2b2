"""`chervil health`: is a broker there? Quick enough for a container's health check: loads no app."""

import json

import click

from chervil.cli import exits
from chervil.cli.common import common_of


@click.command(short_help="Exit 0 if the broker answers, 69 if not.")
@click.option("--timeout", type=click.FloatRange(0.1), default=2.0, show_default=True, metavar="SECONDS",
              help="Wait this long at most.")  # fmt: skip
@click.pass_context
def health(ctx: click.Context, timeout: float) -> int:
    """Exit 0 with one line if the broker answers, 69 if not.

    The app is not loaded: name its broker with -b, CHERVIL_BROKER_URL or [tool.chervil] where it is not
    the default.

    \b
    Example:
      chervil health --timeout 1
    """
    from chervil.client import Client

    common = common_of(ctx)
    client = Client(common.found(), connect_timeout=timeout)
    try:
        report = client.stats()
    finally:
        client.close()
    if common.json:
        keys = ("version", "instance", "durability", "uptime_ms")
        click.echo(json.dumps({key: report.get(key) for key in keys}))
    elif not common.quiet:
        uptime = int(report.get("uptime_ms", 0)) // 1000
        click.echo(f"ok: {common.found().url.redacted}, Chervil {report.get('version')}, up {uptime} s")
    return exits.OK
