import pytest

from chervil_broker import strangers as strangers_module
from chervil_broker.strangers import Strangers


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(strangers_module, "PREAUTH_PEERS_MAX", 4)
    monkeypatch.setattr(strangers_module, "PREAUTH_PER_ADDRESS_MAX", 2)


def test_one_address_cannot_take_all_places():
    strangers = Strangers()
    assert [strangers.came("10.0.0.1") is None for _ in range(3)] == [True, True, False]
    assert strangers.came("10.0.0.2") is None
    assert len(strangers) == 3


def test_all_together_have_a_limit_too():
    strangers = Strangers()
    for number in range(4):
        assert strangers.came(f"10.0.0.{number}") is None
    assert "4 connections have not said HELLO" in (strangers.came("10.0.0.9") or "")


def test_unix_sockets_have_only_the_limit_of_all():
    strangers = Strangers()
    assert [strangers.came(None) is None for _ in range(5)] == [True] * 4 + [False]


def test_who_left_makes_room_and_is_forgotten():
    strangers = Strangers()
    for address in ("10.0.0.1", "10.0.0.1", None):
        strangers.came(address)
    strangers.left("10.0.0.1")
    assert strangers.came("10.0.0.1") is None
    for address in ("10.0.0.1", "10.0.0.1", None):
        strangers.left(address)
    assert len(strangers) == 0
    assert not any(value for value in vars(strangers).values())
