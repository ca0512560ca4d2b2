"""The broker's middle: who is connected, whose sessions are kept, and what commands need of it.

Peers' commands go into the engine; the pump (pump.py) brings its effects to the store, the gate and the
peers; upkeep.py looks after what nobody asks for.
"""

import asyncio
import contextlib
import logging
import os
import time
from typing import Any

from chervil.protocol import Code, Message, RemoteProtocolError
from chervil.protocol.limits import BODY_MAX, FRAME_MAX, GRACE_CLOSED_MS, GRACE_SILENT_MS
from chervil.protocol.messages import Error
from chervil.version import __version__
from chervil_broker.access import Access
from chervil_broker.bodies import Bodies
from chervil_broker.engine.engine import Engine
from chervil_broker.engine.state import EngineConfig
from chervil_broker.options import BrokerOptions
from chervil_broker.peer import Peer
from chervil_broker.pump import Pump
from chervil_broker.refusals import Refusals
from chervil_broker.sessions import Credentials, Late, Sessions, WrongSecret
from chervil_broker.shortage import Shortage
from chervil_broker.sizes import show_size
from chervil_broker.store import Store
from chervil_broker.strangers import Strangers
from chervil_broker.turns import answers
from chervil_broker.unsent import Unsent
from chervil_broker.users import UsersError
from chervil_broker.windows import Windows

log = logging.getLogger("chervil.broker")

#: What is amiss, a queue each, that the line on a shortage of memory names.
WARNINGS_TOLD_MAX = 3


