"""Opening a line, through the blocking one; that of an event loop goes the same way, but for TLS."""

import asyncio
import re
import socket
from time import monotonic

import pytest

from chervil import address, listeners
from chervil import line as line_module
from chervil.address import Addresses, BrokerURL, Found
from chervil.aio import AsyncClient
from chervil.exceptions import AccessRefused, OperationalError
from chervil.line import open_line
from chervil.protocol import Code
from chervil.protocol import messages as m
from chervil.statedir import token_path, write_private
from chervil.tls_files import TLSFiles
from tests.client.fakes import FakeBroker
from tests.client.relay import Authority

TIMEOUT = 5.0


@pytest.fixture
def tcp():
    fake = FakeBroker(token="right")
    yield fake
    fake.close()


def test_no_broker_says_where_it_looked_and_what_to_type():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    url = BrokerURL.parse(f"chervil://geheim@127.0.0.1:{port}")
    with pytest.raises(OperationalError) as caught:
        open_line(Addresses(Found(url, "flag --broker")), "me", TIMEOUT)
    assert str(caught.value) == (
        f"cannot reach the broker at chervil://***@127.0.0.1:{port} (flag --broker): "
        f"Connection refused; start one: chervil broker --bind 127.0.0.1:{port}"
    )
    assert caught.value.__suppress_context__


@pytest.mark.parametrize(
    ("url", "error", "remedy"),
    [
        ("chervil://localhost", ConnectionRefusedError(), "start one: chervil broker"),
        (
            "chervil://t@localhost:5/v",
            ConnectionRefusedError(),
            "start one: chervil broker --bind localhost:5",
        ),
        (
            "chervil://t@h:5/v",
            ConnectionRefusedError(),
            "is the broker running there, and does its --bind let other machines in?",
        ),
        ("chervil://[::1]:5", ConnectionRefusedError(), "start one: chervil broker --bind [::1]:5"),
        ("chervil+unix:///a/b%20c", FileNotFoundError(), "start one: chervil broker --unix '/a/b c'"),
        (
            "chervil+unix:///a/.chervil/broker.sock",
            ConnectionRefusedError(),
            "start one in that folder: chervil -A MODULE dev",
        ),
        ("chervil://h", socket.gaierror(), "check the host name"),
        ("chervil://h", OSError(), "check the URL"),
    ],
)
def test_the_remedy_fits_the_url_and_what_happened(monkeypatch, url, error, remedy):
    def fail(*args):
        raise error

    monkeypatch.setattr(line_module, "connect", fail)
    with pytest.raises(OperationalError, match=f"; {re.escape(remedy)}$"):
        open_line(Addresses(Found(BrokerURL.parse(url), "app")), "me", TIMEOUT)


def test_a_path_too_long_for_a_socket_is_told():
    url = BrokerURL("chervil+unix", path="/x" * 100)
    with pytest.raises(OperationalError, match="path too long"):
        open_line(Addresses(Found(url, "app")), "me", TIMEOUT)


@pytest.mark.parametrize(("timeout", "left"), [(0.05, None), (TIMEOUT, 0.05)])
def test_a_peer_that_says_nothing_is_named_at_the_nearer_deadline(timeout, left):
    started = monotonic()
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = BrokerURL("chervil", host="127.0.0.1", port=server.getsockname()[1])
        with pytest.raises(OperationalError, match="accepts connections and does not answer"):
            open_line(Addresses(Found(url, "app")), "me", timeout, None if left is None else started + left)
    assert monotonic() - started < TIMEOUT


def test_no_time_left_is_no_connection(broker):
    with pytest.raises(OperationalError, match="within 5 s; is it there"):
        open_line(broker.addresses, "me", TIMEOUT, monotonic() - 1)
    assert broker.hellos == []


def test_a_peer_that_speaks_another_protocol_is_named(broker):
    broker.scripts[m.Hello] = lambda peer, message: peer.sock.sendall(b"HTTP/1.1 400 Bad\r\n\r\n") or True
    with pytest.raises(OperationalError, match=r"cannot talk to .*is it a Chervil broker\?$"):
        open_line(broker.addresses, "me", TIMEOUT)


