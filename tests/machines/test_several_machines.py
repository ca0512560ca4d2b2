"""A broker, a producer and two workers on machines of their own, and networks that fail between them.

Whatever happens, every worker consumes again by itself within five seconds of the fault's end. In CI faults
are short and few, and a worker may take five times as long: the machine has other work. `make prove` has
the long ones, and the figure itself.
"""

import os
import signal
import statistics
import time
from collections.abc import Iterator

import pytest

from tests.machines.credentials import Secured
from tests.machines.machines import WORKERS, Machines, ids, machines, runs, said, wait_for_run

PROVING = "CHERVIL_PROVE" in os.environ
PROVE = pytest.mark.skipif(not PROVING, reason="takes minutes; make prove")
#: Seconds from a fault's end until each worker consumes.
HEALED_SECONDS = 5.0 if PROVING else 25.0
#: Seconds until nobody waits any longer for what comes too late.
GIVEN_UP_SECONDS = 60.0
#: Two missed heartbeats, and until somebody looks.
NOTICED_SECONDS = 25.0
#: Two missed heartbeats, the grace of a silent session, and until somebody looks.
LEASE_BACK_SECONDS = 20 + 30 + 5
#: Until all others are back after a storm.
STORM_SECONDS = 2 * HEALED_SECONDS
#: What was under way when a machine was cut off has arrived after this.
ON_THE_WAY_SECONDS = 0.5

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800 if PROVING else 60)]


class Town:
    """Machines with everybody there: two workers, and a producer that never stops."""

    def __init__(self, there: Machines) -> None:
        self.machines = there
        self.network = there.network
        self.broker = there.broker()
        self.workers = {name: there.worker(name) for name in WORKERS}
        self.producer = there.producer(*WORKERS)
        for _ in range(10):
            self.producer.wait_for("confirmed")

    def rests(self) -> None:
        """Nothing is published from now on: the workers are idle."""
        if self.producer.popen.returncode is None:
            assert self.machines.stop(self.producer) == 0
        for id_ in ids(self.producer, "confirmed"):
            wait_for_run(self.workers[id_.partition("-")[0]], id_)

    def end_broker(self, how: int) -> None:
        self.broker.signal(how)
        self.broker.ended()
        self.broker.stop()  # its pipe: a long run has many

    def consumes(self, since: float, *names: str) -> float:
        """Seconds until the last of these workers, or of all, has run a task that a new program publishes now.

        `since` is an instant of time.monotonic().
        """
        probes = self.machines.publish(*(names or WORKERS))
        took = 0.0
        for id_ in probes:
            name = id_.partition("-")[0]
            took = max(took, wait_for_run(self.workers[name], id_, GIVEN_UP_SECONDS).at / 1e9 - since)
        return took

    def loses_nothing(self) -> None:
        """All that was confirmed runs, more than once only where that is said; everybody ends in order."""
        self.rests()
        assert [self.machines.stop(worker) for worker in self.workers.values()] == [0, 0]
        for worker in self.workers.values():
            first = [run.id for run in runs(worker) if not run.redelivered]
            assert len(first) == len(set(first)), "repeated, and not said so"
        assert self.machines.stop(self.broker) == 0

    def ran_between(self, name: str, begin: float, end: float) -> list[str]:
        return [run.id for run in runs(self.workers[name]) if begin <= run.at / 1e9 <= end]


@pytest.fixture(scope="module")
def credentials(tmp_path_factory) -> Secured:
    return Secured(tmp_path_factory.mktemp("credentials"))


@pytest.fixture
def town(tmp_path, credentials) -> Iterator[Town]:
    with machines(tmp_path, credentials) as there:
        yield Town(there)


@pytest.fixture
def in_time(request, capsys):
    """Sees to it that something took no longer than it may; prints how long, where that is what is asked for."""

    def in_time(what: str, seconds: list[float], limit: float = HEALED_SECONDS) -> None:
        most, median = max(seconds), statistics.median(seconds)
        if PROVING:
            with capsys.disabled():
                print(
                    f"\n{request.node.name}: {what}: {len(seconds)} times, median {median:.2f} s, most {most:.2f} s"
                )
        assert most <= limit

    return in_time


def long(*values: float) -> list[object]:
    """Parameters for `make prove` only."""
    return [pytest.param(value, marks=PROVE) for value in values]


# Between 8 and 30 seconds TCP repeats what it has sent so rarely that it may miss the healing; after 20 both
# sides notice, after 50 leases have gone back.
@pytest.mark.parametrize("seconds", [1.5, *long(8, 16, 22, 60)])
@pytest.mark.parametrize(
    "cut", [("one",), ("broker",), ("producer",), pytest.param(WORKERS, marks=PROVE)], ids="+".join
)
@pytest.mark.parametrize("load", ["busy", pytest.param("idle", marks=PROVE)])
def test_machines_behind_a_silent_cut_consume_again_when_it_heals(town, in_time, load, cut, seconds):
    if load == "idle":
        town.rests()
    town.network.cut(*cut)
    began = time.monotonic()
    if cut == ("one",):
        town.consumes(began, "two")
    time.sleep(max(0, began + seconds - time.monotonic()))
    ended = time.monotonic()
    town.network.heal(*cut)
    in_time("workers", [town.consumes(ended)])
    for name in WORKERS:
        if name in cut or "broker" in cut:
            assert not town.ran_between(name, began + ON_THE_WAY_SECONDS, ended), "it was cut off"
    town.loses_nothing()


