"""`chervil completion`: the script that makes a shell complete this program's words."""

import click
from click.shell_completion import get_completion_class

from chervil.cli import exits

#: Has `chervil` answer the shell instead of running; click reads it, and the scripts set it.
COMPLETE_VARIABLE = "_CHERVIL_COMPLETE"

SHELLS = ("bash", "zsh", "fish")


@click.command(short_help="Print the script that completes verbs and options.")
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> int:
    """Print the script that makes a shell complete verbs, options and their values after Tab.

    The shell runs it at its start.

    \b
    Examples:
      echo 'eval "$(chervil completion bash)"' >> ~/.bashrc
      echo 'eval "$(chervil completion zsh)"' >> ~/.zshrc
      chervil completion fish > ~/.config/fish/completions/chervil.fish
    """
    script = get_completion_class(shell)
    assert script is not None
    click.echo(script(ctx.find_root().command, {}, "chervil", COMPLETE_VARIABLE).source(), nl=False)
    return exits.OK
