"""A session: against a broker on the same loop, then in a real worker."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from chervil.address import BrokerURL
from chervil.protocol import Connection, HelloOption, Message, RequestRefused, Side
from chervil.protocol.limits import MISSED_HEARTBEATS
from chervil.protocol.messages import (
    Cancel,
    Completed,
    Credit,
    Deliver,
    Error,
    Goodbye,
    Heartbeat,
    Hello,
    Ok,
    Subscribe,
    Welcome,
)
from chervil.protocol.rows import DeliveryRow
from chervil.tls_files import TLSFiles
from chervil_worker import session
from chervil_worker.session import Session
from tests.worker.broker import DEADLINE, ScriptedBroker, row
from tests.worker.conftest import StartWorker, stop

#: Seconds in which nothing is due: such a session is silent unless a test makes it speak.
CALM_MS = 600_000


class Owner:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.rows: list[DeliveryRow] = []
        self.completions: list[Completed] = []
        self.cancels: list[list[Any]] = []
        self.oks: list[Ok] = []
        self.losses = 0
        self.told = asyncio.Event()

    def delivered(self, rows: list[DeliveryRow]) -> None:
        self.rows += rows

    def completed(self, message: Completed) -> None:
        self.completions.append(message)
        self.told.set()

    def cancelled(self, rows: list[list[Any]]) -> None:
        self.cancels += rows

    def ok(self, message: Ok) -> None:
        self.oks.append(message)

    def lost(self) -> None:
        self.losses += 1


class Peer:
    """The broker's side of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connection = Connection(Side.BROKER)
        self.reader, self.writer = reader, writer
        self.heard: list[Message] = []

    async def hear(self) -> Message | None:
        """The next message; None at the end of the connection."""
        async with asyncio.timeout(DEADLINE):
            while not self.heard:
                data = await self.reader.read(1 << 16)
                if not data:
                    return None
                self.heard += self.connection.receive(data)
        return self.heard.pop(0)

    def say(self, *messages: Message) -> None:
        self.writer.write(b"".join(self.connection.send(message) for message in messages))

    def welcome(self, heartbeat_ms: int = CALM_MS) -> None:
        self.connection.accept_frames_up_to(1 << 24)
        self.say(Welcome(1, [], b"i" * 16, b"s" * 16, b"x" * 32, False, heartbeat_ms, {1: "memory"}))


