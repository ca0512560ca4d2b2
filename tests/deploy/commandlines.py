"""Whether a command line of ours, as units and documents write it, names verbs and options that there are."""

import re
import shlex
from collections.abc import Iterator, Sequence
from itertools import takewhile
from pathlib import Path

import click

from chervil.cli.common import common_options
from chervil.cli.main import root

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"

#: Where a command of the shell ends.
_OPERATORS = frozenset({"|", "||", "&&", ";", "&"})
_REDIRECTIONS = frozenset({"<", ">", ">>"})
#: What a container of compose is given, after the service's name, is for `chervil`.
_COMPOSE = re.compile(r"docker compose (?:run|exec) (?:-v \S+ |-\S+ )*(?:broker|worker) (?:chervil )?")
#: Without compose the image has the program's name.
_DOCKER = re.compile(r"docker (?:run .*|exec (?:-\S+ )*\S+) (?=chervil )")
_SUBSTITUTED = re.compile(r"\$\((chervil [^)]*)\)")
#: What may stand before a program's name: how it is run, as whom, with which variables.
_BEFORE = re.compile(r"(?:exec |sudo |runuser |env |-u \S+ |-- |\w+=\S* )*")


def mistakes(words: Sequence[str]) -> list[str]:
    """What is wrong with the words after `chervil`; a variable of the shell or of systemd may be anything."""
    command: click.Command = root
    rest = iter(words)
    for word in rest:
        if word.startswith("$"):
            continue
        if word.startswith("-") and len(word) > 1:
            name, has_value, _ = word.partition("=")
            option = _options([*command.params, *common_options()]).get(name)
            if option is None:
                return [f"{command.name} has no option {name}"]
            if not (has_value or option.is_flag or option.count):
                next(rest, None)
        elif isinstance(command, click.Group):
            found = _subcommand(command, word)
            if found is None:
                return [f"{command.name} has no command {word}"]
            command = found
    return []


def in_shell(text: str) -> Iterator[list[str]]:
    """The words after `chervil` of every command that runs it; lines may go on after a backslash."""
    text = _COMPOSE.sub("chervil ", text.replace("\\\n", " "))
    text = _DOCKER.sub("", text)
    for line in [*text.splitlines(), *_SUBSTITUTED.findall(text)]:
        command: list[str] = []
        for word in [*shlex.split(line, comments=True), ";"]:
            if word not in _OPERATORS:
                command.append(word)
                continue
            command = command[_BEFORE.match(" ".join(command) + " ")[0].count(" ") :]
            if command and command[0].rpartition("/")[2] == "chervil":
                yield list(takewhile(lambda word: word not in _REDIRECTIONS, command[1:]))
            command = []


def _subcommand(group: click.Group, word: str) -> click.Command | None:
    try:
        return group.get_command(click.Context(group), word)
    except click.UsageError:
        return None


def _options(params: Sequence[click.Parameter]) -> dict[str, click.Option]:
    return {
        name: param
        for param in params
        if isinstance(param, click.Option)
        for name in (*param.opts, *param.secondary_opts)
    }
