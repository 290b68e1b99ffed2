"""What a log record says beside its message. Apart from the formatters, because short commands load no more than this."""

from __future__ import annotations

import logging

_PLAIN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def own_fields(record: logging.LogRecord) -> dict[str, object]:
    """The event's own fields, those that were given as `extra`."""
    return {name: value for name, value in vars(record).items() if name not in _PLAIN}
