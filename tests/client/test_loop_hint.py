import asyncio
import logging
import sys
import time

import pytest

from chervil import loop_hint
from chervil.protocol import Stage
from chervil.protocol import messages as m


@pytest.fixture(autouse=True)
def nobody_was_told(monkeypatch):
    monkeypatch.setattr(loop_hint, "_told", set())


def slowly(broker, command):
    def wait(peer, message):
        time.sleep(loop_hint.HINT_AFTER + 0.05)  # what is tested is how long the call takes
        return False

    broker.scripts[command] = wait


def row(id_):
    return [id_, "t", "default", 0, None, None, "json", b"[[],{}]"]


def test_a_call_that_blocked_a_running_loop_is_told_once_a_line_of_code(client, broker, caplog):
    slowly(broker, m.Publish)

    async def main():
        for n in range(3):
            client.publish([row(str(n))])
        client.publish([row("other line")])

    asyncio.run(main())
    assert len(caplog.records) == 2
    record = caplog.records[0]
    assert (record.name, record.levelno) == ("chervil", logging.WARNING)
    assert record.getMessage().startswith("delay() blocked the running event loop for 0.")
    assert "test_loop_hint.py, line " in record.getMessage()
    assert record.getMessage().endswith("in a coroutine use: await adelay(...)")


def test_waiting_in_a_loop_names_aget(client, broker, caplog):
    slowly(broker, m.Watch)
    broker.finish("a", Stage.SUCCESS)

    async def main():
        client.wait(["a"])

    asyncio.run(main())
    assert "get() blocked" in caplog.text
    assert "await aget(...)" in caplog.text


def test_without_a_running_loop_nothing_is_said(client, broker, caplog):
    slowly(broker, m.Publish)
    client.publish([row("a")])
    assert caplog.records == []


def test_a_quick_call_in_a_loop_is_nobodys_business(client, caplog, monkeypatch):
    monkeypatch.setattr("chervil.client.HINT_AFTER", 10.0)

    async def main():
        client.publish([row("a")])

    asyncio.run(main())
    assert caplog.records == []


def test_where_asyncio_was_never_loaded_nothing_is_looked_up(monkeypatch, caplog):
    monkeypatch.delitem(sys.modules, "asyncio")
    loop_hint.hint("delay", "adelay", 1.0)
    assert caplog.records == []


def test_a_call_that_comes_from_nowhere_is_not_told(monkeypatch, caplog):
    monkeypatch.setattr(loop_hint, "_caller", lambda frame: None)

    async def main():
        loop_hint.hint("delay", "adelay", 1.0)

    asyncio.run(main())
    assert caplog.records == []


def test_the_number_of_places_that_are_told_is_bounded(client, broker, caplog, monkeypatch):
    monkeypatch.setattr(loop_hint, "SITES_MAX", 0)
    slowly(broker, m.Publish)

    async def main():
        client.publish([row("a")])

    asyncio.run(main())
    assert caplog.records == []
