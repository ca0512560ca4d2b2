"""The broker's middle: peers' commands go into the engine, its effects go to the store, the gate, the peers.

One pump a loop turn: whatever all peers have sent in this turn is decided together, journaled as one
batch, and leaves as one write a peer.
"""

import asyncio
import contextlib
import gc
import logging
import os
import time
from collections import Counter
from typing import Any

from chervil.protocol import FINAL, Code, LocalProtocolError, Message, Stage, to_text
from chervil.protocol.limits import FRAME_MAX, HEARTBEAT_MS, MISSED_HEARTBEATS
from chervil.protocol.messages import Completed, Status
from chervil.version import __version__
from chervil_broker.bodies import Bodies
from chervil_broker.engine.engine import Engine
from chervil_broker.engine.state import EngineConfig
from chervil_broker.gate import Gate
from chervil_broker.options import BrokerOptions
from chervil_broker.peer import Peer
from chervil_broker.store import Store
from chervil_broker.wire_rows import outgoing

log = logging.getLogger("chervil.broker")

#: Connections at once. Each costs a few KiB; more than this is a mistake or an attack.
CONNECTIONS_MAX = 20_000
#: How long an answer that nobody waits for may wait for another frame to the same peer. Measured: two
#: writes and two wakeups less in every round trip.
UNHURRIED_SECONDS = 0.01
#: How often peers are looked at for heartbeats owed and missed, in seconds.
SWEEP_SECONDS = HEARTBEAT_MS / 1000 / 4
#: Silence after which a peer is lost: the missed heartbeats and half of one for the way.
SILENCE_SECONDS = (MISSED_HEARTBEATS + 0.5) * HEARTBEAT_MS / 1000
#: The collector is off while there is work (guaranteed by tests to be safe: nothing makes cycles); an
#: idle broker collects this often, for what libraries leave behind.
COLLECT_SECONDS = 60

_UNFINISHED = frozenset(Stage) - FINAL - {Stage.UNKNOWN}


