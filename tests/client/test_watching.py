from time import monotonic

import pytest

from chervil import exceptions, exchange, watching
from chervil.address import BrokerURL, Found
from chervil.client import Client
from chervil.exceptions import AccessRefused, OperationalError
from chervil.protocol import Code, Info, Stage
from chervil.protocol import messages as m
from chervil.protocol.limits import ROWS_MAX
from tests.client.fakes import stages


def test_many_are_watched_at_once_and_come_in_the_order_asked(client, broker, meanwhile):
    broker.queue("a", "b")
    broker.statuses["a"] = ["a", int(Stage.SUCCESS), None, None, None]

    def later():
        broker.wait_for(lambda: broker.counts["Watch"] == 1)
        broker.finish("b", Stage.FAILURE)

    meanwhile(later)
    assert stages(client.wait(["b", "a", "nobody"], 10)) == [
        ("b", Stage.FAILURE),
        ("a", Stage.SUCCESS),
        ("nobody", Stage.UNKNOWN),
    ]
    assert (broker.counts["Watch"], broker.counts["Query"], broker.counts["Unwatch"]) == (1, 0, 0)


def test_nothing_to_wait_for_asks_nobody(client, broker):
    assert client.wait([]) == []
    assert broker.hellos == []


def test_an_id_asked_for_twice_is_answered_twice(client, broker):
    broker.finish("a", Stage.SUCCESS)
    assert stages(client.wait(["a", "a"], 10)) == [("a", Stage.SUCCESS)] * 2


def test_what_can_be_no_id_is_refused_before_anything_is_sent(client, broker):
    with pytest.raises(ValueError, match="a task id"):
        client.wait(["a", ""])
    assert broker.hellos == []


def test_a_status_in_several_parts_is_put_together(client, broker, meanwhile):
    broker.queue("a", "b", "c")
    broker.finish("c", Stage.SUCCESS)

    def in_parts(peer, message):
        peer.watched.update(message.ids)
        *first, last = message.ids
        for id_ in first:
            peer.send(m.Status(message.request, [broker.status(id_)], True))
        peer.send(m.Status(message.request, [broker.status(last)]))
        return True

    def later():
        broker.wait_for(lambda: broker.counts["Watch"] == 1)
        broker.finish("a", Stage.SUCCESS)
        broker.finish("b", Stage.FAILURE)

    broker.scripts[m.Watch] = in_parts
    meanwhile(later)
    assert stages(client.wait(["a", "b", "c"], 10)) == [
        ("a", Stage.SUCCESS),
        ("b", Stage.FAILURE),
        ("c", Stage.SUCCESS),
    ]


@pytest.mark.usefixtures("leisurely")
def test_more_ids_than_a_frame_holds_go_in_several(client, broker, monkeypatch):
    monkeypatch.setattr(exchange, "ROWS_MAX", 10)
    ids = [str(number) for number in range(25)]
    broker.queue(*ids)
    assert stages(client.wait(ids, 0)) == [(id_, Stage.QUEUED) for id_ in ids]
    broker.wait_for(lambda: broker.counts["Unwatch"] == 3)
    assert (broker.counts["Watch"], broker.counts["Query"]) == (3, 3)
    assert broker.peers[0].watched == set()


@pytest.mark.usefixtures("leisurely")
def test_more_ids_than_the_protocol_lets_a_frame_hold_leave_the_connection_whole(client, broker):
    ids = [str(number) for number in range(ROWS_MAX + 1)]
    broker.queue(*ids)
    assert len(client.wait(ids, 0)) == len(ids)
    broker.wait_for(lambda: broker.counts["Unwatch"] == 2)
    client.stats()
    assert len(broker.hellos) == 1


