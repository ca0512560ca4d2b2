"""What every verb is told: the options accepted before and after the verb, and the environment.

The root group and each verb get fresh copies of the options (`common_options`); their callbacks write
into one `Common`, which is `ctx.obj`. What is typed after the verb wins over what stands before it.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import click

from chervil.address import Found, URLs, find_broker, found_at
from chervil.tls_files import TLSFiles
from chervil.version import __version__

#: Every environment name that is read, and nothing else with the prefix: Kubernetes injects names such
#: as CHERVIL_BROKER_PORT into its pods, so click's automatic prefix stays off.
ENVIRONMENT: dict[str, str] = {
    "CHERVIL_APP": "the app, as -A",
    "CHERVIL_BROKER_URL": "the broker, as -b",
    "CHERVIL_TOKEN": "the broker's token",
    "CHERVIL_TOKEN_FILE": "a file that holds the broker's token",
    "CHERVIL_TLS_CA": "a file with the CAs that the broker's certificate may come from",
    "CHERVIL_TLS_CERT": "a file with this client's certificate",
    "CHERVIL_TLS_KEY": "a file with its key",
    "CHERVIL_DATA": "the broker's data folder",
    "NO_COLOR": "no colours when set, as -C",
}

#: Keys of [tool.chervil]; both are strings and mean what the flag means.
CONFIG_KEYS = ("app", "broker")


@dataclass(slots=True)
class Common:
    """The common options, complete once the verb's own command line is read.

    `app` and `broker` are what was typed or stands for it: `app` also comes from CHERVIL_APP and
    [tool.chervil], `broker` only from the flag; `found()` says which broker that makes.
    """

    app: str | None = None
    broker: str | None = None
    config: Path | None = None
    workdir: Path = field(default_factory=Path.cwd)
    color: bool = field(default_factory=lambda: not os.environ.get("NO_COLOR"))
    quiet: bool = False
    verbose: int = 0
    json: bool = False
    debug: bool = False

    def found(self, app_urls: URLs | None = None, app_files: TLSFiles | None = None) -> Found:
        """The broker to talk to, and who said so.

        Flag > CHERVIL_BROKER_URL > [tool.chervil] > `app_urls` (the app's own setting) > a running
        `dev` of this folder > default. `app_files` is the app's `broker_use_ssl`. Raises click.UsageError for
        a URL that cannot be used.
        """
        try:
            if not self._said_outright():
                path, settings = self.settings()
                if "broker" in settings:
                    source = f"[tool.chervil] in {path}"
                    correction = 'set broker = "{}" in [tool.chervil]'
                    return found_at(settings["broker"], source, correction, app_files)
            return find_broker(self.broker, app_urls, self.workdir, app_files)
        except ValueError as error:
            raise click.UsageError(str(error)) from error

    @property
    def asks_the_app(self) -> bool:
        """Whether only the app can say which broker is meant, as nothing that goes before its setting does,
        or with which files to speak TLS to it.
        """
        if self.app is None:
            return False
        if not self._said_outright() and "broker" not in self.settings()[1]:
            return True
        return any(url.scheme == "chervils" for url in self.found().urls)

    def _said_outright(self) -> bool:
        return self.broker is not None or bool(os.environ.get("CHERVIL_BROKER_URL"))

    def settings(self) -> tuple[Path, dict[str, str]]:
        """The file that may hold [tool.chervil], and that table; a missing table is an empty one."""
        path = self.config or self.workdir / "pyproject.toml"
        # os.path, because Path's raises in a folder that is not ours to look into.
        if self.config is None and not os.path.isfile(path):  # noqa: PTH113
            return path, {}
        import tomllib  # here, as most command lines meet no such file

        try:
            document = tomllib.loads(path.read_text("utf-8"))
        except OSError as error:
            raise click.UsageError(f"cannot read {path}: {error.strerror}") from error
        except ValueError as error:
            raise click.UsageError(f"{path} is not valid TOML: {error}") from error
        table = document.get("tool", {}).get("chervil", {})
        for key, value in table.items():
            if key not in CONFIG_KEYS:
                hint = did_you_mean(key, CONFIG_KEYS) or " Settings of the app belong in app.conf."
                raise click.UsageError(f"[tool.chervil] in {path} has no key {key!r}.{hint}")
            if not isinstance(value, str):
                # Not the value itself: of URLs in a list it would show the tokens.
                several = '; several URLs have ";" between them' if key == "broker" else ""
                raise click.UsageError(
                    f"[tool.chervil] in {path}: {key} must be a string, not {type(value).__name__}{several}"
                )
        return path, table


def did_you_mean(word: str, possibilities: Iterable[str]) -> str:
    """The near ones among the possibilities, in click's words and with a leading space; "" if none is."""
    near = sorted(get_close_matches(word, list(possibilities)))
    if len(near) == 1:
        return f" Did you mean {near[0]!r}?"
    return f" (Did you mean one of: {', '.join(map(repr, near))}?)" if near else ""


def common_of(ctx: click.Context) -> Common:
    """The one `Common` of this command line."""
    return ctx.find_root().ensure_object(Common)


def common_options(*, hidden: bool = False) -> list[click.Option]:
    """Fresh copies of the common options; `hidden` leaves them out of a verb's own help."""

    def option(*names: str, help: str, eager: bool = False, **attrs: Any) -> click.Option:  # noqa: A002
        return click.Option(
            names, help=help, is_eager=eager, expose_value=False, hidden=hidden, callback=_store, **attrs
        )

    a_file = click.Path(exists=True, dir_okay=False, path_type=Path)
    a_folder = click.Path(exists=True, file_okay=False, resolve_path=True, path_type=Path)
    return [
        option("-A", "--app", metavar="MODULE[:ATTR]", help="The app to load."),
        option("-b", "--broker", metavar="URL", help="The broker to talk to."),
        # Eager, so that they are known when `app` is looked up.
        option("--workdir", metavar="FOLDER", type=a_folder, eager=True, help="Where the app lives."),
        option("--config", metavar="FILE", type=a_file, eager=True, help="Read [tool.chervil] from here."),
        option("-C", "--no-color", is_flag=True, default=None, help="No colours."),
        option("-q", "--quiet", is_flag=True, default=None, help="Say less."),
        option("-v", "--verbose", count=True, help="Say more; twice: everything."),
        option("--json", is_flag=True, default=None, help="Answer in JSON."),
        option("--debug", is_flag=True, default=None, eager=True, help="Show tracebacks."),
        click.Option(
            ["--version"], is_flag=True, is_eager=True, expose_value=False, hidden=hidden,
            callback=_version, help="Say which release this is.",
        ),
    ]  # fmt: skip


def _store(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    common = common_of(ctx)
    if param.name == "no_color":
        if value:
            common.color = False
        if not common.color:
            ctx.color = False
    elif value:
        setattr(common, str(param.name), value)
    if param.name == "app" and ctx.parent is not None and common.app is None:
        # The verb's command line is the last to be read: only now may something stand in for the flag.
        common.app = os.environ.get("CHERVIL_APP") or common.settings()[1].get("app")


def _version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value:
        click.echo(f"chervil {__version__}")
        ctx.exit()