def test_the_token_is_found_by_the_address(tcp):
    with pytest.raises(AccessRefused, match=r"AUTH_REQUIRED: a token is needed$"):
        open_line(tcp.addresses, "me", TIMEOUT)
    write_private(token_path(tcp.url), "right")
    open_line(tcp.addresses, "me", TIMEOUT).close()
    assert [hello.token for hello in tcp.hellos] == [None, "right"]


def test_on_a_unix_socket_no_token_is_sent(broker, monkeypatch):
    monkeypatch.setenv("CHERVIL_TOKEN", "for another")
    open_line(broker.addresses, "me", TIMEOUT).close()
    assert broker.hellos[0].token is None


def test_the_vhost_of_the_url_is_asked_for(tcp):
    url = BrokerURL("chervil", host="127.0.0.1", port=tcp.url.port, token="right", vhost="shop")
    open_line(Addresses(Found(url, "app")), "me", TIMEOUT).close()
    assert tcp.hellos[0].vhost == "shop"


def test_a_token_file_that_cannot_be_read_is_named(tcp, monkeypatch):
    monkeypatch.setenv("CHERVIL_TOKEN_FILE", "/nonexistent/token")
    with pytest.raises(OperationalError, match=r"cannot read the token.*/nonexistent/token: No such file"):
        open_line(tcp.addresses, "me", TIMEOUT)
    assert tcp.hellos == []


def test_a_token_that_others_may_read_is_not_sent(tcp):
    write_private(token_path(tcp.url), "right")
    token_path(tcp.url).chmod(0o644)
    with pytest.raises(OperationalError, match=r"no token is sent to the broker at .*; type: chmod 600 /"):
        open_line(tcp.addresses, "me", TIMEOUT)
    assert tcp.hellos == []


@pytest.mark.parametrize("how", ["blocking", "on a loop"])
def test_a_filed_token_is_not_sent_to_another_user_who_has_taken_the_port(tcp, monkeypatch, how):
    """Which anybody on this machine can do while the broker is down."""
    write_private(token_path(tcp.url), "right")
    real = listeners.stranger_at
    monkeypatch.setattr(listeners, "is_trusted", lambda uid: False)
    monkeypatch.setattr(listeners, "stranger_at", lambda peer, owner: real(peer, owner + 1))
    with pytest.raises(OperationalError, match=r"listens there, and not the user .* no token is sent"):
        (blocking if how == "blocking" else on_a_loop)(tcp.addresses)
    assert tcp.hellos == []
    # One that was named goes there: whoever named it knows why.
    monkeypatch.setenv("CHERVIL_TOKEN", "right")
    (blocking if how == "blocking" else on_a_loop)(tcp.addresses)
    assert [hello.token for hello in tcp.hellos] == ["right"]


def test_another_refusal_at_the_door_is_told(broker):
    def no(peer, message):
        peer.send(m.Error(None, Code.VERSION_UNSUPPORTED, "2 to 3"))
        peer.cut()
        return True

    broker.scripts[m.Hello] = no
    with pytest.raises(
        OperationalError, match="refused the connection: VERSION_UNSUPPORTED: 2 to 3"
    ) as caught:
        open_line(broker.addresses, "me", TIMEOUT)
    assert not isinstance(caught.value, AccessRefused)


def test_a_token_in_the_state_folder_that_cannot_be_read_is_told_where_one_is_asked_for(
    monkeypatch, tmp_path
):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    fake = FakeBroker(token="t")
    path = token_path(fake.url)
    path.mkdir(parents=True)
    try:
        with pytest.raises(AccessRefused) as caught:
            open_line(fake.addresses, "me", TIMEOUT)
    finally:
        fake.close()
    assert str(caught.value) == (
        f"the broker at {fake.url} (app) asks for a token, and {path}, where one may be, cannot be read: "
        "Is a directory"
    )