@pytest.mark.usefixtures("leisurely")
def test_at_the_timeout_the_unsettled_are_asked_for_returned_and_unwatched(client, broker):
    """What is returned is where they are by then, not where they were at first."""
    broker.queue("open")
    broker.finish("done", Stage.SUCCESS)

    def start(peer, message):
        broker.statuses["open"] = ["open", int(Stage.STARTED), None, None, {int(Info.WORKER): "w@h"}]
        return False

    broker.scripts[m.Query] = start
    done, still_open = client.wait(["done", "open"], 0.02)
    assert (done.stage, still_open.stage, still_open.info) == (
        Stage.SUCCESS,
        Stage.STARTED,
        {Info.WORKER: "w@h"},
    )
    assert not still_open.settled
    broker.wait_for(lambda: broker.counts["Unwatch"] == 1)
    assert broker.peers[0].watched == {"done"}
    client.stats()
    assert len(broker.hellos) == 1


@pytest.mark.usefixtures("leisurely")
def test_what_settles_at_the_last_question_is_settled(client, broker):
    broker.queue("a")

    def settle(peer, message):
        broker.statuses["a"] = ["a", int(Stage.SUCCESS), None, None, None]
        return False

    broker.scripts[m.Query] = settle
    assert stages(client.wait(["a"], 0.02)) == [("a", Stage.SUCCESS)]
    assert broker.counts["Unwatch"] == 0


def test_the_reason_is_asked_for_after_two_seconds():
    assert watching.ASK_WHY_AFTER == 2.0


def test_the_reason_of_what_is_open_is_asked_for_once(client, broker, monkeypatch):
    monkeypatch.setattr(watching, "ASK_WHY_AFTER", 0.02)
    broker.queue("open")
    broker.finish("done", Stage.SUCCESS)
    told = []

    def tell(statuses):
        told.append(stages(statuses))
        broker.finish("open", Stage.SUCCESS)

    assert [status.stage for status in client.wait(["done", "open"], 10, tell)] == [Stage.SUCCESS] * 2
    assert told == [[("open", Stage.QUEUED)]]
    assert broker.counts["Query"] == 1


@pytest.mark.usefixtures("leisurely")
def test_the_reason_is_not_asked_for_when_nobody_wants_it(client, broker, monkeypatch):
    monkeypatch.setattr(watching, "ASK_WHY_AFTER", 0.0)
    broker.queue("a")
    client.wait(["a"], 0.05)
    assert broker.counts["Query"] == 1  # the one at the timeout


def test_what_settled_while_the_reason_was_asked_for_is_not_told(client, broker, monkeypatch):
    monkeypatch.setattr(watching, "ASK_WHY_AFTER", 0.02)
    broker.queue("a")
    told = []

    def settle(peer, message):
        broker.statuses["a"] = ["a", int(Stage.SUCCESS), None, None, None]
        return False

    broker.scripts[m.Query] = settle
    assert stages(client.wait(["a"], None, told.append)) == [("a", Stage.SUCCESS)]
    assert told == []


def test_an_error_of_the_callback_comes_out_and_closes_the_line(client, broker, monkeypatch):
    monkeypatch.setattr(watching, "ASK_WHY_AFTER", 0.02)
    broker.queue("a")

    def fail(statuses):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        client.wait(["a"], 10, fail)
    broker.wait_for(lambda: not broker.peers)


def test_a_broken_connection_is_opened_and_watched_again(client, broker, meanwhile):
    broker.queue("a", "b")

    def run():
        broker.wait_for(lambda: broker.counts["Watch"] == 1)
        broker.finish("b", Stage.SUCCESS)
        broker.cut_all()
        broker.wait_for(lambda: broker.counts["Watch"] == 2)
        broker.finish("a", Stage.SUCCESS)

    meanwhile(run)
    assert stages(client.wait(["a", "b"], 10)) == [("a", Stage.SUCCESS), ("b", Stage.SUCCESS)]
    assert len(broker.hellos) == 2