class Place:
    """An address with a broker that answers as the test says."""

    def __init__(self, path: str) -> None:
        self.url = BrokerURL.parse(f"chervil+unix://{path}")
        self.files = TLSFiles()
        self.owner = Owner()
        self._peers: asyncio.Queue[Peer] = asyncio.Queue()
        self._all: list[Peer] = []

    async def arrived(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._all.append(Peer(reader, writer))
        self._peers.put_nowait(self._all[-1])

    async def peer(self) -> Peer:
        async with asyncio.timeout(DEADLINE):
            return await self._peers.get()

    def connect(self) -> "asyncio.Task[tuple[Session, Welcome]]":
        return asyncio.create_task(session.connect(self.owner, self.url, self.files, "me@here"))

    async def greeted(self, heartbeat_ms: int = CALM_MS) -> tuple[Session, Peer]:
        """A session that the broker has welcomed."""
        connecting = self.connect()
        peer = await self.peer()
        assert isinstance(await peer.hear(), Hello)
        peer.welcome(heartbeat_ms)
        current, welcome = await connecting
        assert welcome.heartbeat_ms == heartbeat_ms
        return current, peer

    async def close(self) -> None:
        for peer in self._all:
            peer.writer.close()
            await asyncio.wait([asyncio.create_task(peer.writer.wait_closed())])


async def ended(current: Session) -> str:
    """Why a session is over, once it is."""
    async with asyncio.timeout(DEADLINE):
        return await current.ended


Play = Callable[[Callable[[Place], Coroutine[Any, Any, None]]], None]


@pytest.fixture
def play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Play:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    for name in ("CHERVIL_TOKEN", "CHERVIL_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)

    def play(story: Callable[[Place], Coroutine[Any, Any, None]]) -> None:
        async def live() -> None:
            place = Place(str(tmp_path / "s.sock"))
            async with await asyncio.start_unix_server(place.arrived, str(tmp_path / "s.sock")):
                try:
                    await story(place)
                finally:
                    await place.close()

        asyncio.run(live())

    return play


def test_each_connection_is_a_later_attempt(play: Play):
    async def story(place: Place) -> None:
        attempts = []
        for _ in range(2):
            connecting = place.connect()
            peer = await place.peer()
            hello = await peer.hear()
            assert isinstance(hello, Hello)
            assert hello.options is not None
            attempts.append(hello.options[HelloOption.ATTEMPT])
            peer.welcome()
            (await connecting)[0].close()
        assert attempts[1] > attempts[0] > 0

    play(story)


def test_greets_with_name_and_version_and_on_a_unix_socket_without_a_token(
    play: Play, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("CHERVIL_TOKEN", "for another broker")

    async def story(place: Place) -> None:
        connecting = place.connect()
        peer = await place.peer()
        hello = await peer.hear()
        assert isinstance(hello, Hello)
        assert hello[:7] == (1, 1, [], "me@here", None, None, None)
        peer.welcome()
        current, welcome = await connecting
        assert current.open
        assert welcome.options == {1: "memory"}
        current.send([Subscribe(1, ["a", "b"], ["add"], {1: 4, 3: 77})])
        assert await peer.hear() == Subscribe(1, ["a", "b"], ["add"], {1: 4, 3: 77})
        current.close()
        assert place.owner.losses == 0, "told when it is gone, not before"
        assert await ended(current) == "the connection was closed"
        assert not current.open
        assert place.owner.losses == 1

    play(story)


def test_session_to_take_up_is_named_in_the_greeting(play: Play):
    async def story(place: Place) -> None:
        resume = [b"s" * 16, b"x" * 32]
        connecting = asyncio.create_task(
            session.connect(place.owner, place.url, place.files, "me@here", resume)
        )
        peer = await place.peer()
        hello = await peer.hear()
        assert isinstance(hello, Hello)
        assert hello.resume == resume
        peer.welcome()
        await connecting

    play(story)


def test_connection_to_a_broker_that_is_not_trusted_ends_at_once(play: Play):
    async def story(place: Place) -> None:
        current, _ = await place.greeted()
        current.abort("it says too much")
        assert await ended(current) == "it says too much"
        assert place.owner.losses == 1

    play(story)


def test_refusal_is_raised_with_the_brokers_code_and_words(play: Play):
    async def story(place: Place) -> None:
        connecting = place.connect()
        peer = await place.peer()
        await peer.hear()
        peer.say(Error(None, "AUTH_FAILED", "not this broker's token"))
        with pytest.raises(RequestRefused, match="not this broker's token") as caught:
            await connecting
        assert caught.value.code == "AUTH_FAILED"
        assert await peer.hear() is None

    play(story)


def test_broker_that_hangs_up_before_its_welcome_is_a_connection_error(play: Play):
    async def story(place: Place) -> None:
        connecting = place.connect()
        peer = await place.peer()
        await peer.hear()
        peer.writer.close()
        with pytest.raises(ConnectionError, match="the connection was closed"):
            await connecting

    play(story)


def test_broker_that_does_not_greet_is_given_up_and_hung_up_on(play: Play, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(session, "CONNECT_SECONDS", 0.5)

    async def story(place: Place) -> None:
        connecting = place.connect()
        peer = await place.peer()
        assert isinstance(await peer.hear(), Hello)
        with pytest.raises(TimeoutError):
            await connecting
        assert await peer.hear() is None

    play(story)


def test_absent_broker_is_an_os_error(play: Play):
    async def story(place: Place) -> None:
        place.url = BrokerURL.parse(f"{place.url}.gone")
        with pytest.raises(FileNotFoundError):
            await place.connect()
        assert place.owner.losses == 0

    play(story)


def test_deliveries_and_answers_reach_the_owner(play: Play):
    async def story(place: Place) -> None:
        current, peer = await place.greeted()
        current.send([Subscribe(1, ["q"], ["add"])])
        current.send([Credit(2)])
        assert isinstance(await peer.hear(), Subscribe)
        assert await peer.hear() == Credit(2)
        rows = [row(1, "add", 1, 2), row(2, "add", 3, 4)]
        peer.say(Ok(1, 3), Cancel([[b"x" * 16, 1, 15]]), Deliver(rows), Completed(5, [[0, 2]]))
        await asyncio.wait_for(place.owner.told.wait(), DEADLINE)
        assert place.owner.oks == [Ok(1, 3)]
        assert place.owner.cancels == [[b"x" * 16, 1, 15]]
        assert [each[:12] for each in place.owner.rows] == rows
        assert place.owner.completions == [Completed(5, [[0, 2]])]

    play(story)


@pytest.mark.parametrize(
    ("goodbye", "why"),
    [
        (Goodbye("SHUTDOWN", "be right back"), "the broker said goodbye: SHUTDOWN (be right back)"),
        (Goodbye("SHUTDOWN"), "the broker said goodbye: SHUTDOWN"),
    ],
)
def test_goodbye_of_the_broker_ends_the_session_in_its_words(play: Play, goodbye: Goodbye, why: str):
    async def story(place: Place) -> None:
        current, peer = await place.greeted()
        peer.say(goodbye)
        assert await ended(current) == why
        assert place.owner.losses == 1

    play(story)


def test_error_after_the_welcome_ends_the_session(play: Play):
    async def story(place: Place) -> None:
        current, peer = await place.greeted()
        assert current.refused is None
        peer.say(Error(None, "BAD_FIELD", "credit is no number"))
        assert await ended(current) == "BAD_FIELD: credit is no number"
        assert current.refused == "BAD_FIELD"
        assert await peer.hear() is None

    play(story)


def test_our_goodbye_waits_for_the_brokers(play: Play):
    async def story(place: Place) -> None:
        current, peer = await place.greeted()
        leaving = asyncio.create_task(current.say_goodbye(DEADLINE))
        assert await peer.hear() == Goodbye("DONE")
        assert not leaving.done()
        peer.say(Goodbye("DONE"))
        async with asyncio.timeout(DEADLINE):
            await leaving
        assert await ended(current) == "the broker said goodbye: DONE"
        await current.say_goodbye(DEADLINE)  # it is over: nothing to say, nothing to wait for
        assert place.owner.losses == 1

    play(story)


def test_what_was_on_its_way_when_we_said_goodbye_is_passed_over(play: Play):
    async def story(place: Place) -> None:
        current, peer = await place.greeted()
        leaving = asyncio.create_task(current.say_goodbye(DEADLINE))
        assert await peer.hear() == Goodbye("DONE")
        peer.say(Deliver([row(1, "add")]), Cancel([[b"x" * 16, 1, 15]]), Goodbye("DONE"))
        async with asyncio.timeout(DEADLINE):
            await leaving
        assert await ended(current) == "the broker said goodbye: DONE"
        assert place.owner.rows == []

    play(story)


def test_broker_that_does_not_answer_our_goodbye_is_hung_up_on(play: Play):
    async def story(place: Place) -> None:
        current, peer = await place.greeted()
        await current.say_goodbye(0.01)
        assert await peer.hear() == Goodbye("DONE")
        assert await peer.hear() is None
        assert await ended(current) == "the connection was closed"

    play(story)


def test_heartbeats_are_sent_in_silence(play: Play):
    async def story(place: Place) -> None:
        _, peer = await place.greeted(heartbeat_ms=100)
        for _ in range(2):
            assert await peer.hear() == Heartbeat()

    play(story)


def test_no_heartbeat_is_sent_right_after_something_else(play: Play):
    async def story(place: Place) -> None:
        current, peer = await place.greeted()
        current.send([Credit(1)])
        current._watch()
        current._sent_at -= CALM_MS / 2000
        current._watch()
        assert [await peer.hear(), await peer.hear()] == [Credit(1), Heartbeat()]
        current.send([Credit(2)])
        assert await peer.hear() == Credit(2)

    play(story)


def test_silent_broker_is_hung_up_on_after_the_heartbeats_that_it_may_miss(play: Play):
    async def story(place: Place) -> None:
        current, _ = await place.greeted()
        may_miss = MISSED_HEARTBEATS * CALM_MS / 1000
        current._received_at -= may_miss - 60
        current._watch()
        assert current._transport is not None
        assert not current._transport.is_closing()
        current._received_at -= 120
        current._watch()
        assert (await ended(current)).startswith("the broker has been silent for 1")

    play(story)


def test_look_that_comes_late_itself_is_not_held_against_the_broker(play: Play):
    async def story(place: Place) -> None:
        current, _ = await place.greeted()
        stopped_for = 10 * CALM_MS / 1000
        current._received_at -= stopped_for
        current._look_at -= stopped_for
        current._watch()
        assert current._transport is not None
        assert not current._transport.is_closing()
        current._watch()
        assert (await ended(current)).startswith("the broker has been silent for ")

    play(story)


def test_heartbeat_of_the_broker_ends_its_silence(play: Play):
    async def story(place: Place) -> None:
        current, peer = await place.greeted()
        current._received_at -= 100 * CALM_MS
        peer.say(Heartbeat(), Completed(1))
        await asyncio.wait_for(place.owner.told.wait(), DEADLINE)
        current._watch()
        assert current.open
        assert not current.ended.done()

    play(story)


@pytest.mark.parametrize(
    "frame",
    [b"\0\0\0\1\xc1", b"\xff" * 8, b"\0\0\0\2\x91\x7f"],
    ids=["no-msgpack", "too-long", "unknown-command"],
)
def test_frame_that_breaks_the_protocol_ends_the_session(play: Play, frame: bytes):
    async def story(place: Place) -> None:
        current, peer = await place.greeted()
        peer.writer.write(frame)
        assert (await ended(current)).startswith("the broker broke the protocol: ")
        assert place.owner.losses == 1

    play(story)


def test_message_out_of_turn_before_the_welcome_is_a_connection_error(play: Play):
    async def story(place: Place) -> None:
        connecting = place.connect()
        peer = await place.peer()
        await peer.hear()
        peer.writer.write(b"\0\0\0\2\x91\x03")
        with pytest.raises(ConnectionError, match="broke the protocol"):
            await connecting

    play(story)


def test_heartbeats_go_out_while_nothing_else_does(start_worker: StartWorker, broker: ScriptedBroker):
    start_worker("-c", "1")
    broker.greet(heartbeat_ms=1000)
    broker.until(lambda: broker.heartbeats >= 2)


def test_silent_broker_is_left(start_worker: StartWorker, broker: ScriptedBroker):
    worker = start_worker("-c", "1")
    broker.greet(heartbeat_ms=100)
    broker.until_closed()
    broker.greet()
    assert "silent" in worker.said()
    assert stop(worker, broker) == 0


def test_broken_frames_end_the_connection_only(start_worker: StartWorker, broker: ScriptedBroker):
    worker = start_worker("-c", "1")
    broker.greet()
    assert broker._sock is not None
    broker._sock.sendall(b"\0\0\0\1\xc1")
    broker.until_closed()
    broker.greet()
    assert "broke the protocol" in worker.said()


def test_speaks_tcp_and_shows_the_token_that_it_was_given(
    start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("CHERVIL_TOKEN", "s3cret")
    broker = ScriptedBroker()
    try:
        worker = start_worker("-c", "1", url=broker.url)
        assert broker.accept().token == "s3cret"
        broker.welcome()
        broker.deliver(row(1, "proj.add", 1, 2))
        broker.until(lambda: broker.rows)
        assert stop(worker, broker) == 0
        assert "s3cret" not in worker.said()
    finally:
        broker.close()