class Broker:
    """One broker: its engine, what it holds, and who is connected. Lives in one event loop."""

    def __init__(self, options: BrokerOptions, store: Store, access: Access) -> None:
        self.options = options
        self.store = store
        self.access = access
        self.instance = os.urandom(16)
        self.bodies = Bodies()
        self.sessions = Sessions(os.urandom)
        self.strangers = Strangers()
        self.windows = Windows(options.task_memory)
        self.refusals = Refusals()
        self.shortage = Shortage()
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
        self.engine = Engine(
            EngineConfig(
                memory_limit=options.task_memory,
                results_limit=options.result_memory,
                body_limit=options.body_limit,
                dedup_ids=options.dedup_ids,
            )
        )
        #: How many ids a turn answers.
        self.answers = answers(self.engine.result_size)
        self.pump = Pump(self)
        #: Set while nobody is connected.
        self.all_gone = asyncio.Event()
        self.all_gone.set()
        self._connections = 0
        self._wrong_secrets = 0
        self._started = time.monotonic()
        self.tick()

    # Peers come and go.

    def new_peer(self, *, needs_token: bool) -> Peer:
        """The protocol of a connection that was just accepted."""
        self._connections += 1
        return Peer(self, self._connections, needs_token=needs_token)

    def admit(self, peer: Peer, address: str | None) -> str | None:
        """Takes a stranger in, or says why not."""
        if len(self.peers) >= self.options.max_connections:
            return (
                f"{len(self.peers)} connections are open; use fewer, or raise the broker's --max-connections"
            )
        refusal = self.strangers.came(address)
        if refusal is None:
            self.peers[peer.number] = peer
            self.all_gone.clear()
        return refusal

    def forget(self, peer: Peer) -> None:
        """The connection is gone."""
        self.part(peer)
        del self.peers[peer.number]
        if self.served.get(peer.session) is peer:
            del self.served[peer.session]
        self.pump.forget(peer)
        self.windows.leave(peer.number)
        if not self.peers:
            self.all_gone.set()
        self.wake()

    # Sessions begin, wait and end.

    def begin_session(self, peer: Peer) -> Credentials:
        """A new session for a peer whose name is known."""
        number, credentials = self.sessions.open(peer.name, peer.identity)
        self.engine.open(number, peer.name)
        self._serve(peer, number)
        return credentials

    def resume_session(self, peer: Peer, credentials: Credentials, attempt: int | None) -> bool:
        """Takes up the session that these credentials prove; False where there is none.

        `attempt` numbers its client's connections. Raises RemoteProtocolError for one that came late.
        """
        # What was decided for its older connection goes there; and a grace that is over, is over.
        self.pump.run()
        try:
            number = self.sessions.find(credentials, peer.identity)
        except WrongSecret:
            self._wrong_secrets += 1
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
        self.engine.resume(number)
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
        self.tick()
        if not peer.consumes:
            self.end_session(peer)
            return
        number = peer.session
        peer.deliver_again()
        peer.in_session = False
        grace_ms = GRACE_SILENT_MS if peer.silent else GRACE_CLOSED_MS
        self.engine.suspend(number, grace_ms * 1_000_000)
        log.info("worker %s is gone; what it has is kept for it for %g s", peer.name, grace_ms / 1000)
        for oldest in self.sessions.suspend(number):
            given_back = self.engine.close(oldest)
            log.warning(
                "too many workers are gone: the session of %s is given up; leases that go back: %d",
                self.sessions.name(oldest),
                given_back,
            )
            self.sessions.drop(oldest)

    def end_session(self, peer: Peer) -> None:
        """Its leases go back to their queues, its watches and its credit are gone, at once."""
        peer.in_session = False
        given_back = self.engine.close(peer.session)
        self.sessions.drop(peer.session)
        if peer.consumes:
            log.info("worker %s said goodbye; leases that go back: %d", peer.name, given_back)

    def refresh_users(self) -> None:
        """Reads the users file again if it has changed: who is not as before is sent away."""
        try:
            if not self.access.file.refresh():
                return
        except UsersError as error:
            log.error("%s; what was read before holds on", error)  # noqa: TRY400 -- the message says it all
            return
        log.info("%s was read again; users: %d", self.access.file.path, len(self.access.file.users.users))
        for peer in list(self.peers.values()):
            if peer.ready and not self.access.still_holds(peer.identity):
                if peer.in_session:
                    self.end_session(peer)
                peer.refuse(
                    Code.AUTH_FAILED,
                    f"user {peer.identity.name} was removed or changed; connect with its token of now",
                )
        for number, owner in self.sessions.owned():
            if not self.access.still_holds(owner):
                self.engine.close(number)
                self.sessions.drop(number)

    # What commands need.

    def seconds(self) -> float:
        return time.monotonic()

    def tick(self) -> float:
        """Gives the engine the time; returns the monotonic clock's seconds."""
        now = time.monotonic_ns()
        self.engine.tick(now, time.time_ns())
        return now / 1e9

    def wake(self) -> None:
        """Something may have changed: the pump runs once, after all that this turn brings."""
        self.pump.wake()

    def reply(self, peer: Peer, message: Message) -> None:
        """A reply that the engine does not make; it passes the gate with the engine's own."""
        self.pump.replies.append((peer, message))

    def refuse_request(self, peer: Peer, request: int, code: Code, message: str) -> None:
        """Says no to one request; the connection goes on."""
        self.refuse(peer, code, message)
        self.reply(peer, Error(request, code, message))

    def refuse(self, peer: Peer, code: Code, message: str, count: int = 1) -> None:
        """Counts and logs what a peer was refused: a connection, a request, or rows."""
        self.refusals.refuse(self.seconds(), peer.key, peer.name, code, message, count)

    def tell_of_shortage(self) -> None:
        """Has the log say that publishers wait, or go on, if that is news."""
        now = self.seconds()
        if self.shortage.is_news(now, waiting=self.windows.closed):
            warnings = self.engine.stats()["warnings"][:WARNINGS_TOLD_MAX]
            self.shortage.tell(now, show_size(self.options.task_memory), warnings)

    def stats(self) -> dict[str, Any]:
        """The map of a REPORT for STATS (protocol.md)."""
        report = self.engine.stats()
        counters = report["counters"]
        for code, count in sorted(self.refusals.counts.items()):
            counters[f"refused_{code.lower()}"] = count
        if self._wrong_secrets:
            counters["wrong_session_secrets"] = self._wrong_secrets
        return report | {
            "version": __version__,
            "instance": self.instance.hex(),
            "durability": self.store.durability,
            "uptime_ms": int((time.monotonic() - self._started) * 1000),
            "connections": len(self.peers),
        }

    # The end.

    async def stop(self, grace: float) -> None:
        """Says GOODBYE to everybody and waits, at most `grace` seconds, until they are gone."""
        self.pump.run(hurry=True)
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
        report = self.engine.stats()["tasks"]
        names = ("WAITING", "SCHEDULED", "QUEUED", "LEASED", "STARTED", "RETRY")
        return sum(report.get(name, 0) for name in names)
