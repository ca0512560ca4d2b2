"""Tasks under faults: `python -m tests.faults.chaos --tasks 20000 --seed 1`.

One broker in memory, workers and publishers that reach it through fault proxies. While the publishers
publish, processes are killed and connections cut, stalled and refused; then everything is let run out, and
the checker judges what was noted. Ends with 0 when all invariants hold. The seed draws the faults and
the tasks; what meets what is decided by the machine, so a seed repeats a run only in kind.
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
from tests.faults.verdict import Repeat, Verdict

#: Nanoseconds by which a body may begin after its claim (a process that waits for a CPU), and for which a
#: killed process explains a repeat (its worker may not have told the broker what it had answered).
SLACK = 500_000_000
DEATH_SLACK = 5_000_000_000
#: Seconds that a run takes at most beyond its publishing: until all publishers are done, and until all
#: tasks are. A publisher that meets faults waits 10 s for a confirm, and a silent worker's tasks come back
#: after 50 s.
PUBLISH_MORE_SECONDS = 90.0
DRAIN_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Settings:
    """How one run goes."""

    tasks: int = 20_000
    #: The publishers' time, in which faults happen.
    seconds: float = 150.0
    seed: int = 1
    #: Slots of each worker.
    slots: tuple[int, ...] = (2, 3, 4)
    publishers: int = 4
    #: Seconds between two faults, on average.
    every: float = 0.25
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
    counters: dict[str, int]

    @property
    def ok(self) -> bool:
        return self.verdict.ok and not self.verdict.held and not self.wrong

    def text(self) -> str:
        faults = ", ".join(f"{name} {count}" for name, count in sorted(self.faults.items()) if count)
        counters = ", ".join(f"{name} {count}" for name, count in self.counters.items() if count)
        lines = [f"faults: {faults}", f"broker: {counters}", self.verdict.text()]
        lines += [f"WRONG: {text}" for text in self.wrong]
        ran_twice = self.verdict.repeats[Repeat.CUT]
        lines.append(f"tasks that ran twice because of a cut: {ran_twice}; {self.seconds:.0f} s in all")
        return "\n".join(lines)


def run(settings: Settings, folder: Path, say: Callable[[str], None] = lambda text: None) -> Outcome:
    """One run; nothing of it is left but files in the folder."""
    began = time.monotonic()
    rng = random.Random(settings.seed)
    troupe = Troupe(folder, rng, list(settings.slots))
    with closing(troupe):
        troupe.start()
        say(
            f"{settings.tasks} tasks in about {settings.seconds:g} s, seed {settings.seed}; files in {folder}"
        )
        troupe.publish(settings.publishers, settings.tasks, settings.seconds, settings.seed)
        _disturb(troupe, rng, settings)
        say("everything is published, or was to be; letting it run out")
        troupe.thaw()
        troupe.to_workers.delay(0)
        # Stalled connections would take their time; whoever holds one connects again.
        troupe.to_workers.cut(all_=True)
        troupe.to_publishers.cut(all_=True)
        client = Client(Found(BrokerURL.parse(troupe.url), "test"))
        finals = _drain(client, troupe)
        stats = client.stats()
        client.close()
        wrong = troupe.complaints + troupe.stop()
    wrong += troupe.errors()
    history = read_folder(troupe.logbooks)
    history.finals = finals
    history.deaths = troupe.deaths
    history.known = sum(stats["tasks"].values())
    verdict = check(history, meaning, SLACK, DEATH_SLACK)
    faults = Counter(troupe.faults)
    for kind, proxy in (("worker", troupe.to_workers), ("publisher", troupe.to_publishers)):
        faults.update({f"{kind} connections: {what}": count for what, count in proxy.counts.items()})
    return Outcome(verdict, faults, wrong, time.monotonic() - began, stats["counters"])


def _disturb(troupe: Troupe, rng: random.Random, settings: Settings) -> None:
    """Faults until all publishers are done, or their time is over."""
    end = time.monotonic() + settings.seconds + PUBLISH_MORE_SECONDS
    faults = _faults(troupe, rng)
    weights = [weight for weight, _ in faults]
    while troupe.publishing:
        if time.monotonic() > end:
            troupe.complaints.append("the publishers were not done in time")
            return
        time.sleep(rng.uniform(0, 2 * settings.every))
        troupe.look_after()
        if not settings.patient:
            troupe.to_workers.cut_stalled()
            troupe.to_publishers.cut_stalled()
        ((_, fault),) = rng.choices(faults, weights)
        fault()


def _faults(troupe: Troupe, rng: random.Random) -> list[tuple[int, Callable[[], object]]]:
    """(weight, fault)."""
    workers, publishers = troupe.to_workers, troupe.to_publishers
    return [
        (40, troupe.kill_child),
        (5, troupe.kill_nursery),
        (6, troupe.kill_worker),
        (8, troupe.kill_publisher),
        (5, troupe.freeze),
        (12, workers.cut),
        (5, lambda: workers.cut_after(rng.randrange(4000))),
        (2, workers.stall),
        (2, lambda: workers.refuse(rng.uniform(0.2, 2))),
        (2, lambda: workers.delay(rng.choice((0, 0, 0.02)))),
        (10, publishers.cut),
        (6, lambda: publishers.cut_after(rng.randrange(4000))),
        (1, publishers.stall),
        (1, lambda: publishers.refuse(rng.uniform(0.2, 1))),
    ]


def _drain(client: Client, troupe: Troupe) -> list[Final]:
    """Waits until every task that was noted is final, and gives what the broker says of each."""
    end = time.monotonic() + DRAIN_SECONDS
    while True:
        # Running tasks publish others, so the ids grow while they are waited for.
        ids = _ids(read_folder(troupe.logbooks))
        statuses = client.wait(ids, timeout=2)
        open_ = [status for status in statuses if not status.settled]
        if not open_ and len(_ids(read_folder(troupe.logbooks))) == len(ids):
            break
        if time.monotonic() > end:
            troupe.complaints.append(f"not final after {DRAIN_SECONDS:g} s: {len(open_)}, {open_[:3]}")
            break
        troupe.look_after()
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
    parser.add_argument("--tasks", type=int, default=usual.tasks)
    parser.add_argument("--seconds", type=float, default=usual.seconds, help="the publishers' time")
    parser.add_argument("--seed", type=int, default=usual.seed)
    given = parser.parse_args(words)
    return Settings(given.tasks, given.seconds, given.seed)


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