def test_a_broker_that_says_goodbye_is_watched_again(client, broker):
    broker.queue("a")

    def goodbye(peer, message):
        broker.scripts.clear()
        peer.send(m.Status(message.request, [broker.status(id_) for id_ in message.ids]))
        peer.send(m.Goodbye(Code.SHUTDOWN))
        broker.finish("a", Stage.SUCCESS)
        return True

    broker.scripts[m.Watch] = goodbye
    assert stages(client.wait(["a"], 10)) == [("a", Stage.SUCCESS)]


def test_a_result_that_ended_while_the_connection_was_away_is_found(client, broker, meanwhile):
    broker.queue("a")

    def run():
        broker.wait_for(lambda: broker.counts["Watch"] == 1)
        with broker.changed:
            for peer in broker.peers:
                peer.watched.clear()
            broker.finish("a", Stage.SUCCESS)
        broker.cut_all()

    meanwhile(run)
    assert stages(client.wait(["a"], 10)) == [("a", Stage.SUCCESS)]


@pytest.mark.usefixtures("leisurely")
def test_a_broker_that_breaks_before_its_first_answer_is_tried_until_the_timeout(client, broker):
    broker.scripts[m.Watch] = lambda peer, message: peer.cut() or True
    with pytest.raises(exceptions.TimeoutError, match="out of reach for 1 s: the broker closed"):
        client.wait(["a"], 1.0)
    assert broker.counts["Watch"] > 1


def never(peer, message):
    return True


def test_a_broker_that_does_not_answer_is_asked_on_new_connections_until_patience_ends(
    client, broker, monkeypatch
):
    monkeypatch.setattr(watching, "REQUEST_SECONDS", 0.1)
    client.stats()
    broker.scripts[m.Watch] = never
    told = []
    with pytest.raises(OperationalError, match="it did not come back within 1 s"):
        client.wait(["a"], on_lost=told.append, patience=1)
    assert told == [f"lost the broker at {broker.url}; trying again until it is back"]
    broker.wait_for(lambda: broker.counts["Watch"] == broker.counts["Hello"] > 2)


def test_an_answer_on_the_new_connection_is_taken(client, broker, monkeypatch):
    monkeypatch.setattr(watching, "REQUEST_SECONDS", 1.0)
    broker.finish("a", Stage.SUCCESS)

    def once(peer, message):
        broker.scripts.clear()
        return True

    broker.scripts[m.Watch] = once
    assert stages(client.wait(["a"], 30)) == [("a", Stage.SUCCESS)]
    assert broker.counts["Hello"] == 2


def test_after_a_silence_that_ended_a_lost_broker_is_waited_for_as_ever(
    client, broker, meanwhile, monkeypatch
):
    monkeypatch.setattr(watching, "REQUEST_SECONDS", 1.0)
    broker.queue("a")

    def once(peer, message):
        broker.scripts.clear()
        return True

    def away(peer, message):
        if broker.counts["Hello"] > 3:
            broker.scripts.clear()
            broker.finish("a", Stage.SUCCESS)
            return False
        peer.cut()
        return True

    def run():
        broker.wait_for(lambda: broker.counts["Watch"] == 2)
        broker.scripts[m.Hello] = away
        broker.cut_all()

    broker.scripts[m.Watch] = once
    meanwhile(run)
    assert stages(client.wait(["a"])) == [("a", Stage.SUCCESS)]


def test_a_broker_that_went_silent_and_greets_no_more_is_waited_for(broker, meanwhile, monkeypatch):
    monkeypatch.setattr(watching, "REQUEST_SECONDS", 0.5)
    monkeypatch.setattr(watching, "ASK_WHY_AFTER", 0.0)
    broker.queue("a")

    def silent(peer, message):
        broker.scripts[m.Hello] = never
        return True

    def run():
        broker.wait_for(lambda: broker.counts["Hello"] == 4)
        broker.scripts.clear()
        broker.finish("a", Stage.SUCCESS)

    broker.scripts[m.Query] = silent
    meanwhile(run)
    client = Client(broker.found, connect_timeout=0.5)
    assert stages(client.wait(["a"], None, lambda statuses: None)) == [("a", Stage.SUCCESS)]
    client.close()


