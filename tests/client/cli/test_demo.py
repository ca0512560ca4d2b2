"""`chervil demo`: what it shows, and that it leaves nothing behind when something goes wrong."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import click
import pytest

from chervil.cli import daemons, demo, demo_tasks
from chervil.cli.common import Common
from chervil.cli.demo import library_files
from chervil.cli.demo_kill import Tally
from chervil.exceptions import OperationalError
from tests.client.cli.conftest import Ran

DEADLINE = 30.0


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the demo makes its temporary folder; empty when it has ended."""
    here = tmp_path / "t"
    here.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(here))
    monkeypatch.setenv("TMPDIR", str(here))
    return here


def start() -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "chervil.cli", "demo"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )


def test_the_library_is_parsed_without_its_tests_and_what_was_installed(tmp_path: Path) -> None:
    for name in ("ast.py", "json/tool.py", "test/x.py", "json/tests/x.py", "site-packages/x.py"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text("")
    assert library_files(tmp_path) == [tmp_path / "ast.py", tmp_path / "json" / "tool.py"]


def test_functions_are_counted_and_the_longest_named(tmp_path: Path) -> None:
    source = tmp_path / "x.py"
    source.write_text("def a():\n    def b():\n        pass\n\nasync def c():\n    pass\n")
    assert demo_tasks.longest_functions(str(source)) == (3, [(3, "a", 1), (2, "c", 5), (2, "b", 2)])
    assert demo_tasks.nothing() is None


def test_a_note_says_who_wrote_it_and_whether_it_may_be_the_second(tmp_path: Path) -> None:
    demo_tasks.note(str(tmp_path / "notes"), 7)
    demo_tasks.note.apply((str(tmp_path / "notes"), 8))
    assert (tmp_path / "notes").read_text() == f"7 {os.getpid()} 0\n8 {os.getpid()} 0\n"


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An environment's bin folder below the working folder, which is not on the PATH."""
    folder = Path.cwd() / ".venv" / "bin"
    folder.mkdir(parents=True)
    (folder / "chervil").write_text("#!/bin/sh\n")
    (folder / "chervil").chmod(0o755)
    monkeypatch.setattr("sys.executable", str(folder / "python"))
    monkeypatch.setattr("sys.argv", [str(folder / "chervil"), "demo"])
    monkeypatch.setenv("PATH", str(tmp_path))
    return folder


def test_the_command_to_type_is_where_it_is_unless_the_path_has_it(
    environment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert demo.command_line() == ".venv/bin/chervil"
    monkeypatch.setattr("sys.argv", ["/x/cli/__main__.py", "demo"])
    assert demo.command_line() == ".venv/bin/chervil"
    monkeypatch.chdir(environment)
    assert demo.command_line() == str(environment / "chervil")
    monkeypatch.setenv("PATH", str(environment))
    assert demo.command_line() == "chervil"
    (environment / "chervil").unlink()
    assert demo.command_line() == f"{environment}/python -m chervil.cli"


def test_a_broker_that_does_not_start_is_shown_with_its_lines(
    chervil: Callable[..., Ran], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        daemons,
        "broker_command",
        lambda *args: [sys.executable, "-c", "print('no room'); raise SystemExit(3)"],
    )
    ran = chervil("demo")
    assert ran.code == 1
    assert "the demo does not work here: the broker does not answer" in ran.err
    assert "broker | no room" in ran.err
    assert list(folder.iterdir()) == []


@pytest.mark.e2e
def test_a_worker_that_dies_is_shown_with_its_lines(
    chervil: Callable[..., Ran], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        daemons,
        "worker_command",
        lambda *args: [sys.executable, "-c", "print('no hands'); raise SystemExit(3)"],
    )
    ran = chervil("demo")
    assert ran.code == 1
    assert "the worker is gone" in ran.err
    assert "worker | no hands" in ran.err
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("gone", [True, False])
def test_a_broker_lost_while_waiting_is_told_by_its_end_where_it_ended(
    monkeypatch: pytest.MonkeyPatch, gone: bool
) -> None:
    class Daemons:
        def check(self) -> None:
            if gone:
                raise click.ClickException("the broker is gone")

    class Client:
        def wait(self, ids: list[str], timeout: float) -> None:
            raise OperationalError("lost the broker")

    monkeypatch.setattr(demo_tasks, "app", SimpleNamespace(client=Client()))
    show = demo._Show(Common(), cast("daemons.Daemons", Daemons()))
    with pytest.raises(click.ClickException if gone else OperationalError):
        next(show._statuses(["a"], "tasks done"))


@pytest.mark.e2e
def test_a_worker_that_does_nothing_is_not_waited_for_for_ever(
    chervil: Callable[..., Ran], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "PATIENCE", 0.5)
    monkeypatch.setattr(
        daemons, "worker_command", lambda *args: [sys.executable, "-c", "import signal; signal.pause()"]
    )
    ran = chervil("demo")
    assert ran.code == 1
    assert "no result came for 0.5 s" in ran.err


@pytest.mark.e2e
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_takes_everything_with_it(folder: Path, number: int) -> None:
    running = start()
    assert running.stdout is not None
    assert running.stdout.readline().startswith("Parsing Python")
    running.send_signal(number)
    _, err = running.communicate(timeout=DEADLINE)
    assert running.returncode == 130
    assert "Traceback" not in err
    assert list(folder.iterdir()) == []


@pytest.mark.e2e
def test_it_shows_ten_functions_a_figure_and_what_to_try_next(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(folder))
    running = start()
    out, err = running.communicate(timeout=DEADLINE)
    assert (running.returncode, err) == (0, "")
    lines = out.splitlines()
    heading = lines.index(next(line for line in lines if line.startswith("LINES  FUNCTION")))
    assert lines[heading + 11] == ""
    assert "tasks/s" in out
    assert demo.command_line() != "chervil"
    assert f"    {demo.command_line()} -A tasks dev" in lines
    assert max(map(len, (line for line in lines if line not in lines[heading : heading + 11]))) <= 80
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("tally", "code"), [(Tally(), 0), (Tally(lost=1), 1), (Tally(untold=1, ran_twice=1), 1)]
)
def test_it_ends_with_1_when_something_was_lost_or_repeated_without_a_word(
    chervil: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch, tally: Tally, code: int
) -> None:
    monkeypatch.setattr(demo, "Daemons", lambda durable: contextlib.nullcontext())
    monkeypatch.setattr(demo, "kill_and_count", lambda daemons, say: tally)
    ran = chervil("demo", "--kill")
    assert (ran.code, ran.out) == (code, tally.text() + "\n")
    ran = chervil("demo", "--kill", "--json")
    assert (ran.code, json.loads(ran.out)) == (code, tally.figures())
