import asyncio
import time

import pytest

from chervil.client import Status
from chervil.exceptions import OperationalError
from chervil.protocol import Stage
from tests.faults import async_publisher, publisher, share
from tests.faults.async_publisher import AsyncPublisher
from tests.faults.history import Told
from tests.faults.logbook import read_folder
from tests.faults.publisher import Publisher
from tests.faults.share import Share


class Client:
    """Confirms everything but the first publish, and knows each task as done; waits fail once."""

    def __init__(self) -> None:
        self.rows = []
        self.away = True
        self.lost = True

    def publish(self, rows):
        if self.away:
            self.away = False
            raise OperationalError("no broker")
        self.rows += rows

    def wait(self, ids, timeout):
        if self.lost:
            self.lost = False
            raise OperationalError("no broker")
        return [Status(id_, Stage.SUCCESS, "json", b"1", {}) for id_ in ids]


class AsyncClient(Client):
    async def publish(self, rows):
        super().publish(rows)

    async def wait(self, ids, timeout):  # noqa: ASYNC109
        return super().wait(ids, timeout)


def run(kind: str, share: Share) -> Client:
    if kind == "blocking":
        client = Client()
        Publisher(client, share).run()
    else:
        client = AsyncClient()
        asyncio.run(AsyncPublisher(client, share).run())
    return client


@pytest.mark.parametrize("kind", ["blocking", "async"])
def test_the_whole_share_is_published_and_noted_whatever_is_in_the_way(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(share, "REPEATED", 0)
    monkeypatch.setattr(share, "WAITED_FOR", 1)
    for module in (publisher, async_publisher):
        monkeypatch.setattr(module, "PAUSE_SECONDS", 0.01)
    client = run(kind, Share(tmp_path, "p0", 1, 900, time.monotonic()))
    history = read_folder(tmp_path)
    confirmed = [each.id for each in history.publications if each.told is Told.CONFIRMED]
    assert len(set(confirmed)) == len(confirmed) == len(client.rows) == 900
    assert not client.away
    assert {each.told for each in history.publications} == {Told.CONFIRMED, Told.REFUSED}
    assert 0 < len(history.given) < 900


@pytest.mark.parametrize("kind", ["blocking", "async"])
def test_what_an_earlier_life_was_not_told_of_is_published_first(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(share, "WAITED_FOR", 0)
    first = Share(tmp_path, "p0", 1, 40, time.monotonic())
    next(first.rounds([first._draw(number) for number in range(40)]))
    client = run(kind, Share(tmp_path, "p0", 1, 40, time.monotonic()))
    assert 0 < len(client.rows) < 40
