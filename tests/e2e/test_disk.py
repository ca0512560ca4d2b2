"""A disk that is full, fails, or would fill: nothing that was confirmed is lost, and nobody is told a lie."""

import contextlib
import os
import random
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from chervil import Chervil
from chervil.exceptions import ChervilError, PublishRefused
from chervil.result import AsyncResult
from tests.e2e import tasks
from tests.e2e.stage import KILL, ROOT, Process, Stage

pytestmark = pytest.mark.e2e

PROVING = os.environ.get("CHERVIL_PROVE") == "1"
KIB, MIB = 1024, 1024 * 1024
FULL_CYCLES = 50 if PROVING else 3
#: Which of the writes and syncs of a broker fails: an opening takes about fifteen.
FAILING_CALLS = range(1, 120) if PROVING else (5, 17, 18, 21, 40)
KILLS = 40 if PROVING else 5


def small(stage: Stage, data: Path, *, wait: bool = True, **environment: object) -> Process:
    command = ["tests.e2e.small_journal", "--data", str(data), "--unix", str(stage.folder / "broker.sock")]
    told = {name: str(value) for name, value in environment.items()}
    broker = stage.run(
        "broker", [*command, "--max-memory", "64MB", "--dedup-ids", "1000"], PYTHONPATH=str(ROOT), **told
    )
    if wait:
        broker.wait_for("ready")
    return broker


def unknown(app: Chervil, ids: list[str]) -> list[str]:
    """Those of the tasks of which the broker knows nothing."""
    lost = []
    for start in range(0, len(ids), 1000):
        part = ids[start : start + 1000]
        lost += [
            id_ for id_, status in zip(part, app.client.query(part), strict=True) if status.stage == "UNKNOWN"
        ]
    return lost


def disk_of(data: Path) -> int:
    """Bytes of all files; one may go meanwhile."""
    total = 0
    for path in data.iterdir():
        with contextlib.suppress(FileNotFoundError):
            total += path.stat().st_size
    return total


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of 8 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    command = [mount or "mount", "-t", "tmpfs", "-o", "size=8m,mode=700", "tmpfs", str(folder)]
    if mount is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("a disk can only be mounted by root, and not in every container")
    yield folder
    subprocess.run([shutil.which("umount") or "umount", "-l", str(folder)], check=True)


