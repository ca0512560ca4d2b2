"""Small journals made byte by byte, without the writer: what the reader is told must not depend on it."""

import random
from dataclasses import dataclass, field
from typing import NamedTuple

import msgpack

from chervil_broker.journal.layout import SegmentHeader, frame_size, pack_frame, pack_record, segment_name
from chervil_broker.journal.reader import Reader
from tests.broker.journal.fake_files import FakeFiles

INSTANCE = bytes(range(16))
CLOSE = msgpack.packb([2, 1, 2])
TICK = msgpack.packb([3, 1, 2])


class Placed(NamedTuple):
    """A frame and where it is."""

    segment: str
    offset: int
    end: int
    first: int
    #: Without their lengths; empty: a MARK.
    records: tuple[bytes, ...]


@dataclass
class Journal:
    """A journal that grows frame by frame."""

    seed: int = 1
    instance: bytes = INSTANCE
    files: FakeFiles = field(default_factory=FakeFiles)
    frames: list[Placed] = field(default_factory=list)
    sequence: int = 1
    number: int = 0
    segment: str = ""
    salt: bytes = b""
    offset: int = 0

    def __post_init__(self):
        self.random = random.Random(self.seed)

    def begin(self, size):
        """A new segment."""
        self.number += 1
        self.segment = segment_name(self.sequence)
        self.salt = self.random.randbytes(8)
        header = SegmentHeader(self.instance, self.number, self.sequence, self.salt).pack()
        self.files.put(self.segment, header + bytes(size - len(header)))
        self.offset = len(header)

    def frame(self, *records):
        """One more frame; a MARK without records."""
        data = pack_frame([pack_record(r) for r in records], self.sequence, self.sequence - 1, self.salt)
        self.overwrite(self.segment, self.offset, data)
        end = self.offset + len(data)
        self.frames.append(Placed(self.segment, self.offset, end, self.sequence, records))
        self.offset = end
        self.sequence += len(records)

    def fill(self, size):
        """A segment with frames of all sizes, some of them MARKs, and a few zeros left."""
        self.begin(size)
        self.frame(msgpack.packb([1, self.instance, "boot", "always", 1, 2, "0", False]), self.record())
        while True:
            records = [self.record() for _ in range(self.random.choice([0, 1, 1, 2, 5]))]
            if self.offset + frame_size(sum(len(r) + 4 for r in records)) > size - 100:
                break
            self.frame(*records)

    def record(self):
        """A TICK with a field that this version does not know, so that records have all sizes."""
        return msgpack.packb(
            [3, self.random.getrandbits(60), 1, self.random.randbytes(self.random.randrange(300))]
        )

    def overwrite(self, segment, offset, data):
        was = self.files.get(segment)
        self.files.put(segment, was[:offset] + data + was[offset + len(data) :])

    def flip(self, segment, offset, bit):
        """Turns one bit over; doing it again turns it back."""
        self.overwrite(segment, offset, bytes([self.files.get(segment)[offset] ^ 1 << bit]))

    @property
    def names(self):
        return sorted({frame.segment for frame in self.frames} | {self.segment})

    @property
    def records(self):
        return [record for frame in self.frames for record in frame.records]


def three_segments(ending, seed=1):
    """4, 6 and 8 KiB. The last frame has records, and behind it is a MARK, or CLOSE records are its last, or nothing."""
    journal = Journal(seed)
    for size in (4096, 6144):
        journal.fill(size)
        journal.frame(TICK)
    journal.fill(8192 - 512)
    journal.overwrite(journal.segment, 8192 - 512, bytes(512))
    journal.frame(TICK, journal.record())
    if ending == "mark":
        journal.frame()
    elif ending == "close":
        journal.frame(CLOSE)
    return journal


def read(files):
    """(records, tail); raises Damage."""
    reader = Reader(files)
    return [record for found in reader for record in found.records], reader.tail
