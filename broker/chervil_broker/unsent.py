"""What waits for all peers together because they do not read, and who is cut off where it is too much."""

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from chervil_broker.peer import Peer

#: Bytes are only added up as they come; what was taken meanwhile is known when all peers are looked at:
#: once for every such part of the limit, so that it costs next to nothing a byte.
LOOKS_PER_LIMIT = 16
#: What everybody's bytes have waited at least. The time counts twice: who reads, and was just given much, is
#: spared before those who have taken nothing for a second; who takes a byte at a time is not spared for it.
FRESH_SECONDS = 0.1


class Unsent:
    """The account of it, in bytes: right up to a slack of the limit at any moment."""

    __slots__ = ("_peers", "_slack", "added", "limit", "total")

    def __init__(self, peers: Mapping[int, "Peer"], limit: int) -> None:
        """`peers` are all that are connected, by their numbers."""
        self._peers = peers
        self.limit = limit
        self._slack = limit // LOOKS_PER_LIMIT
        #: What waited when it was last counted, and what was handed over since.
        self.total = 0
        self.added = 0

    @property
    def too_much(self) -> bool:
        """Whether it is over the limit, as it was last counted."""
        return self.total > self.limit

    def add(self, size: int) -> None:
        """So much was handed over to a peer. Cuts nobody off: the engine may be in the middle of things."""
        self.added += size
        if self.added > self._slack:
            self.count()

    def count(self) -> None:
        """Looks how much is still there, and who takes it."""
        now = time.monotonic()
        self.added = 0
        self.total = sum([peer.look(now) for peer in self._peers.values()])

    def enforce(self, now: float) -> None:
        """Cuts off those for whom most has waited for longest until the rest is within the limit."""
        if not self.too_much:
            return
        self.count()
        peers = list(self._peers.values())
        peers.sort(key=lambda peer: peer.unsent * max(peer.stalled(now), FRESH_SECONDS) ** 2)
        while self.too_much and peers:
            peer = peers.pop()
            unsent = peer.unsent
            peer.cut_off(
                f"it does not read fast enough: {unsent} bytes wait for it, and {self.total} for all clients"
            )
            self.total -= unsent
