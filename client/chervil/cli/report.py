"""`chervil report`: what whoever is to help wants to know first, without secrets."""

import json
import os
import platform
from collections.abc import Mapping
from typing import Any

import click

from chervil.address import Found
from chervil.app import Chervil
from chervil.cli import exits
from chervil.cli.clock import span
from chervil.cli.common import ENVIRONMENT, Common, common_of
from chervil.cli.connect import app_for
from chervil.cli.masking import masked, masked_text
from chervil.cli.terminal import printable
from chervil.conf import Settings
from chervil.exceptions import ChervilError
from chervil.version import __version__

#: The distributions whose releases make a difference.
LIBRARIES = ("msgpack", "uvloop", "click")

#: Seconds for the broker to be reached: a report is no reason to wait.
CONNECT_SECONDS = 2.0

#: What of the broker's report says how it is.
_ANSWER = ("version", "durability", "uptime_ms", "publishing", "memory", "tasks", "suspended", "warnings")


@click.command(short_help="Show versions, settings and broker, secrets masked.")
@click.pass_context
def report(ctx: click.Context) -> int:
    """Show versions, platform, the broker and where it was found, the app's own settings, the environment.

    For a question or a report of a bug: what looks like a secret is shown as ***. Nothing here makes it fail:
    what cannot be loaded or reached is told with the reason.

    \b
    Example:
      chervil -A tasks report
    """
    common = common_of(ctx)
    found = collect(common)
    if common.json:
        click.echo(json.dumps(found, indent=2, default=str))
    else:
        for line in told(found):
            click.echo(printable(line))
    return exits.OK


def collect(common: Common) -> dict[str, Any]:
    """The report as --json shows it: versions, platform, app, broker, environment, not_read."""
    app, app_part = _app(common)
    names = sorted(name for name in os.environ if name.startswith("CHERVIL_"))
    return {
        "versions": _versions(),
        "platform": platform.platform(),
        "app": app_part,
        "broker": _broker(common, app),
        "environment": {name: masked(os.environ[name], name) for name in names if name in ENVIRONMENT},
        # Kubernetes makes such names, and people mistype them. What stands in them is nobody's business.
        "not_read": [name for name in names if name not in ENVIRONMENT],
    }


def told(found: Mapping[str, Any]) -> list[str]:
    """The report as people read it."""
    about = {**found["versions"], "platform": found["platform"]}
    width = max(map(len, about))
    lines = [f"{name:{width}}  {text}" for name, text in about.items()]
    lines += ["", *_told_broker(found["broker"]), "", *_told_app(found["app"]), "", "environment"]
    lines += [f"  {name}={value}" for name, value in found["environment"].items()]
    if not found["environment"]:
        lines.append("  nothing that Chervil reads")
    if found["not_read"]:
        lines.append(f"  not read: {', '.join(found['not_read'])}")
    return lines


def _versions() -> dict[str, str]:
    from importlib import metadata

    versions = {
        "chervil": __version__,
        "Python": f"{platform.python_version()} {platform.python_implementation()}",
    }
    for name in LIBRARIES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return versions


def _app(common: Common) -> tuple[Chervil | None, dict[str, Any] | None]:
    """The app that is meant and what is to be said of it; (None, None) where none is named."""
    if common.app is None:
        return None, None
    try:
        app = app_for(common)
    except Exception as error:  # the user's modules may raise anything
        return None, {"name": common.app, "error": _reason(error)}
    settings = {
        name: masked(value, name)
        for name, value in sorted(app.conf.items())
        if not hasattr(Settings, name) or value != getattr(Settings, name)
    }
    return app, {"name": common.app, "tasks": len(app.tasks), "settings": settings}


def _broker(common: Common, app: Chervil | None) -> dict[str, Any]:
    from chervil.client import Client

    try:
        client = app.client if app else Client(common.found(), connect_timeout=CONNECT_SECONDS)
    except (ChervilError, click.ClickException) as error:
        return {"url": None, "source": None, "error": _reason(error)}
    found: Found = client.found
    part = {"url": found.redacted, "source": found.source}
    try:
        answer = client.stats()
    except (ChervilError, OSError) as error:
        return {**part, "error": _reason(error)}
    finally:
        client.close()
    kept = {key: answer[key] for key in _ANSWER if key in answer}
    counts = {key: len(answer.get(key, ())) for key in ("queues", "workers")}
    return {**part, "answer": kept | counts}


def _reason(error: Exception) -> str:
    message = error.format_message() if isinstance(error, click.ClickException) else str(error)
    return masked_text(message or type(error).__name__)


def _told_broker(part: Mapping[str, Any]) -> list[str]:
    if part["url"] is None:
        return ["broker", f"  {part['error']}"]
    lines = [f"broker {part['url']} (from {part['source']})"]
    if "error" in part:
        return [*lines, f"  {part['error']}"]
    answer = part["answer"]
    memory = answer.get("memory", {})
    lines.append(
        f"  Chervil {answer.get('version')}, up {span(answer.get('uptime_ms', 0))}, "
        f"durability: {answer.get('durability')}, publishing: {answer.get('publishing', 'open')}"
    )
    lines.append(
        f"  {memory.get('bytes', 0) / 2**20:.0f} MiB of {memory.get('limit', 0) / 2**20:.0f} MiB used, "
        f"queues: {answer['queues']}, workers: {answer['workers']}"
    )
    if tasks := {stage: count for stage, count in answer.get("tasks", {}).items() if count}:
        lines.append("  tasks: " + ", ".join(f"{count} {stage}" for stage, count in tasks.items()))
    return lines + [f"  warning: {text}" for text in answer.get("warnings", [])]


def _told_app(part: Mapping[str, Any] | None) -> list[str]:
    if part is None:
        return ["app: none named (-A)"]
    if "error" in part:
        return [f"app {part['name']}", f"  {part['error']}"]
    lines = [f"app {part['name']}, tasks: {part['tasks']}"]
    if not part["settings"]:
        return [*lines, "  every setting has its default"]
    return lines + [f"  {name} = {value!r}" for name, value in part["settings"].items()]
