"""Opening a line, through the blocking one; that of an event loop goes the same way."""

import re
import socket
from time import monotonic

import pytest

from chervil import line as line_module
from chervil.address import BrokerURL, Found
from chervil.exceptions import AccessRefused, OperationalError
from chervil.line import open_line
from chervil.protocol import Code
from chervil.protocol import messages as m
from chervil.statedir import token_path, write_private
from tests.client.fakes import FakeBroker

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
        open_line(Found(url, "flag --broker"), "me", TIMEOUT)
    assert str(caught.value) == (
        f"cannot reach the broker at chervil://***@127.0.0.1:{port} (flag --broker): "
        f"Connection refused; start one: chervil broker --bind 127.0.0.1:{port}"
    )
    assert caught.value.__suppress_context__


@pytest.mark.parametrize(
    ("url", "error", "remedy"),
    [
        ("chervil://localhost", ConnectionRefusedError(), "start one: chervil broker"),
        ("chervil://t@h:5/v", ConnectionRefusedError(), "start one: chervil broker --bind h:5"),
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
        open_line(Found(BrokerURL.parse(url), "app"), "me", TIMEOUT)


def test_a_path_too_long_for_a_socket_is_told():
    url = BrokerURL("chervil+unix", path="/x" * 100)
    with pytest.raises(OperationalError, match="path too long"):
        open_line(Found(url, "app"), "me", TIMEOUT)


@pytest.mark.parametrize(("timeout", "left"), [(0.05, None), (TIMEOUT, 0.05)])
def test_a_peer_that_says_nothing_is_named_at_the_nearer_deadline(timeout, left):
    started = monotonic()
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = BrokerURL("chervil", host="127.0.0.1", port=server.getsockname()[1])
        with pytest.raises(OperationalError, match="accepts connections and does not answer"):
            open_line(Found(url, "app"), "me", timeout, None if left is None else started + left)
    assert monotonic() - started < TIMEOUT


def test_no_time_left_is_no_connection(broker):
    with pytest.raises(OperationalError, match="within 5 s; is it there"):
        open_line(broker.found, "me", TIMEOUT, monotonic() - 1)
    assert broker.hellos == []


def test_a_peer_that_speaks_another_protocol_is_named(broker):
    broker.scripts[m.Hello] = lambda peer, message: peer.sock.sendall(b"HTTP/1.1 400 Bad\r\n\r\n") or True
    with pytest.raises(OperationalError, match=r"cannot talk to .*is it a Chervil broker"):
        open_line(broker.found, "me", TIMEOUT)


def test_tls_is_refused_plainly():
    with pytest.raises(OperationalError, match="does not speak TLS; use chervil://"):
        open_line(Found(BrokerURL.parse("chervils://h"), "app"), "me", TIMEOUT)


def test_the_token_is_found_by_the_address(tcp):
    with pytest.raises(AccessRefused, match=r"AUTH_REQUIRED: a token is needed$"):
        open_line(tcp.found, "me", TIMEOUT)
    write_private(token_path(tcp.url), "right")
    open_line(tcp.found, "me", TIMEOUT).close()
    assert [hello.token for hello in tcp.hellos] == [None, "right"]


def test_on_a_unix_socket_no_token_is_sent(broker, monkeypatch):
    monkeypatch.setenv("CHERVIL_TOKEN", "for another")
    open_line(broker.found, "me", TIMEOUT).close()
    assert broker.hellos[0].token is None


def test_the_vhost_of_the_url_is_asked_for(tcp):
    url = BrokerURL("chervil", host="127.0.0.1", port=tcp.url.port, token="right", vhost="shop")
    open_line(Found(url, "app"), "me", TIMEOUT).close()
    assert tcp.hellos[0].vhost == "shop"


def test_a_token_file_that_cannot_be_read_is_named(tcp, monkeypatch):
    monkeypatch.setenv("CHERVIL_TOKEN_FILE", "/nonexistent/token")
    with pytest.raises(OperationalError, match=r"cannot read the token.*/nonexistent/token: No such file"):
        open_line(tcp.found, "me", TIMEOUT)
    assert tcp.hellos == []


def test_another_refusal_at_the_door_is_told(broker):
    def no(peer, message):
        peer.send(m.Error(None, Code.VERSION_UNSUPPORTED, "2 to 3"))
        peer.cut()
        return True

    broker.scripts[m.Hello] = no
    with pytest.raises(
        OperationalError, match="refused the connection: VERSION_UNSUPPORTED: 2 to 3"
    ) as caught:
        open_line(broker.found, "me", TIMEOUT)
    assert not isinstance(caught.value, AccessRefused)
