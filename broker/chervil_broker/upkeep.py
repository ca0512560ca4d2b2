"""What nobody asks for: heartbeats, peers that are silent or do not read, idle garbage collection."""

import asyncio
import gc
import time

from chervil.protocol.limits import HEARTBEAT_MS, MISSED_HEARTBEATS
from chervil_broker.broker import Broker

#: How often peers are looked at for heartbeats owed and missed, in seconds.
SWEEP_SECONDS = HEARTBEAT_MS / 1000 / 4
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
            self.look_after_peers(now)
            broker.refusals.look(now)
            broker.refresh_users()
            for vhost in broker.vhosts.values():
                vhost.tell_of_shortage(now)
                broker.pump.reopen_windows(vhost)
                broker.wake(vhost)
            if now - broker.pump.ran_at >= SWEEP_SECONDS and now - self._collected_at >= COLLECT_SECONDS:
                self._collected_at = now
                gc.collect()

    def look_after_peers(self, now: float) -> None:
        """Sends heartbeats that are owed, and ends peers that missed theirs or do not read."""
        late = now - self._looked_at > 2 * SWEEP_SECONDS
        self._looked_at = now
        if late:
            return  # a broker that was stopped itself has not read yet what its peers said meanwhile
        for peer in list(self._broker.peers.values()):
            peer.check_that_it_reads(now)
            if not (peer.consumes and peer.ready) or peer.held_up:
                continue
            if now - peer.heard > SILENCE_SECONDS:
                peer.cut_off(f"it was silent for {now - peer.heard:.0f} s: taken for lost")
            elif now - peer.spoke >= HEARTBEAT_MS / 1000 - SWEEP_SECONDS:
                peer.beat()
        self._broker.unsent.count()
        self._broker.unsent.enforce(now)
