import signal

import pytest

from chervil.control import signal_number
from chervil.protocol import messages as m


@pytest.fixture
def asked(broker):
    heard = []

    def answer(peer, message):
        heard.append(message)
        peer.send(m.Ok(message.request, 2))
        return True

    broker.scripts[m.Revoke] = answer
    broker.scripts[m.Purge] = answer
    return heard


def test_revoke_takes_one_id_or_many_and_says_how_many_had_not_ended(app, asked):
    assert app.control.revoke("a") == 2
    assert app.control.revoke(["a", "b"], terminate=True, signal=signal.SIGUSR1) == 2
    assert [(one.ids, one.terminate, one.signal) for one in asked] == [
        (["a"], False, None),
        (["a", "b"], True, 10),
    ]


def test_nothing_is_asked_where_nothing_is_to_be_revoked(app, broker):
    assert app.control.revoke([]) == 0
    assert broker.counts["Hello"] == 0


def test_terminate_revokes_what_runs_too(app, asked):
    app.control.terminate("a", "KILL")
    assert (asked[0].terminate, asked[0].signal) == (True, 9)


def test_purge_is_of_all_queues(app, asked):
    assert app.control.purge() == app.control.discard_all() == 2
    assert asked[0].queues == []


@pytest.mark.parametrize("name", ["SIGTERM", "TERM", "sigterm", signal.SIGTERM, 15])
def test_signals_may_be_named_in_many_ways(name):
    assert signal_number(name) == 15


@pytest.mark.parametrize("known", [one for one in signal.Signals if "RT" not in one.name])
def test_names_stand_for_the_numbers_of_linux(known):
    assert signal_number(known.name) == int(known)


@pytest.mark.parametrize("wrong", ["SIGSMILE", 0, 65, True, 1.5])
def test_what_is_no_signal_is_refused(app, broker, wrong):
    with pytest.raises(ValueError, match=r"there is no signal .*SIGTERM"):
        app.control.revoke("a", terminate=True, signal=wrong)
    assert broker.counts["Hello"] == 0


def test_repr_names_the_app(app):
    assert repr(app.control) == "<Control of <Chervil tests>>"
