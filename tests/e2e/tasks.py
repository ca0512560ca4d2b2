"""The tasks that end-to-end tests run in real workers. They talk to the test through files and FIFOs."""

import asyncio
import datetime as dt
import decimal
import os
import signal
import time
import uuid
from pathlib import Path

from chervil import Chervil, Task

app = Chervil("tests.e2e.tasks")


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


@app.task(bind=True)
def stuck_the_first_time(self: Task, name: str) -> str:
    """Tells its pid and hangs; when it is run again it returns."""
    if not self.request.delivery_info["redelivered"]:
        _tell(name, str(os.getpid()))
        signal.pause()
    return f"ran again on attempt {self.request.delivery_info['redelivered']}"


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
