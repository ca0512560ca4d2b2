import pytest

from chervil_broker import strangers as strangers_module
from chervil_broker.strangers import Strangers


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(strangers_module, "PREAUTH_PEERS_MAX", 6)
    monkeypatch.setattr(strangers_module, "PREAUTH_PER_ADDRESS_MAX", 3)


@pytest.fixture
def strangers():
    return Strangers(100)


def crowd(strangers, *addresses):
    for address in addresses:
        assert strangers.refusal(address) is None
        strangers.came(f"{address} {len(strangers)}", address)


def test_one_address_cannot_take_all_places(strangers):
    crowd(strangers, "a", "a", "a")
    assert strangers.refusal("a") == "3 connections from a have not said HELLO yet"
    crowd(strangers, "b")
    assert len(strangers) == 4


def test_all_together_have_a_limit_too(strangers):
    crowd(strangers, *"abcdef")
    assert strangers.refusal("g") == "6 connections have not said HELLO yet; try again soon"


def test_fewer_may_come_where_there_is_room_for_fewer():
    strangers = Strangers(2)
    crowd(strangers, "a", "b")
    assert strangers.refusal("c") == "2 connections have not said HELLO yet; try again soon"


def test_unix_sockets_have_only_the_limit_of_all(strangers):
    crowd(strangers, *[None] * 6)
    assert strangers.refusal(None) is not None


def test_the_oldest_of_the_address_that_has_most_makes_room(strangers):
    crowd(strangers, "b", "a", "a", "b", "a", "c")
    for newcomer in ("d", None):
        assert strangers.who_makes_room(newcomer) == "a 1"
    assert strangers.who_makes_room("c") == "a 1"
    strangers.left("a 1", "a")
    assert strangers.who_makes_room("d") == "b 0"


def test_nobody_makes_room_for_one_that_has_as_many_then(strangers):
    crowd(strangers, "a", "a", "b", "c", None, None)
    assert strangers.who_makes_room("d") == "a 0"
    for newcomer in ("a", "b", "c"):
        assert strangers.who_makes_room(newcomer) is None
    strangers.left("a 0", "a")
    assert strangers.who_makes_room("d") is None
    assert strangers.who_makes_room(None) is None


def test_without_strangers_nobody_makes_room(strangers):
    assert strangers.who_makes_room("a") is None


def test_who_left_makes_room_and_is_forgotten(strangers):
    crowd(strangers, "a", "a", "a", None)
    strangers.left("a 1", "a")
    assert strangers.refusal("a") is None
    for stranger, address in (("a 0", "a"), ("a 2", "a"), ("None 3", None)):
        strangers.left(stranger, address)
    assert len(strangers) == 0
    assert not strangers._by_address