def test_a_user_who_may_not_enter_the_vhost_is_told_so(broker):
    def no(peer, message):
        peer.send(m.Error(None, Code.FORBIDDEN, "the user web may not use the vhost shop"))
        peer.cut()
        return True

    broker.scripts[m.Hello] = no
    with pytest.raises(AccessRefused, match="does not let us in: FORBIDDEN: the user web may not use"):
        open_line(broker.addresses, "me", TIMEOUT)


# Several addresses


def nobody(host="127.0.0.1"):
    """An address where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return BrokerURL("chervil", host=host, port=server.getsockname()[1], token="secret")


def several(*urls):
    return Addresses(Found(urls[0], "app", urls[1:]))


def test_the_next_address_is_tried_and_the_first_again_once_its_failure_is_old(broker, monkeypatch):
    gone = nobody()
    addresses = several(gone, broker.url)
    open_line(addresses, "me", TIMEOUT).close()
    assert addresses.current is broker.url
    assert addresses.in_order() == (broker.url, gone)
    open_line(addresses, "me", TIMEOUT).close()
    monkeypatch.setattr(address, "FAILED_SECONDS", 0.0)
    assert addresses.in_order() == (gone, broker.url)
    with socket.create_server(("127.0.0.1", gone.port)):
        with pytest.raises(OperationalError):
            open_line(several(gone), "me", 0.05)
        open_line(addresses, "me", 0.4).close()
    assert addresses.current is broker.url


def test_a_loops_connection_that_broke_is_made_anew_where_it_was(broker, tmp_path):
    first = FakeBroker(tmp_path / "first.sock")
    addresses = several(first.url, broker.url)
    addresses.failed(first.url)

    async def main():
        client = AsyncClient(addresses, "me", TIMEOUT)
        await client.publish([["a", "t", "default", 0, None, None, "json", b"[[],{}]"]])
        addresses._failed_at.clear()
        assert addresses.first is first.url
        broker.cut_all()
        await client.publish([["b", "t", "default", 0, None, None, "json", b"[[],{}]"]])
        await client.aclose()

    asyncio.run(main())
    first.close()
    assert list(broker.rows) == ["a", "b"]
    assert first.hellos == []


def test_all_addresses_are_named_when_none_works(tmp_path):
    gone = nobody()
    with pytest.raises(OperationalError) as caught:
        open_line(several(gone, BrokerURL("chervil+unix", path=str(tmp_path / "none"))), "me", TIMEOUT)
    assert str(caught.value) == (
        "no address of the broker (app) works: "
        f"cannot reach chervil://***@127.0.0.1:{gone.port}: Connection refused; "
        f"start one: chervil broker --bind 127.0.0.1:{gone.port}. "
        f"cannot reach chervil+unix://{tmp_path}/none: No such file or directory; "
        f"start one: chervil broker --unix {tmp_path}/none"
    )


def test_a_silent_address_takes_its_share_of_the_time_and_no_more(broker):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = BrokerURL("chervil", host="127.0.0.1", port=silent.getsockname()[1])
        started = monotonic()
        open_line(several(url, url, broker.url), "me", 3).close()
        assert 2 <= monotonic() - started < 3


def test_a_refusal_of_the_token_ends_the_search(tcp, broker):
    with pytest.raises(AccessRefused, match="AUTH_REQUIRED"):
        open_line(several(tcp.url, broker.url), "me", TIMEOUT)
    assert broker.hellos == []


def test_another_refusal_does_not(tcp, broker):
    def no(peer, message):
        peer.send(m.Error(None, Code.TOO_MANY, "connections"))
        return True

    tcp.scripts[m.Hello] = no
    open_line(several(tcp.url, broker.url), "me", TIMEOUT).close()
    assert len(broker.hellos) == 1


# TLS


def blocking(addresses, timeout=TIMEOUT):
    open_line(addresses, "me", timeout).close()


def on_a_loop(addresses, timeout=TIMEOUT):
    async def main():
        client = AsyncClient(addresses, "me", timeout)
        await client.publish([["a", "t", "default", 0, None, None, "json", b"[[],{}]"]], timeout)
        await client.aclose()

    asyncio.run(main())


@pytest.fixture(params=[blocking, on_a_loop])
def open_one(request):
    return request.param


def at(url, files):
    return Addresses(Found(url, "app", files=files))


def refused(open_one, url, files):
    with pytest.raises(OperationalError) as caught:
        open_one(at(url, files))
    told = str(caught.value)
    assert f"the broker at {url} (app): " in told
    assert "\n" not in told
    return told.partition("(app): ")[2]


def test_a_broker_behind_tls_is_talked_to(open_one, relayed, authority, broker):
    open_one(at(relayed(authority.server_context()).url, authority.files))
    assert broker.hellos[0].name == "me"


def test_a_client_certificate_is_shown(open_one, relayed, authority, broker):
    open_one(at(relayed(authority.server_context(asks=True)).url, authority.with_certificate))
    assert len(broker.hellos) == 1


def test_a_wrong_host_name_is_told(open_one, relayed, authority, broker):
    told = refused(open_one, relayed(authority.server_context("elsewhere")).url, authority.files)
    assert "not valid for 'localhost'; connect by a name that it holds" in told
    assert broker.hellos == []


def test_an_expired_certificate_is_told(open_one, relayed, authority):
    told = refused(open_one, relayed(authority.server_context(expired=True)).url, authority.files)
    assert "certificate has expired; the broker needs a new one" in told


def test_an_unknown_authority_is_told(open_one, relayed, authority, tmp_path):
    other = Authority(tmp_path)
    told = refused(open_one, relayed(authority.server_context()).url, other.files)
    assert told.endswith(f"; no CA in {tmp_path}/ca.pem signed it")


def test_a_missing_client_certificate_is_told(open_one, relayed, authority):
    told = refused(open_one, relayed(authority.server_context(asks=True)).url, authority.files)
    assert told == (
        "the broker asks for a client certificate; name one with CHERVIL_TLS_CERT and CHERVIL_TLS_KEY"
    )


def test_a_broker_without_tls_behind_chervils_is_told(open_one, tcp, authority):
    url = BrokerURL("chervils", host="127.0.0.1", port=tcp.url.port)
    assert "its URL begins with chervil://" in refused(open_one, url, authority.files)


def test_tls_behind_chervil_is_told(open_one, relayed, authority):
    told = refused(open_one, relayed(authority.server_context()).plain_url, TLSFiles())
    assert "with TLS its URL begins with chervils://" in told


def test_an_alert_behind_chervil_is_known_for_tls(open_one, tcp):
    tcp.scripts[m.Hello] = lambda peer, message: peer.sock.sendall(b"\x15\x03\x01\x00\x02\x02\x46") or True
    told = refused(open_one, tcp.url, TLSFiles())
    assert told == "the broker speaks TLS there; its URL begins with chervils://"


def test_a_file_that_is_not_there_is_named(open_one, relayed, authority):
    told = refused(open_one, relayed(authority.server_context()).url, TLSFiles(ca="/nonexistent/ca.pem"))
    assert told == "the CA file /nonexistent/ca.pem cannot be used: No such file or directory"


def test_a_handshake_that_nobody_answers_ends_at_the_deadline(open_one, authority):
    started = monotonic()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = BrokerURL("chervils", host="127.0.0.1", port=silent.getsockname()[1])
        with pytest.raises(OperationalError, match=r"within 0.3 s|in time"):
            open_one(at(url, authority.files), 0.3)
    assert 0.3 <= monotonic() - started < TIMEOUT


def test_a_certificate_problem_at_one_address_leaves_the_others(open_one, relayed, authority, broker):
    wrong = relayed(authority.server_context("elsewhere")).url
    right = relayed(authority.server_context()).url
    open_one(Addresses(Found(wrong, "app", (right,), authority.files)))
    assert len(broker.hellos) == 1
