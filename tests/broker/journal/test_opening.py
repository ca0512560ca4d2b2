"""A data folder is opened: what is there, what a crash tore, and what must not be opened."""

import errno
import os

import pytest

from chervil.protocol.messages import Confirm, Publish
from chervil_broker.clock import Clock
from chervil_broker.journal import opening
from chervil_broker.journal.files import OSFile, OSFiles
from chervil_broker.journal.layout import pack_record
from chervil_broker.journal.lock import FolderInUse
from chervil_broker.journal.opening import ASIDE, RESTORED, open_folder
from chervil_broker.journal.reader import Damage, Reader
from chervil_broker.journal.records import Close, Open, decode, pack
from chervil_broker.journal.spares import PAGE, Spares
from tests.broker.journaled import play
from tests.broker.talk import task

HOUR = 3600 * 10**9


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(opening, "Spares", lambda files, least: Spares(files, first=PAGE, largest=4 * PAGE))


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "data"


def clock_at(monotonic, wall):
    return Clock(lambda: monotonic, lambda: wall)


def opened(folder, clock=None, fsync="always"):
    """Opens it, and gives it back at once."""
    found = open_folder(folder, fsync, clock or clock_at(1, 1))
    found.lock.release()
    return found


def closed(folder, now=5, wall=5, clock=None):
    """Opens it, and ends in order."""
    found = opened(folder, clock)
    found.writer.close_clean([pack(Close(now, wall))])
    return found


def records(folder):
    return [decode(record) for found in Reader(OSFiles(folder)) for record in found.records]


def fill(folder, *ids):
    async def publish(house):
        guest = await house.guest()
        guest.send(Publish(1, [task(id_) for id_ in ids]))
        await guest.expect(Confirm)

    play(folder, publish)


def tasks(found):
    return {id_: each for known in found.replay.vhosts.values() for id_, each in known.tasks.items()}


def test_a_folder_that_is_not_there_is_made_and_begins_with_an_opening_record(folder):
    found = opened(folder)
    assert (found.records, found.torn, tasks(found)) == (0, 0, {})
    (record,) = records(folder)
    assert type(record) is Open
    assert (record.instance, record.fsync, record.boot) == (found.instance, "always", opening.boot_id())
    assert len(found.instance) == 16


def test_the_instance_is_the_same_for_as_long_as_the_folder_lives(folder):
    first = closed(folder)
    again = opened(folder)
    assert again.instance == first.instance == opened(folder).instance


def test_broker_time_goes_on_from_where_the_journal_ends(folder):
    closed(folder, 500 * HOUR, 1000 * HOUR)
    clock = clock_at(7, 1001 * HOUR)
    opened(folder, clock)
    assert clock.now() == 501 * HOUR
    fresh = clock_at(7, 1001 * HOUR)
    opened(folder.with_name("other"), fresh)
    assert fresh.now() == 7


def test_after_a_clean_end_it_goes_on_in_a_new_segment_and_else_in_the_last(folder):
    assert len(closed(folder).writer.segments) == 1
    assert len(opened(folder).writer.segments) == 2
    assert len(opened(folder).writer.segments) == 2


def test_a_torn_end_is_cut_off_and_put_aside_and_never_seen_again(folder):
    fill(folder, b"1" * 16)
    first = opened(folder)
    last = folder / first.writer.segments[-1].name
    end = first.writer._offset
    first.writer.close()
    with last.open("r+b") as file:
        file.seek(end)
        file.write(b"CHVF torn")
    found = opened(folder)
    assert (found.torn, list(tasks(found))) == (9, [b"1" * 16])
    (aside,) = (folder / ASIDE).iterdir()
    assert aside.read_bytes() == b"CHVF torn"
    again = opened(folder)
    assert (again.torn, again.records) == (0, found.records + 1)


def test_bodies_and_tasks_are_there_again(folder):
    fill(folder, b"1" * 16, b"2" * 16)
    found = opened(folder)
    known = tasks(found)
    assert set(known) == {b"1" * 16, b"2" * 16}
    assert {found.bodies.task(each.handle)[2] for each in known.values()} == {b"[[2,3],{}]"}


def test_a_damaged_journal_is_not_opened_and_nothing_is_changed(folder):
    closed(folder)
    closed(folder)
    first = min(folder.glob("seg-*"))
    data = bytearray(first.read_bytes())
    data[100] ^= 1
    first.write_bytes(data)
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    with pytest.raises(Damage, match=first.name):
        open_folder(folder, "always", Clock())
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before
    with pytest.raises(Damage):  # and not FolderInUse
        open_folder(folder, "always", Clock())


