"""The worker's log: one line an event on stderr, text or JSON. The root logger is left alone.

`chervil.worker` tells about processes and the broker, `chervil.task` about tasks. Set up before the
nursery is forked, so that all three kinds of process log alike.
"""

import logging
from collections.abc import Iterable
from typing import NamedTuple

from chervil.logformat import line_handler

worker = logging.getLogger("chervil.worker")
task = logging.getLogger("chervil.task")


class Line(NamedTuple):
    """Something to be logged, as code that does no I/O says it."""

    level: int
    text: str
    #: Of the task that it is about, if it is about one.
    task_name: str | None = None
    task_id: str | None = None


def write(lines: Iterable[Line]) -> None:
    """Logs lines of `chervil.worker`."""
    for line in lines:
        extra = {"task_name": line.task_name, "task_id": line.task_id} if line.task_id else None
        worker.log(line.level, "%s", line.text, extra=extra)


def set_up(log_format: str, level: int) -> None:
    """Sends the lines of both loggers to stderr, and nowhere else."""
    handler = line_handler(log_format)
    for logger in (worker, task):
        logger.setLevel(level)
        logger.propagate = False
        logger.handlers[:] = [handler]
