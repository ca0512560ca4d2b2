"""Cutting what a crash tore: kept aside, then overwritten with zeros, then synced.

Whoever opens a journal does this before anything else is written: what a reader has read may not be on the
disk yet, and nobody may be told of it before it is.
"""

from chervil_broker.journal.files import Files
from chervil_broker.journal.reader import Tail, read_all
from chervil_broker.journal.segments import Position

#: Torn tails that are kept: enough to look into what happened; a broker that dies for ever fills no disk.
TAILS_MAX = 64


def cut(files: Files, aside: Files, tail: Tail) -> Position:
    """Returns where a writer goes on. Doing it again changes nothing. `aside` is the folder of that name.

    A crash in between leaves the torn bytes, or zeros in place of some: the next time cuts them.
    """
    position = tail.position
    name = position.segments[-1].name
    file = files.open(name)
    try:
        if tail.torn:
            torn = file.read(tail.torn, position.offset)
            _make_room(aside)
            keep(aside, f"{name}-{position.offset:010d}", torn)
            file.write(bytes(len(torn)), position.offset)
        file.sync()
    finally:
        file.close()
    return position


def keep(aside: Files, name: str, data: bytes) -> str:
    """Puts bytes aside, durably, and returns the name they have there: another one where others have it."""
    taken = set(aside.names())
    chosen, number = name, 1
    while chosen in taken:
        if read_all(aside, chosen) == data:
            return chosen
        number += 1
        chosen = f"{name}-{number}"
    file = aside.create(chosen, len(data))
    try:
        file.write(data, 0)
        file.sync()
    finally:
        file.close()
    aside.sync_folder()
    return chosen


def _make_room(aside: Files) -> None:
    """Drops the oldest tails, so that one more is not too many; what `repair` kept stays."""
    tails = [name for name in aside.names() if ".log-" in name]
    for name in tails[: max(len(tails) - TAILS_MAX + 1, 0)]:
        aside.remove(name)
