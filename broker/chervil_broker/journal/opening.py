"""A data folder is opened: locked, read, judged, its torn end cut, and a writer stands where it goes on."""

import gc
import os
from pathlib import Path
from typing import NamedTuple

from chervil.version import __version__
from chervil_broker.bodies import Bodies
from chervil_broker.clock import Clock
from chervil_broker.journal import tail
from chervil_broker.journal.boot import boot_id
from chervil_broker.journal.files import OSFiles
from chervil_broker.journal.lock import FolderLock
from chervil_broker.journal.reader import Damage, Reader
from chervil_broker.journal.records import Open, RecordError, decode, pack
from chervil_broker.journal.replay import Replay
from chervil_broker.journal.spares import Spares
from chervil_broker.journal.writer import Fsync, Writer

#: In this folder is what was cut off.
ASIDE = "aside"
#: A folder with this file is a restored backup, or was repaired: tasks may have been done since.
RESTORED = "restored"
_INSTANCE_SIZE = 16
_SALT_SIZE = 8
#: What a segment holds besides its first record, with room to spare.
_BESIDE = 64 * 1024


class Opened(NamedTuple):
    """What a data folder holds, and what writes there from now on."""

    lock: FolderLock
    files: OSFiles
    spares: Spares
    writer: Writer
    #: The broker's, the same for as long as the folder lives.
    instance: bytes
    bodies: Bodies
    replay: Replay
    #: Records that were read, bytes that a crash had torn.
    records: int
    torn: int
    #: It was a restored backup, or repaired: what is not final in it is flagged as delivered before.
    restored: bool


def open_folder(folder: Path, fsync: Fsync, clock: Clock, record_max: int = 0) -> Opened:
    """Opens a data folder, which is made if it is missing; `clock` goes on from where the journal ends.

    `record_max`: bytes of the largest record; the reserve for a full disk has room for it.

    Raises FolderInUse, chervil.statedir.NotPrivate, Damage, OSError. Nothing is changed then.
    """
    lock = FolderLock(folder)
    try:
        return _open(lock, folder, fsync, clock, record_max)
    except BaseException:
        lock.release()
        raise


def _open(lock: FolderLock, folder: Path, fsync: Fsync, clock: Clock, record_max: int) -> Opened:
    files = OSFiles(folder)
    boot = boot_id()
    reader = Reader(files)
    bodies = Bodies()
    replay = Replay(bodies)
    # A million tasks are a million objects that the collector would walk over and over.
    gc.disable()
    try:
        records = _replay(reader, replay)
    finally:
        gc.enable()
    found = reader.tail
    if found is not None:
        clock.go_on(replay.now, replay.wall)
    replay.begin(boot)
    restored = flagged = RESTORED in files.names()
    if restored:
        replay.flag()
    position = None if found is None else tail.cut(files, _aside(folder), found)
    instance = reader.instance or os.urandom(_INSTANCE_SIZE)
    spares = Spares(files, least=record_max + _BESIDE if record_max else 0)
    writer = Writer(
        files,
        spares,
        instance,
        opening=lambda: pack(Open(instance, boot, fsync, clock.now(), clock.wall(), __version__, flagged)),
        new_salt=lambda: os.urandom(_SALT_SIZE),
        fsync=fsync,
    )
    writer.begin(position)
    if restored:
        # The record that says so is durable, and the next one is not to say it again.
        flagged = False
        files.remove(RESTORED)
        files.sync_folder()
    torn = 0 if found is None else found.torn
    return Opened(lock, files, spares, writer, instance, bodies, replay, records, torn, restored)


def _replay(reader: Reader, replay: Replay) -> int:
    count = 0
    for found in reader:
        replay.segment = found.segment.number
        try:
            for record in found.records:
                replay.apply(decode(record))
        except RecordError as error:
            raise Damage(found.segment.name, found.frame.offset, str(error), repairable=False) from None
        count += len(found.records)
    return count


def _aside(folder: Path) -> OSFiles:
    path = folder / ASIDE
    path.mkdir(mode=0o700, exist_ok=True)
    return OSFiles(path)
