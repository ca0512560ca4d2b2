"""What a released broker wrote is opened by every later one."""

import json
import shutil

import pytest

from chervil.protocol import Stage
from chervil_broker.clock import Clock
from chervil_broker.journal.opening import open_folder
from tests.broker.journal.golden import EXPECTED, GOLDEN, told

FOLDERS = sorted(path.name for path in GOLDEN.iterdir())


@pytest.fixture(params=FOLDERS)
def folder(request, tmp_path):
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    for path in (GOLDEN / request.param).iterdir():
        shutil.copy(path, data)
        (data / path.name).chmod(0o600)
    return data


def test_there_is_one_of_the_first_version():
    assert "v1" in FOLDERS


def test_golden_folder_is_opened_with_all_that_it_holds(folder):
    expected = json.loads((folder / EXPECTED).read_text())
    opened = open_folder(folder, "always", Clock())
    assert told(opened.replay, opened.bodies) == expected
    opened.writer.close()
    opened.lock.release()


def test_golden_folder_holds_something_of_everything(folder):
    expected = json.loads((folder / EXPECTED).read_text())
    (vhost,) = expected["vhosts"].values()
    stages = {task["stage"] for task in vhost["tasks"].values()}
    wanted = {Stage.QUEUED, Stage.SCHEDULED, Stage.LEASED, Stage.STARTED, Stage.RETRY, Stage.SUCCESS}
    wanted |= {Stage.FAILURE, Stage.DEAD, Stage.REVOKED}
    assert {stage.name for stage in wanted} <= stages
    assert vhost["forgotten"]
    assert vhost["revoked"]
    assert expected["sessions"]
    assert len(list(folder.glob("seg-*"))) > 1
