"""`chervil health`: is a broker there? Quick enough for a container's health check: loads no app."""

import json
from typing import Any

import click

from chervil.cli import exits
from chervil.cli.common import common_of
from chervil.protocol import WelcomeOption
from chervil.protocol.messages import Welcome


@click.command(short_help="Exit 0 if the broker answers, 69 if not.")
@click.option("--timeout", type=click.FloatRange(0.1), default=2.0, show_default=True, metavar="SECONDS",
              help="Wait this long at most.")  # fmt: skip
@click.pass_context
def health(ctx: click.Context, timeout: float) -> int:
    """Exit 0 with one line if the broker answers, 69 if not.

    No role is needed: to be let in is an answer. Of several addresses the first that answers is named. The
    app is not loaded: name its broker with -b, CHERVIL_BROKER_URL or [tool.chervil] where it is not the
    default, and its files for TLS with CHERVIL_TLS_CA, CHERVIL_TLS_CERT and CHERVIL_TLS_KEY.

    \b
    Example:
      chervil health --timeout 1
    """
    from chervil.address import Addresses
    from chervil.client import client_name
    from chervil.line import open_line

    common = common_of(ctx)
    line = open_line(Addresses(common.found()), client_name(None), timeout)
    line.close()
    assert line.exchange.welcome is not None
    told = _told(line.exchange.welcome)
    if common.json:
        click.echo(json.dumps({"url": line.url.redacted, **told}))
    elif not common.quiet:
        release = f", Chervil {told['version']}" if told["version"] else ""
        click.echo(f"ok: {line.url.redacted}{release}")
    return exits.OK


def _told(welcome: Welcome) -> dict[str, Any]:
    """What a broker says of itself to everybody whom it lets in."""
    options = welcome.options or {}
    return {
        "version": options.get(WelcomeOption.RELEASE),
        "instance": welcome.instance.hex(),
        "durability": options.get(WelcomeOption.DURABILITY),
    }
