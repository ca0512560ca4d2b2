"""The broker's log: one line an event on stderr, text or JSON. The root logger is left alone."""

import logging

from chervil.logformat import line_handler


def set_up(log_format: str, level: int) -> None:
    for name in ("chervil.broker", "chervil.audit"):
        logger = logging.getLogger(name)
        # -q does not silence the audit log.
        logger.setLevel(min(level, logging.INFO) if name == "chervil.audit" else level)
        logger.propagate = False
        logger.handlers[:] = [line_handler(log_format)]
