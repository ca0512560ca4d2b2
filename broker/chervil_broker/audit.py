"""The audit log: who was let in, and who changed what. Its lines are of the logger `chervil.audit`."""

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from chervil.protocol import WireId, to_text

if TYPE_CHECKING:
    from chervil_broker.peer import Peer

log = logging.getLogger("chervil.audit")

#: Names or ids that a line tells; of more it tells the number.
TOLD_MAX = 5


def let_in(peer: "Peer") -> None:
    """Somebody has said HELLO. The broker's own user is told of only with -v: every command line is one."""
    identity = peer.identity
    level = logging.DEBUG if identity.user is None and identity.name == "local" else logging.INFO
    log.log(
        level, "%s let in as %s by %s; it calls itself %s", peer.whence, identity.name, identity.by, peer.name
    )


def act(peer: "Peer", what: str, objects: Sequence[str | WireId], all_of_them: str = "nothing") -> None:
    """Somebody changes what others published; `all_of_them` is what no objects stand for."""
    told = ", ".join(each if isinstance(each, str) else to_text(each) for each in objects[:TOLD_MAX])
    more = f" and {len(objects) - TOLD_MAX} more" if len(objects) > TOLD_MAX else ""
    log.info("%s: %s asks for %s of %s%s", peer.whence, peer.identity.name, what, told or all_of_them, more)
