import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chervil import exchange as exchange_module
from chervil.exchange import WELCOME, WINDOW, Exchange, Mailbox, parts
from chervil.protocol import (
    Connection,
    LocalProtocolError,
    RemoteProtocolError,
    RequestRefused,
    Side,
    Stage,
    limits,
)
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


def status(id_, stage=Stage.QUEUED):
    return [id_, int(stage), None, None, None]


def test_only_watched_results_are_kept(pair):
    exchange, broker = pair
    mailbox = Mailbox()
    exchange.watch(mailbox, ["a", "b"])
    exchange.unwatch(mailbox, ["b"])
    rows = [status(id_, Stage.SUCCESS) for id_ in ("a", "b", "c", "a")]
    exchange.receive(broker.send(m.Result(rows)))
    assert mailbox.take() == [rows[0]]
    assert mailbox.take() == []
    assert exchange._watched == {}


def test_a_result_goes_to_all_who_watch_and_the_last_to_leave_says_so(pair):
    exchange, broker = pair
    one, two = Mailbox(), Mailbox()
    for mailbox in (one, two, two):
        _, data = exchange.watch(mailbox, ["a", "b"])
        list(broker.receive(data))
    exchange.receive(broker.send(m.Result([status("a", Stage.SUCCESS)])))
    assert one.take() == two.take() == [status("a", Stage.SUCCESS)]
    assert exchange.unwatch(one, ["a", "b"]) == b""
    (left,) = broker.receive(exchange.unwatch(two, ["a", "b"]))
    assert left == m.Unwatch(["b"])


def test_an_answer_in_parts_is_one_answer(pair):
    exchange, broker = pair
    rows = [status(str(number)) for number in range(3)]
    request, data = exchange.query(["0", "1", "2"])
    list(broker.receive(data))
    exchange.receive(broker.send(m.Status(request, rows[:1], True)))
    exchange.receive(broker.send(m.Status(request, rows[1:2], True)))
    assert exchange.take(request) is None
    exchange.receive(broker.send(m.Status(request, rows[2:])))
    assert exchange.take(request) == m.Status(request, rows)
    assert exchange._parts == {}


def test_what_is_settled_when_asked_is_told_and_not_awaited(pair):
    exchange, broker = pair
    mailbox = Mailbox()
    request, _ = exchange.watch(mailbox, ["done", "never", "open"])
    rows = [status("done", Stage.SUCCESS), status("never", Stage.UNKNOWN), status("open")]
    exchange.receive(broker.send(m.Status(request, rows)))
    assert mailbox.take() == rows[:2]
    pushed = [status(id_, Stage.SUCCESS) for id_ in ("done", "never", "open")]
    exchange.receive(broker.send(m.Result(pushed)))
    assert mailbox.take() == pushed[2:]


def test_the_newest_window_counts_and_bodies_and_headers_are_counted(pair):
    exchange, broker = pair
    assert exchange.window_open
    row = ["a", "t", "q", 0, None, b"1234", "json", b"12345678"]
    exchange.publish([row, [*row[:5], None, *row[6:]]])
    assert exchange.published == 20
    for limit, is_open in ((2**63 - 1, True), (20, False), (21, True), (5, False)):
        exchange.receive(broker.send(m.Window(limit)))
        assert exchange.window_open == is_open


def test_news_is_told_of_what_it_is_about():
    told = []
    exchange, broker = Exchange(told.append), Connection(Side.BROKER)
    list(broker.receive(exchange.hello("me")))
    exchange.receive(broker.send(welcome()))
    mailbox = Mailbox()
    request, _ = exchange.watch(mailbox, ["a"])
    exchange.receive(broker.send(m.Status(request, [status("a")])))
    exchange.receive(broker.send(m.Result([status("a", Stage.SUCCESS)])))
    exchange.receive(broker.send(m.Window(1)))
    assert told == [WELCOME, request, mailbox, WINDOW]


