"""Waiting on while the broker is away: `chervil.watching` and a connection that breaks."""

import re
from time import monotonic

import pytest

from chervil import exceptions
from chervil.exceptions import OperationalError
from chervil.protocol import Info, Stage
from chervil.protocol import messages as m
from tests.client.fakes import stages


def lose(broker):
    """Breaks the connection of who watches, and greets nobody any more."""
    broker.wait_for(lambda: broker.counts["Watch"] == 1)
    broker.scripts[m.Hello] = lambda peer, message: peer.cut() or True
    broker.cut_all()


def test_a_timeout_while_the_broker_is_lost_says_so_and_what_was_last_known(client, broker, meanwhile):
    broker.queue("a")
    info = {int(Info.WORKER): "w@h", int(Info.IN_STAGE_MS): 400}
    broker.statuses["a"] = ["a", int(Stage.LEASED), None, None, info]
    meanwhile(lambda: lose(broker))
    with pytest.raises(exceptions.TimeoutError) as caught:
        client.wait(["a"], 2)
    assert re.fullmatch(
        f"the broker at {re.escape(str(broker.url))} has been out of reach for [12] s; "
        "last known: task a: handed to w@h, not started",
        str(caught.value),
    )


def test_a_loss_is_told_once_and_the_next_one_again(client, broker, meanwhile):
    broker.queue("a")

    def run():
        for watches in (1, 2):
            broker.wait_for(lambda watches=watches: broker.counts["Watch"] == watches)
            refused = broker.counts["Hello"] + 2

            def away(peer, message, refused=refused):
                if broker.counts["Hello"] > refused:
                    broker.scripts.clear()
                    return False
                peer.cut()
                return True

            broker.scripts[m.Hello] = away
            broker.cut_all()
        broker.wait_for(lambda: broker.counts["Watch"] == 3)
        broker.finish("a", Stage.SUCCESS)

    meanwhile(run)
    told = []
    assert stages(client.wait(["a"], None, on_lost=told.append)) == [("a", Stage.SUCCESS)]
    assert told == [f"lost the broker at {broker.url}; trying again until it is back"] * 2


def test_a_broker_that_comes_back_without_the_task_ends_the_wait_at_once(client, broker, meanwhile):
    broker.queue("a")

    def run():
        broker.wait_for(lambda: broker.counts["Watch"] == 1)
        broker.rows.clear()
        broker.cut_all()

    meanwhile(run)
    assert stages(client.wait(["a"])) == [("a", Stage.UNKNOWN)]


def test_patience_bounds_how_long_a_lost_broker_is_waited_for(client, broker, meanwhile):
    broker.queue("a")
    meanwhile(lambda: lose(broker))
    with pytest.raises(OperationalError, match=r"and it did not come back within 1 s"):
        client.wait(["a"], patience=1)
    assert broker.counts["Hello"] > 2


def test_an_id_asked_for_twice_is_known_once_when_the_broker_is_lost(client, broker, meanwhile):
    broker.queue("a")
    meanwhile(lambda: lose(broker))
    with pytest.raises(exceptions.TimeoutError, match=r"last known: task a: queued$"):
        client.wait(["a", "a"], 2)


def test_a_timeout_is_kept_though_the_broker_hangs_when_it_is_connected_to_again(client, broker, meanwhile):
    broker.queue("a")

    def run():
        broker.wait_for(lambda: broker.counts["Watch"] == 1)
        broker.scripts[m.Hello] = lambda peer, message: True
        broker.cut_all()

    meanwhile(run)
    started = monotonic()
    with pytest.raises(exceptions.TimeoutError, match="out of reach"):
        client.wait(["a"], 2)
    assert monotonic() - started < 3.5, "and not the 4 s that connecting may take"
