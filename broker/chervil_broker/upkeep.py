"""What nobody asks for: heartbeats, peers that are silent or do not read, idle garbage collection."""

import asyncio
import gc
import time
from collections.abc import Iterator

from chervil.protocol.limits import HEARTBEAT_MS, MISSED_HEARTBEATS
from chervil_broker.broker import Broker
from chervil_broker.peer import Peer

#: How often peers are looked at for heartbeats owed and missed, in seconds.
SWEEP_SECONDS = HEARTBEAT_MS / 1000 / 4
#: Peers that are looked at before others are served: 5,000 at once took 10 to 40 ms (measured).
PEERS_AT_A_TIME = 200
#: Silence after which a peer is lost.
SILENCE_SECONDS = MISSED_HEARTBEATS * HEARTBEAT_MS / 1000
#: The collector is off while there is work (guaranteed by tests to be safe: nothing makes cycles); an
#: idle broker collects this often, for what libraries leave behind.
COLLECT_SECONDS = 60


class Upkeep:
    """Looks after one broker."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._collected_at = self._looked_at = broker.seconds()

    async def run(self) -> None:
        """Runs for ever."""
        broker = self._broker
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            now = time.monotonic()
            for _ in self.look_after_peers(now):
                await asyncio.sleep(0)
            broker.refusals.look(now)
            broker.refresh_users()
            for vhost in broker.vhosts.values():
                vhost.tell_of_shortage(now)
                broker.pump.reopen_windows(vhost)
                broker.wake(vhost)
            if now - broker.pump.ran_at >= SWEEP_SECONDS and now - self._collected_at >= COLLECT_SECONDS:
                self._collected_at = now
                gc.collect()

    def look_after_peers(self, now: float) -> Iterator[None]:
        """Sends heartbeats that are owed, and ends peers that missed theirs or do not read.

        Some peers at a time: others want to be served in between.
        """
        late = now - self._looked_at > 2 * SWEEP_SECONDS
        self._looked_at = now
        if late:
            return  # a broker that was stopped itself has not read yet what its peers said meanwhile
        peers = list(self._broker.peers.values())
        for start in range(0, len(peers), PEERS_AT_A_TIME):
            for peer in peers[start : start + PEERS_AT_A_TIME]:
                self._look_after(peer, now)
            yield
        unsent = self._broker.unsent
        if unsent.added:
            unsent.count()
        unsent.enforce(now)

    def _look_after(self, peer: Peer, now: float) -> None:
        peer.check_that_it_reads(now)
        if not (peer.consumes and peer.ready) or peer.held_up:
            return
        if now - peer.heard > SILENCE_SECONDS:
            peer.cut_off(f"it was silent for {now - peer.heard:.0f} s: taken for lost")
        elif now - peer.spoke >= HEARTBEAT_MS / 1000 - SWEEP_SECONDS:
            peer.beat()
