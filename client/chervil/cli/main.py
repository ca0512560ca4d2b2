"""The command `chervil`: finds the verb, hands it the common options, turns errors into exit codes."""

import copy
import importlib
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

import click

from chervil.cli import exits
from chervil.cli.common import Common, common_options
from chervil.cli.verbs import VERBS

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

_EPILOG = (
    "Also understood here, and before the verb: -A, -b, --workdir, --config, -C, -q, -v, --json, --debug; "
    "`chervil --help` explains them."
)


class Root(click.Group):
    """A group whose verbs are imported only when they run; their help lines come from the table."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        verb = VERBS.get(cmd_name)
        if verb is None:
            raise click.exceptions.NoSuchCommand(cmd_name, possibilities=VERBS, ctx=ctx)
        module, _, attribute = verb.target.partition(":")
        declared: click.Command = getattr(importlib.import_module(module), attribute)
        command = copy.copy(declared)
        command.params = [*declared.params, *common_options(hidden=True)]
        command.epilog = _EPILOG
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> "list[CompletionItem]":
        """Verbs from the table: completing them imports none. Options are click's own affair."""
        from click.shell_completion import CompletionItem

        begun = [(name, verb.help) for name, verb in VERBS.items() if name.startswith(incomplete)]
        options = click.Command.shell_complete(self, ctx, incomplete)
        return [*(CompletionItem(name, help=text) for name, text in begun), *options]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Verbs"):
            formatter.write_dl([(name, verb.help) for name, verb in VERBS.items()])


root = Root(
    name="chervil",
    params=[*common_options()],
    help="Run Python functions in the background. Start with: chervil demo",
    subcommand_metavar="VERB ...",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Runs a command line (default: sys.argv) and exits with its code; see chervil.cli.exits."""
    common = Common()
    try:
        code = _run(argv, common)
    except KeyboardInterrupt:  # outside of what click watches over, such as while an error is told
        code = exits.INTERRUPTED
    sys.exit(code)


def _run(argv: Sequence[str] | None, common: Common) -> int:
    try:
        code: int | None = root.main(argv, prog_name="chervil", standalone_mode=False, obj=common)
    except click.Abort:
        return exits.INTERRUPTED
    except Exception as error:  # every error ends here, as a message and a code
        from chervil.cli.complaints import complain

        return complain(error, common)
    return code or exits.OK