def test_an_abandoned_reply_is_dropped_and_too_many_of_them_end_the_use(pair, monkeypatch):
    exchange, broker = pair
    monkeypatch.setattr(exchange_module, "ABANDONED_MAX", 2)
    requests = [exchange.stats()[0] for _ in range(4)]
    exchange.receive(broker.send(m.Report(requests[0], {})))
    for request in requests:
        exchange.abandon(request)
    assert not exchange.usable
    exchange.receive(broker.send(m.Report(requests[1], {})))
    assert exchange.usable
    assert exchange.take(requests[0]) is exchange.take(requests[1]) is None
    assert exchange._replies == {}


# What a broker may not do


def welcome(version=1):
    return m.Welcome(version, [], bytes(16), bytes(16), bytes(32), resumed=False, heartbeat_ms=1)


def refused(exchange, broker, message):
    with pytest.raises(RemoteProtocolError) as caught:
        exchange.receive(broker.send(message))
    return str(caught.value)


@pytest.mark.parametrize(
    "message",
    [m.Ok(9), m.Report(9, {}), m.Confirm(9, 1), m.Status(9, []), m.Error(9, "FULL", "x"), m.Ok(0)],
    ids=lambda message: type(message).__name__,
)
def test_an_answer_to_a_request_that_was_never_made_is_a_breach(pair, message):
    exchange, broker = pair
    exchange.stats()
    assert "BAD_STATE" in refused(exchange, broker, message)
    assert exchange._replies == {}


def test_an_answer_that_was_given_before_is_a_breach(pair):
    exchange, broker = pair
    request, _ = exchange.stats()
    exchange.receive(broker.send(m.Report(request, {})))
    assert "which is not open" in refused(exchange, broker, m.Report(request, {}))


def test_an_answer_of_another_kind_is_a_breach(pair):
    exchange, broker = pair
    request, _ = exchange.stats()
    assert "OK answers what wants REPORT" in refused(exchange, broker, m.Ok(request))
    request, _ = exchange.stats()
    assert "which asked for none" in refused(exchange, broker, m.Status(request, []))


@pytest.mark.parametrize("exceptions", [[[2, "FULL", "x"]], [[0, "FULL", "x"], [0, "FULL", "x"]]])
def test_exceptions_for_rows_that_were_not_sent_are_a_breach(pair, exceptions):
    exchange, broker = pair
    request, _ = exchange.publish([["a", "t", "q", 0, None, None, "json", b""]] * 2)
    assert "exceptions for others" in refused(exchange, broker, m.Confirm(request, 2, exceptions))


@pytest.mark.parametrize(
    ("ids", "more", "problem"),
    [
        (["a"], False, "has 1 rows of 2"),
        (["b", "a"], False, "other ids"),
        (["a", "a"], False, "other ids"),
        (["a", "b", "c"], False, "other ids"),
        ([], True, "goes on without a row"),
        ([], False, "has 0 rows of 2"),
    ],
)
def test_a_status_that_does_not_fit_its_question_is_a_breach(pair, ids, more, problem):
    exchange, broker = pair
    request, _ = exchange.query(["a", "b"])
    assert problem in refused(exchange, broker, m.Status(request, [status(id_) for id_ in ids], more))


def test_a_status_without_an_end_ends_with_the_ids_asked_for(pair):
    exchange, broker = pair
    request, _ = exchange.query(["a", "b"])
    exchange.receive(broker.send(m.Status(request, [status("a")], True)))
    exchange.receive(broker.send(m.Status(request, [status("b")], True)))
    assert "other ids" in refused(exchange, broker, m.Status(request, [status("a")], True))


def test_a_result_that_is_none_is_a_breach(pair):
    exchange, broker = pair
    exchange.watch(Mailbox(), ["a"])
    assert "RESULT of a task that is STARTED" in refused(
        exchange, broker, m.Result([status("a", Stage.STARTED)])
    )


@pytest.mark.parametrize("version", [0, 2])
def test_a_version_that_was_not_offered_is_a_breach(version):
    exchange, broker = Exchange(), Connection(Side.BROKER)
    list(broker.receive(exchange.hello("me")))
    assert "VERSION_UNSUPPORTED" in refused(exchange, broker, welcome(version))


