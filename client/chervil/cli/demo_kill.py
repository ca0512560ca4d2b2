"""`chervil demo --kill`: what is left of confirmed tasks when everything they rest on is killed."""

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chervil.cli import demo_tasks
from chervil.cli.daemons import SLOTS, Daemons
from chervil.exceptions import OperationalError, PublishUnconfirmed
from chervil.protocol import Stage

#: Seconds before each kill. The worker is the last one: what it had goes to its successor after 5 s, and
#: after 30 where the broker was killed in the meantime, which no demo can wait for.
BETWEEN_SECONDS = 0.6
KILLS = ("process", "broker", "process", "broker", "broker", "process", "worker")

#: Tasks published at once, and the seconds until the next ones: about 1,000 a second, which is less than
#: the worker runs, so that it has caught up when the publishing ends.
BATCH = 20
PAUSE_SECONDS = 0.02

#: Seconds until all tasks must have ended: far more than the 5 that those of the killed worker wait.
PATIENCE = 30.0

_WHAT = {"process": "a process of the worker", "broker": "the broker", "worker": "the worker"}


@dataclass(slots=True)
class Tally:
    """What came of it."""

    #: Ids of confirmed tasks, by the number that each writes into the file of notes.
    confirmed: dict[int, str] = field(default_factory=dict)
    #: Tasks whose publisher was not told whether the broker has them.
    unconfirmed: int = 0
    completed: int = 0
    #: Confirmed, and gone or not run.
    lost: int = 0
    #: Tasks that were begun more than once; and those of them where a second run was not told so.
    ran_twice: int = 0
    untold: int = 0
    kills: Counter[str] = field(default_factory=Counter)
    #: Seconds that killed brokers took until they answered again.
    recoveries: list[float] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def holds(self) -> bool:
        """Whether what Chervil promises was kept."""
        return not self.lost and not self.untold

    def figures(self) -> dict[str, Any]:
        """For --json."""
        return {
            "confirmed": len(self.confirmed),
            "unconfirmed": self.unconfirmed,
            "completed": self.completed,
            "lost": self.lost,
            "ran_twice": self.ran_twice,
            "ran_twice_untold": self.untold,
            "kills": dict(self.kills),
            "longest_recovery_seconds": round(max(self.recoveries, default=0.0), 3),
            "seconds": round(self.seconds, 3),
        }

    def text(self) -> str:
        """For people."""
        kills = self.kills
        again = ""
        if self.ran_twice:
            again = "as their process was killed before it had told; the second run knows"
        if self.untold:
            again = f"{self.untold} of them without a word of it"
        rows = [
            ("confirmed", len(self.confirmed), "tasks that the broker said it has"),
            ("completed", self.completed, "of them, each with its result"),
            ("lost", self.lost, ""),
            ("ran twice", self.ran_twice, again),
            (
                "kills",
                kills.total(),
                f"broker {kills['broker']}, worker {kills['worker']}, its processes {kills['process']}",
            ),
        ]
        lines = [f"{name:9}  {count:>7,}  {more}".rstrip() for name, count, more in rows]
        if self.unconfirmed:
            lines.append(f"unconfirmed {self.unconfirmed:,}  the broker may have them or not")
        return "\n".join(lines)


def kill_and_count(daemons: Daemons, say: Callable[[str], None]) -> Tally:
    """Publishes while broker, worker and its processes are killed; waits for all tasks, and counts."""
    began = time.monotonic()
    tally = Tally()
    notes = daemons.folder / "notes"
    notes.touch()
    say(
        f"A broker with a journal, a worker with {SLOTS} processes, and tasks published all the time.\n"
        "Meanwhile they are killed, with kill -9, and started again:\n"
    )
    publishing = _Publishing(notes, tally)
    publishing.start()
    try:
        _await_first_run(daemons, notes, publishing)
        for what in KILLS:
            time.sleep(BETWEEN_SECONDS)
            at = time.monotonic() - began
            after = _kill(what, daemons, notes, tally)
            say(f"  {at:4.1f} s  {_WHAT[what]}{after}")
        time.sleep(BETWEEN_SECONDS)
    finally:
        publishing.stop()
    say("\nThat was all. Letting the rest run; what the killed worker had goes to the other after 5 s.\n")
    _await_results(daemons, tally)
    _count_runs(notes, tally)
    tally.seconds = time.monotonic() - began
    return tally


class _Publishing:
    """A thread that publishes until it is told to stop."""

    def __init__(self, notes: Path, tally: Tally) -> None:
        self._path = str(notes)
        self._tally = tally
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="publishing")
        self._failure: Exception | None = None

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Returns when everything is confirmed; raises what kept it from going on."""
        self._over.set()
        self._thread.join()
        self.check()

    def check(self) -> None:
        """Raises what has ended it."""
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        try:
            first = 0
            while not self._over.wait(PAUSE_SECONDS):
                first += self._publish(range(first, first + BATCH))
        except Exception as error:  # raised where it is waited for
            self._failure = error

    def _publish(self, numbers: range) -> int:
        """How many of these numbers are used up."""
        try:
            results = demo_tasks.note.delay_many([(self._path, number) for number in numbers])
        except OperationalError:
            return 0  # the broker is away, and nothing was published: the same again
        except PublishUnconfirmed as error:
            self._tally.unconfirmed += len(error.task_ids)
            return len(numbers)
        for number, result in zip(numbers, results, strict=True):
            self._tally.confirmed[number] = result.id
        return len(numbers)


def _kill(what: str, daemons: Daemons, notes: Path, tally: Tally) -> str:
    """Kills one of them; what is to be said of it."""
    if what == "broker":
        seconds = daemons.kill_broker()
        tally.recoveries.append(seconds)
        after = f"; the next one answers after {seconds:.1f} s"
    elif what == "worker":
        daemons.kill_worker()
        after = " with all its processes"
    elif not _kill_process(notes):
        return ": it is gone already"
    else:
        after = ""
    tally.kills[what] += 1
    return after


def _await_first_run(daemons: Daemons, notes: Path, publishing: _Publishing) -> None:
    """Returns when a task has been run: there is somebody to kill."""
    end = time.monotonic() + PATIENCE
    while not notes.stat().st_size:
        daemons.check()
        publishing.check()
        if time.monotonic() > end:
            daemons.give_up(f"no task was run for {PATIENCE:g} s")
        time.sleep(PAUSE_SECONDS)  # a file cannot be waited for


def _kill_process(notes: Path) -> bool:
    """Kills the process that has written the last line; whether it was there."""
    _, pid, _ = notes.read_text().splitlines()[-1].split()
    try:
        os.kill(int(pid), signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def _await_results(daemons: Daemons, tally: Tally) -> None:
    ids = list(tally.confirmed.values())
    for status in demo_tasks.app.client.wait(ids, PATIENCE):
        if status.stage is Stage.SUCCESS:
            tally.completed += 1
        elif not status.settled:
            daemons.check()


def _count_runs(notes: Path, tally: Tally) -> None:
    """Reads from the notes what was run, and how often."""
    runs: Counter[int] = Counter()
    untold: Counter[int] = Counter()
    for line in notes.read_text().splitlines():
        number, _, redelivered = map(int, line.split())
        runs[number] += 1
        untold[number] += not redelivered
    ran = sum(number in runs for number in tally.confirmed)
    tally.lost = len(tally.confirmed) - min(ran, tally.completed)
    tally.ran_twice = sum(count > 1 for count in runs.values())
    tally.untold = sum(count > 1 for count in untold.values())
