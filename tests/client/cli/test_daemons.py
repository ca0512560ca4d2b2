"""The broker and the worker of the demo: what kills leave of them."""

from pathlib import Path

import pytest

from chervil.cli import demo_tasks
from chervil.cli.daemons import Daemons

pytestmark = pytest.mark.e2e


def test_a_durable_broker_and_a_worker_are_there_again_after_a_kill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "t"
    here.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(here))
    with Daemons(durable=True) as daemons:
        client = demo_tasks.app.client
        before = demo_tasks.nothing.delay()
        assert before.get(timeout=20) is None
        assert daemons.kill_broker() > 0
        daemons.kill_worker()
        assert before.stage == "SUCCESS"
        after = demo_tasks.nothing.delay()
        assert after.get(timeout=20) is None
        daemons.check()
        assert client.stats()["tasks"]["SUCCESS"] == 2
    assert list(here.iterdir()) == []
