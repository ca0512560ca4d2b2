import os
import socket
import threading
import time

import pytest

from chervil import client as client_module
from chervil.address import BrokerURL, Found
from chervil.client import Client
from chervil.exceptions import AccessRefused, OperationalError, PublishRefused, PublishUnconfirmed
from chervil.protocol import Code, Stage, limits
from chervil.protocol import messages as m
from chervil.statedir import token_path, write_token
from tests.client.fakes import FakeBroker


@pytest.fixture
def client(broker):
    made = Client(broker.found)
    yield made
    made.close()


@pytest.fixture
def tcp():
    fake = FakeBroker(token="right")
    yield fake
    fake.close()


def row(id_="a", body=b"[[],{}]"):
    return [id_, "t", "default", 0, None, None, "json", body]


def test_publish_returns_when_it_is_confirmed(client, broker):
    client.publish([row()])
    assert list(broker.rows) == ["a"]
    assert broker.hellos[0].name == f"{os.getpid()}@{socket.gethostname()}"


def test_a_connection_is_used_again(client, broker):
    for n in range(5):
        client.publish([row(str(n))])
    assert len(broker.hellos) == 1


def test_a_connection_broken_in_the_pool_is_replaced_silently(client, broker):
    client.publish([row("a")])
    broker.cut_all()
    client.publish([row("b")])
    assert (list(broker.rows), broker.counts["Publish"]) == (["a", "b"], 2)


def test_many_rows_go_in_frames_that_fit(client, broker):
    rows = [row(str(n), b"x" * 1000) for n in range(1000)]
    client.publish(rows)
    assert len(broker.rows) == 1000
    # 1000 bytes of body and at most about 800 of envelope each.
    assert 4 <= broker.counts["Publish"] <= 8


def test_more_frames_than_go_ahead_at_once(client, broker):
    client.publish([row(str(n), b"x" * limits.FRAME_BATCH) for n in range(40)])
    assert (len(broker.rows), broker.counts["Publish"]) == (40, 40)


def test_a_broken_connection_sends_the_same_rows_again(client, broker):
    def once(peer, message):
        broker.store(message)
        broker.scripts.clear()
        peer.cut()
        return True

    broker.scripts[m.Publish] = once
    client.publish([row("a"), row("b")])
    assert broker.counts["Publish"] == 2
    assert list(broker.rows) == ["a", "b"]


def test_what_was_not_confirmed_is_sent_again(client, broker):
    broken = []

    def second_breaks(peer, message):
        if not broken and message.tasks[0][0] == "1":
            broken.append(peer)
            peer.cut()
        return peer in broken

    broker.scripts[m.Publish] = second_breaks
    client.publish([row(str(n), b"x" * limits.FRAME_BATCH) for n in range(3)])
    assert list(broker.rows) == ["0", "1", "2"]
    assert len(broker.hellos) == 2


def test_a_goodbye_of_the_broker_is_waited_out(client, broker):
    def stopping(peer, message):
        broker.scripts.clear()
        peer.send(m.Error(None, Code.SHUTDOWN, "stopping"))
        peer.cut()
        return True

    broker.scripts[m.Publish] = stopping
    client.publish([row()])
    assert list(broker.rows) == ["a"]


def test_without_a_confirm_until_the_deadline_it_is_unconfirmed(client, broker):
    broker.scripts[m.Publish] = lambda peer, message: True
    with pytest.raises(PublishUnconfirmed) as caught:
        client.publish([row("a"), row("b")], deadline=0.2)
    assert caught.value.task_ids == ["a", "b"]


def test_a_broker_that_stays_away_after_a_send_leaves_it_unconfirmed(client, broker):
    def die(peer, message):
        broker.listener.shutdown(socket.SHUT_RDWR)
        broker.listener.close()
        peer.cut()
        return True

    broker.scripts[m.Publish] = die
    with pytest.raises(PublishUnconfirmed, match="Connection refused"):
        client.publish([row()], deadline=0.4)


def test_a_broken_rule_is_not_tried_again(client, broker):
    def fatal(peer, message):
        peer.send(m.Error(None, Code.BAD_FIELD, "no"))
        peer.cut()
        return True

    broker.scripts[m.Publish] = fatal
    with pytest.raises(PublishUnconfirmed, match="BAD_FIELD"):
        client.publish([row()])
    assert broker.counts["Publish"] == 1


