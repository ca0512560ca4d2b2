import pytest

from chervil.exchange import Exchange
from chervil.protocol import Connection, LocalProtocolError, RemoteProtocolError, RequestRefused, Side, Stage
from chervil.protocol import messages as m


@pytest.fixture
def pair():
    """An exchange that has been greeted, and the broker's end."""
    exchange, broker = Exchange(), Connection(Side.BROKER)
    assert not exchange.usable
    (hello,) = broker.receive(exchange.hello("me", "token", "vhost"))
    assert hello == m.Hello(1, 1, [], "me", "token", "vhost")
    exchange.receive(
        broker.send(m.Welcome(1, [], bytes(16), bytes(16), bytes(32), resumed=False, heartbeat_ms=1))
    )
    assert exchange.usable
    return exchange, broker


def test_replies_are_paired_in_any_order(pair):
    exchange, broker = pair
    first, data_1 = exchange.stats()
    second, data_2 = exchange.purge(["q"])
    assert [message.request for message in broker.receive(data_1 + data_2)] == [first, second]
    exchange.receive(broker.send(m.Ok(second, 3)))
    assert exchange.take(first) is None
    exchange.receive(broker.send(m.Report(first, {})))
    assert exchange.take(first) == m.Report(first, {})
    assert exchange.take(second) == m.Ok(second, 3)
    assert exchange.take(second) is None


def test_a_refusal_is_raised_for_its_request_only(pair):
    exchange, broker = pair
    request, _ = exchange.stats()
    exchange.receive(broker.send(m.Error(request, "FORBIDDEN", "no")))
    assert exchange.usable
    with pytest.raises(RequestRefused, match="FORBIDDEN: no"):
        exchange.take(request)


def test_only_watched_results_are_kept(pair):
    exchange, broker = pair
    exchange.watch(["a", "b"])
    exchange.unwatch(["b"])
    rows = [[id_, int(Stage.SUCCESS), None, None, None] for id_ in ("a", "b", "c", "a")]
    exchange.receive(broker.send(m.Result(rows)))
    assert exchange.take_results() == [rows[0]]
    assert exchange.take_results() == []


def test_an_answer_in_parts_is_one_answer(pair):
    exchange, broker = pair
    rows = [[str(number), int(Stage.QUEUED), None, None, None] for number in range(3)]
    request, data = exchange.query(["0", "1", "2"])
    list(broker.receive(data))
    exchange.receive(broker.send(m.Status(request, rows[:1], True)))
    exchange.receive(broker.send(m.Status(request, rows[1:2], True)))
    assert exchange.take(request) is None
    exchange.receive(broker.send(m.Status(request, rows[2:])))
    assert exchange.take(request) == m.Status(request, rows)


def test_what_is_settled_when_asked_is_not_awaited(pair):
    exchange, broker = pair
    request, _ = exchange.watch(["done", "never", "open"])
    stages = {"done": Stage.SUCCESS, "never": Stage.UNKNOWN, "open": Stage.QUEUED}
    rows = [[id_, int(stage), None, None, None] for id_, stage in stages.items()]
    exchange.receive(broker.send(m.Status(request, rows)))
    pushed = [[id_, int(Stage.SUCCESS), None, None, None] for id_ in stages]
    exchange.receive(broker.send(m.Result(pushed)))
    assert [row[0] for row in exchange.take_results()] == ["open"]


@pytest.mark.parametrize("end", [m.Error(None, "SLOW", "too slow"), m.Goodbye("SHUTDOWN")])
def test_the_end_is_told(pair, end):
    exchange, broker = pair
    exchange.receive(broker.send(m.Heartbeat()))
    assert exchange.ended is None
    exchange.receive(broker.send(end))
    assert not exchange.usable
    assert exchange.ended.code == end.code


def test_the_rules_hold_both_ways(pair):
    exchange, _ = pair
    exchange.goodbye()
    with pytest.raises(LocalProtocolError):
        exchange.publish([])
    with pytest.raises(RemoteProtocolError):
        exchange.receive(b"\0\0\0\0")
