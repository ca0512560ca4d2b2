"""The table of verbs against the commands that it names."""

import importlib
import subprocess
import sys

import click
import pytest

from chervil.cli.common import common_options
from chervil.cli.verbs import VERBS


def command(verb: str) -> click.Command:
    module, _, attribute = VERBS[verb].target.partition(":")
    found = getattr(importlib.import_module(module), attribute)
    assert isinstance(found, click.Command)
    return found


@pytest.mark.parametrize("verb", VERBS)
def test_table_says_what_the_command_says_of_itself(verb: str) -> None:
    assert command(verb).get_short_help_str(limit=100) == VERBS[verb].help


@pytest.mark.parametrize("verb", VERBS)
def test_no_verb_takes_the_name_of_a_common_option(verb: str) -> None:
    common = {name for option in common_options() for name in option.opts}
    own = {name for param in command(verb).params for name in param.opts}
    assert not common & own


@pytest.mark.parametrize("verb", VERBS)
def test_every_option_of_every_verb_says_what_it_does(verb: str) -> None:
    silent = [p.name for p in command(verb).params if isinstance(p, click.Option) and not p.help]
    assert silent == []


@pytest.mark.parametrize("verb", [name for name, verb in VERBS.items() if verb.target.startswith("chervil.")])
def test_every_verb_of_ours_shows_an_example_of_itself(verb: str) -> None:
    _, _, examples = (command(verb).help or "").partition("Example")
    assert f"\n  chervil {verb}" in examples or f" {verb}" in examples.splitlines()[1]


def test_help_loads_no_verb_and_no_event_loop() -> None:
    script = (
        "import sys\n"
        "from chervil.cli.main import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "print([m for m in sys.modules if m.startswith(('chervil_', 'chervil.cli.')) or m in ('asyncio', 'uvloop', 'ssl')])"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    loaded = ran.stdout.splitlines()[-1]
    assert loaded == str(["chervil.cli.exits", "chervil.cli.common", "chervil.cli.verbs", "chervil.cli.main"])
