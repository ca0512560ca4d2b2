import errno
import threading
import time
from queue import Empty, SimpleQueue

import pytest

from chervil_broker.journal import commit, housekeeping
from chervil_broker.journal.commit import Committer
from chervil_broker.journal.reader import Reader
from chervil_broker.journal.spares import Spares
from chervil_broker.journal.writer import Writer
from tests.broker.journal.fake_files import FakeFiles
from tests.broker.journal.test_writer import CLOSE, INSTANCE, OPEN, record, tail, written

DEADLINE = 10
PAGE = 4096
#: A segment that no test fills.
LARGE = 1024 * PAGE


class Rig:
    """A committer over files in memory; what it says arrives in queues."""

    def __init__(self, fsync="always", first=PAGE, largest=4 * PAGE):
        self.files = FakeFiles()
        spares = Spares(self.files, first, largest)
        salts = iter(range(1000))
        self.writer = Writer(
            self.files,
            spares,
            INSTANCE,
            opening=lambda: OPEN,
            new_salt=lambda: next(salts).to_bytes(8, "big"),
            fsync=fsync,
        )
        self.writer.begin(None)
        self.committer = Committer(self.writer, spares, lambda callback, *args: callback(*args))
        self.durable, self.failed, self.short, self.segment = (SimpleQueue() for _ in range(4))
        self.committer.on_durable = self.durable.put
        self.committer.on_failed = self.failed.put
        self.committer.on_short = self.short.put
        self.committer.on_segment = self.segment.put
        self.reached, self.go_on = threading.Event(), threading.Event()
        self.stopped = False

    def hold(self, operation):
        """The next such call of a segment waits for `go_on`; `reached` tells that it is there."""

        def before(call):
            if call.operation == operation and call.name.startswith("seg-") and not self.go_on.is_set():
                self.reached.set()
                assert self.go_on.wait(DEADLINE)

        self.files.before = before

    def wait_for(self, number):
        while (durable := self.durable.get(timeout=DEADLINE)) < number:
            pass
        assert durable == number

    def frames(self):
        return [(found.frame.first, found.frame.record_count) for found in Reader(self.files)]

    def stop(self, clean=(CLOSE,)):
        self.stopped = True
        return self.committer.stop(list(clean))


@pytest.fixture
def rig(monkeypatch):
    monkeypatch.setattr(commit, "RETRY_SECONDS", 0.01)
    monkeypatch.setattr(housekeeping, "RETRY_SECONDS", 0.01)
    monkeypatch.setattr(commit, "MARK_SECONDS", 1000)
    rigs = []

    def make(**options):
        rigs.append(Rig(**options))
        return rigs[-1]

    yield make
    for made in rigs:
        made.go_on.set()
        if made.committer._thread.ident is not None and not made.stopped:
            made.stop()


def count(rig, operation):
    return sum(call.operation == operation and call.name.startswith("seg-") for call in rig.files.calls)


def wait_until(condition):
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_appends_are_numbered_from_one_and_told_when_they_are_durable(rig):
    rig = rig()
    states = []
    rig.committer.on_durable = lambda number: (states.append(rig.files.crash()), rig.durable.put(number))
    rig.committer.start()
    assert rig.committer.append([record(1), record(2)]) == 1
    rig.wait_for(1)
    assert written(states[0]) == [record(1), record(2)]
    assert rig.committer.append([record(3)]) == 2
    rig.wait_for(2)
    assert written(states[1]) == [record(1), record(2), record(3)]


def test_what_is_appended_during_a_sync_is_one_frame(rig):
    rig = rig()
    rig.hold("sync")
    rig.committer.start()
    rig.committer.append([record(1)])
    assert rig.reached.wait(DEADLINE)
    for number in (2, 3, 4):
        rig.committer.append([record(number), record(number)])
    assert rig.durable.empty()
    rig.go_on.set()
    rig.wait_for(1)
    rig.wait_for(4)
    assert rig.frames() == [(1, 1), (2, 1), (3, 6)]


