"""Noticing that the project's Python files changed."""

import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from chervil.cli import watch as watching
from chervil.cli.processes import Changed, Events, next_event
from chervil.cli.watch import Poller, source_files, watch

DEADLINE = 20.0


def test_source_files_leave_out_what_is_not_the_projects(tmp_path: Path) -> None:
    for name in (
        "a.py",
        "pkg/b.py",
        "pkg/c.txt",
        ".venv/x.py",
        "venv/x.py",
        "__pycache__/x.py",
        "node_modules/x.py",
    ):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("")
    assert list(source_files(tmp_path)) == [tmp_path / "a.py", tmp_path / "pkg" / "b.py"]


def test_poller_names_changed_new_and_removed_files_once(tmp_path: Path) -> None:
    a, b, c = (tmp_path / name for name in ("a.py", "b.py", "c.py"))
    a.write_text("")
    b.write_text("")
    poller = Poller(tmp_path)
    assert poller.changes() == ()
    os.utime(a, ns=(1, 1))
    b.unlink()
    c.write_text("")
    assert poller.changes() == (str(a), str(b), str(c))
    assert poller.changes() == ()


def test_poller_passes_over_broken_links(tmp_path: Path) -> None:
    (tmp_path / "gone.py").symlink_to(tmp_path / "nowhere")
    assert Poller(tmp_path).changes() == ()


def test_poller_looks_at_a_bounded_number_of_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "FILES_MAX", 1)
    (tmp_path / "a.py").write_text("")
    (tmp_path / "b.py").write_text("")
    poller = Poller(tmp_path)
    (tmp_path / "b.py").unlink()
    assert poller.changes() == ()


def test_without_watchfiles_the_files_are_polled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "watchfiles", None)  # type: ignore[arg-type]  # makes its import fail
    monkeypatch.setattr(watching, "INTERVAL", 0.01)
    events = Events()
    assert watch(tmp_path, events) == "looking every 0.01 s"
    (tmp_path / "new.py").write_text("")
    assert next_event(events, DEADLINE) == Changed((str(tmp_path / "new.py"),))


def test_with_watchfiles_its_changes_are_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake: Any = ModuleType("watchfiles")
    fake.PythonFilter = lambda: "python only"
    asked: list[tuple[Any, ...]] = []

    def changes(folder: Path, *, watch_filter: str, step: int) -> Any:
        asked.append((folder, watch_filter))
        yield {(1, "/p/b.py"), (2, "/p/a.py")}

    fake.watch = changes
    monkeypatch.setitem(sys.modules, "watchfiles", fake)
    events = Events()
    assert watch(tmp_path, events) == "watchfiles"
    assert next_event(events, DEADLINE) == Changed(("/p/a.py", "/p/b.py"))
    assert asked == [(tmp_path, "python only")]
