"""Judges a history: proves or refutes I1 to I5. A pure function of the records; no I/O, no clock.

I1  no confirmed publish is lost: the broker knows each at the end, and no waiter was told otherwise
I2  nothing is invented or altered: nothing runs or is held that nobody published, arguments arrive as they
    were sent, a SUCCESS is the value of a body that returned
I3  `redelivered = false` means that no process ever claimed the task before: of all starts of an id, for
    one count of its retries, one is unflagged at most
I4  a publish of a known id makes no second task and changes nothing of the first
I5  what was seen final is not run again and stays what it was

A start counts under (id, number of RERUNs before it, retries): a retry and a RERUN are new runs by request.
The order of starts proves nothing about flags, because a process may be held up between its claim and its
first line; so I3 counts unflagged starts and never compares their times.
"""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable
from itertools import pairwise
from typing import Any, NamedTuple

from tests.faults.history import Final, Given, History, Meaning, Publication, Start, Told
from tests.faults.verdict import Invariant, Repeat, Verdict

CONFIRMED = frozenset({Told.CONFIRMED, Told.DUPLICATE})
UNKNOWN = "UNKNOWN"
#: Finished, and dropped by policy: a record all the same.
EVICTED = "EVICTED"
FINAL = frozenset({"SUCCESS", "FAILURE", "DEAD", "REVOKED", "EXPIRED", "UPSTREAM_FAILED", EVICTED})


class _Run(NamedTuple):
    """What counts as one run; more than one start of it is a repeat."""

    id: str
    reruns: int
    retries: int


def check(history: History, meaning: Meaning, slack: int = 0, death_slack: int = 0) -> Verdict:
    """The verdict on a run that is over.

    `meaning` says how a task of some arguments may end. `slack` is how much later than its claim a body may
    begin (I5), and `death_slack` how long after a process's last line its death still explains a repeat;
    both in units of the history's clock.
    """
    return _Check(history, meaning, slack, death_slack).verdict()