def test_append_is_never_split_over_frames_and_frames_have_a_size(rig, monkeypatch):
    monkeypatch.setattr(commit, "FRAME_BYTES", 1000)
    rig = rig()
    rig.hold("sync")
    rig.committer.start()
    rig.committer.append([record(1)])
    assert rig.reached.wait(DEADLINE)
    for number, size in ((2, 400), (3, 200), (4, 400), (5, 400), (6, 3000), (7, 20)):
        rig.committer.append([record(number, size // 2)] * 2)
    rig.go_on.set()
    for number in (1, 4, 5, 6, 7):
        assert rig.durable.get(timeout=DEADLINE) == number
    assert [frame[1] for frame in rig.frames()] == [1, 1, 6, 2, 3, 2], "the fifth begins a segment"


def test_append_without_records_is_durable_with_what_came_before_it(rig):
    rig = rig()
    rig.committer.start()
    rig.committer.append([])
    rig.wait_for(1)
    assert rig.frames() == [(1, 1)]


def test_mark_follows_a_frame_after_a_while_and_only_once(rig, monkeypatch):
    monkeypatch.setattr(commit, "MARK_SECONDS", 0.005)
    rig = rig()
    rig.committer.start()
    wait_until(lambda: rig.frames() == [(1, 1), (2, 0)])
    rig.committer.append([record(1)])
    began = time.monotonic()
    wait_until(lambda: rig.frames()[-2:] == [(2, 1), (3, 0)])
    assert time.monotonic() - began >= 0.004
    syncs = count(rig, "sync")
    rig.stop()
    assert rig.frames() == [(1, 1), (2, 0), (2, 1), (3, 0), (3, 1)]
    assert count(rig, "sync") <= syncs + 2


def test_with_interval_a_frame_counts_when_it_is_written_and_is_synced_later(rig, monkeypatch):
    monkeypatch.setattr(commit, "INTERVAL_SECONDS", 0.05)
    rig = rig(fsync="interval")
    rig.committer.start()
    rig.hold("sync")
    rig.committer.append([record(1)])
    rig.wait_for(1)
    assert rig.reached.wait(DEADLINE)
    assert written(rig.files.crash()) == []
    rig.go_on.set()
    wait_until(lambda: written(rig.files.crash()) == [record(1)])


@pytest.mark.parametrize("waiting", [1, 2])
def test_with_interval_load_does_not_put_the_sync_off(rig, monkeypatch, waiting):
    """With one frame after the other, and with the next ones waiting whenever one is written."""
    monkeypatch.setattr(commit, "INTERVAL_SECONDS", 0.02)
    monkeypatch.setattr(commit, "FRAME_BYTES", 1)
    rig = rig(fsync="interval", first=LARGE, largest=LARGE)
    syncs = count(rig, "sync")
    enough = threading.Event()

    def on_durable(number):
        if count(rig, "sync") >= syncs + 4:
            enough.set()
        elif len(rig.writer.segments) == 1:
            rig.committer.append([record(1, 10)])

    rig.committer.on_durable = on_durable
    for _ in range(waiting):
        rig.committer.append([record(1, 10)])
    rig.committer.start()
    assert enough.wait(DEADLINE)


def test_with_interval_the_mark_comes_after_the_sync(rig, monkeypatch):
    monkeypatch.setattr(commit, "INTERVAL_SECONDS", 0.01)
    monkeypatch.setattr(commit, "MARK_SECONDS", 0.001)
    rig = rig(fsync="interval")
    rig.committer.start()
    wait_until(lambda: rig.frames()[-1][1] == 0)
    before = len(rig.files.calls)
    rig.committer.append([record(1)])
    wait_until(lambda: len(rig.frames()) == 4)
    wait_until(lambda: len(rig.files.calls) >= before + 4)
    calls = [call.operation for call in rig.files.calls[before:] if call.name.startswith("seg-")]
    assert calls == ["write", "sync", "write", "sync"]


def test_with_off_nothing_is_synced_before_the_end(rig):
    rig = rig(fsync="off")
    rig.committer.start()
    syncs = count(rig, "sync")
    for number in range(1, 6):
        rig.wait_for(rig.committer.append([record(number)]))
    assert count(rig, "sync") == syncs
    assert rig.stop()
    assert written(rig.files.crash()) == [*map(record, range(1, 6)), CLOSE]


def test_stop_commits_what_was_appended_and_then_the_end(rig):
    rig = rig()
    rig.hold("sync")
    rig.committer.start()
    rig.committer.append([record(1)])
    assert rig.reached.wait(DEADLINE)
    rig.committer.append([record(2)])
    rig.go_on.set()
    assert rig.stop([record(3), CLOSE])
    rig.wait_for(1)
    rig.wait_for(2)
    after = rig.files.crash()
    assert written(after) == [record(1), record(2), record(3), CLOSE]
    assert tail(after).position.clean
    assert rig.failed.empty()


def test_new_segment_is_told_and_its_spare_is_made_anew(rig):
    rig = rig()
    rig.committer.start()
    wait_until(lambda: rig.committer.stats().spares == 2)
    rig.wait_for(rig.committer.append([record(1, 4000)]))
    assert rig.segment.get(timeout=DEADLINE) == 2
    wait_until(lambda: rig.committer.stats().spares == 2)
    assert rig.segment.empty()


def test_oldest_segment_is_removed_beside_the_commits(rig):
    rig = rig()
    rig.committer.start()
    rig.wait_for(rig.committer.append([record(1, 4000)]))
    rig.hold("remove")
    rig.committer.remove_oldest()
    assert rig.reached.wait(DEADLINE)
    rig.wait_for(rig.committer.append([record(2)]))
    rig.go_on.set()
    wait_until(lambda: rig.committer.stats().segments == 1)
    assert rig.stop()
    assert written(rig.files.crash()) == [record(1, 4000), record(2), CLOSE]


def test_segment_that_is_to_be_removed_is_removed_before_the_end(rig):
    rig = rig()
    rig.committer.start()
    rig.wait_for(rig.committer.append([record(1, 4000)]))
    rig.committer._housekeeper.do(rig.go_on.wait)
    rig.committer.remove_oldest()
    ended = SimpleQueue()
    threading.Thread(target=lambda: ended.put(rig.stop())).start()
    with pytest.raises(Empty):
        ended.get(timeout=0.05)
    rig.go_on.set()
    assert ended.get(timeout=DEADLINE)
    assert rig.failed.empty()
    assert rig.committer.stats().segments == 1
    assert tail(rig.files.crash()).position.clean


@pytest.mark.parametrize("fsync", ["interval", "off"])
def test_what_stands_in_for_a_segment_is_durable_before_that_is_removed(rig, fsync):
    rig = rig(fsync=fsync)
    rig.committer.start()
    rig.wait_for(rig.committer.append([record(1, 4000)]))
    rig.wait_for(rig.committer.append([record(1), record(2)]))
    rig.hold("remove")
    rig.committer.remove_oldest()
    assert rig.reached.wait(DEADLINE)
    assert written(rig.files.crash())[-2:] == [record(1), record(2)]
    rig.go_on.set()
    assert rig.stop()


def test_segment_is_not_removed_when_what_stands_in_for_it_can_not_be_synced(rig):
    rig = rig(fsync="off")
    rig.committer.start()
    rig.wait_for(rig.committer.append([record(1, 4000)]))
    rig.wait_for(rig.committer.append([record(2)]))
    rig.files.fail_at(len(rig.files.calls) + 1, errno.EIO)
    rig.committer.remove_oldest()
    assert rig.failed.get(timeout=DEADLINE).errno == errno.EIO
    assert not rig.stop()
    assert not [call for call in rig.files.calls if call.operation == "remove"]


def test_full_disk_does_not_keep_a_segment_from_being_removed(rig):
    """The commit thread waits for room, which the removal makes."""
    rig = rig(fsync="off")
    rig.committer.start()
    rig.wait_for(rig.committer.append([record(1, 4000)]))
    rig.wait_for(rig.committer.append([record(2)]))
    wait_until(lambda: len(rig.committer._spares.sizes) == 2)
    rig.files.room = 0
    tries = count_creates(rig)
    last = rig.committer.append([record(3, 40_000)])
    wait_until(lambda: count_creates(rig) > tries + 1)
    rig.committer.remove_oldest()
    wait_until(lambda: any(call.operation == "remove" for call in rig.files.calls))
    rig.files.room = None
    rig.wait_for(last)
    assert rig.stop()


def test_stats_tell_commits_their_times_and_the_room_on_disk(rig):
    rig = rig()
    assert rig.committer.stats()[:3] == (0, 0.0, 0.0)
    rig.hold("sync")
    rig.committer.start()
    rig.committer.append([record(1)])
    assert rig.reached.wait(DEADLINE)
    began = time.monotonic()
    while time.monotonic() - began < 0.01:
        time.sleep(0.001)
    rig.go_on.set()
    rig.wait_for(1)
    wait_until(lambda: rig.committer.stats().spares == 2)
    stats = rig.committer.stats()
    assert stats.commits == 1
    assert 10 <= stats.p50_ms == stats.p99_ms < DEADLINE * 1000
    assert stats.written == sum(found.frame.end - found.frame.offset for found in Reader(rig.files))
    assert stats.segments == 1
    assert stats.disk == (1 + 2 + 4) * PAGE


@pytest.mark.parametrize("operation", ["write", "sync"])
def test_failure_confirms_nothing_and_is_the_end(rig, operation):
    rig = rig()
    rig.committer.start()
    rig.wait_for(rig.committer.append([record(1)]))
    wait_until(lambda: rig.committer.stats().spares == 2)
    rig.files.fail_at(len(rig.files.calls) + (1 if operation == "write" else 2), errno.EIO)
    rig.committer.append([record(2)])
    assert rig.failed.get(timeout=DEADLINE).errno == errno.EIO
    calls = len(rig.files.calls)
    rig.committer.append([record(3)])
    assert not rig.stop()
    assert rig.durable.empty()
    assert rig.failed.empty()
    assert len(rig.files.calls) == calls


@pytest.mark.parametrize("both", [False, True])
def test_failed_spare_ends_the_commits_too(rig, both):
    rig = rig()
    rig.hold("sync")
    rig.files.fail_at(len(rig.files.calls) + 2, errno.EIO)
    if both:
        rig.files.fail_at(len(rig.files.calls) + 3, errno.EIO)
    rig.committer.append([record(1)])
    rig.committer.start()
    assert rig.reached.wait(DEADLINE)
    error = rig.failed.get(timeout=DEADLINE)
    assert error.errno == errno.EIO
    rig.go_on.set()
    rig.committer._thread.join(DEADLINE)
    assert rig.durable.empty()
    assert rig.failed.empty(), "said once"
    assert not rig.stop()


def test_failed_spare_ends_a_thread_that_has_nothing_to_do(rig):
    rig = rig()
    rig.files.fail_at(len(rig.files.calls) + 1, errno.EIO)
    rig.committer.start()
    assert rig.failed.get(timeout=DEADLINE).errno == errno.EIO
    rig.committer._thread.join(DEADLINE)
    assert not rig.committer._thread.is_alive()


def test_failure_of_another_kind_is_told_as_well(rig, caplog):
    rig = rig()
    rig.committer.start()
    rig.committer.append(["no bytes"])
    error = rig.failed.get(timeout=DEADLINE)
    assert isinstance(error, OSError)
    assert "TypeError" in str(error)
    assert "a thread of the journal ended" in caplog.text
    assert not rig.stop()


def test_commits_go_on_in_the_spares_while_the_disk_is_full_and_wait_when_they_are_used(rig):
    rig = rig(largest=PAGE)
    rig.committer.start()
    wait_until(lambda: rig.committer.stats().spares == 2)
    rig.files.room = 0
    for number in (1, 2, 3):
        rig.wait_for(rig.committer.append([record(number, 3500)]))
    assert rig.short.get(timeout=DEADLINE) is True
    waiting = rig.committer.append([record(4, 3500)])
    tries = count_creates(rig)
    wait_until(lambda: count_creates(rig) > tries + 5)
    assert rig.durable.empty()
    rig.files.room = None
    rig.wait_for(waiting)
    assert rig.short.get(timeout=DEADLINE) is False
    assert rig.stop()
    assert written(rig.files.crash()) == [*(record(number, 3500) for number in (1, 2, 3, 4)), CLOSE]
    assert rig.failed.empty()


@pytest.mark.parametrize("fsync", ["interval", "off"])
def test_commits_that_wait_for_room_have_those_before_them_synced_unless_syncs_are_off(
    rig, monkeypatch, fsync
):
    monkeypatch.setattr(commit, "INTERVAL_SECONDS", 1000)
    rig = rig(fsync=fsync, largest=PAGE)
    rig.files.room = 0
    rig.committer.start()
    rig.wait_for(rig.committer.append([record(1)]))
    tries = count_creates(rig)
    rig.committer.append([record(2, 4000)])
    wait_until(lambda: count_creates(rig) > tries + 3)
    assert (rig.frames()[-1][1] == 0) == (fsync == "interval")
    assert written(rig.files.crash()) == ([record(1)] if fsync == "interval" else [])
    rig.files.room = None
    rig.wait_for(2)


def test_end_does_not_wait_for_room(rig):
    rig = rig(largest=PAGE)
    rig.files.room = 0
    rig.committer.start()
    assert rig.short.get(timeout=DEADLINE) is True
    rig.committer.append([record(1, 4000)])
    tries = count_creates(rig)
    wait_until(lambda: count_creates(rig) > tries + 3)
    assert not rig.stop()
    assert rig.failed.get(timeout=DEADLINE).errno == errno.ENOSPC
    assert rig.durable.empty()
    assert not tail(rig.files.crash()).position.clean


def count_creates(rig):
    return sum(call.operation == "create" for call in rig.files.calls)


def test_a_frame_has_room_in_the_reserve_twice(rig):
    committer = rig(first=4 * PAGE, largest=8 * PAGE).committer
    assert committer.frame_bytes() == commit.FRAME_BYTES, "there is no reserve yet"
    committer.start()
    until = time.monotonic() + DEADLINE
    while committer.stats().spares < 2:
        assert time.monotonic() < until
        time.sleep(0.001)
    assert committer.frame_bytes() == 4 * PAGE
