"""Deaths, long runs and full sockets of children in a whole worker; test_children.py has the unit."""

import os
import signal
from pathlib import Path

from chervil.protocol import Outcome
from tests.worker.broker import ScriptedBroker, results, row, run_all, task_id
from tests.worker.conftest import StartWorker, stop, wait_until_said


def test_death_of_a_child_loses_only_the_task_that_ran(start_worker: StartWorker, broker: ScriptedBroker):
    worker = start_worker("-c", "1")
    broker.greet()
    run_all(broker, [row(n, "proj.add", n, 1) for n in range(1, 101)])  # the slot is deep now
    broker.deliver(row(101, "proj.kill_self"), *[row(n, "proj.add", n, 1) for n in range(102, 121)])
    broker.until(lambda: len({row[0] for row in broker.rows}) == 120)
    outcomes = broker.outcomes()
    assert outcomes.pop(task_id(101)) == Outcome.LOST
    assert set(outcomes.values()) <= {Outcome.SUCCESS, Outcome.RELEASE}
    (lost,) = [row for row in broker.rows if row[2] == Outcome.LOST]
    assert lost[4].startswith(b"SIGKILL (pid ")
    assert stop(worker, broker) == 0
    assert "proj.kill_self[00000000-0000-0000-0000-000000000065] lost" in worker.said()


def test_exit_of_a_child_is_reported_with_its_code(start_worker: StartWorker, broker: ScriptedBroker):
    start_worker("-c", "1")
    broker.greet()
    broker.deliver(row(1, "proj.leave", 3), row(2, "proj.add", 1, 2))
    broker.until(lambda: len(broker.rows) == 2)
    assert broker.rows[0][2] == Outcome.LOST
    assert broker.rows[0][4].startswith(b"exit code 3 (pid ")
    assert broker.outcomes()[task_id(2)] == Outcome.SUCCESS


def test_child_killed_while_idle_is_replaced(start_worker: StartWorker, broker: ScriptedBroker):
    worker = start_worker("-c", "1")
    broker.greet()
    broker.deliver(row(1, "proj.pid"))
    broker.until(lambda: broker.rows)
    first = results(broker)[task_id(1)]
    assert isinstance(first, int)
    os.kill(first, signal.SIGKILL)
    broker.deliver(row(2, "proj.pid"))
    broker.until(lambda: len(broker.rows) == 2)
    assert broker.outcomes()[task_id(2)] in (Outcome.SUCCESS, Outcome.LOST, Outcome.RELEASE)
    broker.deliver(row(3, "proj.pid"))
    broker.until(lambda: task_id(3) in results(broker))
    assert results(broker)[task_id(3)] != first
    assert worker.process.poll() is None


def test_long_run_is_reported_started_and_holds_no_hostages(
    start_worker: StartWorker, broker: ScriptedBroker, tmp_path: Path
):
    start_worker("-c", "2")
    broker.greet()
    run_all(broker, [row(n, "proj.add", n, 1) for n in range(1, 201)])
    gate = tmp_path / "gate"
    # Both slots get a long one with others behind it.
    broker.deliver(*[row(n, "proj.wait_for", str(gate)) for n in (501, 502)])
    broker.until(lambda: len(broker.started) == 2)
    broker.deliver_anyway(*[row(n, "proj.add", n, 1) for n in range(503, 523)])
    late = {task_id(n) for n in range(503, 523)}
    broker.until(lambda: late <= set(broker.outcomes()))
    assert [broker.outcomes()[task_id(n)] for n in range(503, 523)] == [Outcome.RELEASE] * 20
    assert set(broker.started) == {task_id(501), task_id(502)}
    # Nothing is wanted while both are busy.
    assert broker.credit == broker.delivered
    gate.touch()
    broker.until(lambda: task_id(501) in broker.outcomes())
    assert broker.outcomes()[task_id(501)] == Outcome.SUCCESS


def test_what_lies_behind_a_long_run_goes_to_the_other_slot(
    start_worker: StartWorker, broker: ScriptedBroker, tmp_path: Path
):
    start_worker("-c", "2")
    broker.greet()
    run_all(broker, [row(n, "proj.add", n, 1) for n in range(1, 201)])
    gate = tmp_path / "gate"
    broker.deliver(row(501, "proj.wait_for", str(gate)))
    run_all(broker, [row(n, "proj.add", n, 1) for n in range(502, 530)])
    done = results(broker)
    assert [done[task_id(n)] for n in range(502, 530)] == list(range(503, 531))
    assert task_id(501) not in broker.outcomes()
    gate.touch()
    broker.until(lambda: task_id(501) in results(broker))


def test_more_bytes_than_a_childs_socket_holds_wait_in_the_link(
    start_worker: StartWorker, broker: ScriptedBroker
):
    start_worker("-c", "1")
    broker.greet()
    run_all(broker, [row(n, "proj.add", n, 1) for n in range(1, 101)])
    text = "x" * 30_000
    run_all(broker, [row(n, "proj.add", text, str(n)) for n in range(101, 201)])
    done = results(broker)
    assert [done[task_id(n)] for n in range(101, 201)] == [text + str(n) for n in range(101, 201)]


def test_child_that_dies_at_start_is_replaced_only_after_a_while(
    start_worker: StartWorker, broker: ScriptedBroker, proj: Path
):
    count = proj / "count"
    (proj / "stillborn.py").write_text(
        "import os\n"
        "from proj import app\n"
        "def leave():\n"
        f"    with open({str(count)!r}, 'a') as file:\n"
        "        file.write('x')\n"
        "    os._exit(7)\n"
        "os.register_at_fork(after_in_child=leave)\n"
    )
    worker = start_worker("-c", "1", module="stillborn")
    wait_until_said(worker, "replaced in 1 s")
    assert "exit code 7" in worker.said()
    wait_until_said(worker, "replaced in 2 s")
    assert count.read_text() == "xx"


def test_timeout_that_the_app_sets_for_its_sockets_does_not_end_a_child_that_waits(
    start_worker: StartWorker, broker: ScriptedBroker, proj: Path
):
    (proj / "hasty.py").write_text("import socket\nsocket.setdefaulttimeout(0.05)\nfrom proj import app\n")
    worker = start_worker("-c", "2", module="hasty")
    broker.greet()
    broker.deliver(row(1, "proj.nap", 0.5))  # the other child waits meanwhile
    broker.until(lambda: broker.rows)
    assert stop(worker, broker) == 0
    assert "TimeoutError" not in worker.said()
    assert "died" not in worker.said()
