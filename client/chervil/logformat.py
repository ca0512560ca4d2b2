"""How log lines look: text, or JSON one object a line. A leaf, shared by broker and worker."""

import json
import logging
import os
import sys
import time
from typing import TextIO

TEXT = "%(asctime)s %(levelname)-7s %(name)s  %(message)s"

#: The least level of each of syslog's priorities.
_PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6), (0, 7))

#: What a LogRecord has anyway; everything else came in through `extra=` and belongs in the line.
_PLAIN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class TextFormatter(logging.Formatter):
    """One line an event, with escapes for characters that are not seen; a traceback follows as it is."""

    def __init__(self) -> None:
        super().__init__(TEXT)

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # logging's name
        record.message = _visible(record.message)
        return super().formatMessage(record)


class JournalFormatter(TextFormatter):
    """The same for systemd's journal: each line begins with its priority, as sd-daemon(3) has it."""

    def format(self, record: logging.LogRecord) -> str:
        priority = next(number for level, number in _PRIORITIES if record.levelno >= level)
        return "\n".join(f"<{priority}>{line}" for line in super().format(record).split("\n"))


def _visible(text: str) -> str:
    """The text with escapes for what makes a line of its own, turns the direction of writing or is not seen.

    Names come from outside, and are not to look like something else in a log.
    """
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (UTC, ISO 8601), level, logger, message, and what `extra` gave."""

    def format(self, record: logging.LogRecord) -> str:
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line = {
            "time": f"{moment}.{int(record.msecs):03d}Z",
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {key: value for key, value in vars(record).items() if key not in _PLAIN}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def line_handler(log_format: str, stream: TextIO | None = None) -> logging.Handler:
    """A handler that writes `text` or `json` lines to a stream; standard error unless given."""
    out = sys.stderr if stream is None else stream
    handler = logging.StreamHandler(out)
    if log_format == "json":
        handler.setFormatter(JsonFormatter())
    else:
        handler.setFormatter(JournalFormatter() if _goes_to_the_journal(out) else TextFormatter())
    return handler


def _goes_to_the_journal(stream: TextIO) -> bool:
    """Whether systemd has connected it to its journal, which it tells by device and inode."""
    told = os.environ.get("JOURNAL_STREAM")
    if not told:
        return False
    try:
        found = os.fstat(stream.fileno())
    except (OSError, ValueError):  # no file, or a closed one
        return False
    return told == f"{found.st_dev}:{found.st_ino}"
