"""The broker's log: one line an event on stderr, text or JSON. The root logger is left alone."""

import logging

from chervil.logformat import line_handler


def set_up(log_format: str, level: int) -> None:
    logger = logging.getLogger("chervil.broker")
    logger.setLevel(level)
    logger.propagate = False
    logger.handlers[:] = [line_handler(log_format)]
