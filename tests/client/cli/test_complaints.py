"""Errors as people read them, and their exit codes."""

from collections.abc import Callable
from pathlib import Path

import click
import pytest

from chervil import exceptions
from chervil.cli.common import Common
from chervil.cli.complaints import complain, users_frames, warn
from tests.client.cli.conftest import Ran

Run = Callable[..., Ran]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (exceptions.OperationalError("no broker"), 69),
        (exceptions.PublishUnconfirmed(["i"]), 69),
        (exceptions.PublishRefused(["i"], "FULL", "no room"), 69),
        (exceptions.PublishRefused(["i"], "BODY_TOO_LARGE", "too large"), 2),
        (exceptions.UnknownTask("gone"), 69),
        (exceptions.TimeoutError("too late"), 124),
        (exceptions.EncodeError("no JSON"), 2),
        (exceptions.ImproperlyConfigured("no such setting"), 2),
        (PermissionError(13, "Permission denied", "/x"), 69),
    ],
)
def test_each_kind_of_error_is_one_line_with_its_code(
    capsys: pytest.CaptureFixture[str], error: Exception, code: int
) -> None:
    assert complain(error, Common()) == code
    assert capsys.readouterr().err == f"Error: {error}\n"
    assert complain(error, Common(debug=True)) == code
    assert type(error).__qualname__ in capsys.readouterr().err


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Puts source into broken.py of the working folder."""
    import sys

    monkeypatch.setattr(sys, "path", [*sys.path])

    def write(source: str) -> None:
        sys.modules.pop("broken", None)
        Path("broken.py").write_text(source)

    return write


def test_a_module_that_fails_to_import_shows_the_users_own_frame_first(
    chervil: Run, broken: Callable[[str], None]
) -> None:
    broken("def setup():\n    return {}['nothing']\n\nsetup()\n")
    ran = chervil("-A", "broken", "status")
    assert ran.code == 2
    lines = ran.err.splitlines()
    assert lines[0] == "Error: broken cannot be imported: KeyError: 'nothing'"
    assert lines[2] == f'  File "{Path.cwd()}/broken.py", line 4, in <module>'
    assert "importlib" not in ran.err
    assert "importlib" in chervil("-A", "broken", "status", "--debug").err


def test_a_syntax_error_shows_its_line(chervil: Run, broken: Callable[[str], None]) -> None:
    broken("x = (\n")
    ran = chervil("-A", "broken", "status")
    assert ran.code == 2
    assert "broken.py" in ran.err
    assert "x = (" in ran.err
    assert "importlib" not in ran.err


def test_a_missing_module_is_named_without_a_traceback(chervil: Run, broken: Callable[[str], None]) -> None:
    ran = chervil("-A", "no_such_module", "status")
    assert ran.code == 2
    assert "no module 'no_such_module'" in ran.err
    assert "Traceback" not in ran.err


def test_an_include_that_fails_to_import_shows_the_users_frame(
    chervil: Run, broken: Callable[[str], None]
) -> None:
    Path("included.py").write_text("import not_there\n")
    broken("from chervil import Chervil\napp = Chervil('x', include=['included'])\n")
    ran = chervil("-A", "broken", "status")
    assert ran.code == 2
    assert "a module of app.conf.include cannot be imported: No module named 'not_there'" in ran.err
    assert "included.py" in ran.err.splitlines()[2]


def test_the_apps_own_broker_is_used_and_named(chervil: Run, broken: Callable[[str], None]) -> None:
    broken("from chervil import Chervil\napp = Chervil('x', broker='chervil://127.0.0.1:9')\n")
    ran = chervil("-A", "broken", "status")
    assert ran.code == 69
    assert "chervil://127.0.0.1:9 (app)" in ran.err


def test_a_warning_is_a_line_that_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    warn(Common(), "mind the gap")
    assert capsys.readouterr().err == "Warning: mind the gap\n"


def test_an_error_in_an_apps_settings_points_at_the_apps_own_line(
    chervil: Run, broken: Callable[[str], None]
) -> None:
    broken("from chervil import Chervil\napp = Chervil('x', task_seraliser='json')\n")
    ran = chervil("-A", "broken", "status")
    assert ran.code == 2
    assert ran.err.splitlines()[2] == f'  File "{Path.cwd()}/broken.py", line 2, in <module>'


def test_what_a_broker_says_does_not_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    error = exceptions.OperationalError("refused: \x1b[2J\u202e")
    complain(error, Common())
    complain(error, Common(debug=True))
    warn(Common(), "\x1b[2J\nx")
    err = capsys.readouterr().err
    assert err.count("refused: \\x1b[2J\\u202e\n") == 2
    assert err.endswith("Warning: \\x1b[2J\\nx\n")


def test_a_full_broker_says_what_was_not_stored_and_is_69(capsys: pytest.CaptureFixture[str]) -> None:
    text = "the broker's tasks take 95 % of its memory; try again later"
    assert complain(exceptions.PublishRefused(["a"], "FULL", text), Common()) == 69
    assert capsys.readouterr().err == f"Error: task a not stored: FULL: {text}\n"


def test_an_error_without_a_frame_of_the_users_has_no_frames_to_show() -> None:
    assert users_frames(ValueError("raised nowhere")) == ""


def test_debug_keeps_the_code_of_a_clicks_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert complain(click.ClickException("nothing was purged"), Common(debug=True)) == 1
    assert "nothing was purged" in capsys.readouterr().err
