"""Making a damaged journal one that opens, with every record that can still be read.

Each damaged segment is written anew from its valid frames (salvage.py) and takes the old one's place by one
rename. Records that are lost are replaced by as many that say nothing, because sequences must go on without
a gap. What is replaced or taken out is kept in aside/. A crash at any moment leaves a journal that is damaged
as before, or less, or not: the next repair goes on.

Recovery passes over records of tasks that it does not know, so what follows lost records stays of use. But
leases and completions may be among the lost: everything in a repaired journal is flagged as delivered before.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from chervil_broker.journal.backup import put
from chervil_broker.journal.files import Files
from chervil_broker.journal.layout import LayoutError, SegmentHeader, VersionError, first_of, segment_name
from chervil_broker.journal.opening import RESTORED
from chervil_broker.journal.reader import Damage, newer_version, read_all, segment_names
from chervil_broker.journal.salvage import LOST_MAX, Salvage, guessed_header, salvage, segment_of
from chervil_broker.journal.tail import keep

#: More missing segments than this in one place (32 GiB) are files that do not belong together.
MISSING_MAX = 1000
#: What a segment is called while it is written anew.
_UNFINISHED = "repairing"


class Step(NamedTuple):
    """What is done about one segment."""

    #: The file as it is now; None where it is missing.
    name: str | None
    #: What is wrong, for people.
    what: str
    #: Records; None: nobody knows how many.
    lost: int | None
    #: Records of it that stay.
    saved: int
    #: What the segment is to be; None: it is only put aside.
    header: SegmentHeader | None
    #: The sequence with which the next one begins; None: it is the last.
    until: int | None


@dataclass
class Plan:
    """What a repair does."""

    steps: list[Step] = field(default_factory=list)
    #: Records that stay, in all segments.
    saved: int = 0

    @property
    def lost(self) -> int:
        """Records, as far as they can be counted."""
        return sum(step.lost or 0 for step in self.steps)


class _Seen(NamedTuple):
    """A segment whose frames can be read."""

    name: str
    #: Number 0: nobody knows; instance empty: nobody knows.
    header: SegmentHeader
    #: Why the header must be written anew; "" where it is right.
    problem: str


def plan(files: Files) -> Plan:
    """What a repair would do; without steps where a broker would open the journal. Changes nothing.

    Raises Damage for what is not to be repaired: a newer version, files that do not belong together.
    """
    found = Plan()
    seen = _in_order(_of_one_broker(_readable(files, found), found), found)
    for segment, following in zip(seen, [*seen[1:], None], strict=True):
        until = following.header.first if following else None
        saved = salvage(segment.name, read_all(files, segment.name), segment.header, until)
        missing = following.header.number - segment.header.number - 1 if following else 0
        if missing:
            until = saved.sequence
        elif until is not None and saved.sequence < until:
            saved.problems.append("its last records are missing")
            saved.lose(until - saved.sequence, segment.name)
        if following and saved.torn and not saved.problems:
            saved.problems.append("something follows its last frame")
        found.saved += saved.saved
        if what := "; ".join(filter(None, [segment.problem, *saved.problems])):
            found.steps.append(Step(segment.name, what, saved.lost, saved.saved, segment.header, until))
        if following and missing:
            found.steps += _missing(segment, saved.sequence, following, missing)
    return found


def repair(files: Files, aside: Files, planned: Plan, new_salt: Callable[[], bytes]) -> None:
    """Does what was planned; `aside` is the folder of that name. Raises OSError."""
    names = files.names()
    # First of all, so that no part of a repair is ever without it.
    if planned.steps and RESTORED not in names:
        put(files, RESTORED, b"")
    if _UNFINISHED in names:
        files.remove(_UNFINISHED)
    files.sync_folder()
    for step in planned.steps:
        data = read_all(files, step.name) if step.name else b""
        if step.name:
            keep(aside, step.name, data)
        target = None
        if step.header:
            target = segment_name(step.header.first)
            put(files, _UNFINISHED, _rewritten(step, step.header, data, new_salt()))
            files.rename(_UNFINISHED, target)
            files.sync_folder()
        if step.name and step.name != target:
            files.remove(step.name)
            files.sync_folder()


def _rewritten(step: Step, header: SegmentHeader, data: bytes, salt: bytes) -> bytes:
    name = step.name or segment_name(header.first)
    saved = salvage(name, data, header, step.until) if step.name else Salvage([], header.first)
    if step.until is not None:
        saved.lose(step.until - saved.sequence, name)
    return segment_of(header._replace(salt=salt), saved, len(data))


def _readable(files: Files, found: Plan) -> Iterator[_Seen]:
    """The segments that have a header, or frames from which one can be made."""
    for name in segment_names(files):
        data = read_all(files, name)
        named = first_of(name) or 0
        try:
            header = SegmentHeader.unpack(data)
        except VersionError as error:
            raise newer_version(name, error) from None
        except LayoutError as error:
            guessed = guessed_header(named, data)
            if guessed:
                yield _Seen(name, guessed, str(error))
            else:
                found.steps.append(_put_aside(name, f"{error}, and no frame in it can be read"))
        else:
            yield _Seen(name, header, "" if header.first == named else "its name was not right")


def _of_one_broker(readable: Iterator[_Seen], found: Plan) -> list[_Seen]:
    """Those of the broker that most are of; among as many, the newest one's."""
    seen = list(readable)
    known = [segment.header.instance for segment in reversed(seen) if segment.header.instance]
    # Where nobody knows it any more, it is another broker for workers: their sessions are over.
    unknown = bytes(8) + seen[0].header.salt if seen else b""
    instance = Counter(known).most_common(1)[0][0] if known else unknown
    belonging = []
    for segment in seen:
        if segment.header.instance in (instance, b""):
            belonging.append(segment._replace(header=segment.header._replace(instance=instance)))
        else:
            found.steps.append(_put_aside(segment.name, "it is of another broker"))
    return belonging


def _in_order(seen: list[_Seen], found: Plan) -> list[_Seen]:
    """Those that can follow one another, with the numbers that nobody knew."""
    ordered: list[_Seen] = []
    # Of two that begin alike, that one first which has the right name and header.
    seen = sorted(seen, key=lambda segment: (segment.header.first, bool(segment.problem)))
    for position, segment in enumerate(seen):
        header = segment.header
        before = ordered[-1].header if ordered else None
        after = next((other.header for other in seen[position + 1 :] if other.header.number), None)
        if not header.number:
            number = before.number + 1 if before else after.number - 1 if after else 1
            header = header._replace(number=number)
        follows = before is None or (header.number > before.number and header.first > before.first)
        room = segment.header.number or after is None or 0 < header.number < after.number
        if follows and room:
            ordered.append(segment._replace(header=header))
        else:
            found.steps.append(_put_aside(segment.name, "it does not go on from the one before"))
    return ordered


def _missing(before: _Seen, sequence: int, after: _Seen, count: int) -> Iterator[Step]:
    """Segments in the place of so many that are missing between two."""
    lost = after.header.first - sequence
    if count > MISSING_MAX or not count <= lost <= LOST_MAX:
        what = f"{count:,} segments are missing before it: files are here that are not of one journal"
        raise Damage(after.name, 0, what, repairable=False)
    for position in range(count):
        first = sequence + position
        until = first + 1 if position + 1 < count else after.header.first
        header = SegmentHeader(before.header.instance, before.header.number + 1 + position, first, b"")
        yield Step(None, f"a segment is missing before {after.name}", until - first, 0, header, until)


def _put_aside(name: str, what: str) -> Step:
    return Step(name, what, None, 0, None, None)