class Broker:
    """One broker: its engine, what it holds, and who is connected. Lives in one event loop."""

    def __init__(self, options: BrokerOptions, store: Store, token_hash: bytes | None) -> None:
        self.options = options
        self.store = store
        self.token_hash = token_hash
        self.instance = self.random(16)
        self.bodies = Bodies()
        self.peers: dict[int, Peer] = {}
        #: Bytes of frames that have not come whole, of all peers, and how many there may be: room for a
        #: few of the largest even where memory is short.
        self.partial_bytes = 0
        self.partial_limit = max(8 * FRAME_MAX, options.max_memory // 8)
        self.engine = Engine(
            EngineConfig(
                memory_limit=options.task_memory,
                results_limit=options.result_memory,
                body_limit=options.body_limit,
            )
        )
        self._gate = Gate()
        store.on_durable = self._gate.open_to
        self._loop = asyncio.get_running_loop()
        #: Set while nobody is connected.
        self.all_gone = asyncio.Event()
        self.all_gone.set()
        self._pumping = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._replies: list[tuple[Peer, Message]] = []
        self._leaving: list[Peer] = []
        #: Answers that wait for company; whether the next pump sends them without.
        self._unhurried: dict[Peer, list[Message]] = {}
        self._hurry = self._hurry_timer_runs = False
        self._sessions = 0
        #: The store's sequence of the last batch.
        self._sequence = 0
        self._refusals: Counter[str] = Counter()
        self._started = time.monotonic()
        self._pumped_at = self._collected_at = self._looked_at = self._started
        self.tick()

    # Peers come and go.

    def new_peer(self, *, needs_token: bool) -> Peer:
        """The protocol of a connection that was just accepted."""
        self._sessions += 1
        return Peer(self, self._sessions, needs_token=needs_token)

    def admit(self, peer: Peer) -> bool:
        """Takes a peer in, or says no when there are too many."""
        if len(self.peers) >= CONNECTIONS_MAX:
            self.count_refusal(Code.TOO_MANY)
            log.warning("a connection was refused: %s, %d are open", Code.TOO_MANY, CONNECTIONS_MAX)
            return False
        self.peers[peer.session] = peer
        self.all_gone.clear()
        return True

    def leave(self, peer: Peer) -> None:
        """The peer said GOODBYE: close it once this turn's replies have left."""
        self._leaving.append(peer)

    def forget(self, peer: Peer) -> None:
        """The connection is gone; its leases go back to their queues."""
        del self.peers[peer.session]
        self._unhurried.pop(peer, None)
        if not self.peers:
            self.all_gone.set()
        if peer.in_session:
            self.tick()
            self.end_session(peer)
            self.wake()

    def end_session(self, peer: Peer) -> None:
        """Its leases go back to their queues, its watches and its credit are gone."""
        peer.in_session = False
        given_back = self.engine.close(peer.session)
        if peer.consumes:
            log.info("worker %s is gone; tasks that it had and that go back: %d", peer.name, given_back)

    # What commands need.

    def seconds(self) -> float:
        return time.monotonic()

    def random(self, size: int) -> bytes:
        return os.urandom(size)

    def tick(self) -> float:
        """Gives the engine the time; returns the monotonic clock's seconds."""
        now = time.monotonic_ns()
        self.engine.tick(now, time.time_ns())
        return now / 1e9

    def reply(self, peer: Peer, message: Message) -> None:
        """A reply that the engine does not make; it passes the gate with the engine's own."""
        self._replies.append((peer, message))

    def count_refusal(self, code: Code) -> None:
        self._refusals[code] += 1

    def stats(self) -> dict[str, Any]:
        """The map of a REPORT for STATS (protocol.md)."""
        report = self.engine.stats()
        counters = report["counters"]
        for code, count in sorted(self._refusals.items()):
            counters[f"refused_{code.lower()}"] = count
        return report | {
            "version": __version__,
            "instance": self.instance.hex(),
            "durability": self.store.durability,
            "uptime_ms": int((time.monotonic() - self._started) * 1000),
            "connections": len(self.peers),
        }

    # The pump.

    def wake(self) -> None:
        """Something may have changed: pump once, after all that this turn of the loop brings."""
        if not self._pumping:
            self._pumping = True
            self._loop.call_soon(self._pump)

    def _pump(self) -> None:
        self._pumping = False
        now, wall = time.monotonic_ns(), time.time_ns()
        self.engine.tick(now, wall)
        self._pumped_at = now / 1e9
        effects = self.engine.pump()
        replies, self._replies = self._replies, []
        frames: dict[Peer, list[bytes]] = {}
        for session, message in outgoing(effects, self.bodies, now, wall):
            peer = self.peers.get(session)
            if peer is None:
                continue
            if self._may_wait(peer, message):
                self._unhurried.setdefault(peer, []).append(message)
                continue
            for earlier in self._unhurried.pop(peer, ()):
                self._add_frame(frames, peer, earlier)
            self._add_frame(frames, peer, message)
        for peer, message in replies:
            self._add_frame(frames, peer, message)
        hurry, self._hurry = self._hurry, False
        if self._unhurried:
            self._add_unhurried(frames, hurry=hurry)
        for peer in self._leaving:
            frames.setdefault(peer, []).append(peer.farewell())
        self.bodies.free(effects.freed)
        for event, details in effects.events:
            _log_event(event, details)
        self._release_when_durable(effects.records, frames)
        self._set_timer()

    def _add_frame(self, frames: dict[Peer, list[bytes]], peer: Peer, message: Message) -> None:
        try:
            frame = peer.connection.send(message)
        except LocalProtocolError as error:
            if peer.ready:
                # An answer that no frame can hold is its peer's loss and nobody else's.
                log.warning("%s cannot be answered: %s", peer.name, error)
                peer.refuse(Code.TOO_MANY, f"the answer cannot be sent: {error.message}")
            return  # else it left between asking and being answered
        known = frames.get(peer)
        if known is None:
            frames[peer] = [frame]
        else:
            known.append(frame)

    def _may_wait(self, peer: Peer, message: Message) -> bool:
        """Whether nobody waits for this answer: it goes along with the next frame to its peer.

        So does a COMPLETED without exceptions, as a worker only keeps its completions until then, and
        the answer to a WATCH of unfinished tasks, as what is waited for is the RESULT.
        """
        if type(message) is Completed:
            return message.exceptions is None
        if type(message) is not Status or message.request not in peer.watches:
            return False
        peer.watches.discard(message.request)
        return not message.more and all(row[1] in _UNFINISHED for row in message.tasks)

    def _add_unhurried(self, frames: dict[Peer, list[bytes]], *, hurry: bool) -> None:
        """Sends what has waited for company long enough, or whose peer leaves."""
        for peer in [peer for peer in self._unhurried if hurry or peer.leaving]:
            for message in self._unhurried.pop(peer):
                self._add_frame(frames, peer, message)
        if self._unhurried and not self._hurry_timer_runs:
            self._hurry_timer_runs = True
            self._loop.call_later(UNHURRIED_SECONDS, self._waited_long_enough)

    def _waited_long_enough(self) -> None:
        self._hurry_timer_runs = False
        self._hurry = True
        self.wake()

    def _release_when_durable(self, records: list[tuple[Any, ...]], frames: dict[Peer, list[bytes]]) -> None:
        leaving, self._leaving = self._leaving, []

        def release() -> None:
            for peer, parts in frames.items():
                peer.write(parts[0] if len(parts) == 1 else b"".join(parts))
            for peer in leaving:
                peer.close()

        # A batch without records rests on the one before it.
        if records:
            self._sequence = self.store.append(records)
        self._gate.hold(self._sequence, release)

    def _set_timer(self) -> None:
        """Wakes the pump when the engine's next timer is due, on either clock."""
        due, wall_due = self.engine.next_timer()
        waits = []
        if due is not None:
            waits.append(due - time.monotonic_ns())
        if wall_due is not None:
            waits.append(wall_due - time.time_ns())
        if not waits:
            return
        # The sweep looks again soon enough after a step of the wall clock.
        wait = max(0.0, min(waits) / 1e9)
        at = self._loop.time() + wait
        if self._timer is not None:
            if self._timer_at <= at and not self._timer.cancelled() and self._timer_at > self._loop.time():
                return
            self._timer.cancel()
        self._timer_at = at
        self._timer = self._loop.call_later(wait, self._timer_fired)

    def _timer_fired(self) -> None:
        self._timer = None
        self.wake()

    # Upkeep.

    async def sweep(self) -> None:
        """Runs for ever: looks after peers, stepped clocks, idle garbage collection."""
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            now = time.monotonic()
            self.look_after_peers(now)
            if now - self._pumped_at >= SWEEP_SECONDS and now - self._collected_at >= COLLECT_SECONDS:
                self._collected_at = now
                gc.collect()
            self.wake()

    def look_after_peers(self, now: float) -> None:
        """Sends heartbeats that are owed, and ends peers that missed theirs or do not read."""
        late = now - self._looked_at > 2 * SWEEP_SECONDS
        self._looked_at = now
        if late:
            return  # a broker that was stopped itself has not read yet what its peers said meanwhile
        for peer in list(self.peers.values()):
            peer.check_that_it_reads(now)
            if not (peer.consumes and peer.ready) or peer.held_up:
                continue
            if now - peer.heard > SILENCE_SECONDS:
                log.warning("%s was silent for %.0f s: taken for lost", peer.name, now - peer.heard)
                peer.abort()
            elif now - peer.spoke >= HEARTBEAT_MS / 1000 - SWEEP_SECONDS:
                peer.beat()

    async def stop(self, grace: float) -> None:
        """Says GOODBYE to everybody and waits, at most `grace` seconds, until they are gone."""
        for peer in list(self.peers.values()):
            peer.write(peer.farewell())
            peer.close()
        if self.peers:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.all_gone.wait(), grace)
        for peer in list(self.peers.values()):
            peer.abort()

    def unfinished(self) -> int:
        """Tasks that are held and not final."""
        report = self.engine.stats()["tasks"]
        names = ("WAITING", "SCHEDULED", "QUEUED", "LEASED", "STARTED", "RETRY")
        return sum(report.get(name, 0) for name in names)


_EVENTS = {
    "queue_without_consumer": (
        "queue %(queue)r: %(ready)d tasks wait and no worker consumes it; "
        "start one: chervil -A MODULE worker -Q %(queue)s"
    ),
    "unknown_task": "queue %(queue)r: task %(name)r waits; no worker of this queue knows that name",
    "task_dead": "%(name)s[%(id)s] is DEAD after %(attempts)d attempts were lost",
}


def _log_event(event: str, details: dict[str, Any]) -> None:
    if "id" in details:
        details = details | {"id": to_text(details["id"])}
    text = _EVENTS.get(event)
    if text is None:
        log.info("%s %s", event, details)
    else:
        log.warning(text, details)
