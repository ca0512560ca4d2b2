"""The pump: what the engine has decided goes to the store, through the gate, to the peers.

It runs once a turn of the loop: whatever all peers have sent in this turn is decided together,
journaled as one batch, and leaves as one write a peer.
"""

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any

from chervil.protocol import FINAL, Code, Message, Stage
from chervil.protocol.messages import Completed, Confirm, Error, Status
from chervil.protocol.messages import Window as WindowMessage
from chervil_broker.alarms import Alarms
from chervil_broker.events import log_events
from chervil_broker.gate import Gate
from chervil_broker.journal.recording import Recorder
from chervil_broker.journal.records import pack
from chervil_broker.peer import Peer
from chervil_broker.turns import join
from chervil_broker.unsent import Unsent
from chervil_broker.vhost import VHost
from chervil_broker.wire_rows import outgoing

if TYPE_CHECKING:
    from chervil_broker.broker import Broker

#: How long an answer that nobody waits for may wait for another frame to the same peer. Measured: two
#: writes and two wakeups less in every round trip.
UNHURRIED_SECONDS = 0.01
#: And how many of them, and of what length: no peer can pile up more here in that time.
UNHURRIED_MAX = 64
UNHURRIED_ROWS_MAX = 100

_UNWATCHED = FINAL | {Stage.UNKNOWN}


class _Leaving:
    """What one run of the pump sends: frames by peer, then messages for those who are slow to read."""

    __slots__ = ("_held", "_unsent", "frames", "later")

    def __init__(self, unsent: Unsent, held: Counter[Peer]) -> None:
        """`held`: in how many of these that wait at the gate a peer has messages for later."""
        self._unsent = unsent
        self._held = held
        self.frames: dict[Peer, list[bytes]] = {}
        self.later: dict[Peer, list[Message]] = {}

    def add(self, peer: Peer, message: Message) -> None:
        unsent = self._unsent
        if peer.must_wait or peer in self._held or unsent.too_much:
            if peer not in self.later:
                self.later[peer] = []
                self._held[peer] += 1
            self.later[peer].append(message)
            return
        frame = peer.encode(message)
        if not frame:
            return
        peer.at_gate += len(frame)
        unsent.add(len(frame))
        known = self.frames.get(peer)
        if known is None:
            self.frames[peer] = [frame]
        else:
            known.append(frame)

    def write(self) -> None:
        for peer, parts in self.frames.items():
            frames = parts[0] if len(parts) == 1 else b"".join(parts)
            peer.at_gate -= len(frames)
            peer.write(frames)
        for peer, messages in self.later.items():
            self._held[peer] -= 1
            if not self._held[peer]:
                del self._held[peer]
            peer.write_later(messages)


