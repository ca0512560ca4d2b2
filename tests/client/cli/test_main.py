"""From a command line to an exit code."""

import subprocess
import sys
from collections.abc import Callable

import click
import pytest

from chervil.cli import verbs
from chervil.cli.verbs import VERBS
from chervil.version import __version__
from tests.client.cli.conftest import Ran

Run = Callable[..., Ran]


@click.command()
@click.argument("what")
def misbehave(what: str) -> int:
    if what == "interrupt":
        raise KeyboardInterrupt
    if what == "refuse":
        raise click.ClickException("no such luck")
    if what == "bug":
        raise ZeroDivisionError
    return int(what)


@pytest.fixture(autouse=True)
def misbehaving(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(verbs.VERBS, "misbehave", verbs.Verb(f"{__name__}:misbehave", "Misbehaves."))


def test_help_lists_every_verb_with_its_line(chervil: Run) -> None:
    ran = chervil("--help")
    assert ran.code == 0
    for name, verb in VERBS.items():
        assert f"  {name} " in ran.out
        assert verb.help in ran.out


def test_nothing_typed_shows_the_help(chervil: Run) -> None:
    ran = chervil()
    assert ran.code == 2
    assert "Verbs:" in ran.err


@pytest.mark.parametrize("verb", [*VERBS])
def test_help_of_a_verb_is_shown(chervil: Run, verb: str) -> None:
    ran = chervil(verb, "--help")
    assert ran.code == 0
    assert ran.out.startswith(f"Usage: chervil {verb}")
    assert "`chervil --help` explains them." in ran.out
    assert ran == chervil(verb, "-h")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (["wrker"], "No such command 'wrker'. (Did you mean"),
        (["--brokr", "x", "status"], "No such option '--brokr'. Did you mean"),
        (
            ["dev", "--no-relod"],
            "No such option '--no-relod'. (Did you mean one of: '--no-color', '--no-reload'?)",
        ),
        (["dev", "--debgu"], "No such option '--debgu'. Did you mean '--debug'?"),
        (["zzz"], "No such command 'zzz'."),
    ],
)
def test_a_mistyped_word_is_answered_with_the_near_ones(chervil: Run, line: list[str], message: str) -> None:
    ran = chervil(*line)
    assert ran.code == 2
    assert message in ran.err
    assert ran.out == ""


@pytest.mark.parametrize("code", [0, 1, 69, 124])
def test_a_verbs_return_value_is_the_exit_code(chervil: Run, code: int) -> None:
    assert chervil("misbehave", str(code)).code == code


def test_ctrl_c_is_130_without_a_traceback(chervil: Run) -> None:
    ran = chervil("misbehave", "interrupt")
    assert ran.code == 130
    assert "Traceback" not in ran.err


def test_a_refusal_is_one_line(chervil: Run) -> None:
    ran = chervil("misbehave", "refuse")
    assert (ran.code, ran.err) == (1, "Error: no such luck\n")


def test_our_own_bug_shows_everything_and_says_whose_it_is(chervil: Run) -> None:
    ran = chervil("misbehave", "bug")
    assert ran.code == 1
    assert "ZeroDivisionError" in ran.err
    assert "bug in Chervil" in ran.err


def test_shell_completion_knows_the_verbs(chervil: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_CHERVIL_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", "chervil hea")
    monkeypatch.setenv("COMP_CWORD", "1")
    assert chervil().out == "plain,health\n"


def test_interrupted_while_an_error_is_told_it_is_130_too(
    chervil: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*args: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("chervil.cli.complaints.complain", interrupt)
    assert chervil("misbehave", "refuse") == Ran(130, "", "")


@pytest.mark.parametrize("module", ["chervil", "chervil.cli"])
def test_python_runs_the_package_as_the_command(module: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", module, "--version"], capture_output=True, text=True, timeout=30, check=False
    )
    assert (ran.returncode, ran.stdout) == (0, f"chervil {__version__}\n")