class Ballast:
    """A file that takes all the room there is."""

    def __init__(self, disk: Path) -> None:
        self._path = disk / "ballast"

    def fill(self) -> None:
        with self._path.open("ab", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(bytes(4096)):
                pass

    def drop(self) -> None:
        self._path.unlink()


def publish_until_refused(app: Chervil) -> list[str]:
    """The ids of what was confirmed before the disk was full."""
    confirmed: list[str] = []
    app.conf.task_publish_timeout = 0.3

    def publish() -> None:
        while True:
            confirmed.extend(result.id for result in tasks.length.delay_many([("x" * 500,)] * 10))

    try:
        with pytest.raises(PublishRefused, match=r"FULL: .*the broker's disk is full; make room there"):
            publish()
    finally:
        app.conf.task_publish_timeout = 10.0
    return confirmed


@pytest.mark.timeout(1200 if PROVING else 60)
def test_full_disk_refuses_publishes_completes_what_runs_and_goes_on_by_itself(stage, small_disk):
    data = small_disk / "data"
    sizes = {"SEGMENT_SIZE": 256 * KIB, "DISK_MIN": MIB}
    broker = small(stage, data, **sizes)
    app = stage.app()
    stage.worker("-c", "2", "-Q", "running")
    ballast = Ballast(small_disk)
    for cycle in range(FULL_CYCLES):
        held, go = f"held{cycle}", f"held{cycle}.go"
        stage.fifo(held, go)
        running = tasks.hold.apply_async((held,), queue="running")
        stage.read_pid(held)
        ballast.fill()
        confirmed = publish_until_refused(app)
        # The running task is completed, durably, while there is no room for anything else.
        (stage.folder / go).write_text("go")
        assert running.get(timeout=10) == "let go"
        waited: list[AsyncResult[int]] = []
        waiting = threading.Thread(target=lambda: waited.append(tasks.length.delay("waits")))  # noqa: B023
        waiting.start()
        waiting.join(0.3)
        # Later there is something that compaction can give back.
        assert cycle or waiting.is_alive(), "a publisher with time waits"
        if cycle % 2:
            broker.signal(KILL)
            broker.ended()
            ballast.drop()
            broker = small(stage, data, **sizes)
        else:
            ballast.drop()
        waiting.join(10)
        assert not waiting.is_alive()
        assert not unknown(app, [running.id, waited[0].id, *confirmed])
        assert app.client.purge(["default"]) == len(confirmed) + 1
        # Else what is told of them would fill this disk in the end.
        app.client.forget([running.id, waited[0].id, *confirmed])
    broker.signal(KILL)
    broker.ended()
    small(stage, data, **sizes)
    assert app.client.stats()["counters"]["lost"] == 0


def confirmed_until_it_fails(app: Chervil, broker: Process) -> list[str]:
    """Publishes until the broker has ended; the ids of what was confirmed."""
    confirmed: list[str] = []
    app.conf.task_publish_timeout = 0.5
    try:
        while broker.popen.poll() is None:
            with contextlib.suppress(ChervilError):
                confirmed.append(tasks.length.delay("x" * 300).id)
    finally:
        app.conf.task_publish_timeout = 10.0
    return confirmed


@pytest.mark.timeout(600 if PROVING else 60)
def test_failing_disk_ends_the_broker_with_one_line_and_what_was_confirmed_is_there(stage):
    data = stage.folder / "data"
    small(stage, data).stop()
    app = stage.app()
    confirmed: list[str] = []
    for failing in FAILING_CALLS:
        broker = small(stage, data, wait=False, FAILING_CALL=failing)
        told = confirmed_until_it_fails(app, broker)
        confirmed += told
        assert broker.ended() == 1
        assert "Traceback" not in "\n".join(broker.output)
        assert sum("Error: " in line for line in broker.output) == 1
        assert "Input/output error" in broker.output[-1]
        if told:
            assert f"the journal in {data} can not be written" in broker.output[-1]
        again = small(stage, data)
        assert not unknown(app, confirmed)
        again.stop()
    assert confirmed


class Watch:
    """Looks at the size of a folder for as long as it is entered."""

    def __init__(self, data: Path) -> None:
        self.most = 0
        self._data = data
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def _look(self) -> None:
        while not self._over.wait(0.02):
            self.most = max(self.most, disk_of(self._data))

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


def churn(app: Chervil, tasks_in_all: int) -> None:
    """Tasks that come and go, and are forgotten in the end."""
    for _ in range(0, tasks_in_all, 2000):
        tasks.length.delay_many([("x" * 80,)] * 2000)
        app.client.purge(["default"])


@pytest.mark.timeout(300 if PROVING else 60)
def test_one_old_task_does_not_keep_the_disk_from_being_freed(stage):
    """With CHERVIL_PROVE=1 a million tasks with the usual sizes; else small ones."""
    data = stage.folder / "data"
    sizes = {} if PROVING else {"SEGMENT_SIZE": 128 * KIB, "DISK_MIN": 640 * KIB}
    count = 1_000_000 if PROVING else 20_000
    most = 256 * MIB if PROVING else MIB
    if PROVING:
        broker = stage.broker("--data", str(data), "--max-memory", "64MB", memory=False)
    else:
        broker = small(stage, data, **sizes)
    app = stage.app()
    old = tasks.echo.apply_async(("old" * 1000,), queue="parked")
    with Watch(data) as watch:
        churn(app, count)
    report = app.client.stats()
    assert report["journal"]["written_bytes"] > most
    assert watch.most <= max(most, 3 * report["memory"]["bytes"] + 3 * report["memory"]["results"])
    broker.signal(KILL)
    broker.ended()
    if PROVING:
        stage.broker("--data", str(data), "--max-memory", "64MB", memory=False)
    else:
        small(stage, data, **sizes)
    assert old.stage == "QUEUED"
    stage.worker("-c", "1", "-Q", "parked")
    assert old.get(timeout=20) == "old" * 1000


@pytest.mark.timeout(600 if PROVING else 60)
def test_broker_that_is_killed_while_it_compacts_knows_what_was_alive(stage):
    data = stage.folder / "data"
    sizes = {"SEGMENT_SIZE": 64 * KIB, "DISK_MIN": 128 * KIB}
    broker = small(stage, data, **sizes)
    app = stage.app()
    moments = random.Random(5)
    for kill in range(KILLS):
        kept = [
            tasks.echo.apply_async(("kept" * 50,), queue=f"q{n % 3}", countdown=1000 if n % 4 == 0 else None)
            for n in range(60)
        ]
        churn(app, 8000)
        alive = told(app)
        time.sleep(moments.uniform(0, 1.5))  # compaction looks once a second: it is met in all its moments
        broker.signal(KILL)
        broker.ended()
        broker = small(stage, data, **sizes)
        assert told(app) == alive, kill
        assert not unknown(app, [result.id for result in kept])
        app.client.purge([])


def told(app: Chervil) -> dict[str, object]:
    """What the broker says of what it holds."""
    report = app.client.stats()
    queues = [
        [queue[name] for name in ("name", "ready", "scheduled", "leased")] for queue in report["queues"]
    ]
    return {"tasks": report["tasks"], "memory": report["memory"], "queues": queues}
