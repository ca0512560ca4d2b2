"""Whether a broker would open a journal, found out without changing it."""

from typing import NamedTuple

from chervil_broker.journal.files import Files
from chervil_broker.journal.reader import Damage, Reader, Tail
from chervil_broker.journal.records import Kind, RecordError, decode

_KINDS = frozenset(Kind)


class Checked(NamedTuple):
    """What a journal holds that is as it should be."""

    #: Bytes of all segments.
    size: int
    records: int
    #: None: there are no segments.
    tail: Tail | None


def check(files: Files) -> Checked:
    """Reads all of it; raises Damage where a broker would refuse it."""
    reader = Reader(files)
    records = 0
    for found in reader:
        try:
            for record in found.records:
                decode(record)
        except RecordError as error:
            raise undecodable(found.segment.name, found.frame.offset, error) from None
        records += len(found.records)
    segments = reader.tail.position.segments if reader.tail else ()
    return Checked(sum(segment.size for segment in segments), records, reader.tail)


def undecodable(name: str, offset: int, error: RecordError) -> Damage:
    """A record that can not be read under a right checksum; one of an unknown kind is a newer program's."""
    newer = error.kind is not None and error.kind not in _KINDS
    return Damage(name, offset, str(error), 1, repairable=not newer)
