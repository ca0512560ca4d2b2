"""The tasks of a run with faults. Each notes its start and its end in a logbook; `meaning` says what is due.

All take one integer; those that succeed return twice that.
"""

import functools
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

from chervil import Chervil, Task
from chervil.exceptions import OperationalError, PublishRefused, PublishUnconfirmed
from tests.faults.history import Ends, Told
from tests.faults.logbook import Logbook

FOLDER_VARIABLE = "FAULTS_FOLDER"
LONGER_SECONDS = 0.2
RETRIES = 2

app = Chervil("tests.faults.tasks")


@functools.cache
def book() -> Logbook:
    return Logbook(Path(os.environ[FOLDER_VARIABLE]), "worker")


def begin(task: Task, x: int) -> None:
    request = task.request
    book().start(
        request.id,
        short_name(task.name),
        [x],
        redelivered=request.redelivered,
        attempts=request.attempts,
        retries=request.retries,
    )


def finish(task: Task, how: str = "returned") -> None:
    book().end(task.request.id, task.request.retries, how)


def short_name(name: str) -> str:
    """How records call a task."""
    return name.rpartition(".")[2]


def child_id(id_: str) -> str:
    """The id of the task that `publishes` publishes: the same in each of its runs."""
    return f"{id_}/child"


@app.task(bind=True)
def short(self: Task, x: int) -> int:
    begin(self, x)
    finish(self)
    return 2 * x


@app.task(bind=True)
def longer(self: Task, x: int) -> int:
    begin(self, x)
    time.sleep(LONGER_SECONDS)
    finish(self)
    return 2 * x


@app.task(bind=True, max_retries=RETRIES)
def retries(self: Task, x: int) -> int:
    begin(self, x)
    if self.request.retries < RETRIES:
        finish(self, "retry")
        raise self.retry(countdown=random.random() / 10)
    finish(self)
    return 2 * x


@app.task(bind=True)
def publishes(self: Task, x: int) -> int:
    """Publishes another one from inside, and does not mind when it is refused or not confirmed."""
    begin(self, x)
    id_ = child_id(self.request.id)
    number = book().publish([(id_, "short", [x + 1])])
    try:
        short.apply_async((x + 1,), task_id=id_)
    except (PublishRefused, OperationalError):
        book().told(number, [Told.REFUSED])
    except PublishUnconfirmed:
        book().told(number, [Told.UNCONFIRMED])
    else:
        book().told(number, [Told.CONFIRMED])
    finish(self)
    return 2 * x


@app.task(bind=True, acks_late=False)
def once(self: Task, x: int) -> int:
    """At most once: a FAILURE where its process or its worker is lost. Long enough for faults to hit it."""
    begin(self, x)
    time.sleep(LONGER_SECONDS)
    finish(self)
    return 2 * x


@app.task(bind=True)
def dies(self: Task, x: int) -> int:
    """Kills its process the first time."""
    begin(self, x)
    if not self.request.redelivered:
        os.kill(os.getpid(), signal.SIGKILL)
    finish(self)
    return 2 * x


@app.task(bind=True)
def poison(self: Task, x: int) -> None:
    """Kills its process each time."""
    begin(self, x)
    os.kill(os.getpid(), signal.SIGKILL)


@app.task(bind=True)
def fells(self: Task, x: int) -> None:
    """Kills its worker's whole tree each time: the nursery, and with it the link ends."""
    begin(self, x)
    os.kill(os.getppid(), signal.SIGKILL)
    signal.pause()


#: Task -> how often it is drawn, of 100,000. Those that take time or processes are few: a worker that is
#: felled needs a second or two until another is at work.
SHARES = {
    "short": 94_198, "longer": 1000, "retries": 2000, "publishes": 1900, "once": 700, "dies": 150, "poison": 50,
    "fells": 2,
}  # fmt: skip
_DEADLY = frozenset({"poison", "fells"})


def meaning(task: str, arguments: list[Any]) -> Ends:
    """Whoever is acked late may end DEAD: what is killed three times by others is parked too."""
    (x,) = arguments
    if task in _DEADLY:
        return Ends(None, frozenset({"DEAD"}))
    if task == "once":
        return Ends(2 * x, frozenset({"SUCCESS", "FAILURE"}), once=True)
    return Ends(2 * x)
