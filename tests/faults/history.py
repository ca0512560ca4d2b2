"""What happened in a run: what publishers were told, workers ran, the broker holds, waiters were given.

Times are integers of one clock that all recorders share: CLOCK_MONOTONIC in nanoseconds for processes of
one machine, the simulated clock for a simulation. Arguments and values are what JSON makes of them.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple


class Told(StrEnum):
    """What a publisher was told of a task. The wire's DUPLICATE is a confirmation too."""

    CONFIRMED = "confirmed"
    DUPLICATE = "duplicate"
    REFUSED = "refused"
    #: Neither: the publisher was told so, or died before it was told anything.
    UNCONFIRMED = "unconfirmed"


class Publication(NamedTuple):
    """One attempt of a caller to publish a task; an id may have several."""

    id: str
    task: str
    arguments: list[Any]
    #: Before anything was sent.
    at: int
    told: Told = Told.UNCONFIRMED
    told_at: int | None = None
    #: The publisher, to be shown.
    by: str = ""


class Start(NamedTuple):
    """A task's body began to run."""

    id: str
    task: str
    arguments: list[Any]
    redelivered: bool
    attempts: int
    retries: int
    pid: int
    at: int


class End(NamedTuple):
    """A task's body is about to return, or to ask for a retry."""

    id: str
    retries: int
    pid: int
    at: int
    #: "returned" or "retry".
    how: str


class Final(NamedTuple):
    """What the broker says of an id when everything is over."""

    id: str
    #: A stage's name (protocol.md, Stages).
    stage: str
    value: Any
    attempts: int
    at: int


class Given(NamedTuple):
    """What a waiter was given."""

    id: str
    stage: str
    #: Of a SUCCESS.
    value: Any
    at: int


class Rerun(NamedTuple):
    """Somebody had a final task run anew. `at` is before the broker was asked."""

    id: str
    at: int


class Death(NamedTuple):
    """A process that runs tasks was killed, or was seen to be gone."""

    pid: int
    at: int


class Ends(NamedTuple):
    """How a task of some arguments may end, whatever happens to the processes that run it."""

    #: Of a SUCCESS.
    value: Any
    stages: frozenset[str] = frozenset({"SUCCESS", "DEAD"})
    #: At most once: it must not be started a second time, flagged or not.
    once: bool = False


#: (task's name, arguments) -> how it may end.
Meaning = Callable[[str, list[Any]], Ends]


@dataclass(slots=True)
class History:
    """The records of one run, in any order."""

    publications: list[Publication] = field(default_factory=list)
    starts: list[Start] = field(default_factory=list)
    ends: list[End] = field(default_factory=list)
    finals: list[Final] = field(default_factory=list)
    given: list[Given] = field(default_factory=list)
    reruns: list[Rerun] = field(default_factory=list)
    deaths: list[Death] = field(default_factory=list)
    #: When the broker was killed, and when connections of workers were cut, stalled or refused.
    broker_kills: list[int] = field(default_factory=list)
    cuts: list[int] = field(default_factory=list)
    #: Tasks that the broker says it knows in all, where it was asked.
    known: int | None = None

    def add(self, other: "History") -> None:
        """Takes over the records of another part of the run."""
        self.publications += other.publications
        self.starts += other.starts
        self.ends += other.ends
        self.finals += other.finals
        self.given += other.given
        self.reruns += other.reruns
        self.deaths += other.deaths
        self.broker_kills += other.broker_kills
        self.cuts += other.cuts
