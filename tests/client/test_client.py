import os
import socket

import pytest

from chervil import conversation, exchange, publication
from chervil.client import Client
from chervil.exceptions import AccessRefused, OperationalError, PublishRefused, PublishUnconfirmed
from chervil.protocol import Code, Stage, limits
from chervil.protocol import messages as m
from chervil.statedir import token_path, write_private
from tests.client.fakes import FakeBroker, welcome


@pytest.fixture(params=["new", "used"])
def client(broker, request):
    """A client that has no connection yet, and one that keeps an idle one: that is another way to publish."""
    made = Client(broker.found)
    if request.param == "used":
        made.stats()
        broker.counts.clear()
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
        client.publish([row("a"), row("b")], deadline=1)
    assert caught.value.task_ids == ["a", "b"]


def test_a_broker_that_stays_away_after_a_send_leaves_it_unconfirmed(client, broker, monkeypatch):
    def die(peer, message):
        broker.listener.shutdown(socket.SHUT_RDWR)
        broker.listener.close()
        peer.cut()
        return True

    broker.scripts[m.Publish] = die
    # The second attempt is the last: after 1 s, so that a busy machine has 2 s for it.
    monkeypatch.setattr(publication, "PAUSE_FIRST", 1.0)
    monkeypatch.setattr(publication, "PAUSE_MOST", 2.0)
    with pytest.raises(PublishUnconfirmed, match="Connection refused"):
        client.publish([row()], deadline=3)


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
        client.publish([row("a"), row("b"), row("c")], wait=False)
    assert (caught.value.task_ids, caught.value.code, caught.value.message) == (["b"], "FULL", "no room")


def test_rows_that_were_refused_before_the_connection_broke_are_named_too(client, broker, monkeypatch):
    monkeypatch.setattr(publication, "PIPELINE", 1)
    batches = []

    def full_and_then_gone(peer, message):
        batches.append(message)
        if len(batches) > 1:
            peer.cut()
        else:
            peer.send(m.Confirm(message.request, len(message.tasks) - 1, [[0, "FULL", "no room"]]))
        return True

    broker.scripts[m.Publish] = full_and_then_gone
    rows = [row("a", b"x" * 200_000), row("b", b"x" * 200_000), row("c", b"x" * 200_000)]
    with pytest.raises(PublishUnconfirmed, match="task a refused and not stored") as caught:
        client.publish(rows, deadline=1, wait=False)
    assert caught.value.refused_ids == ["a"]
    assert set(caught.value.task_ids) == {"b", "c"}


def test_a_refused_request_refuses_all_its_rows(client, broker):
    def refuse(peer, message):
        peer.send(m.Error(message.request, Code.BAD_FIELD, "not so"))
        return True

    broker.scripts[m.Publish] = refuse
    with pytest.raises(PublishRefused, match="BAD_FIELD") as caught:
        client.publish([row("a"), row("b")])
    assert caught.value.task_ids == ["a", "b"]
    broker.scripts.clear()
    client.publish([row("c")])
    assert len(broker.hellos) == 1


def test_who_may_not_publish_is_told_which_role_that_wants(client, broker):
    def forbid(peer, message):
        peer.send(m.Error(message.request, Code.FORBIDDEN, "PUBLISH wants the role publish"))
        return True

    broker.scripts[m.Publish] = forbid
    with pytest.raises(AccessRefused, match="does not allow this client to publish: PUBLISH wants the role"):
        client.publish([row("a"), row("b")])


def test_a_row_that_cannot_be_sent_is_refused(client):
    with pytest.raises(PublishRefused, match="BAD_FRAME"):
        client.publish([row("a", b"x" * (limits.FRAME_MAX + 1))])


def test_a_duplicate_is_confirmed(client, broker):
    client.publish([row()])
    client.publish([row()])
    assert len(broker.rows) == 1


def test_a_new_token_shut_out_after_a_send_is_unconfirmed_at_once(tcp):
    write_private(token_path(tcp.url), "right")
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