@pytest.mark.parametrize("command", [m.Hello, m.Watch])
def test_a_timeout_is_kept_though_the_broker_does_not_answer(client, broker, command):
    broker.scripts[command] = never
    started = monotonic()
    with pytest.raises(exceptions.TimeoutError) as caught:
        client.wait(["a"], 0.2)
    assert 0.2 <= monotonic() - started < 3, "and not the 4 s that connecting may take"
    assert str(caught.value) == f"the broker at {broker.url} did not answer within 0.2 s"


def test_without_an_answer_to_the_last_question_the_last_thing_known_is_returned(client, broker, monkeypatch):
    monkeypatch.setattr(watching, "FIRST_ANSWER_SECONDS", 10.0)
    broker.queue("a")
    broker.scripts[m.Query] = never
    started = monotonic()
    assert stages(client.wait(["a"], 0.1)) == [("a", Stage.QUEUED)]
    assert monotonic() - started < 5, "and not the 10 s that a request may take"
    broker.wait_for(lambda: not broker.peers)


def test_a_timeout_of_nothing_asks_as_query_does_and_once(client, broker, monkeypatch):
    monkeypatch.setattr(watching, "REQUEST_SECONDS", 0.1)
    broker.scripts[m.Watch] = never
    with pytest.raises(OperationalError, match="no answer from the broker"):
        client.wait(["a"], 0)
    broker.wait_for(lambda: broker.counts["Watch"] == 1)


def test_a_refusal_is_an_operational_error(client, broker):
    def refuse(peer, message):
        peer.send(m.Error(message.request, Code.BAD_STATE, "not now"))
        return True

    broker.scripts[m.Watch] = refuse
    with pytest.raises(OperationalError, match="the broker refused: BAD_STATE: not now"):
        client.wait(["a"], 10)
    assert broker.counts["Watch"] == 1


def test_a_goodbye_between_two_frames_of_ids_is_waited_out(client, broker, monkeypatch):
    monkeypatch.setattr(exchange, "ROWS_MAX", 1)
    broker.finish("a", Stage.SUCCESS)
    broker.finish("b", Stage.SUCCESS)

    def goodbye(peer, message):
        broker.scripts.clear()
        status = m.Status(message.request, [broker.status(id_) for id_ in message.ids])
        peer.send(status, m.Goodbye(Code.SHUTDOWN))
        return True

    broker.scripts[m.Watch] = goodbye
    assert stages(client.wait(["a", "b"], 10)) == [("a", Stage.SUCCESS), ("b", Stage.SUCCESS)]


def test_no_broker_at_all_is_an_error_at_once(tmp_path):
    started = monotonic()
    with pytest.raises(OperationalError, match="cannot reach"):
        Client(Found(BrokerURL("chervil+unix", path=str(tmp_path / "none")), "app")).wait(["a"], 30)
    assert monotonic() - started < 10


def test_access_refused_is_not_tried_again(client, broker):
    def deny(peer, message):
        peer.send(m.Error(None, Code.AUTH_FAILED, "no"))
        peer.cut()
        return True

    broker.scripts[m.Hello] = deny
    with pytest.raises(AccessRefused):
        client.wait(["a"], 30)
    assert broker.counts["Hello"] == 1


def test_access_refused_when_connecting_again_ends_the_wait(client, broker, meanwhile):
    broker.queue("a")

    def deny(peer, message):
        peer.send(m.Error(None, Code.AUTH_FAILED, "no"))
        peer.cut()
        return True

    def run():
        broker.wait_for(lambda: broker.counts["Watch"] == 1)
        broker.scripts[m.Hello] = deny
        broker.cut_all()

    meanwhile(run)
    with pytest.raises(AccessRefused, match="AUTH_FAILED"):
        client.wait(["a"])
