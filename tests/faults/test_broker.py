import subprocess
import sys

import pytest

from tests.faults.broker import Broker


@pytest.fixture
def url(tmp_path) -> str:
    return f"chervil+unix://{tmp_path}/broker.sock"


def starter(tmp_path):
    return lambda: subprocess.Popen(
        [
            sys.executable,
            "-m",
            "chervil_broker",
            "--unix",
            f"{tmp_path}/broker.sock",
            "--data",
            f"{tmp_path}/d",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def end(broker: Broker) -> None:
    broker.process.kill()
    broker.process.wait()
    assert not broker.answers_within(10)


@pytest.mark.e2e
def test_recovery_is_measured_from_each_start_after_a_kill_until_it_answers(tmp_path, url):
    broker = Broker(starter(tmp_path), url)
    try:
        assert broker.answers_within(30)
        assert broker.recoveries == []
        for kills in (1, 2):
            first = broker.process
            broker.kill()
            assert (first.poll(), broker.process.poll()) == (-9, None)
            assert broker.answers_within(30)
            assert len(broker.kills) == len(broker.recoveries) == kills
        assert broker.kills == sorted(broker.kills)
        assert all(0 < seconds < 30 for seconds in broker.recoveries)
    finally:
        end(broker)


def test_a_broker_that_ends_before_it_answers_is_not_waited_for(url):
    broker = Broker(lambda: subprocess.Popen([sys.executable, "-c", ""]), url)
    assert not broker.answers_within(30)
    assert broker.recoveries == []
