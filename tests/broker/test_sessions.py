import itertools

import pytest

from chervil.protocol import Role
from chervil_broker import sessions as sessions_module
from chervil_broker.access import Identity
from chervil_broker.clock import Clock
from chervil_broker.options import BrokerOptions
from chervil_broker.sessions import Credentials, Late, Sessions, WrongSecret
from chervil_broker.users import Quotas, User
from chervil_broker.vhost import VHost

ALICE = Identity("alice", "token", User("alice", b"", frozenset(), frozenset()))
BOB = Identity("bob", "token", User("bob", b"", frozenset(), frozenset()))


HERE, THERE = (VHost(name, 1 << 22, Quotas(), BrokerOptions(), Clock()) for name in ("here", "there"))


@pytest.fixture
def sessions():
    numbers = itertools.count(1)
    return Sessions(lambda size: next(numbers).to_bytes(size, "big"))


def test_a_session_is_found_by_its_id_and_secret(sessions):
    first, proof_of_first = sessions.open("worker@a", ALICE, HERE)
    second, proof_of_second = sessions.open("worker@b", ALICE, HERE)
    assert first != second
    assert (len(proof_of_first.id), len(proof_of_first.secret)) == (16, 32)
    assert sessions.find(proof_of_first, ALICE, HERE) == first
    assert sessions.find(proof_of_second, ALICE, HERE) == second
    assert sessions.name(second) == "worker@b"


def test_a_wrong_secret_is_told_from_an_unknown_session(sessions):
    _, (id_, secret) = sessions.open("worker@a", ALICE, HERE)
    with pytest.raises(WrongSecret):
        sessions.find(Credentials(id_, b"x" * 32), ALICE, HERE)
    assert sessions.find(Credentials(b"x" * 16, secret), ALICE, HERE) is None


def test_secrets_are_not_kept(sessions):
    _, proof = sessions.open("worker@a", ALICE, HERE)
    assert repr(proof.secret) not in repr(vars(sessions))


def test_what_is_dropped_is_unknown_and_leaves_nothing(sessions):
    number, proof = sessions.open("worker@a", ALICE, HERE)
    sessions.suspend(number)
    sessions.drop(number)
    assert sessions.find(proof, ALICE, HERE) is None
    assert number not in sessions
    assert len(sessions) == 0
    assert sessions.suspend(sessions.open("worker@b", ALICE, HERE)[0]) == []


def test_beyond_the_limit_the_oldest_suspended_are_one_too_many(sessions, monkeypatch):
    monkeypatch.setattr(sessions_module, "SUSPENDED_MAX", 2)
    numbers = [sessions.open(f"worker@{n}", ALICE, HERE)[0] for n in range(4)]
    assert sessions.suspend(numbers[0]) == []
    assert sessions.suspend(numbers[1]) == []
    sessions.resume(numbers[0], None)
    assert sessions.suspend(numbers[2]) == []
    assert sessions.suspend(numbers[3]) == [numbers[1]]


def test_an_attempt_that_came_late_does_not_take_the_session_up(sessions):
    number, _ = sessions.open("worker@a", ALICE, HERE)
    sessions.resume(number, 2)
    sessions.resume(number, 4)
    for late in (4, 3, 0):
        with pytest.raises(Late):
            sessions.resume(number, late)
    sessions.resume(number, None)
    sessions.resume(number, 5)


def test_the_attempts_of_a_dropped_session_are_forgotten(sessions):
    number, _ = sessions.open("worker@a", ALICE, HERE)
    sessions.resume(number, 7)
    sessions.drop(number)
    assert sessions._attempts == {}


def test_a_session_is_its_users_and_nobody_elses(sessions):
    number, proof = sessions.open("worker@a", ALICE, HERE)
    with pytest.raises(WrongSecret):
        sessions.find(proof, BOB, HERE)
    assert sessions.find(proof, ALICE, HERE) == number
    assert sessions.owned() == [(number, ALICE, HERE)]


def test_a_session_is_of_one_vhost(sessions):
    number, proof = sessions.open("worker@a", ALICE, HERE)
    assert sessions.vhost(number) is HERE
    with pytest.raises(WrongSecret):
        sessions.find(proof, ALICE, THERE)


def test_who_is_in_no_users_file_is_told_from_a_user_of_that_name(sessions):
    _, proof = sessions.open("worker@a", Identity("alice", "token"), HERE)
    with pytest.raises(WrongSecret):
        sessions.find(proof, ALICE, HERE)


def test_a_session_stays_its_users_who_may_do_something_else(sessions):
    number, proof = sessions.open("worker@a", ALICE, HERE)
    now = ALICE._replace(user=ALICE.user._replace(roles=frozenset({Role.CONSUME})))
    sessions.renew(number, now)
    assert sessions.owned() == [(number, now, HERE)]
    assert sessions.find(proof, ALICE, HERE) == number
