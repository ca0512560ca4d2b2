"""The broker's middle: who is connected, whose sessions are kept, and what commands need of it.

Peers' commands go into the engine; the pump (pump.py) brings its effects to the store, the gate and the
peers; upkeep.py looks after what nobody asks for.
"""

import asyncio
import contextlib
import logging
import os
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

from chervil.address import DEFAULT_VHOST
from chervil.protocol import Code, Message, RemoteProtocolError, Role
from chervil.protocol.limits import BODY_MAX, FRAME_MAX, GRACE_CLOSED_MS, GRACE_SILENT_MS
from chervil.protocol.messages import Error
from chervil.version import __version__
from chervil_broker.access import STRANGER, Access, Identity
from chervil_broker.bodies import Bodies
from chervil_broker.clock import Clock
from chervil_broker.lag import LoopLag
from chervil_broker.options import BrokerOptions
from chervil_broker.peer import Peer
from chervil_broker.pump import Pump
from chervil_broker.recovery import Recovered, restore
from chervil_broker.refusals import Refusals
from chervil_broker.sessions import Credentials, Late, Sessions, WrongSecret
from chervil_broker.shares import SHARE_MIN, Shares
from chervil_broker.store import Store
from chervil_broker.strangers import Strangers
from chervil_broker.unsent import Unsent
from chervil_broker.users import Quotas, UsersError
from chervil_broker.vhost import VHost

log = logging.getLogger("chervil.broker")


