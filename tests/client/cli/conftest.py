"""Running the command line in this process, and the environment that it must not see."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from chervil.cli.common import ENVIRONMENT
from chervil.cli.main import main


@dataclass
class Ran:
    """What one command line did."""

    code: int
    out: str
    err: str


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No broker, app or token of the person who runs the tests; an empty working folder."""
    for name in ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.chdir(folder)


@pytest.fixture
def chervil(capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    def run(*argv: str) -> Ran:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(argv)
        code = ended.value.code
        captured = capsys.readouterr()
        assert isinstance(code, int)
        return Ran(code, captured.out, captured.err)

    return run
