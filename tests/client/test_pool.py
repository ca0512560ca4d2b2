import os
import select
import threading
from time import monotonic

import pytest

from chervil import Chervil, address
from chervil.address import Addresses, Found
from chervil.client import Client
from chervil.conversation import LineBroken, run
from chervil.exceptions import OperationalError
from chervil.line import open_line
from chervil.pool import Pool
from chervil.protocol import Code, Stage
from chervil.protocol import messages as m
from tests.client.fakes import FakeBroker


def row(id_="a", body=b"[[],{}]"):
    return [id_, "t", "default", 0, None, None, "json", body]


def test_a_connection_broken_in_the_pool_is_replaced_silently(client, broker):
    client.publish([row("a")])
    broker.cut_all()
    client.publish([row("b")])
    assert (list(broker.rows), broker.counts["Publish"]) == (["a", "b"], 2)


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


def test_waiting_threads_do_not_stop_publishing(broker):
    app = Chervil("x", broker=str(broker.url), broker_pool_limit=1)
    for n in range(3):
        broker.rows[str(n)] = []
    threads = [threading.Thread(target=app.AsyncResult(str(n)).get) for n in range(3)]
    for thread in threads:
        thread.start()
    broker.wait_for(lambda: broker.counts["Watch"] == 3)
    app.send_task("t", task_id="while waiting")
    for n in range(3):
        broker.finish(str(n), Stage.SUCCESS)
    for thread in threads:
        thread.join(10)
    assert "while waiting" in broker.rows
    app.close()


# The pool by itself


def end():
    return monotonic() + 10


@pytest.fixture
def pool(broker):
    made = Pool(broker.addresses, lambda end: open_line(broker.addresses, "me", 5.0, end), 2)
    yield made
    made.close()


def test_the_line_given_back_last_is_taken_first(pool):
    one, two = run(pool.take(end())), run(pool.take(end()))
    pool.give(one)
    pool.give(two)
    assert run(pool.take(end())) is two
    assert run(pool.take(end())) is one


def test_a_pool_at_its_bound_refuses_at_the_deadline_and_names_the_setting(pool):
    lines = [run(pool.take(end())), run(pool.take(end()))]
    with pytest.raises(OperationalError, match=r"all 2 connections .* raise broker_pool_limit"):
        run(pool.take(monotonic() + 0.02))
    for line in lines:
        pool.give(line)
    assert run(pool.take(end())) is lines[-1]


@pytest.mark.parametrize("how", ["give", "drop"])
def test_a_line_given_back_or_dropped_wakes_one_that_waits(pool, broker, how):
    lines = [run(pool.take(end())), run(pool.take(end()))]
    taken = []
    thread = threading.Thread(target=lambda: taken.append(run(pool.take(end()))))
    thread.start()
    if how == "give":
        pool.give(lines[0])
    else:
        pool.drop(lines[0], LineBroken("x"))
    thread.join(10)
    assert len(taken) == 1
    assert (taken[0] is lines[0]) == (how == "give")
    assert len(broker.hellos) == (2 if how == "give" else 3)


def test_a_failed_connection_frees_its_place(broker):
    def fail(end):
        raise OperationalError("no")

    pool = Pool(broker.addresses, fail, 1)
    for _ in range(3):
        with pytest.raises(OperationalError, match=r"^no$"):
            run(pool.take(end()))


def test_lines_beside_the_bound_are_not_counted_and_not_hoarded(pool, broker):
    lines = [run(pool.take_beside(end())) for _ in range(5)]
    short = run(pool.take(end()))
    for line in lines:
        pool.give_beside(line)
    broker.wait_for(lambda: broker.counts["Goodbye"] == 3)
    pool.give(short)
    broker.wait_for(lambda: broker.counts["Goodbye"] == 4)
    assert len(broker.hellos) == 6
    assert {run(pool.take(end())), run(pool.take(end()))} == set(lines[:2])


def test_an_idle_line_is_had_without_waiting_and_counts(pool, broker):
    assert pool.idle() is None
    first, second = run(pool.take(end())), run(pool.take(end()))
    pool.give(first)
    assert pool.idle() is first
    assert pool.idle() is None
    pool.give(first)
    pool.give(second)
    broker.cut_all()
    assert pool.idle() is None
    assert pool.idle() is None
    # The places of those that were broken are free.
    assert {run(pool.take(end())), run(pool.take(end()))}.isdisjoint({first, second})


