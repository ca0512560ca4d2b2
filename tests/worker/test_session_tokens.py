"""Which token a session sends, and to whom."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path

import pytest

from chervil import listeners
from chervil.address import BrokerURL
from chervil.protocol.messages import Hello
from chervil.statedir import token_path, write_private
from chervil_worker.session import NoToken
from tests.worker.test_session import Place, Play, ended
from tests.worker.test_session import play as play  # noqa: PLC0414  # a fixture


def test_token_file_that_cannot_be_read_is_no_refusal_of_the_broker(
    play: Play, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("CHERVIL_TOKEN_FILE", "/nonexistent")

    async def story(place: Place) -> None:
        place.url = BrokerURL.parse("chervil://127.0.0.1:1")
        said = "^cannot read CHERVIL_TOKEN_FILE, /nonexistent: No such file or directory$"
        with pytest.raises(NoToken, match=said):
            await place.connect()

    play(story)


def test_token_file_that_others_may_read_is_no_refusal_of_the_broker(
    play: Play, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    token = tmp_path / "token"
    token.write_text("secret")
    token.chmod(0o644)
    monkeypatch.setenv("CHERVIL_TOKEN_FILE", str(token))

    async def story(place: Place) -> None:
        place.url = BrokerURL.parse("chervil://127.0.0.1:1")
        with pytest.raises(NoToken, match=f"^no token is sent: .*; type: chmod 600 {token}$"):
            await place.connect()

    play(story)


def over_tcp(story: Callable[[Place], Coroutine[None, None, None]]) -> None:
    """Plays a story with a broker on a port."""

    async def live() -> None:
        place = Place("/not/used")
        async with await asyncio.start_server(place.arrived, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            place.url = BrokerURL.parse(f"chervil://127.0.0.1:{port}")
            try:
                await story(place)
            finally:
                await place.close()

    asyncio.run(live())


@pytest.mark.usefixtures("play")
def test_token_that_a_broker_of_this_user_has_left_is_sent_to_it():
    async def story(place: Place) -> None:
        write_private(token_path(place.url), "filed")
        connecting = place.connect()
        peer = await place.peer()
        hello = await peer.hear()
        assert isinstance(hello, Hello)
        assert hello.token == "filed"
        peer.welcome()
        current, _ = await connecting
        current.close()
        await ended(current)

    over_tcp(story)


@pytest.mark.usefixtures("play")
def test_token_is_not_sent_to_another_user_who_has_taken_the_port(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(listeners, "stranger_at", lambda peer, owner: "user bob")

    async def story(place: Place) -> None:
        write_private(token_path(place.url), "filed")
        with pytest.raises(NoToken, match="user bob listens there"):
            await place.connect()
        assert await (await place.peer()).hear() is None, "nothing was sent"
        assert place.owner.losses == 1

    over_tcp(story)
