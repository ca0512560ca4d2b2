"""The worker's log: one line an event on stderr, text or JSON. The root logger is left alone.

`chervil.worker` tells about processes and the broker, `chervil.task` about tasks. Set up before the
nursery is forked, so that all three kinds of process log alike.
"""

import logging

from chervil.logformat import line_handler

worker = logging.getLogger("chervil.worker")
task = logging.getLogger("chervil.task")


def set_up(log_format: str, level: int) -> None:
    """Sends the lines of both loggers to stderr, and nowhere else."""
    handler = line_handler(log_format)
    for logger in (worker, task):
        logger.setLevel(level)
        logger.propagate = False
        logger.handlers[:] = [handler]