class _Check:
    def __init__(self, history: History, meaning: Meaning, slack: int, death_slack: int) -> None:
        self._history = history
        self._meaning = meaning
        self._slack = slack
        self._death_slack = death_slack
        self._verdict = Verdict()
        self._publications = _by_id(history.publications)
        self._starts = _by_id(sorted(history.starts, key=lambda start: start.at))
        self._given = _by_id(history.given)
        self._finals = {final.id: final for final in history.finals}
        self._ends = {(end.id, end.retries, end.pid): end for end in history.ends}
        self._returned = {end.id for end in history.ends if end.how == "returned"}
        self._retried = {(end.id, end.retries) for end in history.ends if end.how == "retry"}
        self._rerun_at = {
            id_: sorted(rerun.at for rerun in reruns) for id_, reruns in _by_id(history.reruns).items()
        }
        self._last_sign = self._last_signs()
        self._died_at: dict[int, list[int]] = defaultdict(list)
        for death in history.deaths:
            self._died_at[death.pid].append(death.at)

    def verdict(self) -> Verdict:
        verdict = self._verdict
        verdict.told.update(publication.told.value for publication in self._history.publications)
        verdict.starts = len(self._history.starts)
        verdict.flagged = sum(start.redelivered for start in self._history.starts)
        verdict.ran = len(self._starts)
        verdict.waited = len(self._history.given)
        for id_, publications in self._publications.items():
            self._published(id_, publications)
        for id_ in self._starts.keys() - self._publications.keys():
            self._breach(Invariant.NOTHING_INVENTED, id_, "ran, and nobody published it")
        for id_ in self._finals.keys() - self._publications.keys():
            if self._finals[id_].stage != UNKNOWN:
                self._breach(Invariant.NOTHING_INVENTED, id_, "is known, and nobody published it")
        known = self._history.known
        if known is not None and known > len(self._publications):
            self._breach(
                Invariant.NOTHING_INVENTED,
                "the broker",
                f"knows {known} tasks, and {len(self._publications)} ids were published",
            )
        return verdict

    def _published(self, id_: str, publications: list[Publication]) -> None:
        """Everything about one id that somebody published."""
        final = self._finals.get(id_)
        stage = final.stage if final is not None else UNKNOWN
        self._verdict.stages[stage] += 1
        confirmed = [publication for publication in publications if publication.told in CONFIRMED]
        if confirmed:
            self._verdict.confirmed += 1
            self._verdict.completed += stage in FINAL
            self._kept(id_, stage, confirmed[0])
        truths = _may_have_made_it(publications)
        if not truths:
            if id_ in self._starts or stage != UNKNOWN:
                self._breach(Invariant.NOTHING_INVENTED, id_, f"was refused, and is {stage}")
            return
        starts = self._starts.get(id_, [])
        self._ran_as_published(starts, truths, publications)
        self._runs(starts, publications, self._meaning(truths[0].task, truths[0].arguments).once)
        for said in self._given.get(id_, []):
            self._came_of_it(said, "a waiter was given", truths, publications)
        if final is not None and stage in FINAL:
            self._came_of_it(final, "it ended as", truths, publications)
        self._stayed_final(id_, starts, final)

    def _kept(self, id_: str, stage: str, confirmed: Publication) -> None:
        """I1."""
        if stage == UNKNOWN:
            self._breach(
                Invariant.NOTHING_LOST, id_, f"was confirmed to {confirmed.by or 'its publisher'} and is gone"
            )
        elif stage not in FINAL:
            self._verdict.held += 1
        told_at = confirmed.told_at or 0
        if any(said.stage == UNKNOWN and said.at > told_at for said in self._given.get(id_, [])):
            self._breach(
                Invariant.NOTHING_LOST, id_, "was confirmed, and a waiter was told that it is unknown"
            )

    def _ran_as_published(
        self, starts: list[Start], truths: list[Publication], publications: list[Publication]
    ) -> None:
        """I2 and I4 of the arguments."""
        for start in starts:
            what = (start.task, start.arguments)
            if any(what == (truth.task, truth.arguments) for truth in truths):
                continue
            if any(what == (repeat.task, repeat.arguments) for repeat in publications):
                self._breach(Invariant.NOTHING_DOUBLED, start.id, f"ran as its repeated publish {what}")
            else:
                self._breach(Invariant.NOTHING_INVENTED, start.id, f"ran as {what}, which nobody published")

    def _runs(self, starts: list[Start], publications: list[Publication], once: bool) -> None:
        """I3, and the repeats counted by their cause."""
        runs: dict[_Run, list[Start]] = defaultdict(list)
        for start in starts:
            runs[_Run(start.id, self._reruns_before(start), start.retries)].append(start)
        for run, same in runs.items():
            if run.retries and (run.id, run.retries - 1) not in self._retried:
                self._breach(
                    Invariant.REPEATS_FLAGGED, run.id, f"ran as retry {run.retries} that it did not ask for"
                )
            unflagged = [start for start in same if not start.redelivered]
            if len(unflagged) > 1:
                self._breach(
                    Invariant.REPEATS_FLAGGED, run.id, f"started unflagged {len(unflagged)} times: {same}"
                )
                if len(publications) > 1:
                    self._breach(Invariant.NOTHING_DOUBLED, run.id, f"is two tasks: {same}")
            elif once and len(same) > 1:
                self._breach(Invariant.REPEATS_FLAGGED, run.id, f"at most once, and started again: {same}")
            for start, following in pairwise(same):
                self._repeated(start, following)

    def _came_of_it(
        self, said: Final | Given, who: str, truths: list[Publication], publications: list[Publication]
    ) -> None:
        """I2 and I4 of the outcome and the result."""
        if said.stage not in FINAL or said.stage == EVICTED:
            return
        what = f"{said.stage} {_short(said.value)}"
        if any(self._is_meant(said, truth) for truth in truths):
            if said.stage == "SUCCESS" and said.id not in self._returned:
                self._breach(Invariant.NOTHING_INVENTED, said.id, f"{who} {what}, and no body of it returned")
        elif any(self._is_meant(said, repeat) for repeat in publications):
            self._breach(Invariant.NOTHING_DOUBLED, said.id, f"{who} {what}: its repeated publish")
        else:
            self._breach(
                Invariant.NOTHING_INVENTED,
                said.id,
                f"{who} {what}, not {self._meaning(truths[0].task, truths[0].arguments)}",
            )

    def _is_meant(self, said: Final | Given, publication: Publication) -> bool:
        ends = self._meaning(publication.task, publication.arguments)
        if said.stage != "SUCCESS":
            return said.stage in ends.stages
        return "SUCCESS" in ends.stages and said.value == ends.value

    def _stayed_final(self, id_: str, starts: list[Start], final: Final | None) -> None:
        """I5."""
        seen = sorted(
            (said for said in self._given.get(id_, []) if said.stage in FINAL), key=lambda said: said.at
        )
        reruns = self._rerun_at.get(id_, [])
        for said in seen[:1] if not reruns else seen:
            anew = bisect_right(reruns, said.at)
            until = reruns[anew] if anew < len(reruns) else None
            for start in starts:
                if start.at > said.at + self._slack and (until is None or start.at < until):
                    self._breach(
                        Invariant.FINAL_IS_FINAL,
                        id_,
                        f"started {start.at - said.at} after it was seen {said.stage}: {start}",
                    )
            if until is None and final is not None and final.stage not in (said.stage, EVICTED):
                self._breach(
                    Invariant.FINAL_IS_FINAL, id_, f"was seen {said.stage} and is {final.stage} at the end"
                )

    def _reruns_before(self, start: Start) -> int:
        return bisect_right(self._rerun_at.get(start.id, []), start.at)

    def _repeated(self, start: Start, following: Start) -> None:
        cause = self._cause(start, following)
        self._verdict.repeats[cause] += 1
        if cause is not Repeat.DEATH:
            ended = self._ends.get((start.id, start.retries, start.pid))
            kills, cuts = (
                [at for at in times if start.at <= at <= following.at]
                for times in (self._history.broker_kills, self._history.cuts)
            )
            self._verdict.ran_twice.append(
                f"{start.id} ran twice {cause}: {start}, {ended}, {following}; between them broker kills: "
                f"{len(kills)}, cuts: {len(cuts)}"
            )

    def _cause(self, start: Start, following: Start) -> Repeat:
        """Why the run of this start did not count, from what became of its process."""
        ended = self._ends.get((start.id, start.retries, start.pid))
        if ended is None or self._last_sign[start.pid] <= ended.at:
            return Repeat.DEATH
        died_at = self._died_at.get(start.pid, [])
        if any(start.at <= at <= ended.at + self._death_slack for at in died_at):
            return Repeat.DEATH
        if any(start.at <= at <= following.at for at in self._history.cuts):
            return Repeat.CUT
        if any(start.at <= at <= following.at for at in self._history.broker_kills):
            return Repeat.BROKER
        return Repeat.NOTHING

    def _last_signs(self) -> dict[int, int]:
        signs: dict[int, int] = defaultdict(int)
        for record in (*self._history.starts, *self._history.ends):
            signs[record.pid] = max(signs[record.pid], record.at)
        return signs

    def _breach(self, invariant: Invariant, id_: str, text: str) -> None:
        self._verdict.breach(invariant, f"{id_} {text}")


def _may_have_made_it(publications: list[Publication]) -> list[Publication]:
    """Those that may be the task: not refused, and begun before another one was confirmed."""
    kept = [publication for publication in publications if publication.told is not Told.REFUSED]
    confirmed = [
        publication.told_at
        for publication in kept
        if publication.told in CONFIRMED and publication.told_at is not None
    ]
    if not confirmed:
        return kept
    return [publication for publication in kept if publication.at < min(confirmed)]


def _by_id(records: Iterable[Any]) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = defaultdict(list)
    for record in records:
        found[record.id].append(record)
    return found


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 100 else text[:100] + "..."
