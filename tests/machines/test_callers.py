"""Programs that wait for results, publish and ask while the network fails between them and the broker."""

import os
import re
import signal
import time

import pytest

from tests.machines.credentials import Secured
from tests.machines.machines import machines

PROVING = "CHERVIL_PROVE" in os.environ
PROVE = pytest.mark.skipif(not PROVING, reason="takes minutes; make prove")
#: Seconds after which the first task runs: in the outage.
COUNTDOWN = 4
#: Seconds in which one request, or a publish, is answered or given up; and for a busy machine.
ANSWERED_SECONDS = 10.0 + 2.0
#: Seconds from an outage's end until the last result is there: the worker is back within 25 s in CI, and
#: before a waiter notices that its connection is dead 30 s may pass.
HEALED_SECONDS = 40.0
#: For how long `call --wait` waits for a lost broker.
PATIENCE_SECONDS = 30.0

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300 if PROVING else 120)]


@pytest.fixture
def there(tmp_path):
    folder = tmp_path / "credentials"
    folder.mkdir()
    with machines(tmp_path, Secured(folder)) as there:
        there.broker()
        there.worker("one")
        yield there


@pytest.mark.parametrize("seconds", [15, pytest.param(60, marks=PROVE)])
@pytest.mark.parametrize(
    ("fail", "heal", "whose"), [("unplug", "plug_in", "producer"), ("cut", "heal", "broker")]
)
def test_who_waits_waits_an_outage_out_and_who_publishes_is_told_in_time(there, fail, heal, whose, seconds):
    caller = there.start("producer", "producer", "tests.machines.caller", "one", str(COUNTDOWN))
    caller.wait_for("waits")
    getattr(there.network, fail)(whose)
    began = time.monotonic()
    caller.signal(signal.SIGUSR1)
    time.sleep(seconds)
    getattr(there.network, heal)(whose)
    caller.wait_for("over", HEALED_SECONDS)
    took = calls(caller.output)
    assert time.monotonic() - began < seconds + HEALED_SECONDS
    for name in ("late-delay", "late-adelay"):
        assert took[name][1].startswith("PublishUnconfirmed"), took[name]
        assert took[name][0] < ANSWERED_SECONDS
    assert took["late-state"][1].startswith("OperationalError: no answer from the broker"), took["late-state"]
    assert took["late-state"][0] < ANSWERED_SECONDS
    if seconds > PATIENCE_SECONDS + ANSWERED_SECONDS:
        assert "did not come back within 30 s" in took.pop("call--wait")[1]
    waits = [name for name in took if name not in ("late-delay", "late-adelay", "late-state")]
    assert len(waits) >= 9
    assert {name: took[name][1] for name in waits} == dict.fromkeys(waits, "done")
    assert any(line.startswith("warning: lost the broker") for line in caller.output)
    assert all(took[name][0] < ANSWERED_SECONDS for name in waits if name.startswith("after-"))


def calls(output: list[str]) -> dict[str, tuple[float, str]]:
    """How many seconds each call took, by its name, and how it ended."""
    found = [re.fullmatch(r"([a-z-]+) ([0-9.]+) (.*)", line) for line in output]
    return {call[1]: (float(call[2]), call[3]) for call in found if call is not None}
