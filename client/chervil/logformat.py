"""How log lines look: text, or JSON one object a line. A leaf, shared by broker and worker."""

import json
import logging
import sys
import time
from typing import TextIO

TEXT = "%(asctime)s %(levelname)-7s %(name)s  %(message)s"

#: What a LogRecord has anyway; everything else came in through `extra=` and belongs in the line.
_PLAIN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


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
    handler.setFormatter(JsonFormatter() if log_format == "json" else logging.Formatter(TEXT))
    return handler
