"""Running the command line in this process, and the environment that it must not see."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from chervil.address import BrokerURL, Found
from chervil.cli.common import ENVIRONMENT
from chervil.cli.main import main
from chervil.client import Status
from chervil.exceptions import AccessRefused
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
    #: What `history` answers; the task is unknown where it is None.
    life: dict[str, Any] | None = None
    letters: list[dict[str, Any]] = field(default_factory=list)
    #: Ids that `rerun`, `revoke` and `forget` count; and what they were asked, in order.
    countable: set[str] = field(default_factory=set)
    asked: list[tuple[Any, ...]] = field(default_factory=list)

    forbids_stats: bool = False

    #: How many seconds each publish and query had; and how long one takes, because the broker is full.
    deadlines: list[float] = field(default_factory=list)
    full_for: float | None = None

    def publish(
        self,
        rows: list[list[Any]],
        deadline: float,
        wait: bool = True,
        on_full: Callable[[], None] | None = None,
    ) -> None:
        self.deadlines.append(deadline)
        if self.full_for is not None:
            assert on_full is not None
            on_full()
            time.sleep(self.full_for)  # what is tested is how long it took
        self.published += rows

    def stats(self) -> dict[str, Any]:
        if self.forbids_stats:
            raise AccessRefused("this wants the role control")
        return self.report

    def purge(self, queues: list[str]) -> int:
        self.purged.append(queues)
        return sum(q["ready"] + q["scheduled"] for q in self.report["queues"])

    def query(self, ids: list[str], deadline: float = 10.0) -> list[Status]:
        self.deadlines.append(deadline)
        known = {status.id: status for status in self.statuses}
        return [known.get(id_, Status(id_, Stage.UNKNOWN, None, None, {})) for id_ in ids]

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

    def history(self, id_: str) -> dict[str, Any]:
        return self.life or {"id": id_, "stage": "UNKNOWN"}

    def dead(self) -> Iterator[dict[str, Any]]:
        yield from self.letters

    def rerun(self, ids: list[str]) -> int:
        return self._count("rerun", ids)

    def forget(self, ids: list[str]) -> int:
        return self._count("forget", ids)

    def revoke(self, ids: list[str], terminate: bool, signal: int | None) -> int:
        return self._count("revoke", ids, terminate, signal)

    def _count(self, what: str, ids: list[str], *more: Any) -> int:
        self.asked.append((what, list(ids), *more))
        return len(self.countable & set(ids))

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
    # In this order: an import of `connect` after the other one would keep the stand-in for good.
    monkeypatch.setattr("chervil.cli.connect.Client", lambda *args, **kwargs: here)
    monkeypatch.setattr("chervil.client.Client", lambda *args, **kwargs: here)
    return here


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], list[str]]:
    """Makes stdin a terminal at which a person answers yes or no; what was asked is kept."""

    def answer(yes: bool) -> list[str]:
        asked: list[str] = []

        def confirm(question: str, **how: object) -> bool:
            asked.append(question)
            return yes

        monkeypatch.setattr("sys.stdin.isatty", lambda: True)
        monkeypatch.setattr("click.confirm", confirm)
        return asked

    return answer


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Makes stdout a terminal of so many columns, for what is cut and wrapped."""

    def wide(width: int) -> None:
        monkeypatch.setattr("chervil.cli.terminal.columns", lambda **_: width)
        monkeypatch.setattr("chervil.cli.listing.columns", lambda **_: width)

    return wide


@pytest.fixture
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Local time is that of Berlin: one hour before UTC in winter."""
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()
