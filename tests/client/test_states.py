import pytest

from chervil.protocol import Stage

ID = "3d56f326-34df-4540-ab63-1408aa5b92e4"
WIRE = bytes.fromhex(ID.replace("-", ""))


@pytest.mark.parametrize(
    ("stage", "state"),
    [
        (Stage.WAITING, "PENDING"),
        (Stage.SCHEDULED, "PENDING"),
        (Stage.LEASED, "PENDING"),
        (Stage.STARTED, "STARTED"),
        (Stage.RETRY, "RETRY"),
    ],
)
def test_states_are_celerys_words(result, broker, stage, state):
    at(broker, stage, None)
    assert (result.state, result.status, result.stage) == (state, state, stage.name)
    assert result.info is None
    assert not result.ready()


@pytest.fixture
def result(app, broker):
    broker.rows[WIRE] = []
    return app.AsyncResult(ID)


def at(broker, stage, info):
    broker.statuses[WIRE] = [WIRE, int(stage), None, None, info]
