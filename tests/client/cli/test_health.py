"""`chervil health`: there or not, and quickly."""

import json
import subprocess
import sys
import time
from collections.abc import Callable

from tests.client.cli.conftest import Broker, Ran

Run = Callable[..., Ran]


def test_a_broker_that_answers_is_one_line_and_0(chervil: Run, broker: Broker) -> None:
    ran = chervil("health")
    assert (ran.code, ran.out) == (0, "ok: chervil://127.0.0.1:2437, Chervil 0.1.0, up 90 s\n")


def test_quiet_says_nothing(chervil: Run, broker: Broker) -> None:
    assert chervil("health", "-q") == Ran(0, "", "")


def test_json_names_the_instance(chervil: Run, broker: Broker) -> None:
    answer = json.loads(chervil("health", "--json").out)
    assert answer == {"version": "0.1.0", "instance": "ab" * 16, "durability": "memory", "uptime_ms": 90_000}


def test_a_user_without_the_role_control_learns_that_the_broker_is_there(
    chervil: Run, broker: Broker
) -> None:
    broker.forbids_stats = True
    assert chervil("health") == Ran(0, "ok: chervil://127.0.0.1:2437\n", "")
    assert json.loads(chervil("health", "--json").out)["version"] is None


def test_the_app_is_never_loaded(chervil: Run, broker: Broker) -> None:
    assert chervil("-A", "no_such_module", "health").code == 0


def test_no_broker_is_69_and_says_which_and_what_to_type(chervil: Run) -> None:
    start = time.monotonic()
    ran = chervil("-b", "chervil://token@127.0.0.1:9", "health")
    assert time.monotonic() - start < 2
    assert ran.code == 69
    assert ran.out == ""
    assert "chervil://***@127.0.0.1:9" in ran.err
    assert "flag --broker" in ran.err
    assert "chervil broker" in ran.err
    assert "Traceback" not in ran.err
    assert "token@" not in ran.err


def test_debug_shows_the_traceback_of_the_same(chervil: Run) -> None:
    ran = chervil("-b", "chervil://127.0.0.1:9", "health", "--debug")
    assert ran.code == 69
    assert "Traceback" in ran.err


def test_health_loads_no_event_loop_and_no_worker() -> None:
    script = (
        "import sys\n"
        "from chervil.cli.main import main\n"
        "try: main(['-b', 'chervil://127.0.0.1:9', 'health'])\n"
        "except SystemExit as ended: print(ended.code)\n"
        "print(sorted({'asyncio', 'uvloop', 'ssl', 'chervil_worker', 'chervil_broker', 'concurrent'} & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines() == ["69", "[]"]
