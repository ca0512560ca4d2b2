"""A broker of a few lines, for the client's tests: real sockets, the real protocol, scripted answers."""

import asyncio
import contextlib
import socket
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from chervil.address import Addresses, BrokerURL, Found
from chervil.client import Status
from chervil.protocol import Code, Connection, RemoteProtocolError, Side, Stage, State, to_text
from chervil.protocol import messages as m

#: A script for one command: takes the peer and the message, answers whether it dealt with it.
Script = Callable[["Peer", Any], bool]


class Peer:
    """One client's connection."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.connection = Connection(Side.BROKER)
        self.watched: set[bytes | str] = set()

    def send(self, *messages: m.Message) -> None:
        """In one write, so that the client has read all of them before its next step."""
        self.sock.sendall(b"".join([self.connection.send(message) for message in messages]))

    def cut(self) -> None:
        """Breaks the connection without a word."""
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)


class FakeBroker:
    """Confirms what is published, answers what is asked, pushes what `finish` is told.

    `scripts` by message class come before the default answers. All state may be looked at under `changed`,
    which is notified at every message.
    """

    def __init__(self, path: Path | None = None, token: str | None = None) -> None:
        if path is None:
            self.listener = socket.create_server(("127.0.0.1", 0))
            port = self.listener.getsockname()[1]
            self.url = BrokerURL("chervil", host="127.0.0.1", port=port)
        else:
            self.listener = socket.socket(socket.AF_UNIX)
            self.listener.bind(str(path))
            self.listener.listen()
            self.url = BrokerURL("chervil+unix", path=str(path))
        self.token = token
        self.scripts: dict[type, Script] = {}
        self.changed = threading.Condition(threading.RLock())
        self.rows: dict[bytes | str, list[Any]] = {}
        self.statuses: dict[bytes | str, list[Any]] = {}
        self.dead_letters: list[dict[str, Any]] = []
        self.counts: Counter[str] = Counter()
        self.hellos: list[m.Hello] = []
        self.peers: list[Peer] = []
        self.threads: list[threading.Thread] = []
        self._start(self._accept)

    @property
    def found(self) -> Found:
        return Found(self.url, "app")

    @property
    def addresses(self) -> Addresses:
        return Addresses(self.found)

    def _start(self, run: Callable[..., None], *args: Any) -> None:
        thread = threading.Thread(target=run, args=args, daemon=True)
        self.threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            peer = Peer(sock)
            with self.changed:
                self.peers.append(peer)
            self._start(self._serve, peer)

    def _serve(self, peer: Peer) -> None:
        try:
            while data := peer.sock.recv(1 << 20):
                for message in peer.connection.receive(data):
                    with self.changed:
                        self.counts[type(message).__name__] += 1
                        self._answer(peer, message)
                        self.changed.notify_all()
                if peer.connection.state is State.CLOSED:
                    break
        except (OSError, RemoteProtocolError):
            pass
        finally:
            peer.sock.close()
            with self.changed:
                self.peers.remove(peer)
                self.changed.notify_all()

    def _answer(self, peer: Peer, message: Any) -> None:
        script = self.scripts.get(type(message))
        if script is not None and script(peer, message):
            return
        match message:
            case m.Hello():
                self.hellos.append(message)
                if self.token is not None and message.token != self.token:
                    peer.send(m.Error(None, Code.AUTH_REQUIRED, "a token is needed"))
                    peer.cut()
                else:
                    welcome(peer)
            case m.Publish():
                peer.send(self.store(message))
            case m.Watch():
                peer.watched.update(message.ids)
                peer.send(m.Status(message.request, [self.status(id_) for id_ in message.ids]))
            case m.Unwatch():
                peer.watched.difference_update(message.ids)
            case m.Query():
                peer.send(m.Status(message.request, [self.status(id_) for id_ in message.ids]))
            case m.Stats():
                peer.send(m.Report(message.request, {"version": "0"}))
            case m.Purge():
                peer.send(m.Ok(message.request, len(self.rows)))
            case m.Revoke() | m.Rerun() | m.Forget():
                peer.send(m.Ok(message.request, len(message.ids)))
            case m.History():
                peer.send(m.Report(message.request, {"id": to_text(message.id), "stage": "UNKNOWN"}))
            case m.List():
                peer.send(m.Report(message.request, self.page(message)))
            case m.Goodbye():
                peer.send(m.Goodbye("DONE"))

    def store(self, message: m.Publish) -> m.Confirm:
        """Stores rows; the confirm names those that were known."""
        exceptions: list[list[Any]] = []
        for index, row in enumerate(message.tasks):
            if row[0] in self.rows:
                exceptions.append([index, "DUPLICATE", "known"])
            self.rows.setdefault(row[0], row)
        return m.Confirm(message.request, len(message.tasks), exceptions or None)

    def page(self, message: m.List) -> dict[str, Any]:
        """A page of `dead_letters`; the cursor is where the next one begins."""
        at = int(message.cursor or 0)
        end = at + message.limit
        return {
            "tasks": self.dead_letters[at:end],
            "cursor": str(end) if end < len(self.dead_letters) else None,
        }

    def status(self, id_: bytes | str) -> list[Any]:
        if id_ in self.statuses:
            return self.statuses[id_]
        return [id_, int(Stage.QUEUED if id_ in self.rows else Stage.UNKNOWN), None, None, None]

    def queue(self, *ids: bytes | str) -> None:
        """Has tasks that wait."""
        for id_ in ids:
            self.rows[id_] = []

    def finish(
        self, id_: bytes | str, stage: Stage, codec: str | None = None, body: bytes | None = None
    ) -> None:
        """Makes a task final and tells whoever watches it."""
        with self.changed:
            row = self.statuses[id_] = [id_, int(stage), codec, body, None]
            for peer in self.peers:
                if id_ in peer.watched:
                    peer.watched.discard(id_)
                    peer.send(m.Result([row]))

    def wait_for(self, condition: Callable[[], bool], timeout: float = 10.0) -> None:
        """Waits until something is so that messages bring about."""
        with self.changed:
            assert self.changed.wait_for(condition, timeout), "did not happen in time"

    async def happens(self, condition: Callable[[], bool]) -> None:
        """`wait_for` without holding up the loop."""
        await asyncio.to_thread(self.wait_for, condition)

    def cut_all(self) -> None:
        with self.changed:
            for peer in self.peers:
                peer.cut()
            assert self.changed.wait_for(lambda: not self.peers, 10)

    def close(self) -> None:
        # shutdown wakes the thread in accept(); close alone would leave it there.
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.threads[0].join(10)
        self.cut_all()
        for thread in self.threads:
            thread.join(10)


def welcome(peer: Peer, *more: m.Message) -> None:
    """Lets a client in; `more` reaches it with the greeting."""
    greeting = m.Welcome(1, [], bytes(16), bytes(16), bytes(32), resumed=False, heartbeat_ms=10_000)
    peer.send(greeting, *more)
    peer.connection.accept_frames_up_to(1 << 25)


def stages(statuses: list[Status]) -> list[tuple[str, Stage]]:
    return [(status.id, status.stage) for status in statuses]