def test_a_closed_window_blocks_a_publisher_until_it_opens(client, broker, meanwhile):
    client.publish([row("a")])
    with broker.changed:
        broker.peers[0].send(m.Window(0))

    def later():
        with broker.changed:
            # Nothing comes for as long as a publisher takes that is not blocked.
            assert not broker.changed.wait_for(lambda: broker.counts["Publish"] > 1, 0.1)
            assert list(broker.rows) == ["a"]
            broker.peers[0].send(m.Window(2**63 - 1))

    meanwhile(later)
    client.publish([row("b")])
    assert list(broker.rows) == ["a", "b"]
    assert len(broker.hellos) == 1


def test_a_publisher_that_must_not_wait_publishes_into_a_closed_window(client, broker):
    client.publish([row("a")])
    with broker.changed:
        broker.peers[0].send(m.Window(0))
    client.publish([row("b")], wait=False)
    assert list(broker.rows) == ["a", "b"]


def test_a_blocked_publisher_goes_on_after_the_broker_was_restarted(broker, meanwhile):
    client = Client(broker.found)

    def full(peer, message):
        welcome(peer, m.Window(0))
        return True

    def restart():
        broker.wait_for(lambda: broker.counts["Hello"] == 1)
        broker.scripts.clear()
        broker.cut_all()

    broker.scripts[m.Hello] = full
    meanwhile(restart)
    client.publish([row("a")])
    assert list(broker.rows) == ["a"]
    assert broker.counts["Hello"] == 2
    client.close()


def test_a_broker_that_is_full_for_a_moment_is_waited_for(client, broker):
    def once(peer, message):
        broker.scripts.clear()
        peer.send(m.Confirm(message.request, 0, [[0, "FULL", "no room"]]))
        return True

    broker.scripts[m.Publish] = once
    client.publish([row("a")])
    assert list(broker.rows) == ["a"]
    assert (broker.counts["Publish"], len(broker.hellos)) == (2, 1)


def test_what_interrupts_a_publish_comes_out_and_its_connection_is_not_used_again(
    client, broker, monkeypatch
):
    def interrupt(self, end):
        monkeypatch.undo()
        raise KeyboardInterrupt

    client.publish([row("a")])
    monkeypatch.setattr("chervil.line.Line._receive", interrupt)
    with pytest.raises(KeyboardInterrupt):
        client.publish([row("b")])
    client.publish([row("c")])
    assert len(broker.hellos) == 2
    assert {"a", "c"} <= set(broker.rows)


@pytest.mark.parametrize("what", ["revoke", "rerun", "forget"])
def test_tasks_are_called_off_run_again_and_forgotten_by_id(client, broker, what):
    assert getattr(client, what)(["a", "b"]) == 2
    assert broker.counts[what.capitalize()] == 1
    with pytest.raises(ValueError, match="a task id"):
        getattr(client, what)([""])


def test_a_revoke_says_whether_and_how_running_tasks_end(client, broker):
    asked = []

    def keep(peer, message):
        asked.append((message.ids, message.terminate, message.signal))
        return False

    broker.scripts[m.Revoke] = keep
    client.revoke(["a"])
    client.revoke(["b"], terminate=True, signal=9)
    assert asked == [(["a"], False, None), (["b"], True, 9)]


def test_the_history_is_what_the_broker_reports(client):
    assert client.history("a") == {"id": "a", "stage": "UNKNOWN"}


def test_dead_letters_come_page_by_page_as_they_are_read(client, broker):
    assert list(client.dead()) == []
    broker.dead_letters = [{"id": str(number)} for number in range(25)]
    letters = client.dead(limit=10)
    assert next(letters) == {"id": "0"}
    assert broker.counts["List"] == 2
    assert [letter["id"] for letter in letters] == [str(number) for number in range(1, 25)]
    assert broker.counts["List"] == 4


