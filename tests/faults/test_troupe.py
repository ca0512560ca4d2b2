import random
import signal
import time
from contextlib import closing
from types import SimpleNamespace

import pytest

from tests.e2e.stage import until
from tests.faults import processes
from tests.faults.history import History
from tests.faults.troupe import NURSERY_DIED, START_SECONDS, STOP_SECONDS, Troupe, Worker


@pytest.fixture
def worker(tmp_path):
    output = tmp_path / "worker.out"
    output.write_text("")
    return Worker(SimpleNamespace(pid=1), output), output


def test_the_end_of_a_worker_with_1_is_explained_by_the_death_of_its_nursery_and_nothing_else(worker):
    worker, output = worker
    output.write_text("tasks that are cut off now: 1\n")
    worker.killed = True
    assert not worker.end_explained(1)
    assert not worker.end_explained(-signal.SIGTERM)
    for said in NURSERY_DIED:
        output.write_text(f"warning\nERROR {said}: and so on\n")
        assert worker.end_explained(1)
        assert worker.end_explained(-signal.SIGTERM), "told to stop when it listened no more"
        assert not worker.end_explained(2)
        assert not worker.end_explained("nothing within 60 s")


def test_the_end_of_a_worker_by_a_kill_is_explained_when_the_kill_was_ours(worker):
    worker, _ = worker
    assert not worker.end_explained(-signal.SIGKILL)
    worker.killed = True
    assert worker.end_explained(-signal.SIGKILL)


@pytest.fixture
def troupe(tmp_path):
    with closing(Troupe(tmp_path, random.Random(1), [1], durable=True)) as made:
        made.start()
        yield made


@pytest.mark.e2e
@pytest.mark.timeout(2 * START_SECONDS + 3 * STOP_SECONDS)
def test_a_worker_that_is_starting_is_not_told_to_stop_before_it_listens(troupe):
    assert troupe.stop() == []
    assert (troupe.complaints, troupe.faults) == ([], {})


@pytest.mark.e2e
@pytest.mark.timeout(2 * START_SECONDS + 3 * STOP_SECONDS)
@pytest.mark.parametrize("fault", ["kill_nursery", "kill_worker"])
def test_a_worker_that_is_dying_when_it_is_told_to_stop_ends_as_it_should(troupe, fault):
    troupe._wait_for_workers()
    getattr(troupe, fault)()
    assert troupe.stop() == []
    assert troupe.complaints == []


@pytest.mark.e2e
@pytest.mark.timeout(2 * START_SECONDS + 3 * STOP_SECONDS)
def test_children_that_die_because_a_task_felled_their_nursery_are_noted(troupe):
    troupe._wait_for_workers()
    (worker,) = troupe._workers
    until(lambda: troupe._present(worker.pid)[1], "it has a child")
    (nursery,), children = troupe._present(worker.pid)
    processes.kill(nursery)
    while troupe._workers == [worker]:
        troupe.look_after()
        time.sleep(0.01)
    assert set(children) <= {death.pid for death in troupe.deaths}


@pytest.mark.e2e
@pytest.mark.timeout(3 * START_SECONDS + 3 * STOP_SECONDS)
def test_a_broker_that_was_killed_is_back_when_that_was_waited_for(troupe):
    troupe._wait_for_workers()
    troupe.kill_broker()
    troupe.await_broker()
    troupe.kill_broker()
    history = History()
    troupe.add_to(history)
    assert len(history.broker_kills) == troupe.faults["brokers killed"] == 2
    assert len(troupe.recoveries) >= 1
    troupe.await_broker()
    troupe.look_after()
    assert (troupe.stop(), troupe.complaints) == ([], [])


@pytest.mark.e2e
@pytest.mark.timeout(2 * START_SECONDS + 3 * STOP_SECONDS)
def test_a_broker_that_ends_by_itself_ends_the_run(troupe):
    troupe.broker.process.terminate()
    troupe.broker.process.wait(STOP_SECONDS)
    with pytest.raises(AssertionError, match="ready on"):
        troupe.await_broker()
    with pytest.raises(AssertionError, match="the broker ended with 0"):
        troupe.look_after()


@pytest.mark.e2e
@pytest.mark.timeout(2 * START_SECONDS + 3 * STOP_SECONDS)
def test_a_worker_that_somebody_else_has_killed_is_complained_of(troupe):
    troupe._wait_for_workers()
    (worker,) = troupe._workers
    processes.kill(worker.pid)
    worker.process.wait(10)
    assert troupe.stop() == []
    assert troupe.complaints == ["a worker ended with -9"]
