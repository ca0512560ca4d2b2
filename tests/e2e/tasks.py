"""The tasks that end-to-end tests run in real workers. They talk to the test through files and FIFOs."""

import asyncio
import contextlib
import ctypes
import datetime as dt
import decimal
import json
import os
import resource
import signal
import time
import uuid
from pathlib import Path

from chervil import Chervil, Task
from chervil.exceptions import PublishRefused, Reject, SoftTimeLimitExceeded

app = Chervil("tests.e2e.tasks")
# A worker's settings, from the test that starts it.
app.conf.update(json.loads(os.environ.get("E2E_SETTINGS", "{}")))


def _tell(name: str, text: str) -> None:
    """Adds a line to a file in the test's folder, whole: one write, in append mode."""
    with (Path(os.environ["E2E_FOLDER"]) / name).open("a") as file:
        file.write(text + "\n")


@app.task
def add(x: int, y: int) -> int:
    return x + y


@app.task
def echo(value: object) -> object:
    return value


@app.task
def types() -> dict[str, object]:
    return {
        "moment": dt.datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=dt.UTC),
        "day": dt.date(2026, 1, 2),
        "id": uuid.UUID(int=7),
        "price": decimal.Decimal("1.10"),
        "raw": b"\x00\xff",
    }


class Unpayable(Exception):
    """An exception class of the application's own."""


@app.task
def fail(reason: str) -> None:
    raise Unpayable(reason, 42)


@app.task
def note(name: str, text: str) -> None:
    _tell(name, text)


def _hang_the_first_time(task: Task, name: str) -> str:
    """Tells its pid and hangs; when it is run again it returns."""
    _tell("runs", task.request.id)
    if not task.request.redelivered:
        _tell(name, str(os.getpid()))
        signal.pause()
    return f"ran again, attempts lost: {task.request.attempts}"


@app.task(bind=True)
def stuck_the_first_time(self: Task, name: str) -> str:
    return _hang_the_first_time(self, name)


@app.task(bind=True, acks_late=False)
def stuck_acked_early(self: Task, name: str) -> str:
    return _hang_the_first_time(self, name)


@app.task(bind=True, reject_on_worker_lost=False)
def stuck_not_to_run_again(self: Task, name: str) -> str:
    return _hang_the_first_time(self, name)


def _die_the_first_time(task: Task, how: str) -> str:
    _tell("runs", task.request.id)
    if not task.request.redelivered:
        _die(how)
    return f"ran again, attempts lost: {task.request.attempts}"


def _die(how: str) -> None:
    match how:
        case "SIGKILL":
            os.kill(os.getpid(), signal.SIGKILL)
        case "segfault":
            ctypes.string_at(0)
        case "os._exit":
            os._exit(3)
        case "abort":  # what C libraries do that have run out of memory
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            os.abort()


@app.task(bind=True)
def dies(self: Task, how: str) -> str:
    return _die_the_first_time(self, how)


@app.task(bind=True, acks_late=False)
def dies_acked_early(self: Task, how: str) -> str:
    return _die_the_first_time(self, how)


@app.task(bind=True, reject_on_worker_lost=False)
def dies_not_to_run_again(self: Task, how: str) -> str:
    return _die_the_first_time(self, how)


@app.task
def grow_too_large() -> None:
    """Meets a memory limit of its process."""
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (1 << 30, hard))
    try:
        bytearray(4 << 30)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (hard, hard))


def _parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])


@app.task(delivery_limit=2)
def fell_the_tree() -> None:
    """Kills the whole worker: the link first, then nursery and itself."""
    _tell("runs", "fell")
    nursery = os.getppid()
    os.kill(_parent_of(nursery), signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError):
        os.kill(nursery, signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)


@app.task(delivery_limit=2)
def crash_twice() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@app.task
def run_for(name: str, seconds: float) -> str:
    """Notes its start, and returns after so long."""
    _tell(name, f"start {os.getpid()}")
    time.sleep(seconds)
    _tell(name, "end")
    return name


@app.task(time_limit=1.5)
def hang_limited(name: str) -> None:
    _tell(name, str(os.getpid()))
    signal.pause()


@app.task(soft_time_limit=0.3)
def clean_up_at_soft_limit(name: str) -> str:
    try:
        time.sleep(30)
    except SoftTimeLimitExceeded:
        _tell(name, "cleaned up")
        return "cleaned up"
    return "not interrupted"


@app.task(soft_time_limit=0.3)
def fail_at_soft_limit() -> None:
    time.sleep(30)


@app.task(soft_time_limit=0.2, time_limit=2)
def ignore_soft_limit(name: str) -> None:
    with contextlib.suppress(SoftTimeLimitExceeded):
        time.sleep(30)
    _tell(name, "still here")
    time.sleep(30)


@app.task
def reject(reason: str) -> None:
    raise Reject(reason)


@app.task(bind=True)
def requeue_once(self: Task) -> bool:
    if not self.request.redelivered:
        raise Reject("not now", requeue=True)
    return self.request.redelivered


@app.task(bind=True)
def spread(self: Task, depth: int, payload: str) -> int:
    """Publishes two of itself until `depth` is 0. A full broker is tried again twice, then given up on:
    where all that it holds is waiting to publish more, somebody must."""
    for side in "lr" if depth else "":
        id_ = f"{self.request.id}{side}"  # its own, so that a second try makes no third task
        try:
            spread.apply_async((depth - 1, payload), task_id=id_)
        except PublishRefused as error:
            _tell("refused", error.code)
            if self.request.retries < 2:
                raise self.retry(countdown=0.05) from error
        else:
            _tell("confirmed", id_)
    return depth


@app.task
def hold(name: str) -> str:
    """Tells its pid, then waits until the test writes into the FIFO NAME.go."""
    _tell(name, str(os.getpid()))
    (Path(os.environ["E2E_FOLDER"]) / f"{name}.go").read_text()
    return "let go"


@app.task
def crash() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@app.task(bind=True, max_retries=3)
def third_time_lucky(self: Task) -> dict[str, object]:
    if self.request.retries < 2:
        raise self.retry(countdown=0.05, exc=ValueError("not yet"))
    return {"retries": self.request.retries, "id": self.request.id}


@app.task(bind=True, max_retries=1, default_retry_delay=0)
def never_lucky(self: Task) -> None:
    try:
        raise KeyError("missing")
    except KeyError as error:
        raise self.retry(exc=error) from error


@app.task
async def asynchronous(x: int) -> int:
    await asyncio.sleep(0.001)
    return x * 2


@app.task(bind=True)
def about_me(self: Task) -> dict[str, object]:
    request = self.request
    return {
        "id": request.id,
        "retries": request.retries,
        "hostname": request.hostname,
        "headers": dict(request.headers or {}),
        "queue": request.delivery_info["routing_key"],
        "pid": os.getpid(),
        "name": self.name,
    }


@app.task(bind=True)
def parent(self: Task) -> str:
    """Publishes from inside a task."""
    return add.delay(20, 22).id


@app.task
def large(size: int) -> str:
    return "x" * size


@app.task
def length(text: str) -> int:
    return len(text)


@app.task
def nap(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


@app.task(acks_late=False)
def hold_acked_early(name: str) -> str:
    return hold.run(name)