def test_refused_rows_are_named_and_the_others_stand(client, broker):
    def full(peer, message):
        broker.store(message)
        peer.send(m.Confirm(message.request, 1, [[1, "FULL", "no room"], [2, "DUPLICATE", "known"]]))
        return True

    broker.scripts[m.Publish] = full
    with pytest.raises(PublishRefused) as caught:
        client.publish([row("a"), row("b"), row("c")])
    assert (caught.value.task_ids, caught.value.code, caught.value.message) == (["b"], "FULL", "no room")


def test_a_refused_request_refuses_all_its_rows(client, broker):
    def forbidden(peer, message):
        peer.send(m.Error(message.request, Code.FORBIDDEN, "not yours"))
        return True

    broker.scripts[m.Publish] = forbidden
    with pytest.raises(PublishRefused, match="FORBIDDEN") as caught:
        client.publish([row("a"), row("b")])
    assert caught.value.task_ids == ["a", "b"]
    broker.scripts.clear()
    client.publish([row("c")])
    assert len(broker.hellos) == 1


def test_a_row_that_cannot_be_sent_is_refused(client):
    with pytest.raises(PublishRefused, match="BAD_FRAME"):
        client.publish([row("a", b"x" * (limits.FRAME_MAX + 1))])


def test_a_duplicate_is_confirmed(client, broker):
    client.publish([row()])
    client.publish([row()])
    assert len(broker.rows) == 1


def test_no_broker_says_where_it_looked_and_what_to_type(tmp_path):
    started = time.monotonic()
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    url = BrokerURL.parse(f"chervil://geheim@127.0.0.1:{port}")
    with pytest.raises(OperationalError) as caught:
        Client(Found(url, "flag --broker")).publish([row()])
    text = str(caught.value)
    assert f"chervil://***@127.0.0.1:{port} (flag --broker)" in text
    assert text.endswith("start one: chervil broker")
    assert time.monotonic() - started < 2
    with pytest.raises(OperationalError, match="start one"):
        Client(Found(BrokerURL("chervil+unix", path=str(tmp_path / "none")), "app")).query(["a"])


