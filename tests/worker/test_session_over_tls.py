"""A session over TLS: with asyncio's loop and uvloop's, then in a real worker."""

import asyncio
import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trustme

from chervil.address import BrokerURL
from chervil.protocol.messages import Hello
from chervil.tls_files import TLSFiles
from chervil_worker import session
from tests.client.fakes import FakeBroker, Peer
from tests.client.relay import Authority, Relay
from tests.worker.broker import DEADLINE, ScriptedBroker, row
from tests.worker.conftest import StartWorker, stop, wait_until_said
from tests.worker.test_session import Owner, ended


@pytest.fixture(autouse=True)
def own_surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No token of the person who runs the tests."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    for name in ("CHERVIL_TOKEN", "CHERVIL_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def behind_tls(tmp_path: Path) -> Iterator[Callable[[ssl.SSLContext], Relay]]:
    """Puts TLS before a broker that welcomes whoever comes."""
    fake = FakeBroker(tmp_path / "fake.sock")
    relays: list[Relay] = []

    def relay(context: ssl.SSLContext) -> Relay:
        relays.append(Relay(fake.url, context))
        return relays[-1]

    yield relay
    for each in relays:
        each.close()
    fake.close()


def uvloops() -> asyncio.AbstractEventLoop:
    import uvloop

    return uvloop.new_event_loop()


@pytest.fixture(params=[None, uvloops], ids=["asyncio", "uvloop"])
def try_to_connect(request: pytest.FixtureRequest) -> Callable[[BrokerURL, TLSFiles], str]:
    """Connects, says goodbye: "" where that went well, else why not."""

    async def connect(url: BrokerURL, files: TLSFiles) -> str:
        try:
            current, _ = await session.connect(Owner(), url, files, "me@here")
        except OSError as error:
            return str(error) or type(error).__name__
        await current.say_goodbye(DEADLINE)
        await ended(current)
        return ""

    def run(url: BrokerURL, files: TLSFiles) -> str:
        with asyncio.Runner(loop_factory=request.param) as runner:
            return runner.run(connect(url, files))

    return run


Connect = Callable[[BrokerURL, TLSFiles], str]
BehindTLS = Callable[[ssl.SSLContext], Relay]


def test_speaks_tls(try_to_connect: Connect, behind_tls: BehindTLS, authority: Authority):
    assert try_to_connect(behind_tls(authority.server_context()).url, authority.files) == ""
    asking = behind_tls(authority.server_context(asks=True))
    assert try_to_connect(asking.url, authority.with_certificate) == ""


def test_a_certificate_that_is_not_accepted_says_why_and_what_to_do(
    try_to_connect: Connect, behind_tls: BehindTLS, authority: Authority, tmp_path: Path
):
    elsewhere = behind_tls(authority.server_context("elsewhere")).url
    assert "not valid for 'localhost'; connect by a name" in try_to_connect(elsewhere, authority.files)
    expired = behind_tls(authority.server_context(expired=True)).url
    assert "has expired; the broker needs a new one" in try_to_connect(expired, authority.files)
    unknown = behind_tls(authority.server_context()).url
    assert f"no CA in {tmp_path}/ca.pem signed it" in try_to_connect(unknown, Authority(tmp_path).files)
    assert "/nonexistent cannot be used" in try_to_connect(unknown, TLSFiles(ca="/nonexistent"))


def test_a_broker_that_asks_for_a_client_certificate_says_so(
    try_to_connect: Connect, behind_tls: BehindTLS, authority: Authority
):
    told = try_to_connect(behind_tls(authority.server_context(asks=True)).url, authority.files)
    assert told == (
        "the connection was closed: the broker asks for a client certificate; "
        "name one with CHERVIL_TLS_CERT and CHERVIL_TLS_KEY"
    )


def test_an_end_after_the_handshake_may_be_for_want_of_a_client_certificate(
    try_to_connect: Connect, behind_tls: BehindTLS, authority: Authority
):
    relay = behind_tls(authority.server_context())
    relay.hangs_up = True
    told = try_to_connect(relay.url, authority.files)
    assert told.startswith("the connection was closed")
    assert told.endswith(
        "; if it asks for a client certificate, name one with CHERVIL_TLS_CERT and CHERVIL_TLS_KEY"
    )


def test_tls_on_one_side_only_is_told(try_to_connect: Connect, behind_tls: BehindTLS, authority: Authority):
    relay = behind_tls(authority.server_context())
    told = try_to_connect(relay.plain_url, TLSFiles())
    assert "with TLS its URL begins with chervils://" in told
    fake = FakeBroker()
    url = BrokerURL("chervils", host="localhost", port=fake.url.port)
    assert "its URL begins with chervil://" in try_to_connect(url, authority.files)
    fake.close()


def test_an_alert_behind_chervil_is_known_for_tls(try_to_connect: Connect):
    def alert(peer: Peer, message: Hello) -> bool:
        peer.sock.sendall(b"\x15\x03\x01\x00\x02\x02\x46")
        return True

    fake = FakeBroker()
    fake.scripts[Hello] = alert
    told = try_to_connect(fake.url, TLSFiles())
    assert told == "the broker speaks TLS there; its URL begins with chervils://"
    fake.close()


def test_a_handshake_that_nobody_answers_ends_in_time(
    try_to_connect: Connect, authority: Authority, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(session, "CONNECT_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = BrokerURL("chervils", host="localhost", port=silent.getsockname()[1])
        assert try_to_connect(url, authority.files) == "TimeoutError"


def test_a_certificate_problem_is_retried_until_it_is_mended(
    start_worker: StartWorker, broker: ScriptedBroker, authority: Authority, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):  # fmt: skip
    ca = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(ca)
    monkeypatch.setenv("CHERVIL_TLS_CA", str(ca))
    relay = Relay(BrokerURL.parse(broker.url), authority.server_context())
    try:
        worker = start_worker("-c", "1", url=str(relay.url))
        wait_until_said(worker, f"no CA in {ca} signed it; trying again")
        authority.ca.cert_pem.write_to_path(ca)
        broker.greet()
        broker.deliver(row(1, "proj.add", 1, 2))
        broker.until(lambda: broker.rows)
        assert stop(worker, broker) == 0
        assert worker.said().count("cannot reach the broker") == 1
    finally:
        relay.close()