class Pump:
    """Runs the engine for one broker, in its event loop."""

    def __init__(self, broker: "Broker") -> None:
        self._broker = broker
        self._gate = Gate()
        self._recorder = Recorder()
        self._held: Counter[Peer] = Counter()
        broker.store.on_durable = self._gate.open_to
        self._loop = asyncio.get_running_loop()
        #: Replies that the engine does not make, for the next run; and peers that said GOODBYE.
        self.replies: list[tuple[Peer, Message]] = []
        self.leaving: list[Peer] = []
        #: When it last ran, in seconds.
        self.ran_at = broker.seconds()
        self._awake = False
        #: For whom the next run is, by name.
        self._woken: dict[str, VHost] = {}
        self._alarms = Alarms()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        #: Answers that wait for company; whether the next run sends them without.
        self._unhurried: dict[Peer, list[Message]] = {}
        self._hurry = self._hurry_timer_runs = False
        #: The store's sequence of the last batch.
        self.sequence = 0

    def wake(self, vhost: VHost) -> None:
        """Runs once for it, after all that this turn of the loop brings."""
        self._woken[vhost.name] = vhost
        if not self._awake:
            self._awake = True
            self._loop.call_soon(self._wake_up)

    def settle(self) -> None:
        """Has what the engines have decided be recorded, so that they are as the journal says."""
        if self._woken:
            self.run()

    def when_durable(self, number: int) -> "asyncio.Future[None]":
        """Done once the store has made a batch durable."""
        durable = self._loop.create_future()

        def release() -> None:
            if not durable.done():  # whoever waited may have been told to stop
                durable.set_result(None)

        self._gate.hold(number, release)
        return durable

    def when_all_is_durable(self) -> "asyncio.Future[None]":
        """Done once everything that was decided has left."""
        return self.when_durable(self.sequence)

    def forget(self, peer: Peer) -> None:
        """The connection is gone: nothing more can be sent there."""
        self._unhurried.pop(peer, None)

    def _wake_up(self) -> None:
        self._awake = False
        self.run()

    def run(self, *, hurry: bool = False) -> None:
        """Takes what the engines have decided so far, and sends it; all of it with `hurry`."""
        try:
            self._run(hurry=hurry)
        except Exception as error:
            # Some of what was decided is in no record, and what is decided next would rest on it.
            if self._broker.store.keeps:
                self._gate.shut()
                self._broker.store.give_up(error)
            raise

    def _run(self, *, hurry: bool) -> None:
        broker = self._broker
        now, wall = broker.clock.now(), broker.clock.wall()
        self.ran_at = broker.clock.seconds(now)
        leaving = _Leaving(broker.unsent, self._held)
        records: list[bytes] = []
        woken, self._woken = self._woken, {}
        for vhost in woken.values():
            self._run_engine(vhost, leaving, records, now, wall)
        news = broker.sessions.take_news()
        if news and broker.store.keeps:
            # A session stands before what it leases.
            records = [pack(told) for told in news] + records
        replies, self.replies = self.replies, []
        for peer, message in replies:
            leaving.add(peer, message)
        hurry, self._hurry = hurry or self._hurry, False
        if self._unhurried:
            self._add_unhurried(leaving, hurry=hurry)
        for peer in self.leaving:
            farewell = peer.farewell()
            if farewell is not None:
                leaving.add(peer, farewell)
        self._release_when_durable(records, leaving)
        for vhost in woken.values():
            self._alarms.arm(vhost.name, *vhost.engine.next_timer())
        self._set_timer()

    def _run_engine(self, vhost: VHost, leaving: _Leaving, records: list[bytes], now: int, wall: int) -> None:
        """What one vhost's engine has decided: its answers leave, its records are added."""
        broker = self._broker
        vhost.engine.tick(now, wall)
        effects = vhost.engine.pump()
        self._follow_memory(vhost, leaving)
        for session, answer in outgoing(effects, broker.bodies, now, wall):
            peer = broker.served.get(session)
            if peer is None:
                continue
            message = join(peer.parts, answer) if peer.parts else answer
            if message is None:
                continue
            if type(message) is Confirm and message.exceptions:
                self._note_refused_rows(leaving, peer, message.exceptions)
            elif type(message) is Error:
                peer.watches.discard(message.request)
                broker.refuse(peer, Code(message.code), message.message)
            elif self._may_wait(peer, message):
                self._unhurried.setdefault(peer, []).append(message)
                continue
            for earlier in self._unhurried.pop(peer, ()):
                leaving.add(peer, earlier)
            leaving.add(peer, message)
        if broker.store.keeps:
            records += self._recorder.encode(
                vhost.name,
                effects,
                vhost.engine,
                broker.bodies,
                mark=vhost.unrecorded,
                now=now,
                wall=wall,
                segment=broker.store.segment,
            )
            vhost.unrecorded = broker.bodies.next
        broker.bodies.free(effects.freed)
        log_events(effects.events)
        for session in effects.ended:
            broker.sessions.drop(session)

    def _follow_memory(self, vhost: VHost, leaving: _Leaving) -> None:
        """Closes and opens publishers' windows as the engine's memory goes."""
        windows = vhost.windows
        closed = vhost.engine.memory_short
        if not closed and windows.idle:
            return
        everyone = {number: peer.window for number, peer in vhost.peers.items() if peer.ready}
        for number, window in windows.follow(vhost.engine.room(), everyone, closed=closed):
            self._tell_window(leaving, vhost.peers.get(number), window.limit)
        vhost.tell_of_shortage(self.ran_at)

    def _tell_window(self, leaving: _Leaving, peer: Peer | None, limit: int) -> None:
        if peer is not None and peer.ready:
            leaving.add(peer, WindowMessage(limit))

    def reopen_windows(self, vhost: VHost) -> None:
        """Lets publishers try again that were refused FULL while others had room."""
        leaving = _Leaving(self._broker.unsent, self._held)
        for number, window in vhost.windows.reopen():
            self._tell_window(leaving, vhost.peers.get(number), window.limit)
        self._gate.hold(self.sequence, leaving.write)

    def _note_refused_rows(self, leaving: _Leaving, peer: Peer, exceptions: list[list[Any]]) -> None:
        """Counts and logs the rows of a PUBLISH that were refused; FULL closes the publisher's window."""
        counts: dict[str, int] = {}
        messages: dict[str, str] = {}
        for _, code, message in exceptions:
            counts[code] = counts.get(code, 0) + 1
            messages[code] = message
        for code, count in counts.items():
            if code != Code.DUPLICATE:
                self._broker.refuse(peer, Code(code), messages[code], count)
        if Code.FULL in counts and peer.vhost.windows.refused(peer.number, peer.window):
            self._tell_window(leaving, peer, peer.window.limit)

    def _may_wait(self, peer: Peer, message: Message) -> bool:
        """Whether nobody waits for this answer: it goes along with the next frame to its peer.

        So does a COMPLETED without exceptions, as a worker only keeps its completions until then, and
        the answer to a WATCH of unfinished tasks, as what is waited for is the RESULT.
        """
        if type(message) is Completed:
            return message.exceptions is None and self._may_still_wait(peer)
        if type(message) is not Status or message.request not in peer.watches:
            return False
        if not message.more:
            peer.watches.discard(message.request)
        unfinished = not any(row[1] in _UNWATCHED for row in message.tasks)
        return (
            not message.more
            and unfinished
            and len(message.tasks) <= UNHURRIED_ROWS_MAX
            and self._may_still_wait(peer)
        )

    def _may_still_wait(self, peer: Peer) -> bool:
        return len(self._unhurried.get(peer, ())) < UNHURRIED_MAX

    def _add_unhurried(self, leaving: _Leaving, *, hurry: bool) -> None:
        """Sends what has waited for company long enough, or whose peer leaves."""
        for peer in [peer for peer in self._unhurried if hurry or peer.leaving]:
            for message in self._unhurried.pop(peer):
                leaving.add(peer, message)
        if self._unhurried and not self._hurry_timer_runs:
            self._hurry_timer_runs = True
            self._loop.call_later(UNHURRIED_SECONDS, self._waited_long_enough)

    def _waited_long_enough(self) -> None:
        self._hurry_timer_runs = False
        self._hurry = True
        self.wake(self._broker.default)

    def _release_when_durable(self, records: list[bytes], leaving: _Leaving) -> None:
        ending, self.leaving = self.leaving, []

        def release() -> None:
            leaving.write()
            for peer in ending:
                peer.close()

        # A batch without records rests on the one before it.
        if records:
            self.sequence = self._broker.store.append(records)
        self._gate.hold(self.sequence, release)

    def _set_timer(self) -> None:
        """Runs again when the next alarm of a vhost is due, on either clock."""
        left = self._alarms.wait(self._broker.clock.now(), self._broker.clock.wall())
        if left is None:
            return
        # Upkeep looks again soon enough after a step of the wall clock.
        wait = max(0.0, left / 1e9)
        at = self._loop.time() + wait
        if self._timer is not None:
            if self._timer_at <= at and not self._timer.cancelled() and self._timer_at > self._loop.time():
                return
            self._timer.cancel()
        self._timer_at = at
        self._timer = self._loop.call_later(wait, self._timer_fired)

    def _timer_fired(self) -> None:
        self._timer = None
        vhosts = self._broker.vhosts
        clock = self._broker.clock
        for name in self._alarms.take(clock.now(), clock.wall()):
            if name in vhosts:  # else it was removed, and held nothing
                self.wake(vhosts[name])
        if not self._awake:  # it was early, as a clock that was set back makes it
            self._set_timer()
