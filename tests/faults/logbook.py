"""Records on disk: JSON lines, those of one call written with one write() to a file of its process alone.

A line that is there was written before what it tells went on; one that a kill cut short is the last of its
file, and what it would have told did not happen.
"""

import json
import os
import time
from itertools import groupby
from pathlib import Path
from typing import Any

from tests.faults.history import End, Given, History, Publication, Rerun, Start, Told


class Logbook:
    """Writes the records of this process, and after a fork those of the child, to files in a folder."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._name = name
        self._pid = 0
        self._file = -1
        self._number = 0

    def start(
        self, id_: str, task: str, arguments: list[Any], *, redelivered: bool, attempts: int, retries: int
    ) -> None:
        self._write("start", id_, task, arguments, redelivered, attempts, retries)

    def end(self, id_: str, retries: int, how: str = "returned") -> None:
        self._write("end", id_, retries, how)

    def publish(self, calls: list[tuple[str, str, list[Any]]]) -> int:
        """Notes (id, task, arguments) of each before anything is sent; the number of the first for `told`."""
        self._open()
        first = self._number + 1
        self._number += len(calls)
        self._write_all([["publish", number, *call] for number, call in enumerate(calls, first)])
        return first

    def told(self, first: int, told: list[Told]) -> None:
        """What was said of the publications from the number `first` on."""
        lines: list[list[Any]] = []
        for answer, same in groupby(told):
            count = len(list(same))
            lines.append(["told", first, count, answer])
            first += count
        self._write_all(lines)

    def given(self, id_: str, stage: str, value: Any) -> None:
        self._write("given", id_, stage, value)

    def rerun(self, id_: str) -> None:
        self._write("rerun", id_)

    def _write(self, *fields: Any) -> None:
        self._write_all([list(fields)])

    def _write_all(self, lines: list[list[Any]]) -> None:
        self._open()
        now = time.monotonic_ns()
        os.write(self._file, b"".join(json.dumps([now, *fields]).encode() + b"\n" for fields in lines))

    def _open(self) -> None:
        """A forked child has a file of its own, so that nobody ever shares a position or a number."""
        pid = os.getpid()
        if pid != self._pid:
            self._pid = pid
            self._number = 0
            path = self._folder / f"{self._name}.{pid}.{time.monotonic_ns()}.log"
            self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)


def read_folder(folder: Path) -> History:
    """All records in a folder's logbooks."""
    history = History()
    for path in sorted(folder.glob("*.log")):
        history.add(read(path))
    return history


def read(path: Path) -> History:
    """The records of one logbook. Raises ValueError for a line that is damaged and not the last."""
    history = History()
    name, pid, _, _ = path.name.rsplit(".", 3)
    publications: dict[int, Publication] = {}
    *lines, _cut_short = path.read_bytes().split(b"\n")
    for line in lines:
        at, kind, *fields = json.loads(line)
        match kind:
            case "start":
                history.starts.append(Start(*fields, int(pid), at))
            case "end":
                id_, retries, how = fields
                history.ends.append(End(id_, retries, int(pid), at, how))
            case "publish":
                number, id_, task, arguments = fields
                publications[number] = Publication(id_, task, arguments, at, by=f"{name} (pid {pid})")
            case "told":
                first, count, told = fields
                for number in range(first, first + count):
                    publications[number] = publications[number]._replace(told=Told(told), told_at=at)
            case "given":
                history.given.append(Given(*fields, at))
            case "rerun":
                history.reruns.append(Rerun(*fields, at))
            case _:
                raise ValueError(f"{path}: no record is called {kind!r}")
    history.publications += publications.values()
    return history
