"""Which Python files of a project changed: watchfiles where it is installed, else their mtimes."""

import os
import threading
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

from chervil.cli.processes import Changed, Events

#: Seconds between two looks at the files, where nobody tells us.
INTERVAL = 0.5

#: How many files are looked at, twice a second: beyond this the looking itself would be felt.
FILES_MAX = 10_000

#: Folders that hold no source of the project; hidden ones (.venv, .git, .chervil) are left out too.
_NOT_SOURCE = frozenset({"__pycache__", "node_modules", "site-packages", "venv"})


def watch(folder: Path, events: Events) -> str:
    """Puts a `Changed` into `events` whenever Python files change, until the process ends; says how."""
    try:
        watchfiles = import_module("watchfiles")
    except ImportError:
        # The first look is taken here and not in the thread: a change right after this call counts.
        poller = Poller(folder)
        threading.Thread(target=_poll, args=(poller, events), name="watch", daemon=True).start()
        return f"looking every {INTERVAL} s"

    def notice() -> None:
        for changes in watchfiles.watch(folder, watch_filter=watchfiles.PythonFilter(), step=100):
            events.put(Changed(tuple(sorted(path for _, path in changes))))

    threading.Thread(target=notice, name="watch", daemon=True).start()
    return "watchfiles"


def _poll(poller: "Poller", events: Events) -> None:
    pause = threading.Event()
    while not pause.wait(INTERVAL):
        if paths := poller.changes():
            events.put(Changed(paths))


class Poller:
    """Remembers each file's mtime and size, and compares."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen = self._look()

    def changes(self) -> tuple[str, ...]:
        """Paths that were changed, made or removed since the last call."""
        now = self._look()
        before, self._seen = self._seen, now
        return tuple(sorted({path for path, _ in before.items() ^ now.items()}))

    def _look(self) -> dict[str, tuple[int, int]]:
        seen: dict[str, tuple[int, int]] = {}
        for path in source_files(self._folder):
            try:
                stat = path.stat()
            except OSError:
                continue  # removed, or a broken link: as if it were not there
            seen[str(path)] = (stat.st_mtime_ns, stat.st_size)
            if len(seen) == FILES_MAX:
                break
        return seen


def source_files(folder: Path) -> Iterator[Path]:
    """The project's .py files, folder by folder in a fixed order."""
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(f for f in folders if not f.startswith(".") and f not in _NOT_SOURCE)
        for name in sorted(files):
            if name.endswith(".py"):
                yield Path(parent, name)
