import errno
import threading
from queue import SimpleQueue

import pytest

from chervil_broker.journal import housekeeping
from chervil_broker.journal.housekeeping import Housekeeper
from chervil_broker.journal.spares import Spares
from tests.broker.journal.fake_files import FakeFiles

PAGE = 4096
DEADLINE = 10


class Kept:
    """A housekeeper, and what it says."""

    def __init__(self):
        self.files = FakeFiles()
        self.spares = Spares(self.files, PAGE, PAGE)
        self.short = SimpleQueue()
        self.failed = SimpleQueue()
        self.keeper = Housekeeper(self.spares, self.short.put, self.failed.put)

    def settle(self):
        """Returns when all that was asked for is done."""
        done = threading.Event()
        self.keeper.do(done.set)
        assert done.wait(DEADLINE)


@pytest.fixture
def kept(monkeypatch):
    monkeypatch.setattr(housekeeping, "RETRY_SECONDS", 0.01)
    return Kept()


def test_spares_are_made_at_the_start_and_when_one_was_taken(kept):
    kept.keeper.start()
    kept.settle()
    assert kept.spares.sizes == [PAGE, PAGE]
    name, _ = kept.spares.take(1)
    kept.files.rename(name, "seg")
    kept.keeper.wake()
    kept.settle()
    assert kept.spares.sizes == [PAGE, PAGE]
    kept.keeper.stop()
    assert kept.short.empty()


def test_full_disk_is_said_once_and_again_when_there_is_room_for_all(kept):
    kept.files.room = PAGE
    kept.keeper.start()
    assert kept.short.get(timeout=DEADLINE) is True
    assert kept.spares.sizes == [PAGE]
    tries = len(kept.files.calls)
    while len(kept.files.calls) < tries + 3:
        kept.settle()
    assert kept.short.empty()
    kept.files.room = PAGE
    assert kept.short.get(timeout=DEADLINE) is False
    assert kept.spares.sizes == [PAGE, PAGE]
    kept.keeper.stop()
    assert kept.short.empty()


def test_room_is_tried_again_without_being_asked(kept):
    kept.files.room = 0
    kept.keeper.start()
    assert kept.short.get(timeout=DEADLINE) is True
    kept.files.room = None
    assert kept.short.get(timeout=DEADLINE) is False
    kept.keeper.stop()


def test_any_other_failure_ends_the_thread(kept):
    kept.files.fail_at(2, errno.EIO)
    kept.keeper.start()
    assert kept.failed.get(timeout=DEADLINE).errno == errno.EIO
    kept.keeper.stop()
    assert len(kept.files.calls) == 2


def test_job_that_fails_is_a_failure(kept):
    kept.keeper.start()
    problem = RuntimeError("job")

    def fail():
        raise problem

    kept.keeper.do(fail)
    assert kept.failed.get(timeout=DEADLINE) is problem
    kept.keeper.stop()
