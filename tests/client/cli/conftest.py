"""Running the command line in this process, and the environment that it must not see."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from chervil.address import BrokerURL, Found
from chervil.cli.common import ENVIRONMENT
from chervil.cli.main import main
from chervil.client import Status
from chervil.protocol import Stage


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


@dataclass
class Broker:
    """Stands where a client of a broker would, with canned answers."""

    found: Found
    report: dict[str, Any]
    statuses: list[Status]
    purged: list[list[str]]
    waited: list[float | None]
    published: list[list[Any]]
    #: What a waiter is told of a loss; None where there is none.
    lost: str | None = None

    def publish(self, rows: list[list[Any]], deadline: float) -> None:
        self.published += rows

    def stats(self) -> dict[str, Any]:
        return self.report

    def purge(self, queues: list[str]) -> int:
        self.purged.append(queues)
        return sum(q["ready"] + q["scheduled"] for q in self.report["queues"])

    def query(self, ids: list[str]) -> list[Status]:
        return self.statuses or [Status(id_, Stage.UNKNOWN, None, None, {}) for id_ in ids]

    def wait(
        self,
        ids: list[str],
        timeout: float | None,
        on_wait: Callable[[list[Status]], None] | None = None,
        on_lost: Callable[[str], None] | None = None,
        patience: float | None = None,
    ) -> list[Status]:
        self.waited.append(timeout)
        if self.lost is not None and on_lost is not None:
            on_lost(self.lost)
        if on_wait is not None:
            on_wait(self.statuses)
        return self.statuses

    def close(self) -> None:
        pass


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> Broker:
    """The broker that every verb finds instead of a real one."""
    here = Broker(
        found=Found(BrokerURL.parse("chervil://127.0.0.1:2437"), "default"),
        report={
            "version": "0.1.0",
            "instance": "ab" * 16,
            "durability": "memory",
            "uptime_ms": 90_000,
            "memory": {"bytes": 2**20, "limit": 2**29},
            "queues": [],
            "workers": [],
            "warnings": [],
        },
        statuses=[],
        purged=[],
        waited=[],
        published=[],
    )
    monkeypatch.setattr("chervil.client.Client", lambda *args, **kwargs: here)
    monkeypatch.setattr("chervil.cli.connect.Client", lambda *args, **kwargs: here)
    return here
