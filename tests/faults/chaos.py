"""Tasks under faults: `python -m tests.faults.chaos --minutes 5 --seed 1`.

A broker with a journal, workers and publishers that reach it through fault proxies. While the publishers
publish, processes are killed, the broker among them, and connections cut, stalled and refused; then
everything is let run out, the broker is killed once more, and the checker judges what was noted and what
the last broker knows. Ends with 0 when all invariants hold. The seed draws the faults and the tasks; what
meets what is decided by the machine, so a seed repeats a run only in kind.
"""

import argparse
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from chervil.address import BrokerURL, Found
from chervil.client import Client
from chervil.protocol.vocabulary import Info
from chervil.serialization import decode
from tests.faults.checker import check
from tests.faults.history import Final, History
from tests.faults.logbook import read_folder
from tests.faults.tasks import meaning
from tests.faults.troupe import Troupe
from tests.faults.verdict import Verdict

#: Nanoseconds by which a body may begin after its claim (a process that waits for a CPU), and for which a
#: killed process explains a repeat (its worker may not have told the broker what it had answered).
SLACK = 500_000_000
DEATH_SLACK = 5_000_000_000
#: Seconds that a run takes at most beyond its publishing: until all publishers are done, and until all
#: tasks are. A publisher that meets faults waits 10 s for a confirm, and a silent worker's tasks come back
#: after 50 s; the rest is for a machine that has other things to do.
PUBLISH_MORE_SECONDS = 180.0
DRAIN_SECONDS = 180.0
#: Tasks published in a minute unless their number is given: more than the 200,000 in five that are to be
#: confirmed, and little enough for two cores.
TASKS_A_MINUTE = 48_000
#: Of the looks after a broker that does not answer yet, at how many it is killed again.
KILLED_EARLY = 0.03
#: Ids that are asked after at once.
QUERIED = 5000
#: Seconds between two looks after the workers at the end. The broker has to answer within so long.
LOOK_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Settings:
    """How one run goes."""

    tasks: int = 5 * TASKS_A_MINUTE
    #: The publishers' time, in which faults happen.
    seconds: float = 300.0
    seed: int = 1
    #: Whether the broker has a journal; one without is not killed.
    durable: bool = True
    #: Slots of each worker.
    slots: tuple[int, ...] = (2, 3, 4)
    publishers: int = 4
    #: Seconds between two faults, on average.
    every: float = 0.25
    #: And that a broker answers until it is killed.
    kill_after: float = 1.2
    #: Whether stalled connections are left alone until somebody notices, 20 s and more; else they are cut
    #: when the next fault is due.
    patient: bool = True


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a run."""

    verdict: Verdict
    faults: Counter[str]
    #: What should not be besides: processes left behind, tracebacks, exit codes.
    wrong: list[str]
    seconds: float
    #: Seconds that killed brokers took until they answered again.
    recoveries: list[float]

    @property
    def ok(self) -> bool:
        return self.verdict.ok and not self.verdict.held and not self.wrong

    def text(self) -> str:
        faults = ", ".join(f"{name} {count}" for name, count in sorted(self.faults.items()) if count)
        lines = [f"faults: {faults}", self.verdict.text()]
        lines += [f"WRONG: {text}" for text in self.wrong]
        if self.recoveries:
            lines.append(f"longest recovery of the broker: {max(self.recoveries):.1f} s")
        lines.append(f"{self.seconds:.0f} s in all")
        return "\n".join(lines)


def run(settings: Settings, folder: Path, say: Callable[[str], None] = lambda text: None) -> Outcome:
    """One run; nothing of it is left but files in the folder."""
    began = time.monotonic()
    rng = random.Random(settings.seed)
    troupe = Troupe(folder, rng, list(settings.slots), durable=settings.durable)
    with closing(troupe):
        troupe.start()
        say(
            f"{settings.tasks} tasks in about {settings.seconds:g} s, seed {settings.seed}; files in {folder}"
        )
        troupe.publish(settings.publishers, settings.tasks, settings.seconds, settings.seed)
        _disturb(troupe, rng, settings)
        say(f"{time.monotonic() - began:.0f} s: everything is published; letting it run out")
        troupe.thaw()
        troupe.await_broker()
        troupe.to_workers.delay(0)
        # Stalled connections would take their time; whoever holds one connects again.
        troupe.to_workers.cut(all_=True)
        troupe.to_publishers.cut(all_=True)
        client = Client(Found(BrokerURL.parse(troupe.url), "test"))
        ids = _drain(client, troupe)
        if settings.durable:
            troupe.kill_broker()
            troupe.await_broker()
        say(f"{time.monotonic() - began:.0f} s: everything has ended; asking what became of it")
        finals = _finals(client, ids)
        known = sum(client.stats()["tasks"].values())
        client.close()
        wrong = troupe.complaints + troupe.stop()
    wrong += troupe.errors()
    history = read_folder(troupe.logbooks)
    history.finals = finals
    history.known = known
    troupe.add_to(history)
    verdict = check(history, meaning, SLACK, DEATH_SLACK)
    faults = Counter(troupe.faults)
    for kind, proxy in (("worker", troupe.to_workers), ("publisher", troupe.to_publishers)):
        faults.update({f"{kind} connections: {what}": count for what, count in proxy.counts.items()})
    return Outcome(verdict, faults, wrong, time.monotonic() - began, troupe.recoveries)


def _disturb(troupe: Troupe, rng: random.Random, settings: Settings) -> None:
    """Faults until all publishers are done, or their time is over."""
    end = time.monotonic() + settings.seconds + PUBLISH_MORE_SECONDS
    faults = _faults(troupe, rng)
    weights = [weight for weight, _ in faults]
    # Each kind once, however few there is time for.
    due = rng.sample(faults, len(faults))
    next_kill = 0.0
    while troupe.publishing:
        if time.monotonic() > end:
            troupe.complaints.append("the publishers were not done in time")
            return
        time.sleep(rng.uniform(0, 2 * settings.every))
        troupe.look_after()
        if settings.durable:
            answers = troupe.broker_answers
            kill = time.monotonic() >= next_kill if answers else rng.random() < KILLED_EARLY
            if kill:
                troupe.kill_broker()
            if kill or not answers:
                next_kill = time.monotonic() + rng.uniform(0, 2) * settings.kill_after
        if not settings.patient:
            troupe.to_workers.cut_stalled()
            troupe.to_publishers.cut_stalled()
        _, fault = due.pop() if due else rng.choices(faults, weights)[0]
        fault()


def _faults(troupe: Troupe, rng: random.Random) -> list[tuple[float, Callable[[], object]]]:
    """(weight, fault). A worker whose connection is stalled does nothing for 20 s: that is rare."""
    workers, publishers = troupe.to_workers, troupe.to_publishers
    return [
        (40, troupe.kill_child),
        (1.5, troupe.kill_nursery),
        (2, troupe.kill_worker),
        (3, troupe.kill_publisher),
        (4, troupe.freeze),
        (12, workers.cut),
        (5, lambda: workers.cut_after(rng.randrange(4000))),
        (0.4, workers.stall),
        (1, lambda: workers.refuse(rng.uniform(0.2, 2))),
        (2, lambda: workers.delay(rng.choice((0, 0, 0, 0.01)))),
        (10, publishers.cut),
        (6, lambda: publishers.cut_after(rng.randrange(4000))),
        (1, publishers.stall),
        (1, lambda: publishers.refuse(rng.uniform(0.2, 1))),
    ]


def _drain(client: Client, troupe: Troupe) -> list[str]:
    """Waits until every task that was noted is final; their ids."""
    end = time.monotonic() + DRAIN_SECONDS
    settled: set[str] = set()
    while True:
        # Running tasks publish others, so the ids grow while they are waited for.
        ids = _ids(read_folder(troupe.logbooks))
        open_ = [id_ for id_ in ids if id_ not in settled]
        if not open_:
            return ids
        while open_:
            if time.monotonic() > end:
                troupe.complaints.append(f"not final after {DRAIN_SECONDS:g} s: {len(open_)}, {open_[:3]}")
                return ids
            statuses = client.wait(open_[:QUERIED], timeout=LOOK_SECONDS)
            settled.update(status.id for status in statuses if status.settled)
            open_ = [id_ for id_ in open_ if id_ not in settled]
            troupe.look_after()


def _finals(client: Client, ids: list[str]) -> list[Final]:
    """What the broker says of each."""
    statuses = [
        status
        for at in range(0, len(ids), QUERIED)
        for status in client.wait(ids[at : at + QUERIED], timeout=0)
    ]
    now = time.monotonic_ns()
    return [
        Final(
            status.id,
            status.stage.name,
            decode(status.codec or "json", status.body)
            if status.stage.name == "SUCCESS" and status.body
            else None,
            status.info.get(Info.ATTEMPTS) or 0,
            now,
        )
        for status in statuses
    ]


def _ids(history: History) -> list[str]:
    return sorted({publication.id for publication in history.publications})


def settings_from(words: list[str]) -> Settings:
    """The settings that a command line asks for."""
    usual = Settings()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=usual.seconds / 60, help="the publishers' time")
    parser.add_argument("--tasks", type=int, help=f"{TASKS_A_MINUTE} a minute unless given")
    parser.add_argument("--seed", type=int, default=usual.seed)
    parser.add_argument("--memory", action="store_true", help="without a journal, and no kills of the broker")
    given = parser.parse_args(words)
    tasks = round(given.minutes * TASKS_A_MINUTE) if given.tasks is None else given.tasks
    return Settings(tasks, given.minutes * 60, given.seed, not given.memory)


def main() -> int:
    settings = settings_from(sys.argv[1:])
    folder = Path(tempfile.mkdtemp(prefix="chervil-chaos-"))
    outcome = run(settings, folder, lambda text: print(text, flush=True))
    print(outcome.text())
    if outcome.ok:
        shutil.rmtree(folder)
    return 0 if outcome.ok else 1


if __name__ == "__main__":
    sys.exit(main())
