import contextlib
import socket
import threading
from time import monotonic

import pytest

from chervil.address import BrokerURL
from chervil.conversation import LineBroken, ask, reply, run
from chervil.exchange import Mailbox
from chervil.line import Line, open_line
from chervil.protocol import Code, RequestRefused
from chervil.protocol import messages as m
from chervil.sockets import Socket

TIMEOUT = 5.0


def end():
    return monotonic() + 10


@pytest.fixture
def line(broker):
    made = open_line(broker.addresses, "me", TIMEOUT)
    yield made
    made.close()


def test_an_opened_line_has_introduced_itself(line, broker):
    assert (broker.hellos[0].name, broker.hellos[0].token) == ("me", None)
    assert line.exchange.usable


def test_ask_gives_the_reply(line):
    assert run(ask(line, line.exchange.stats(), end())).report == {"version": "0"}


def test_requests_sent_ahead_get_their_own_replies(line, broker):
    first, data_1 = line.exchange.purge([])
    second, data_2 = line.exchange.stats()
    run(line.send(data_1 + data_2, end()))
    assert run(reply(line, second, end())) == m.Report(second, {"version": "0"})
    assert run(reply(line, first, end())) == m.Ok(first, 0)


def test_a_refused_request_leaves_the_line_as_it_is(line, broker):
    def no(peer, message):
        peer.send(m.Error(message.request, Code.FORBIDDEN, "not yours"))
        return True

    broker.scripts[m.Purge] = no
    with pytest.raises(RequestRefused, match="FORBIDDEN: not yours"):
        run(ask(line, line.exchange.purge([]), end()))
    assert run(ask(line, line.exchange.stats(), end())).report == {"version": "0"}


def test_a_reply_that_does_not_come_is_a_timeout_and_no_broken_line(line, broker):
    broker.scripts[m.Stats] = lambda peer, message: True
    with pytest.raises(TimeoutError) as caught:
        run(ask(line, line.exchange.stats(), monotonic() + 0.05))
    assert not isinstance(caught.value, LineBroken)


def test_a_connection_cut_instead_of_a_reply_breaks_the_line(line, broker):
    broker.scripts[m.Stats] = lambda peer, message: peer.cut() or True
    with pytest.raises(LineBroken, match="closed the connection") as caught:
        run(ask(line, line.exchange.stats(), end()))
    assert caught.value.code is None


def test_a_broken_line_tells_the_brokers_reason(line, broker):
    def fatal(peer, message):
        peer.send(m.Error(None, Code.SLOW, "too slow"))
        return True

    broker.scripts[m.Stats] = fatal
    with pytest.raises(LineBroken, match="SLOW: too slow") as caught:
        run(ask(line, line.exchange.stats(), end()))
    assert caught.value.code == Code.SLOW


def test_a_broker_that_breaks_the_protocol_breaks_the_line(line, broker):
    broker.scripts[m.Stats] = lambda peer, message: peer.sock.sendall(b"\0\0\0\1\xc1") or True
    with pytest.raises(LineBroken, match="the broker broke the protocol: "):
        run(ask(line, line.exchange.stats(), end()))


def test_a_broker_that_closes_in_the_middle_of_a_frame_breaks_the_line(line, broker):
    def half(peer, message):
        peer.sock.sendall(b"\0\0\0\x09\x92")
        peer.cut()
        return True

    broker.scripts[m.Stats] = half
    with pytest.raises(LineBroken, match="closed the connection"):
        run(ask(line, line.exchange.stats(), end()))


def test_a_send_to_a_peer_that_is_gone_breaks_the_line():
    ours, peer = socket.socketpair()
    ours.setblocking(False)
    peer.close()
    line = Line(Socket(ours), BrokerURL("chervil+unix", path="/b.sock"))
    with pytest.raises(LineBroken, match="Broken pipe"):
        run(line.send(b"x", end()))
    line.close()


def test_a_send_that_gets_stuck_is_a_timeout_and_no_broken_line():
    ours, peer = socket.socketpair()
    ours.setblocking(False)
    line = Line(Socket(ours), BrokerURL("chervil+unix", path="/b.sock"))
    with pytest.raises(TimeoutError) as caught:
        run(line.send(b"x" * 10_000_000, monotonic() + 0.05))
    assert not isinstance(caught.value, LineBroken)
    line.close()
    peer.close()


def test_a_line_is_fresh_until_the_broker_ends_it(line, broker):
    assert line.fresh()
    with broker.changed:
        broker.peers[0].send(m.Heartbeat())
    run(line.news(None, end()))
    assert line.fresh()
    broker.cut_all()
    assert not line.fresh()


@pytest.mark.parametrize("sent", [m.Goodbye(Code.SHUTDOWN), m.Error(None, Code.SLOW, "x")])
def test_a_line_that_was_said_goodbye_to_is_not_fresh(line, broker, sent):
    with broker.changed:
        broker.peers[0].send(sent)
    run(line.news(None, end()))
    assert not line.fresh()


def test_what_came_unasked_is_taken_in_before_reuse(line, broker):
    """A window that was closed while the line was idle is known before anything is published."""
    with broker.changed:
        broker.peers[0].send(m.Window(0))
    run(line.news(None, end()))
    with broker.changed:
        broker.peers[0].send(m.Window(7))
    broker.wait_for(lambda: line.fresh() and line.exchange.window == 7)


def test_a_broker_that_never_stops_talking_keeps_nobody_beyond_the_deadline(line, broker):
    going = threading.Event()

    def talk(peer, message):
        def on_and_on():
            with contextlib.suppress(OSError):
                while not going.is_set():
                    peer.sock.sendall(peer.connection.send(m.Heartbeat()) * 100)

        threading.Thread(target=on_and_on).start()
        return True

    broker.scripts[m.Stats] = talk
    started = monotonic()
    with pytest.raises(TimeoutError):
        run(ask(line, line.exchange.stats(), started + 0.2))
    going.set()
    assert 0.2 <= monotonic() - started < 2


def test_what_is_posted_arrives(line, broker):
    broker.rows["a"] = []
    mailbox = Mailbox()
    run(ask(line, line.exchange.watch(mailbox, ["a"]), end()))
    line.post(line.exchange.unwatch(mailbox, ["a"]))
    broker.wait_for(lambda: broker.counts["Unwatch"] == 1)


def test_what_cannot_be_posted_closes_the_line_without_an_error():
    ours, peer = socket.socketpair()
    ours.setblocking(False)
    line = Line(Socket(ours), BrokerURL("chervil+unix", path="/b.sock"))
    line.post(b"x" * 10_000_000)
    assert ours.fileno() == -1
    peer.close()


def test_close_says_goodbye(broker):
    open_line(broker.addresses, "me", TIMEOUT).close()
    broker.wait_for(lambda: broker.counts["Goodbye"] == 1)
    broker.wait_for(lambda: not broker.peers)


def test_close_of_a_line_that_broke_is_quiet(broker):
    line = open_line(broker.addresses, "me", TIMEOUT)
    broker.cut_all()
    line.close()
    assert line.socket._sock.fileno() == -1
