import logging

import pytest

from chervil import exceptions, watching
from chervil.protocol import Info, Stage

ID = "3d56f326-34df-4540-ab63-1408aa5b92e4"
WIRE = bytes.fromhex(ID.replace("-", ""))


@pytest.fixture
def result(app, broker):
    broker.rows[WIRE] = []
    return app.AsyncResult(ID)


def at(broker, stage, info):
    broker.statuses[WIRE] = [WIRE, int(stage), None, None, info]


@pytest.mark.parametrize(
    ("info", "said"),
    [
        ({Info.QUEUE: "default", Info.WAITING_FOR: "no_consumer"}, "; start one: chervil -A tests worker"),
        (
            {Info.QUEUE: "mail", Info.WAITING_FOR: "unknown_task", Info.NAME: "t"},
            "start one: chervil -A tests worker -Q mail",
        ),
        ({Info.QUEUE: "mail", Info.WAITING_FOR: "no_credit"}, "are busy"),
    ],
)
def test_waiting_in_vain_is_told_once(result, broker, monkeypatch, caplog, *, info, said):
    monkeypatch.setattr(watching, "ASK_WHY_AFTER", 0.02)
    at(broker, Stage.QUEUED, {int(key): value for key, value in info.items()})
    with caplog.at_level(logging.WARNING, "chervil"), pytest.raises(exceptions.TimeoutError):
        result.get(timeout=0.2)
    (record,) = caplog.records
    assert record.getMessage().startswith(f"task {ID}: queued")
    assert record.getMessage().endswith(said)


def test_a_task_that_runs_is_waited_for_in_silence(result, broker, monkeypatch, caplog):
    monkeypatch.setattr(watching, "ASK_WHY_AFTER", 0.02)
    at(broker, Stage.STARTED, {})
    with pytest.raises(exceptions.TimeoutError):
        result.get(timeout=0.1)
    assert caplog.records == []