class Broker:
    """One broker: its vhosts, and who is connected. Lives in one event loop."""

    def __init__(
        self,
        options: BrokerOptions,
        store: Store,
        access: Access,
        clock: Clock | None = None,
        recovered: Recovered | None = None,
    ) -> None:
        """`recovered`: what it goes on with; `clock` has gone on from there already."""
        self.options = options
        self.store = store
        self.access = access
        self.clock = Clock() if clock is None else clock
        self.instance = os.urandom(16) if recovered is None else recovered.instance
        self.bodies = Bodies() if recovered is None else recovered.bodies
        self.sessions = Sessions(os.urandom)
        # Half of the places at most: whoever has said HELLO is to find some.
        self.strangers: Strangers[Peer] = Strangers(max(1, options.max_connections // 2))
        self.refusals = Refusals()
        #: What was refused before HELLO; what a vhost's peers were refused, it counts itself.
        self.counters: Counter[str] = Counter()
        #: Every connection, by its number; and those that have said HELLO, by their session's number:
        #: answers still go there when the session is over.
        self.peers: dict[int, Peer] = {}
        self.served: dict[int, Peer] = {}
        #: Bytes of frames that have not come whole, of all peers, and how many there may be: room for a
        #: few of the largest even where memory is short.
        self.partial_bytes = 0
        self.partial_limit = max(8 * FRAME_MAX, options.max_memory // 8)
        #: What waits for all peers to read: likewise. One peer's part is half of it at most.
        self.unsent = Unsent(self.peers, max(4 * BODY_MAX, options.max_memory // 8))
        users = access.file.users
        self._shares = Shares()
        parts = self._shares.divide(options.max_memory, users.vhosts)
        self.vhosts = {
            name: VHost(name, parts[name], quotas, options, self.clock)
            for name, quotas in users.vhosts.items()
        }
        self.default = self.vhosts[DEFAULT_VHOST]
        self.pump = Pump(self)
        #: Set while nobody is connected.
        self.all_gone = asyncio.Event()
        self.all_gone.set()
        self.lag = LoopLag()
        self._connections = 0
        #: What was said of the users file last; and whether its vhosts are not all as it says yet.
        self._trouble: str | None = None
        self._dividing = recovered is not None
        #: Why nothing can be published anywhere; None: it can.
        self._closed_for: str | None = None
        self._started = time.monotonic()
        if recovered is not None:
            restore(self, recovered)

    # Peers come and go.

    def new_peer(self, *, needs_token: bool) -> Peer:
        """The protocol of a connection that was just accepted."""
        self._connections += 1
        return Peer(self, self._connections, needs_token=needs_token)

    def admit(self, peer: Peer, address: str | None) -> str | None:
        """Takes a stranger in, or says why not."""
        refusal = self._refusal(address)
        if refusal is not None:
            other = self.strangers.who_makes_room(address)
            if other is None:
                return refusal
            other.refuse(Code.TOO_MANY, f"it makes room for another address: {refusal}")
            other.abort()
        self.strangers.came(peer, address)
        self.peers[peer.number] = peer
        self.all_gone.clear()
        return None

    def _refusal(self, address: str | None) -> str | None:
        if len(self.peers) < self.options.max_connections:
            return self.strangers.refusal(address)
        return f"{len(self.peers)} connections are open; use fewer, or raise the broker's --max-connections"

    def forget(self, peer: Peer) -> None:
        """The connection is gone."""
        self.part(peer)
        del self.peers[peer.number]
        if self.served.get(peer.session) is peer:
            del self.served[peer.session]
        self.pump.forget(peer)
        peer.vhost.windows.leave(peer.number)
        peer.vhost.peers.pop(peer.number, None)
        if not self.peers:
            self.all_gone.set()
        self.wake(peer.vhost)

    # Sessions begin, wait and end.

    def begin_session(self, peer: Peer) -> Credentials:
        """A new session for a peer whose name is known."""
        number, credentials = self.sessions.open(peer.name, peer.identity, peer.vhost)
        peer.vhost.engine.open(number, peer.name)
        self._serve(peer, number)
        return credentials

    def is_connected(self, credentials: Credentials, owner: Identity, vhost: VHost) -> bool:
        """Whether these prove a session that is on a connection, which resuming it would end."""
        try:
            number = self.sessions.find(credentials, owner, vhost)
        except WrongSecret:
            return False
        older = None if number is None else self.served.get(number)
        return older is not None and older.in_session

    def resume_session(self, peer: Peer, credentials: Credentials, attempt: int | None) -> bool:
        """Takes up the session that these credentials prove; False where there is none.

        `attempt` numbers its client's connections. Raises RemoteProtocolError for one that came late.
        """
        # What was decided for its older connection goes there; and a grace that is over, is over.
        self.wake(peer.vhost)
        self.pump.run()
        try:
            number = self.sessions.find(credentials, peer.identity, peer.vhost)
        except WrongSecret:
            peer.vhost.counters["wrong_session_secrets"] += 1
            log.warning("%s named a session and not its secret: it gets a new one", peer.name)
            return False
        if number is None:
            log.info("%s came back and its session is over: it gets a new one", peer.name)
            return False
        try:
            self.sessions.resume(number, attempt)
        except Late:
            text = "this session was taken up on a newer connection"
            raise RemoteProtocolError(Code.BAD_STATE, text) from None
        older = self.served.get(number)
        if older is not None and older.in_session:
            log.info("%s came back before its older connection was seen to end", peer.name)
            older.consumes = True  # or its session, which has moved on, would end with it
            older.end(Code.BAD_STATE, "this session was taken up on another connection")
        peer.vhost.engine.resume(number)
        self._serve(peer, number)
        peer.consumes = True
        peer.inventory = []
        log.info("%s came back to its session", peer.name)
        return True

    def _serve(self, peer: Peer, number: int) -> None:
        peer.session = number
        peer.in_session = True
        self.served[number] = peer

    def part(self, peer: Peer) -> None:
        """The peer's connection is of no more use: its session waits if it may be resumed, or ends."""
        if not peer.in_session:
            return
        if not peer.consumes:
            self.end_session(peer)
            return
        peer.vhost.tick()
        number = peer.session
        peer.deliver_again()
        peer.in_session = False
        grace_ms = GRACE_SILENT_MS if peer.silent else GRACE_CLOSED_MS
        peer.vhost.engine.suspend(number, grace_ms * 1_000_000)
        why = "nothing came through" if peer.silent else "its connection ended"
        kept = grace_ms / 1000
        log.info("worker %s is gone; what it has is kept for it for %g s: %s", peer.name, kept, why)
        self.wake(peer.vhost)
        for oldest in self.sessions.suspend(number):
            name = self.sessions.name(oldest)
            log.warning(
                "too many workers are gone: the session of %s is given up; leases that go back: %d",
                name,
                self._close_session(oldest),
            )

    def end_session(self, peer: Peer) -> None:
        """Its leases go back to their queues, its watches and its credit are gone, at once."""
        peer.in_session = False
        given_back = self._close_session(peer.session)
        if peer.consumes:
            log.info("worker %s said goodbye; leases that go back: %d", peer.name, given_back)

    def _close_session(self, number: int, *, thrown_out: bool = False) -> int:
        """Ends a session, wherever it is; returns how many leases go back to their queues."""
        vhost = self.sessions.vhost(number)
        vhost.tick()
        given_back = vhost.engine.close(number, thrown_out=thrown_out)
        self.sessions.drop(number)
        self.wake(vhost)
        return given_back

    def refresh_users(self) -> None:
        """Reads the users file again if it has changed: who may not go on is sent away."""
        try:
            changed = self.access.file.refresh()
        except UsersError as error:
            changed = False
            if str(error) != self._trouble:
                self._trouble = str(error)
                log.error("%s; what held before holds on", error)  # noqa: TRY400 -- the message says it all
        users = self.access.file.users
        if changed or self._dividing:
            self._follow_vhosts(users.vhosts)
        if not changed:
            return
        self._trouble = None
        log.info(
            "%s was read again; users: %d, vhosts: %d",
            self.access.file.path,
            len(users.users),
            len(users.vhosts),
        )
        for peer in list(self.peers.values()):
            if peer.ready:
                self._renew(peer)
        for number, owner, vhost in self.sessions.owned():
            now = self._renewed(owner, vhost)
            if now is None:
                self._throw_out(number, _ended(owner, vhost))
            else:
                self.sessions.renew(number, now)

    def _renew(self, peer: Peer) -> None:
        """Lets a peer go on with what its user may do now, or sends it away."""
        now = self._renewed(peer.identity, peer.vhost)
        if now is not None:
            peer.introduce(peer.name, now, peer.vhost)
            return
        what = _ended(peer.identity, peer.vhost)
        if peer.in_session:
            peer.in_session = False
            self._throw_out(peer.session, what)
        peer.refuse(Code.AUTH_FAILED, f"{what}; connect with what holds now")

    def _throw_out(self, number: int, why: str) -> None:
        """Ends a session that its user may not have any more."""
        name = self.sessions.name(number)
        given_back = self._close_session(number, thrown_out=True)
        if given_back:
            log.warning("worker %s was thrown out: %s; leases that go back: %d", name, why, given_back)

    def _renewed(self, identity: Identity, vhost: VHost) -> Identity | None:
        """Who it is by the users file as it is now; None for one that may not be in this vhost any more."""
        now = self.access.renewed(identity)
        return now if now is not None and now.may_use(vhost.name) and not vhost.removed else None

    def _follow_vhosts(self, wanted: Mapping[str, Quotas]) -> None:
        """Divides the memory among vhosts; makes new ones; one that is not wanted keeps what it holds.

        What somebody holds over its share nobody else is given yet: then it is called again until it is even.
        """
        for name in [name for name, vhost in self.vhosts.items() if name not in wanted]:
            self._remove_vhost(name)
        removed = sum(vhost.held() for vhost in self.vhosts.values() if vhost.removed)
        parts = self._shares.divide(self.options.max_memory - removed, wanted)
        held = {name: self.vhosts[name].held() for name in wanted if name in self.vhosts}
        over = sum(max(0, size - parts[name]) for name, size in held.items())
        growing = [name for name in wanted if parts[name] > held.get(name, 0)]
        for name in wanted:
            part = parts[name]
            if over and name in growing:
                part = max(SHARE_MIN, held.get(name, 0), part - over // len(growing))
            if name in self.vhosts:
                self.vhosts[name].limit(part, wanted[name])
            else:
                self.vhosts[name] = VHost(name, part, wanted[name], self.options, self.clock)
                self.vhosts[name].refuse_publishes(self._closed_for)
            self.wake(self.vhosts[name])
        self._dividing = over > 0 or len(self.vhosts) > len(wanted)

    def _remove_vhost(self, name: str) -> None:
        """Nobody gets in any more; it is forgotten once it holds nothing."""
        vhost = self.vhosts[name]
        if not vhost.removed:
            vhost.removed = True
            log.warning(
                "vhost %s was removed; unfinished tasks that it holds, and has again if it is added: %d",
                name,
                vhost.unfinished(),
            )
        elif not (vhost.peers or vhost.held()):
            del self.vhosts[name]

    # What commands need.

    def refuse_publishes(self, reason: str | None) -> None:
        """Has every publish be refused as FULL, for that reason; None: they are taken again."""
        self._closed_for = reason
        for vhost in self.vhosts.values():
            vhost.refuse_publishes(reason)
            self.wake(vhost)
            if reason is None:
                self.pump.reopen_windows(vhost)

    def live_bytes(self) -> int:
        """What a journal would take of just that which is held, about."""
        return sum(vhost.live_bytes() for vhost in self.vhosts.values())

    def seconds(self) -> float:
        return time.monotonic()

    def wake(self, vhost: VHost) -> None:
        """Something may have changed there: the pump runs once, after all that this turn brings."""
        self.pump.wake(vhost)

    def reply(self, peer: Peer, message: Message) -> None:
        """A reply that the engine does not make; it passes the gate with the engine's own."""
        self.pump.replies.append((peer, message))

    def refuse_request(self, peer: Peer, request: int, code: Code, message: str) -> None:
        """Says no to one request; the connection goes on."""
        self.refuse(peer, code, message)
        self.reply(peer, Error(request, code, message))

    def refuse(self, peer: Peer, code: Code, message: str, count: int = 1) -> None:
        """Counts and logs what a peer was refused: a connection, a request, or rows."""
        counters = self.counters if peer.identity is STRANGER else peer.vhost.counters
        counters[f"refused_{code.lower()}"] += count
        self.refusals.refuse(self.seconds(), peer.key, peer.name, code, message, count)

    def stats(self, peer: Peer) -> dict[str, Any]:
        """The map of a REPORT for STATS (protocol.md): of its vhost, and what its user may know of others."""
        report = peer.vhost.engine.stats()
        counters = peer.vhost.counters.copy()
        if Role.ADMIN in peer.identity.roles:
            counters += self.counters
            report["vhosts"] = [
                {
                    "name": vhost.name,
                    "connections": len(vhost.peers),
                    "unfinished": vhost.unfinished(),
                    "bytes": vhost.held(),
                    "removed": vhost.removed,
                }
                for vhost in self.vhosts.values()
                if peer.identity.may_use(vhost.name)
            ]
        report["counters"] |= sorted(counters.items())
        return report | {
            "version": __version__,
            "instance": self.instance.hex(),
            "durability": self.store.durability,
            "journal": self.store.stats(),
            "loop_lag": self.lag.stats(),
            "uptime_ms": int((time.monotonic() - self._started) * 1000),
            "vhost": peer.vhost.name,
            "connections": len(peer.vhost.peers),
        }

    # The end.

    async def stop(self, grace: float) -> None:
        """Says GOODBYE to everybody and waits, at most `grace` seconds, until they are gone.

        What was decided before is durable and told first, where that does not take `grace` seconds.
        """
        for vhost in self.vhosts.values():
            self.wake(vhost)
        self.pump.run(hurry=True)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.pump.when_durable(self.pump.sequence), grace)
        with contextlib.suppress(TimeoutError):  # the disk may be full: what is not durable is told to nobody
            await asyncio.wait_for(self.pump.when_all_is_durable(), grace)
        for peer in list(self.peers.values()):
            farewell = peer.farewell()
            if farewell is not None:
                peer.write_later([farewell])
            peer.close()
        if self.peers:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.all_gone.wait(), grace)
        for peer in list(self.peers.values()):
            peer.abort()

    def unfinished(self) -> int:
        """Tasks that are held and not final."""
        return sum(vhost.unfinished() for vhost in self.vhosts.values())


def _ended(identity: Identity, vhost: VHost) -> str:
    """Why somebody may not go on."""
    if vhost.removed:
        return f"vhost {vhost.name} was removed"
    return f"user {identity.name} was removed or changed"
