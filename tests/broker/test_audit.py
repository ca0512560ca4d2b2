from types import SimpleNamespace

import pytest

from chervil_broker import audit
from chervil_broker.access import Identity
from chervil_broker.users import User

SHOP = User("shop", b"", frozenset(), frozenset())


@pytest.mark.parametrize(
    ("identity", "level"),
    [
        (Identity("local", "token"), "DEBUG"),
        (Identity("anybody", "--no-auth"), "INFO"),
        (Identity("shop", "certificate", SHOP), "INFO"),
        (Identity("local", "token", SHOP), "INFO"),
    ],
)
def test_everybody_but_the_brokers_own_user_is_told_of(identity, level, caplog):
    caplog.set_level("DEBUG", "chervil.audit")
    audit.let_in(SimpleNamespace(identity=identity, whence="10.0.0.9", name="web@host"))
    assert caplog.messages == [
        f"10.0.0.9 let in as {identity.name} by {identity.by}; it calls itself web@host"
    ]
    assert caplog.records[0].levelname == level


def test_an_act_tells_who_what_and_the_first_of_many(caplog):
    caplog.set_level("INFO", "chervil.audit")
    peer = SimpleNamespace(identity=Identity("shop", "token", SHOP), whence="10.0.0.9")
    audit.act(peer, "RERUN", [f"t{number}" for number in range(7)])
    audit.act(peer, "FORGET", [bytes(16)])
    assert caplog.messages == [
        "10.0.0.9: shop asks for RERUN of t0, t1, t2, t3, t4 and 2 more",
        "10.0.0.9: shop asks for FORGET of 00000000-0000-0000-0000-000000000000",
    ]
