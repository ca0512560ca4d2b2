"""The tasks that workers on several machines run: they say at once, and when, that they ran."""

import os
import signal
import time

from chervil import Chervil, Task

app = Chervil("tests.machines.tasks")


def _tell(task: Task) -> None:
    """Puts a line on the worker's output, in one write, for other processes of the worker write there too."""
    again = "again" if task.request.redelivered else "first"
    os.write(1, f"ran {task.request.id} {again} {time.monotonic_ns()}\n".encode())


@app.task(bind=True)
def mark(self: Task) -> None:
    _tell(self)


@app.task(bind=True)
def hang_the_first_time(self: Task) -> None:
    _tell(self)
    if not self.request.redelivered:
        signal.pause()