def test_an_idle_line_is_not_had_beyond_the_bound(pool):
    lines = [run(pool.take(end())), run(pool.take(end()))]
    beside = run(pool.take_beside(end()))
    pool.give_beside(beside)
    assert pool.idle() is None
    for line in lines:
        pool.give(line)
    assert pool.idle() is not None


@pytest.mark.parametrize("how", ["cut", "goodbye"])
def test_a_line_the_broker_ended_is_not_handed_out_again(pool, broker, how):
    line = run(pool.take(end()))
    pool.give(line)
    if how == "cut":
        broker.cut_all()
    else:
        with broker.changed:
            broker.peers[0].send(m.Goodbye(Code.SHUTDOWN))
    other = run(pool.take(end()))
    assert other is not line
    assert other.fresh()
    assert line.socket._sock.fileno() == -1


def test_a_dropped_line_is_closed_without_a_goodbye(pool, broker):
    pool.drop(run(pool.take(end())), LineBroken("x"))
    broker.wait_for(lambda: not broker.peers)
    assert broker.counts["Goodbye"] == 0


def test_close_says_goodbye_on_idle_lines_and_the_pool_goes_on(pool, broker):
    line = run(pool.take(end()))
    pool.give(line)
    pool.close()
    broker.wait_for(lambda: broker.counts["Goodbye"] == 1)
    assert run(pool.take(end())) is not line


def test_forgotten_lines_are_closed_without_a_word_and_their_places_are_free(pool, broker):
    """What a fork does in the child."""
    idle, _ = run(pool.take(end())), run(pool.take(end()))
    pool.give(idle)
    pool.forget()
    assert idle.socket._sock.fileno() == -1
    fresh = [run(pool.take(end())), run(pool.take(end()))]
    assert idle not in fresh
    assert broker.counts["Goodbye"] == 0


def test_every_pool_forgets_its_lines_in_a_forked_child(pool, broker):
    lines = [run(pool.take(end())), run(pool.take(end()))]
    for line in lines:
        pool.give(line)
    pid = os.fork()
    if pid == 0:
        closed = all(line.socket._sock.fileno() == -1 for line in lines)
        os._exit(0 if closed and pool._idle == [] else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert run(pool.take(end())) is lines[1]


# Several addresses


@pytest.fixture
def two(broker, tmp_path):
    """Two brokers, a pool that has one line to the second, and the way back to the first."""
    first = FakeBroker(tmp_path / "first.sock")
    addresses = Addresses(Found(first.url, "app", (broker.url,)))
    addresses.failed(first.url)
    pool = Pool(addresses, lambda end: open_line(addresses, "me", 5.0, end), 10)
    yield first, addresses, pool
    pool.close()
    first.close()


def test_lines_to_where_the_broker_was_before_are_taken_for_no_further_call(two, broker, monkeypatch):
    first, _, pool = two
    taken = [run(pool.take(None)), run(pool.take(None))]
    waiting = run(pool.take_beside(None))
    pool.give(taken[0])
    assert [line.url for line in [*taken, waiting]] == [broker.url] * 3
    monkeypatch.setattr(address, "FAILED_SECONDS", 0.0)
    assert pool.idle() is taken[0], "there is no reason to leave"
    new = run(pool.take(None))
    assert new.url is first.url
    # The others are closed when they are given back, and not before.
    for line in (*taken, waiting):
        assert line.fresh()
    pool.give(taken[0])
    pool.give(taken[1])
    pool.give_beside(waiting)
    pool.give(new)
    assert pool.idle() is new
    assert pool.idle() is None
    with broker.changed:
        assert broker.changed.wait_for(lambda: broker.counts["Goodbye"] == 3, 10)


def test_an_idle_line_to_where_the_broker_was_before_is_closed(two, broker, monkeypatch):
    first, addresses, pool = two
    pool.give(run(pool.take(None)))
    addresses.opened(first.url)
    assert pool.idle() is None
    pool.give(run(pool.take(None)))
    assert (len(broker.hellos), len(first.hellos)) == (1, 1)


@pytest.mark.parametrize("how", ["idle", "dropped"])
def test_a_line_that_broke_is_made_anew_where_it_was(two, broker, monkeypatch, how):
    first, addresses, pool = two
    line = run(pool.take(None))
    monkeypatch.setattr(address, "monotonic", lambda: monotonic() + 2 * address.FAILED_SECONDS)
    assert addresses.first is first.url
    if how == "idle":
        pool.give(line)
        broker.cut_all()
        select.select([line.socket._sock], [], [], 10)
    else:
        pool.drop(line, LineBroken("cut"))
    assert run(pool.take(None)).url is broker.url
    assert first.hellos == []
