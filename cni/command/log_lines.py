"""What the parts of a short command log, as lines that its user can read."""

from __future__ import annotations

import logging

from metrics.log_fields import own_fields


class LogLines(logging.Formatter):
    """`orbweaver: a pool cannot be used (pool: blue, error: …)`: the message, then the event's own fields."""

    def format(self, record: logging.LogRecord) -> str:
        fields = ", ".join(f"{name}: {value}" for name, value in own_fields(record).items())
        line = f"orbweaver: {record.getMessage()}" + (f" ({fields})" if fields else "")
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def set_up() -> None:
    """For processes that set up no log of their own: logging's last resort writes warnings and errors, and would leave
    out everything but the message."""
    assert logging.lastResort is not None
    logging.lastResort.setFormatter(LogLines())
