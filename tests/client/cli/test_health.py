"""`chervil health`: there or not, and quickly."""

import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest

from chervil.protocol import WelcomeOption
from chervil.protocol import messages as m
from tests.client.cli.conftest import Ran
from tests.client.fakes import FakeBroker, Peer

Run = Callable[..., Ran]


@pytest.fixture
def broker() -> Iterator[FakeBroker]:
    fake = FakeBroker()
    options = {WelcomeOption.RELEASE: "0.1.0", WelcomeOption.DURABILITY: "memory"}

    def welcome(peer: Peer, message: m.Hello) -> bool:
        peer.send(
            m.Welcome(1, [], b"\xab" * 16, bytes(16), bytes(32), False, 10_000, dict(options)),
        )
        return True

    fake.scripts[m.Hello] = welcome
    yield fake
    fake.close()


def test_a_broker_that_answers_is_one_line_and_0(chervil: Run, broker: FakeBroker) -> None:
    assert chervil("-b", str(broker.url), "health") == Ran(0, f"ok: {broker.url}, Chervil 0.1.0\n", "")


def test_quiet_says_nothing(chervil: Run, broker: FakeBroker) -> None:
    assert chervil("-b", str(broker.url), "health", "-q") == Ran(0, "", "")


def test_json_names_the_instance(chervil: Run, broker: FakeBroker) -> None:
    answer = json.loads(chervil("-b", str(broker.url), "health", "--json").out)
    assert answer == {
        "url": str(broker.url),
        "version": "0.1.0",
        "instance": "ab" * 16,
        "durability": "memory",
    }


def test_nothing_is_asked_for_that_a_role_is_needed_for(chervil: Run, broker: FakeBroker) -> None:
    assert chervil("-b", str(broker.url), "health").code == 0
    broker.wait_for(lambda: broker.counts["Goodbye"] == 1)
    assert dict(broker.counts) == {"Hello": 1, "Goodbye": 1}


def test_of_several_addresses_the_one_that_answered_is_named(chervil: Run, broker: FakeBroker) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        dead = f"chervil://127.0.0.1:{taken.getsockname()[1]}"
    ran = chervil("-b", f"{dead};{broker.url}", "health")
    assert ran == Ran(0, f"ok: {broker.url}, Chervil 0.1.0\n", "")


def test_the_app_is_never_loaded(chervil: Run, broker: FakeBroker) -> None:
    assert chervil("-A", "no_such_module", "-b", str(broker.url), "health").code == 0


def test_no_broker_is_69_and_says_which_and_what_to_type(chervil: Run) -> None:
    start = time.monotonic()
    ran = chervil("-b", "chervil://token@127.0.0.1:9", "health")
    assert time.monotonic() - start < 3, "and not the 4 s that connecting may take"
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
