"""Questions before something that cannot be taken back."""

import sys

import click


def ask(question: str, *, unasked: str, declined: str) -> None:
    """Goes on after a yes.

    Raises ClickException saying `declined` after a no, and UsageError where there is no terminal to ask
    on; that names the option that does not ask (`unasked`).
    """
    if not sys.stdin.isatty():
        raise click.UsageError(f"it asks first, and there is no terminal to ask on; {unasked} does not ask")
    if not click.confirm(question, err=True):
        raise click.ClickException(declined)
