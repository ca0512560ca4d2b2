"""How log lines look: text, or JSON one object a line. A leaf, shared by broker and worker."""

import json
import logging
import sys
import time
from typing import TextIO

TEXT = "%(asctime)s %(levelname)-7s %(name)s  %(message)s"

#: What a LogRecord has anyway; everything else came in through `extra=` and belongs in the line.
_PLAIN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


#: Names come from outside, and a line break in one must not make a line of its own.
_CONTROL = {code: repr(chr(code))[1:-1] for code in (*range(32), 127, 0x85, 0x2028, 0x2029)}


class TextFormatter(logging.Formatter):
    """One line an event, control characters in it shown as escapes; a traceback follows as it is."""

    def __init__(self) -> None:
        super().__init__(TEXT)

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # logging's name
        record.message = record.message.translate(_CONTROL)
        return super().formatMessage(record)


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
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    return handler