@pytest.mark.parametrize("whose", ["broker", "one"])
def test_workers_whose_connections_are_reset_consume_again(town, in_time, whose):
    assert town.network.reset(whose) >= 1
    in_time("workers", [town.consumes(time.monotonic())])
    said(town.workers["one"], "connected to the broker again")
    town.loses_nothing()


def test_workers_find_out_that_the_brokers_machine_lost_its_power_and_came_back(town, in_time):
    town.rests()
    town.network.power_off("broker")
    town.network.power_on("broker")
    town.broker = town.machines.broker()
    in_time("workers", [town.consumes(time.monotonic())])


def test_worker_on_a_machine_that_lost_its_power_and_came_back_consumes(town, in_time):
    town.network.power_off("one")
    town.network.power_on("one")
    lost = town.workers["one"]
    assert lost.ended() == -signal.SIGKILL
    town.workers["one"] = town.machines.worker("one")
    in_time("workers", [town.consumes(time.monotonic())])


@PROVE
def test_task_on_a_machine_that_lost_its_power_runs_again(town, in_time):
    (id_,) = town.machines.publish("one", task="hang_the_first_time")
    assert not wait_for_run(town.workers["one"], id_).redelivered
    began = time.monotonic()
    town.network.power_off("one")
    town.network.power_on("one")
    town.workers["one"] = town.machines.worker("one")
    run = wait_for_run(town.workers["one"], id_, 2 * LEASE_BACK_SECONDS)
    assert run.redelivered
    in_time("runs again", [run.at / 1e9 - began], LEASE_BACK_SECONDS)


@pytest.mark.parametrize("seconds", [1.5, *long(16, 60)])
@pytest.mark.parametrize("who", ["broker", "one"])
def test_stopped_process_and_its_peers_go_on_when_it_is_continued(town, in_time, who, seconds):
    process = town.broker if who == "broker" else town.workers[who]
    process.signal(signal.SIGSTOP)
    began = time.monotonic()
    if who == "one":
        town.consumes(began, "two")
    time.sleep(max(0, began + seconds - time.monotonic()))
    ended = time.monotonic()
    process.signal(signal.SIGCONT)
    in_time("workers", [town.consumes(ended)])
    town.loses_nothing()


@pytest.mark.parametrize(
    ("restarts", "away"), [(4, 0), pytest.param(500, 0, marks=PROVE), pytest.param(20, 15, marks=PROVE)]
)
def test_workers_find_a_broker_again_that_restarts(town, in_time, restarts, away):
    town.rests()
    took = []
    for number in range(restarts):
        town.end_broker((signal.SIGTERM, signal.SIGKILL)[number % 2])
        time.sleep(away)
        town.broker = town.machines.broker()
        took.append(town.consumes(time.monotonic()))
    in_time("workers", took)
    assert [town.machines.stop(worker) for worker in town.workers.values()] == [0, 0]


@pytest.mark.parametrize(
    ("fault", "callers", "times"),
    [
        ("reset", 60, 1),
        ("restart", 60, 1),
        pytest.param("reset", 500, 20, marks=PROVE),
        pytest.param("restart", 500, 20, marks=PROVE),
        pytest.param("partition", 500, 3, marks=PROVE),
    ],
)
def test_workers_consume_again_in_a_storm_of_others_that_reconnect(town, in_time, fault, callers, times):
    storm = town.machines.storm(callers)
    took, stormed = [], []
    for _ in range(times):
        ended = inflict(town, fault)
        took.append(town.consumes(ended))
        storm.wait_for(f"connected {callers}")
        stormed.append(time.monotonic() - ended)
        # None of them gets a second task before each has one.
        town.machines.publish("crowd", count=callers)
        storm.wait_for(f"served {callers}")
    in_time("workers", took)
    in_time("all others", stormed, STORM_SECONDS)
    if fault != "restart":
        town.loses_nothing()


def inflict(town: Town, fault: str) -> float:
    """Something that has everybody reconnect; the instant at which it was over."""
    match fault:
        case "reset":
            assert town.network.reset("broker") >= len(WORKERS)
        case "restart":
            town.end_broker(signal.SIGKILL)
            town.broker = town.machines.broker()
        case "partition":
            town.network.cut("broker")
            time.sleep(NOTICED_SECONDS)
            town.network.heal("broker")
    return time.monotonic()
