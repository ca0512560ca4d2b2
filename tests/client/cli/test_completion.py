"""`chervil completion`: scripts for shells, and answers that load no more than they must."""

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from chervil.cli.completion import COMPLETE_VARIABLE, SHELLS
from chervil.cli.verbs import VERBS
from tests.client.cli.conftest import Ran

Run = Callable[..., Ran]


@pytest.mark.parametrize("shell", SHELLS)
def test_each_shell_gets_its_script(chervil: Run, shell: str) -> None:
    ran = chervil("completion", shell)
    assert ran.code == 0
    assert f"{COMPLETE_VARIABLE}={shell}_complete" in ran.out
    assert "_chervil_completion" in ran.out


@pytest.mark.parametrize("line", [["completion"], ["completion", "tcsh"]])
def test_another_shell_is_a_mistake_that_names_those_there_are(chervil: Run, line: list[str]) -> None:
    ran = chervil(*line)
    assert ran.code == 2
    assert all(shell in ran.err for shell in SHELLS)


def answers(words: str, at: int) -> tuple[list[str], list[str]]:
    """What the shell is told after these words, and the modules of ours that were loaded for it."""
    script = (
        "import sys\n"
        "from chervil.cli.main import main\n"
        "try: main([])\n"
        "except SystemExit: pass\n"
        "ours = [m for m in sys.modules if m.startswith('chervil_') or m in ('asyncio', 'uvloop', 'ssl')]\n"
        "print(*ours, file=sys.stderr)\n"
    )
    asked = {COMPLETE_VARIABLE: "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(at)}
    ran = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | asked,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    return ran.stdout.split(), ran.stderr.split()


def test_verbs_are_completed_from_the_table_without_loading_worker_or_broker() -> None:
    completed, loaded = answers("chervil ", 1)
    assert completed == [f"plain,{verb}" for verb in VERBS]
    assert loaded == []


def test_a_verb_that_was_begun_is_completed() -> None:
    assert answers("chervil wor", 1) == (["plain,worker"], [])


def test_options_of_a_verb_are_completed() -> None:
    completed, _ = answers("chervil worker --conc", 2)
    assert completed == ["plain,--concurrency"]


def test_options_before_the_verb_are_completed() -> None:
    completed, loaded = answers("chervil --work", 1)
    assert completed == ["plain,--workdir"]
    assert loaded == []


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash here")
def test_bash_completes_with_the_script_that_it_was_given(chervil: Run, tmp_path: Path) -> None:
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "chervil"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m chervil.cli "$@"\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    script = tmp_path / "completion.bash"
    script.write_text(chervil("completion", "bash").out)
    typed = (
        f'source "{script}"; COMP_WORDS=(chervil hea); COMP_CWORD=1; '
        '_chervil_completion chervil hea chervil; echo "${COMPREPLY[@]}"'
    )
    ran = subprocess.run(
        ["bash", "--norc", "-c", typed],
        env=os.environ | {"PATH": f"{folder}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert (ran.stdout, ran.stderr) == ("health\n", "")
