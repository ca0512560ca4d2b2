import re
import socket
from time import monotonic

import pytest

from chervil import line as line_module
from chervil.address import BrokerURL, Found
from chervil.exceptions import AccessRefused, OperationalError
from chervil.line import Line, LineBroken, open_line
from chervil.protocol import Code, RequestRefused, Stage
from chervil.protocol import messages as m
from chervil.sockets import Socket
from chervil.statedir import token_path, write_token
from tests.client.fakes import FakeBroker

TIMEOUT = 5.0


def end():
    return monotonic() + 10


@pytest.fixture
def tcp():
    fake = FakeBroker(token="right")
    yield fake
    fake.close()


@pytest.fixture
def line(broker):
    made = open_line(broker.found, "me", TIMEOUT)
    yield made
    made.close()


def test_an_opened_line_has_introduced_itself(line, broker):
    assert (broker.hellos[0].name, broker.hellos[0].token) == ("me", None)
    assert line.exchange.usable
    assert line.written > 0


def test_ask_gives_the_reply(line):
    assert line.ask(line.exchange.stats(), end()).report == {"version": "0"}


def test_requests_sent_ahead_get_their_own_replies(line, broker):
    first, data_1 = line.exchange.purge([])
    second, data_2 = line.exchange.stats()
    line.send(data_1 + data_2, end())
    assert line.reply(second, end()) == m.Report(second, {"version": "0"})
    assert line.reply(first, end()) == m.Ok(first, 0)


def test_a_refused_request_leaves_the_line_as_it_is(line, broker):
    def no(peer, message):
        peer.send(m.Error(message.request, Code.FORBIDDEN, "not yours"))
        return True

    broker.scripts[m.Purge] = no
    with pytest.raises(RequestRefused, match="FORBIDDEN: not yours"):
        line.ask(line.exchange.purge([]), end())
    assert line.ask(line.exchange.stats(), end()).report == {"version": "0"}


def test_a_reply_that_does_not_come_is_a_timeout_and_no_broken_line(line, broker):
    broker.scripts[m.Stats] = lambda peer, message: True
    with pytest.raises(TimeoutError) as caught:
        line.ask(line.exchange.stats(), monotonic() + 0.05)
    assert not isinstance(caught.value, LineBroken)


def test_a_connection_cut_instead_of_a_reply_breaks_the_line(line, broker):
    broker.scripts[m.Stats] = lambda peer, message: peer.cut() or True
    with pytest.raises(LineBroken, match="closed the connection") as caught:
        line.ask(line.exchange.stats(), end())
    assert caught.value.code is None


def test_a_broken_line_tells_the_brokers_reason(line, broker):
    def fatal(peer, message):
        peer.send(m.Error(None, Code.SLOW, "too slow"))
        return True

    broker.scripts[m.Stats] = fatal
    with pytest.raises(LineBroken, match="SLOW: too slow") as caught:
        line.ask(line.exchange.stats(), end())
    assert caught.value.code == Code.SLOW


def test_a_broker_that_breaks_the_protocol_breaks_the_line(line, broker):
    broker.scripts[m.Stats] = lambda peer, message: peer.sock.sendall(b"\0\0\0\1\xc1") or True
    with pytest.raises(LineBroken, match="the broker broke the protocol: "):
        line.ask(line.exchange.stats(), end())


def test_a_send_to_a_peer_that_is_gone_breaks_the_line():
    ours, peer = socket.socketpair()
    peer.close()
    line = Line(Socket(ours))
    with pytest.raises(LineBroken, match="Broken pipe"):
        line.send(b"x", end())
    line.close()


def test_a_send_that_gets_stuck_is_a_timeout_and_no_broken_line():
    ours, peer = socket.socketpair()
    line = Line(Socket(ours))
    with pytest.raises(TimeoutError) as caught:
        line.send(b"x" * 10_000_000, monotonic() + 0.05)
    assert not isinstance(caught.value, LineBroken)
    line.close()
    peer.close()


def test_a_line_is_fresh_until_the_broker_ends_it(line, broker):
    assert line.fresh()
    with broker.changed:
        broker.peers[0].send(m.Heartbeat())
    line.receive(end())
    assert line.fresh()
    broker.cut_all()
    assert not line.fresh()


@pytest.mark.parametrize("sent", [m.Goodbye(Code.SHUTDOWN), m.Error(None, Code.SLOW, "x")])
def test_a_line_that_was_said_goodbye_to_is_not_fresh(line, broker, sent):
    with broker.changed:
        broker.peers[0].send(sent)
    line.receive(end())
    assert not line.fresh()


def test_results_nobody_waits_for_any_more_are_dropped_before_reuse(line, broker):
    broker.rows["a"] = []
    line.ask(line.exchange.watch(["a"]), end())
    broker.finish("a", Stage.SUCCESS)
    assert line.fresh()
    broker.cut_all()
    assert line.exchange.take_results() == []


def test_close_says_goodbye(broker):
    open_line(broker.found, "me", TIMEOUT).close()
    broker.wait_for(lambda: broker.counts["Goodbye"] == 1)
    broker.wait_for(lambda: not broker.peers)


def test_close_of_a_line_that_broke_is_quiet(broker):
    line = open_line(broker.found, "me", TIMEOUT)
    broker.cut_all()
    line.close()
    assert line.socket._sock.fileno() == -1


# Opening


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
    write_token(token_path(tcp.url), "right")
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
