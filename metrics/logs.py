"""Structured logs: one JSON object a line, on standard error.

What must always hold: a line names the pod, the container and the request it is about, wherever in the process
it was written, because the runtime carries a request's trace from actor to actor; and it holds no secret: nothing
here logs a request's environment or an object's content as a whole.
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import TextIO

from actors.runtime import current_trace
from metrics.log_fields import own_fields

_OWN = ("time", "level", "logger", "event")
"""What no field of an event's own may replace; one of that name is shown with an underscore behind it."""
LEVELS = ("debug", "info", "warning", "error")


class JsonLines(logging.Formatter):
    """`time`, `level`, `logger` and `event` first, then the request, then the event's own fields."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
        }
        trace = current_trace()
        if trace is not None:
            line |= {"request": trace.request, "pod": trace.pod, "container": trace.container}
        for name, value in own_fields(record).items():
            line[f"{name}_" if name in _OWN else name] = value
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def set_up(level: str, stream: TextIO = sys.stderr) -> None:
    """Log everything of ours from `level` on, and of others from warning on."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("orbweaver").setLevel(level.upper())
    logging.captureWarnings(True)