def test_a_second_welcome_is_a_breach(pair):
    exchange, _ = pair
    again = Connection(Side.BROKER)
    list(again.receive(Exchange().hello("me")))
    with pytest.raises(RemoteProtocolError, match="BAD_STATE"):
        exchange.receive(again.send(welcome()))


def conversation():
    """An exchange with requests of every kind under way, and all that a broker may say to it."""
    exchange, broker = Exchange(), Connection(Side.BROKER)
    list(broker.receive(exchange.hello("me")))
    said = broker.send(welcome())
    exchange.receive(said)
    ids = ["a", "b"]
    made = [
        exchange.publish([["a", "t", "q", 0, None, None, "json", b""]])[0],
        exchange.query(ids)[0],
        exchange.watch(Mailbox(), ids)[0],
        exchange.stats()[0],
        exchange.purge([])[0],
        exchange.revoke(ids, terminate=True, signal=None)[0],
        exchange.rerun(ids)[0],
        exchange.forget(ids)[0],
        exchange.history("a")[0],
        exchange.page("dead", None, 10)[0],
    ]
    rows = [status(id_) for id_ in ids]
    said = b"".join(
        broker.send(message)
        for message in (
            m.Window(5),
            m.Confirm(made[0], 0, [[0, "FULL", "x"]]),
            m.Status(made[1], rows[:1], True),
            m.Status(made[1], rows[1:]),
            m.Status(made[2], rows),
            m.Result([status("a", Stage.SUCCESS)]),
            m.Report(made[3], {"a": [1, {"b": None}]}),
            m.Ok(made[4], 1),
            m.Error(made[5], "FORBIDDEN", "x"),
            m.Heartbeat(),
            m.Ok(made[6]),
            m.Report(made[8], {}),
            m.Goodbye("SHUTDOWN"),
        )
    )
    return exchange, made, said


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_whatever_is_damaged_is_a_breach_or_harmless_and_keeps_nothing_that_was_not_asked_for(data):
    exchange, made, said = conversation()
    at = data.draw(st.integers(0, len(said) - 1))
    how = data.draw(st.sampled_from(["change", "insert", "cut", "repeat"]))
    noise = data.draw(st.binary(min_size=1, max_size=9))
    damaged = {
        "change": said[:at] + noise + said[at + len(noise) :],
        "insert": said[:at] + noise + said[at:],
        "cut": said[:at] + said[at + len(noise) :],
        "repeat": said[:at] + said,
    }[how]
    step = data.draw(st.integers(1, len(damaged)))
    with contextlib.suppress(RemoteProtocolError):
        for start in range(0, len(damaged), step):
            exchange.receive(damaged[start : start + step])
    assert set(exchange._replies) <= set(made)
    assert len(exchange._expected) <= len(made)
    assert all(len(rows) <= 2 for rows in exchange._parts.values())
    assert set(exchange._watched) <= {"a", "b"}
    assert exchange._connection.buffered <= len(damaged)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_garbage_is_a_breach_or_not_yet_a_frame(garbage):
    exchange, _, _ = conversation()
    with contextlib.suppress(RemoteProtocolError):
        exchange.receive(garbage)
    assert exchange._replies == {}


def test_a_length_beyond_the_limit_is_refused_before_anything_is_kept(pair):
    exchange, _ = pair
    with pytest.raises(RemoteProtocolError, match="BAD_FRAME"):
        exchange.receive((limits.FRAME_MAX + 1).to_bytes(4, "big"))


def test_ids_go_in_as_many_as_a_frame_may_hold(pair):
    exchange, _ = pair
    long = [f"{number:0>128}" for number in range(limits.ROWS_MAX)]
    split = list(parts(long))
    assert [id_ for part in split for id_ in part] == long
    for part in split:
        _, data = exchange.query(part)
        assert len(data) <= limits.FRAME_BATCH
    short = [number.to_bytes(16, "big") for number in range(limits.ROWS_MAX + 1)]
    assert [len(part) for part in parts(short)] == [limits.ROWS_MAX, 1]
    assert list(parts([])) == []


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