def test_a_peer_that_says_nothing_is_named(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = BrokerURL("chervil", host="127.0.0.1", port=server.getsockname()[1])
        with pytest.raises(OperationalError, match="does not answer"):
            Client(Found(url, "app"), connect_timeout=0.1).stats()


def test_a_peer_that_speaks_another_protocol_is_named(broker):
    def http(peer, message):
        peer.sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        return True

    broker.scripts[m.Hello] = http
    with pytest.raises(OperationalError, match="is it a Chervil broker"):
        Client(broker.found).stats()


def test_tls_is_refused_plainly():
    with pytest.raises(OperationalError, match="TLS"):
        Client(Found(BrokerURL.parse("chervils://h"), "app")).stats()


def test_the_token_is_found_by_the_address(tcp):
    with pytest.raises(AccessRefused, match="CHERVIL_TOKEN_FILE"):
        Client(tcp.found).publish([row()])
    assert len(tcp.hellos) == 1
    write_token(token_path(tcp.url), "right")
    client = Client(tcp.found)
    client.publish([row()])
    client.close()
    assert tcp.hellos[-1].token == "right"


def test_on_a_unix_socket_no_token_is_sent(client, broker, monkeypatch):
    monkeypatch.setenv("CHERVIL_TOKEN", "for another")
    client.stats()
    assert broker.hellos[0].token is None


def test_a_token_file_that_cannot_be_read_is_named(tcp, monkeypatch):
    monkeypatch.setenv("CHERVIL_TOKEN_FILE", "/nonexistent/token")
    with pytest.raises(OperationalError, match=r"cannot read the token.*/nonexistent/token"):
        Client(tcp.found).stats()


def test_another_refusal_at_the_door_is_told(broker):
    def no(peer, message):
        peer.send(m.Error(None, Code.VERSION_UNSUPPORTED, "2 to 3"))
        peer.cut()
        return True

    broker.scripts[m.Hello] = no
    with pytest.raises(OperationalError, match="VERSION_UNSUPPORTED: 2 to 3"):
        Client(broker.found).stats()


def test_a_new_token_shut_out_after_a_send_is_unconfirmed_at_once(tcp):
    write_token(token_path(tcp.url), "right")
    client = Client(tcp.found)

    def change(peer, message):
        tcp.token = "other"
        peer.cut()
        return True

    tcp.scripts[m.Publish] = change
    with pytest.raises(PublishUnconfirmed, match="AUTH_REQUIRED"):
        client.publish([row()])


def test_query_stats_and_purge(client, broker):
    client.publish([row("a")])
    statuses = client.query(["a", "b"])
    assert [(s.id, s.stage) for s in statuses] == [("a", Stage.QUEUED), ("b", Stage.UNKNOWN)]
    assert client.stats() == {"version": "0"}
    assert client.purge([]) == 1
    with pytest.raises(ValueError, match="a task id"):
        client.query([""])


def test_more_ids_than_a_frame_holds(client, broker, monkeypatch):
    monkeypatch.setattr(client_module, "ROWS_MAX", 10)
    assert len(client.query([str(n) for n in range(25)])) == 25
    assert broker.counts["Query"] == 3


def test_a_request_is_repeated_once_when_the_connection_breaks(client, broker):
    def once(peer, message):
        broker.scripts.clear()
        peer.cut()
        return True

    broker.scripts[m.Stats] = once
    assert client.stats() == {"version": "0"}

    def always(peer, message):
        peer.cut()
        return True

    broker.scripts[m.Stats] = always
    with pytest.raises(OperationalError, match="no answer"):
        client.stats()


def test_a_refused_request_is_an_operational_error(client, broker):
    def no(peer, message):
        peer.send(m.Error(message.request, Code.NOT_IMPLEMENTED, "later"))
        return True

    broker.scripts[m.Purge] = no
    with pytest.raises(OperationalError, match="NOT_IMPLEMENTED"):
        client.purge([])
    client.stats()
    assert len(broker.hellos) == 1


def test_a_broker_that_breaks_the_rules_is_left(client, broker):
    def garbage(peer, message):
        peer.sock.sendall(b"\0\0\0\1\xc1")
        return True

    broker.scripts[m.Stats] = garbage
    with pytest.raises(OperationalError, match="broke the protocol"):
        client.stats()


def test_an_answer_that_does_not_come_ends_in_time(client, broker, monkeypatch):
    monkeypatch.setattr(client_module, "REQUEST_SECONDS", 0.1)
    broker.scripts[m.Stats] = lambda peer, message: True
    with pytest.raises(OperationalError, match="deadline"):
        client.stats()


def test_a_full_pool_makes_others_wait_their_turn(broker):
    client = Client(broker.found, pool_limit=1)
    held = threading.Event()
    go = threading.Event()

    def hold(peer, message):
        broker.scripts.clear()
        held.set()
        threading.Thread(target=lambda: (go.wait(10), peer.send(broker.store(message)))).start()
        return True

    broker.scripts[m.Publish] = hold
    first = threading.Thread(target=client.publish, args=([row("a")],))
    first.start()
    assert held.wait(10)
    with pytest.raises(OperationalError, match="all 1 connections"):
        client.publish([row("b")], deadline=0.05)
    second = threading.Thread(target=client.publish, args=([row("c")],))
    second.start()
    go.set()
    first.join(10)
    second.join(10)
    assert list(broker.rows) == ["a", "c"]
    assert len(broker.hellos) == 1
    client.close()


def test_a_forked_child_opens_its_own_connection(client, broker):
    client.publish([row("parent")])
    pid = os.fork()
    if pid == 0:
        try:
            client.publish([row("child")])
            os._exit(0)
        except BaseException:
            os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0
    client.publish([row("parent again")])
    assert list(broker.rows) == ["parent", "child", "parent again"]
    assert len(broker.hellos) == 2


def test_close_says_goodbye(client, broker):
    client.publish([row()])
    client.close()
    broker.wait_for(lambda: broker.counts["Goodbye"] == 1)


def test_a_large_answer_while_sending_does_not_block(client, broker):
    """The broker writes more than the socket holds before it reads on."""
    big = {"text": "x" * 4_000_000}

    def chatty(peer, message):
        if peer.watched == {"told"}:
            return False
        peer.watched.add("told")
        for n in range(2):
            peer.send(m.Report(1_000_000 + n, big))
        return False

    broker.scripts[m.Publish] = chatty
    client.publish([row(str(n), b"x" * 1_000_000) for n in range(30)], deadline=30)
    assert len(broker.rows) == 30


def test_a_name_of_ones_own(broker):
    client = Client(broker.found, name="billing")
    client.stats()
    assert broker.hellos[0].name == "billing"
    client.close()
