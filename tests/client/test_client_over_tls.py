"""The blocking client over TLS and at several addresses."""

import asyncio
import os
import re
import signal
import threading

import pytest

from chervil.address import BrokerURL, Found
from chervil.client import Client
from chervil.exceptions import AccessRefused
from chervil.protocol import Code, Stage
from chervil.protocol import messages as m


def row(id_, body=b"[[],{}]"):
    return [id_, "t", "default", 0, None, None, "json", body]


@pytest.fixture
def encrypted(relayed, authority):
    made = Client(Found(relayed(authority.server_context()).url, "app", files=authority.files))
    yield made
    made.close()


def test_much_is_published_over_tls(encrypted, broker):
    encrypted.publish([row(str(n), b"x" * 500_000) for n in range(10)])
    assert len(broker.rows) == 10
    encrypted.publish([row("small")])
    assert len(broker.hellos) == 1


def test_results_come_over_tls(encrypted, broker):
    broker.queue("a")
    broker.scripts[m.Watch] = lambda peer, message: threading.Timer(
        0, lambda: broker.finish("a", Stage.SUCCESS, "json", b"1" * 100_000)
    ).start()
    assert encrypted.wait(["a"], 10)[0].body == b"1" * 100_000


def test_a_fork_does_not_end_the_parents_tls(encrypted, broker):
    encrypted.publish([row("a")])
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    encrypted.publish([row("b")])
    assert len(broker.hellos) == 1


def test_a_forked_child_connects_by_itself(encrypted, broker):
    encrypted.publish([row("a")])
    pid = os.fork()
    if pid == 0:
        signal.alarm(10)
        encrypted.publish([row("b")])
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    encrypted.publish([row("c")])
    assert set(broker.rows) == {"a", "b", "c"}
    assert len(broker.hellos) == 2


def test_a_connection_is_dropped_without_the_end_of_tls(encrypted, relayed, authority):
    relay = relayed(authority.server_context())
    client = Client(Found(relay.url, "app", files=authority.files))
    client.reach()
    client._lines.forget()
    with relay.changed:
        assert relay.changed.wait_for(lambda: relay.said_end, 10)
    assert relay.said_end == [False]


def test_reaching_a_broker_asks_nothing_of_it(client, broker):
    asked = broker.counts["Stats"]
    client.reach()
    client.reach()
    assert (len(broker.hellos), broker.counts["Stats"]) == (1, asked)


def test_blocking_calls_and_loops_share_the_address_that_works(broker, tmp_path):
    gone = BrokerURL("chervil+unix", path=str(tmp_path / "none"))
    client = Client(Found(gone, "app", (broker.url,)))

    async def publish():
        await client.aio.publish([row("a")])

    asyncio.run(publish())
    assert client._addresses.first is broker.url
    client.publish([row("b")])
    client.close()
    assert set(broker.rows) == {"a", "b"}


def test_all_addresses_are_named_where_the_broker_is(broker, tmp_path):
    broker.scripts[m.Stats] = lambda peer, message: (
        peer.send(m.Error(message.request, Code.FORBIDDEN, "STATS wants the role control")) or True
    )
    other = BrokerURL("chervil+unix", path=str(tmp_path / "none"))
    client = Client(Found(broker.url, "app", (other,)))
    with pytest.raises(
        AccessRefused, match=re.escape(f"{broker.url} or {other} does not allow this: STATS wants")
    ):
        client.stats()
    client.close()
