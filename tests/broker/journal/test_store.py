"""The journal as the broker's store: batches in order, of a size that frames take."""

import errno

import pytest

from chervil_broker.journal.commit import Stats
from chervil_broker.journal.segments import Segment
from chervil_broker.journal.store import JournalStore

STATS = Stats(
    commits=3, p50_ms=1.23456, p99_ms=9.87654, written=100, segments=2, spares=1, disk=12345
)  # fmt: skip


class FakeCommitter:
    """Notes what it is given."""

    def __init__(self):
        self.appended = []
        self.started = self.stopped = self.removed = 0
        self.most = 1000

    def append(self, records):
        self.appended.append(records)
        return len(self.appended)

    def start(self):
        self.started += 1

    def stop(self, clean):
        self.stopped += 1
        return True

    def remove_oldest(self):
        self.removed += 1

    def frame_bytes(self):
        return self.most

    def stats(self):
        return STATS


@pytest.fixture
def committer():
    return FakeCommitter()


@pytest.fixture
def store(committer):
    segments = (Segment("seg-a", 6, 1, 4096), Segment("seg-b", 7, 100, 8192))
    return JournalStore(committer, lambda: segments, "interval")


def test_it_keeps_what_it_is_given_and_says_how_durably(store, committer):
    assert (store.keeps, store.durability, store.segment) == (True, "interval", 7)
    assert store.append([b"a", b"b"]) == 1
    assert store.append([b"c"]) == 2
    assert committer.appended == [[b"a", b"b"], [b"c"]]


def test_a_batch_that_one_frame_should_not_hold_goes_into_several(store, committer):
    committer.most = 10
    assert store.append([b"1234", b"5678", b"90", b"x" * 30, b"y"]) == 3
    assert committer.appended == [[b"1234", b"5678", b"90"], [b"x" * 30], [b"y"]]
    assert store.append([b"z" * 11]) == 4


def test_given_up_it_takes_nothing_more_and_says_why_once(store, committer):
    failed = []
    store.on_failed = failed.append
    store.append([b"a"])
    store.give_up(OverflowError("int too big"))
    store.give_up(ValueError("that follows from it"))
    assert store.append([b"b"]) == 0
    assert committer.appended == [[b"a"]]
    assert [str(error) for error in failed] == ["an error of the broker's own, OverflowError: int too big"]


def test_whoever_asks_late_finds_that_the_disk_is_short(store, committer):
    assert not store.short
    committer.on_short(True)
    assert store.short
    committer.on_short(False)
    assert not store.short


def test_who_listens_may_be_known_later_than_the_committer(store, committer):
    told = []
    committer.on_durable(1)
    committer.on_short(True)
    committer.on_failed(OSError(errno.EIO, "gone"))
    store.on_durable = lambda number: told.append(("durable", number))
    store.on_short = lambda short: told.append(("short", short))
    store.on_failed = lambda error: told.append(("failed", error.errno))
    committer.on_durable(2)
    committer.on_short(True)
    committer.on_short(False)
    committer.on_failed(OSError(errno.EIO, "gone"))
    assert told == [("durable", 2), ("short", True), ("short", False), ("failed", errno.EIO)]


def test_the_newest_segment_is_the_one_that_the_thread_told_of(store, committer):
    committer.on_segment(8)
    assert store.segment == 8


def test_the_threads_are_the_committers(store, committer):
    store.start()
    store.remove_oldest()
    assert store.stop([b"close"])
    assert (committer.started, committer.removed, committer.stopped) == (1, 1, 1)


def test_stats_tell_of_commits_and_disk(store):
    assert store.committed is STATS
    assert store.stats() == {
        "commits": 3,
        "commit_p50_ms": 1.235,
        "commit_p99_ms": 9.877,
        "written_bytes": 100,
        "segments": 2,
        "disk_bytes": 12345,
    }
