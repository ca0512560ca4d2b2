"""What a broker begins with that another one left in its data folder."""

import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from chervil_broker.access import Identity
from chervil_broker.bodies import Bodies
from chervil_broker.clock import Clock
from chervil_broker.engine.remembering import ID_BYTES
from chervil_broker.engine.restoring import Known, RestoredSession
from chervil_broker.engine.task import LEASED, STARTED, SUCCESS
from chervil_broker.journal.opening import Opened, open_folder
from chervil_broker.journal.records import SessionOpened
from chervil_broker.journal.writer import Fsync
from chervil_broker.shares import SHARE_MIN
from chervil_broker.users import Quotas
from chervil_broker.vhost import VHost

if TYPE_CHECKING:
    from chervil_broker.broker import Broker

#: A share is so many times what it is to hold: see _room_for, engine/state.py and shares.py for the parts.
_SPACIOUS = 16
log = logging.getLogger("chervil.broker")


class Recovered(NamedTuple):
    """What was known when the last broker ended."""

    instance: bytes
    bodies: Bodies
    #: By the vhost's name.
    vhosts: Mapping[str, Known]
    sessions: Mapping[int, SessionOpened]


def recover(folder: Path, fsync: Fsync, clock: Clock, record_max: int) -> tuple[Opened, Recovered]:
    """Opens a data folder and has the log say what is in it. Raises as `open_folder` does."""
    began = time.monotonic()
    opened = open_folder(folder, fsync, clock, record_max)
    replay = opened.replay
    if opened.torn:
        log.warning(
            "a crash tore the end of the journal, of which nobody had been told; bytes that were cut off "
            "and put into %s: %d",
            folder / "aside",
            opened.torn,
        )
    vhosts = replay.vhosts
    stages = [task.stage for known in vhosts.values() for task in known.tasks.values()]
    if opened.records:
        log.info(
            "recovered %d tasks in %.1f s from %s: %d not finished, of which workers had %d",
            len(stages),
            time.monotonic() - began,
            folder,
            sum(stage < SUCCESS for stage in stages),
            sum(stage in (LEASED, STARTED) for stage in stages),
        )
    if opened.restored:
        log.warning(
            "%s was restored or repaired: what is not finished in it is delivered as redelivered, for it may "
            "have run before",
            folder,
        )
    return opened, Recovered(opened.instance, opened.bodies, vhosts, replay.sessions)


def restore(broker: "Broker", recovered: Recovered) -> None:
    """Puts everything into a new broker's vhosts, and their sessions where they can be taken up again.

    A vhost that the users file does not name any more keeps what it holds until it is named again.
    """
    for name, known in recovered.vhosts.items():
        if known.tasks and name not in broker.vhosts:
            vhost = VHost(name, _room_for(known), Quotas(), broker.options, broker.clock)
            vhost.removed = True
            broker.vhosts[name] = vhost
    sessions: dict[str, list[RestoredSession]] = {name: [] for name in broker.vhosts}
    for record in recovered.sessions.values():
        owner = _owner(broker, record)
        if owner is None:
            broker.sessions.pass_over(record.number)
        else:
            broker.sessions.restore(record, owner, broker.vhosts[record.vhost])
            sessions[record.vhost].append(RestoredSession(record.number, record.name, record.sequence))
    for name, vhost in broker.vhosts.items():
        known = recovered.vhosts.get(name, Known({}, {}, {}, 0))
        vhost.restore(known, sessions[name])
        vhost.unrecorded = broker.bodies.next
        broker.wake(vhost)


def _room_for(known: Known) -> int:
    """A share in which nothing has to go for room: dead letters have an eighth of it, and results more."""
    ids = len(known.forgotten) * ID_BYTES
    return SHARE_MIN + _SPACIOUS * (ids + sum([task.weight() for task in known.tasks.values()]))


def _owner(broker: "Broker", record: SessionOpened) -> Identity | None:
    """Whose session it is, as the users file is now; None where nobody may take it up again."""
    vhost = broker.vhosts.get(record.vhost)
    user = broker.access.file.users.users.get(record.user) if record.in_users_file else None
    if vhost is None or vhost.removed or (record.in_users_file and user is None):
        return None
    owner = Identity(record.user, record.known_by, user)
    return owner if owner.may_use(record.vhost) else None
