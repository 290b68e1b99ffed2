"""Structured logs: one JSON object a line, on standard error.

What must always hold: a line names the pod, the container and the request it is about, wherever in the process
it was written, because the runtime carries a request's trace from actor to actor; it holds no secret: nothing
here logs a request's environment or an object's content as a whole; and nothing of a process stands between the lines:
what no one caught, in whichever thread, event loop or worker process, is a line too.
"""

from __future__ import annotations

import json
import logging
import signal
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from types import TracebackType
from typing import TYPE_CHECKING, TextIO

from metrics.log_fields import own_fields

if TYPE_CHECKING:
    from actors.runtime import Trace

_OWN = ("time", "level", "logger", "event")
"""What no field of an event's own may replace; one of that name is shown with an underscore behind it."""
_ENCODER = json.JSONEncoder(default=str)
LEVELS = ("debug", "info", "warning", "error")


class JsonLines(logging.Formatter):
    """`time`, `level`, `logger` and `event` first, then the request that `trace` tells of, then the event's own fields."""

    def __init__(self, trace: Callable[[], Trace | None] = lambda: None) -> None:
        super().__init__()
        self._trace = trace

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
        }
        trace = self._trace()
        if trace is not None:
            line |= {"request": trace.request, "pod": trace.pod, "container": trace.container}
        for name, value in own_fields(record).items():
            line[f"{name}_" if name in _OWN else name] = value
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return _ENCODER.encode(line)


class _Lines(logging.StreamHandler[TextIO]):
    """A record that cannot be written as it is, is written as far as it can be."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the name in the base class
        error = sys.exc_info()[1]
        line = {"level": "error", "logger": record.name, "event": str(record.msg), "unwritable": repr(error)}
        try:
            self.stream.write(json.dumps(line) + self.terminator)
            self.flush()
        except (OSError, ValueError):
            return  # nobody reads standard error any more


def set_up(level: str, stream: TextIO = sys.stderr) -> None:
    """Log everything of ours from `level` on, and of others from warning on."""
    from actors.runtime import current_trace  # not above: worker processes need no actors, and save 5 MB

    _set_up(level, stream, current_trace)


def _set_up(level: str, stream: TextIO, trace: Callable[[], Trace | None]) -> None:
    handler = _Lines(stream)
    handler.setFormatter(JsonLines(trace))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("orbweaver").setLevel(level.upper())
    logging.captureWarnings(True)
    # No line tells these, and finding them out takes a third of what a line costs.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging._srcfile = None  # noqa: SLF001 - as the Logging HOWTO says, "Optimization"
    sys.excepthook = _log_uncaught
    threading.excepthook = _log_uncaught_in_thread
    sys.unraisablehook = _log_unraisable


def level() -> str:
    """The level that is set, for the worker processes of this one."""
    return logging.getLevelName(logging.getLogger("orbweaver").getEffectiveLevel()).lower()


def set_up_worker(level: str) -> None:
    """For a worker process, with what its parent's `level` told. A worker ends when its parent does, and with what it has
    begun, so it leaves to its parent what a terminal or a service manager sends to all of them."""
    _set_up(level if level in LEVELS else "warning", sys.stderr, lambda: None)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


_uncaught = logging.getLogger("orbweaver.uncaught")


def _log_uncaught(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None, where: str = "main"
) -> None:
    _uncaught.critical("nobody caught an error", exc_info=(kind, error, trace), extra={"thread_name": where})


def _log_uncaught_in_thread(hooked: threading.ExceptHookArgs) -> None:
    if hooked.exc_type is SystemExit or hooked.exc_value is None:
        return
    where = hooked.thread.name if hooked.thread is not None else "?"
    _log_uncaught(hooked.exc_type, hooked.exc_value, hooked.exc_traceback, where)


def _log_unraisable(hooked: sys.UnraisableHookArgs) -> None:
    if hooked.exc_value is None:
        return
    where = f"{hooked.err_msg or 'ignored in'} {type(hooked.object).__name__}"
    _log_uncaught(hooked.exc_type, hooked.exc_value, hooked.exc_traceback, where)