@pytest.mark.parametrize(
    ("report", "problem"),
    [
        ({}, "in a form that is none"),
        ({"tasks": [], "cursor": 5}, "in a form that is none"),
        ({"tasks": [], "cursor": "1"}, "without an end"),
        ({"tasks": [1], "cursor": "1"}, "without an end"),
    ],
)
def test_a_list_that_makes_no_sense_is_an_operational_error(client, broker, report, problem):
    broker.scripts[m.List] = lambda peer, message: peer.send(m.Report(message.request, report)) or True
    with pytest.raises(OperationalError, match=problem):
        list(client.dead())


def test_an_id_is_answered_as_often_as_it_is_asked(client, broker):
    assert [status.id for status in client.query(["a", "b", "a"])] == ["a", "b", "a"]


def test_more_ids_than_a_frame_holds(client, broker, monkeypatch):
    monkeypatch.setattr(exchange, "ROWS_MAX", 10)
    assert len(client.query([str(n) for n in range(25)])) == 25
    assert broker.counts["Query"] == 3


def test_a_goodbye_between_two_frames_of_a_query_is_asked_again_elsewhere(client, broker, monkeypatch):
    monkeypatch.setattr(exchange, "ROWS_MAX", 1)

    def goodbye(peer, message):
        broker.scripts.clear()
        status = m.Status(message.request, [broker.status(id_) for id_ in message.ids])
        peer.send(status, m.Goodbye(Code.SHUTDOWN))
        return True

    broker.scripts[m.Query] = goodbye
    assert [status.id for status in client.query(["a", "b"])] == ["a", "b"]
    assert len(broker.hellos) == 2


def test_a_goodbye_between_two_publishes_refuses_nothing(client, broker, monkeypatch):
    monkeypatch.setattr(publication, "PIPELINE", 1)

    def goodbye(peer, message):
        broker.scripts.clear()
        confirm = broker.store(message)
        peer.send(confirm, m.Goodbye(Code.SHUTDOWN))
        return True

    broker.scripts[m.Publish] = goodbye
    client.publish([row(str(n), b"x" * limits.FRAME_BATCH) for n in range(3)])
    assert list(broker.rows) == ["0", "1", "2"]


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


def test_an_answer_that_does_not_come_ends_in_time(client, broker):
    broker.scripts[m.Query] = lambda peer, message: True
    with pytest.raises(OperationalError, match="deadline"):
        client.query(["a"], deadline=1)


def test_close_says_goodbye(client, broker):
    client.publish([row()])
    client.close()
    broker.wait_for(lambda: broker.counts["Goodbye"] == 1)


def test_a_name_of_ones_own(broker):
    client = Client(broker.found, name="billing")
    client.stats()
    assert broker.hellos[0].name == "billing"
    client.close()


def with_idle_connections(client, broker, count):
    """Leaves so many connections in the pool; the broker's ends of them."""
    lines = [conversation.run(client._lines.take_beside(None)) for _ in range(count)]
    for line in lines:
        client._lines.give_beside(line)
    return list(broker.peers)


def test_of_connections_that_all_died_unnoticed_one_is_found_out_and_no_more(client, broker):
    """As after an outage in which the broker gave up on them: each is reset when it is used."""
    old = with_idle_connections(client, broker, 3)
    broker.scripts[m.Stats] = lambda peer, message: peer in old and (peer.cut() or True)
    assert client.stats() == {"version": "0"}
    assert broker.counts["Stats"] == 2
    broker.wait_for(lambda: len(broker.peers) == 1)


def test_after_a_publish_without_an_answer_the_next_has_a_new_connection(client, broker):
    old = with_idle_connections(client, broker, 3)
    broker.scripts[m.Publish] = lambda peer, message: peer in old
    with pytest.raises(PublishUnconfirmed):
        client.publish([row("a")], 0.1)
    client.publish([row("b")])
    assert (broker.counts["Publish"], len(broker.hellos)) == (2, 4)
