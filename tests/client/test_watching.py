import threading

import pytest

from chervil import Chervil, exceptions
from chervil.exceptions import (
    AccessRefused,
    OperationalError,
)
from chervil.protocol import Code, Stage
from chervil.protocol import messages as m

ID = "3d56f326-34df-4540-ab63-1408aa5b92e4"
WIRE = bytes.fromhex(ID.replace("-", ""))


@pytest.fixture
def result(app, broker):
    broker.rows[WIRE] = []
    return app.AsyncResult(ID)


def finish(broker, stage, codec=None, body=None):
    broker.statuses[WIRE] = [WIRE, int(stage), codec, body, None]


def test_a_broken_connection_watches_again(result, broker):
    def run():
        broker.wait_for(lambda: broker.counts["Watch"] == 1)
        broker.cut_all()
        broker.wait_for(lambda: broker.counts["Watch"] == 2)
        broker.finish(WIRE, Stage.SUCCESS, "json", b"7")

    thread = threading.Thread(target=run)
    thread.start()
    assert result.get(timeout=10) == 7
    thread.join(10)


def test_a_broker_that_says_goodbye_is_watched_again(result, broker):
    def goodbye(peer, message):
        broker.scripts.clear()
        peer.send(m.Status(message.request, [broker.status(id_) for id_ in message.ids]))
        peer.send(m.Goodbye(Code.SHUTDOWN))
        finish(broker, Stage.SUCCESS, "json", b"8")
        return True

    broker.scripts[m.Watch] = goodbye
    assert result.get(timeout=10) == 8


def test_a_broker_lost_while_waiting_ends_in_the_last_thing_known(result, broker):
    def run():
        broker.wait_for(lambda: broker.counts["Watch"] == 1)
        broker.scripts[m.Hello] = lambda peer, message: peer.cut() or True
        broker.cut_all()

    thread = threading.Thread(target=run)
    thread.start()
    with pytest.raises(exceptions.TimeoutError, match="queued"):
        result.get(timeout=0.5)
    thread.join(10)


def test_a_broker_that_breaks_before_its_first_answer_is_an_error(result, broker):
    broker.scripts[m.Watch] = lambda peer, message: peer.cut() or True
    with pytest.raises(OperationalError, match="lost the broker"):
        result.get(timeout=0.3)


def test_no_broker_at_all_is_an_error_at_once(tmp_path):
    app = Chervil("x", broker=f"chervil+unix://{tmp_path}/none.sock")
    with pytest.raises(OperationalError):
        app.AsyncResult(ID).get(timeout=30)


def test_access_refused_is_not_tried_again(result, broker):
    def deny(peer, message):
        peer.send(m.Error(None, Code.AUTH_FAILED, "no"))
        peer.cut()
        return True

    broker.scripts[m.Hello] = deny
    with pytest.raises(AccessRefused):
        result.get(timeout=30)


def test_many_are_waited_for_at_once(app, broker):
    broker.rows.update({"a": [], "b": []})
    broker.statuses["a"] = ["a", int(Stage.SUCCESS), None, None, None]

    def later():
        broker.wait_for(lambda: broker.counts["Watch"] == 1)
        broker.finish("b", Stage.FAILURE)

    thread = threading.Thread(target=later)
    thread.start()
    statuses = app.client.wait(["b", "a", "nobody"], 10)
    thread.join(10)
    assert [s.stage for s in statuses] == [Stage.FAILURE, Stage.SUCCESS, Stage.UNKNOWN]
