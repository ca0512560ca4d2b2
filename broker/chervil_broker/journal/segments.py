"""Where a journal stands: its segments, and the place in the last one where it goes on."""

from typing import NamedTuple


class Segment(NamedTuple):
    """A segment's file."""

    name: str
    number: int
    #: Sequence of the first record in it.
    first: int
    #: Bytes of the file, whatever of it is written.
    size: int


class Position(NamedTuple):
    """Where a journal ends, as its recovery found it."""

    #: All of them, oldest first.
    segments: tuple[Segment, ...]
    #: In the last segment, the end of its last valid frame; only zeros follow.
    offset: int
    #: That of the last record; 0 before the first.
    sequence: int
    #: The last frame ends with a CLOSE record: nothing is to be written behind it.
    clean: bool
