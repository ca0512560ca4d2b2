"""What a history proves: counts, and each place where an invariant does not hold."""

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum


class Invariant(StrEnum):
    """The promises that a history is held against; the value is what the verdict calls a breach."""

    NOTHING_LOST = "I1 lost"
    NOTHING_INVENTED = "I2 invented or altered"
    REPEATS_FLAGGED = "I3 unflagged repeats"
    NOTHING_DOUBLED = "I4 doubled by a repeated publish"
    FINAL_IS_FINAL = "I5 ran or changed after the end"


class Repeat(StrEnum):
    """Why a task was started a second time."""

    #: The process of the earlier run has left no sign of life since, or was killed.
    DEATH = "after a death"
    #: That process lived on: its lease was lost, with a connection.
    CUT = "after a cut"
    #: It lived on, and nothing but the broker was killed between the two starts.
    BROKER = "after a broker kill"
    #: It lived on, and between the two starts nothing was done to anybody.
    NOTHING = "after nothing that was done"


@dataclass(slots=True)
class Verdict:
    """Counts of a run and what is wrong with it."""

    #: What publishers were told of what they sent, an id that was sent twice counted twice.
    told: Counter[str] = field(default_factory=Counter)
    #: Ids that were confirmed, and those of them that are final.
    confirmed: int = 0
    completed: int = 0
    #: Ids that a body was started for.
    ran: int = 0
    starts: int = 0
    #: Of the starts those that were flagged as redelivered.
    flagged: int = 0
    repeats: Counter[Repeat] = field(default_factory=Counter)
    #: Repeats of runs whose process lived on, told with all that is known of them.
    ran_twice: list[str] = field(default_factory=list)
    #: Ids that were published, by their stage at the end.
    stages: Counter[str] = field(default_factory=Counter)
    #: Confirmed ids that are not final.
    held: int = 0
    #: Answers that waiters were given.
    waited: int = 0
    breaches: dict[Invariant, list[str]] = field(
        default_factory=lambda: {invariant: [] for invariant in Invariant}
    )

    @property
    def ok(self) -> bool:
        return not any(self.breaches.values())

    def breach(self, invariant: Invariant, text: str) -> None:
        self.breaches[invariant].append(text)

    def count(self, invariant: Invariant) -> int:
        return len(self.breaches[invariant])

    def text(self, first: int = 5) -> str:
        """A few lines for people, with the first offenders of each kind."""
        done = f"confirmed {self.confirmed}, completed {self.completed}, redelivered {self.flagged}"
        broken = (
            f"lost {self.count(Invariant.NOTHING_LOST)}, "
            f"unflagged repeats {self.count(Invariant.REPEATS_FLAGGED)}"
        )
        causes = ", ".join(f"{cause} {self.repeats[cause]}" for cause in Repeat)
        lines = [
            "published " + _listed(self.told),
            f"ran {self.ran} tasks in {self.starts} starts; repeated {self.repeats.total()}: {causes}",
            *(f"    {text}" for text in self.ran_twice[:first]),
            f"at the end {_listed(self.stages)}; still held {self.held}; answers to waiters {self.waited}",
            f"{done}, {broken}",
        ]
        for invariant, breaches in self.breaches.items():
            if invariant not in (Invariant.NOTHING_LOST, Invariant.REPEATS_FLAGGED) or breaches:
                lines.append(f"{invariant.value}: {len(breaches)}")
            lines += [f"    {text}" for text in breaches[:first]]
        lines.append("verdict: " + ("holds" if self.ok else "BROKEN"))
        return "\n".join(lines)


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items())) or "nothing"