def test_a_record_that_this_program_does_not_know_is_damage_that_no_repair_helps(folder):
    found = opened(folder)
    found.writer.write([pack_record(b"\x91\x63")])
    found.writer.close()
    with pytest.raises(Damage, match="kind 99") as raised:
        open_folder(folder, "always", Clock())
    assert not raised.value.repairable


def test_the_folder_is_this_processs_until_it_is_released(folder):
    found = open_folder(folder, "always", Clock())
    with pytest.raises(FolderInUse):
        open_folder(folder, "always", Clock())
    found.lock.release()
    opened(folder)


def test_whatever_fails_on_the_way_gives_the_folder_back_and_loses_nothing(folder, monkeypatch):
    """Each sync of an opening fails once; then it is opened, and all is there."""
    fill(folder, b"1" * 16)
    sync = OSFile.sync
    calls = failing = 0

    def fail(file):
        nonlocal calls
        calls += 1
        if calls == failing:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        sync(file)

    monkeypatch.setattr(OSFile, "sync", fail)
    while True:
        calls, failing = 0, failing + 1
        try:
            found = opened(folder)
        except OSError:
            continue
        break
    assert failing > 3
    assert list(tasks(found)) == [b"1" * 16]
    assert not found.replay.vhosts[next(iter(found.replay.vhosts))].tasks[b"1" * 16].redelivered


# What nobody can tell: whether tasks were claimed that the journal has as ready.


@pytest.mark.parametrize("fsync", ["interval", "off"])
def test_after_a_stop_of_the_machine_tasks_are_flagged_where_not_all_was_synced(folder, fsync, monkeypatch):
    fill(folder, b"1" * 16)
    opened(folder, fsync=fsync)
    assert not tasks(opened(folder, fsync=fsync))[b"1" * 16].redelivered, (
        "the broker stopped, not the machine"
    )
    monkeypatch.setattr(opening, "boot_id", lambda: "another boot")
    assert tasks(opened(folder))[b"1" * 16].redelivered
    assert tasks(opened(folder))[b"1" * 16].redelivered, "for good"


def test_after_a_stop_of_the_machine_nothing_is_flagged_where_all_was_synced(folder, monkeypatch):
    fill(folder, b"1" * 16)
    opened(folder)
    monkeypatch.setattr(opening, "boot_id", lambda: "another boot")
    assert not tasks(opened(folder))[b"1" * 16].redelivered


@pytest.mark.parametrize("clean", [True, False])
def test_a_restored_backup_is_flagged_once_and_for_good(folder, clean):
    fill(folder, b"1" * 16)
    if not clean:
        opened(folder)
    (folder / RESTORED).write_bytes(b"")
    found = opened(folder)
    assert found.restored
    assert tasks(found)[b"1" * 16].redelivered
    assert not (folder / RESTORED).exists()
    assert [record.flagged for record in records(folder) if type(record) is Open][-1]
    again = opened(folder)
    assert not again.restored
    assert tasks(again)[b"1" * 16].redelivered, "the record says so"
    assert not [record.flagged for record in records(folder) if type(record) is Open][-1]


def test_tasks_that_come_to_a_restored_folder_are_not_flagged(folder):
    fill(folder, b"1" * 16)
    (folder / RESTORED).write_bytes(b"")
    fill(folder, *[b"%016d" % n for n in range(60)])
    found = opened(folder)
    assert len(found.writer.segments) > 2, "each of which has a record of its opening"
    assert [id_ for id_, each in tasks(found).items() if each.redelivered] == [b"1" * 16]


def test_the_mark_of_a_restored_backup_stays_until_the_record_is_durable(folder, monkeypatch):
    fill(folder, b"1" * 16)
    (folder / RESTORED).write_bytes(b"")
    sync = OSFile.sync
    monkeypatch.setattr(OSFile, "sync", lambda file: (_ for _ in ()).throw(OSError(errno.EIO, "")))
    with pytest.raises(OSError, match="5"):
        opened(folder)
    assert (folder / RESTORED).exists()
    monkeypatch.setattr(OSFile, "sync", sync)
    assert tasks(opened(folder))[b"1" * 16].redelivered
