"""What is said of a CNI request: a line in the log, and how long it took."""

from __future__ import annotations

import logging
from typing import Any

from actors.allocation.observer import AllocationObserver
from actors.decisions.brief import in_brief
from actors.errors import OrbweaverError
from actors.runtime import Trace
from cni.server.exchange import Answer
from cni.server.protocol import IPAM, CniRequest

log = logging.getLogger("orbweaver.cni")

_OPERATIONS = {"ADD": "allocation", "DEL": "release"}


def log_request(level: int, text: str, trace: Trace, **details: Any) -> None:
    """A line about one request."""
    extra = {"request": trace.request, "pod": trace.pod, "container": trace.container, **details}
    log.log(level, text, extra=extra)


def report(
    observer: AllocationObserver,
    trace: Trace,
    command: str,
    plugin: str,
    seconds: float,
    request: CniRequest | None,
    outcome: Answer | OrbweaverError,
) -> None:
    """Tell how a request was answered. `request`: None for one that could not be understood."""
    error = outcome if isinstance(outcome, OrbweaverError) else None
    operation = _OPERATIONS.get(command, command.lower()) if plugin == IPAM else f"{plugin}_{command.lower()}"
    observer.stage(operation, "total", seconds)
    observer.finished(operation, "error" if error else "ok", type(error).__name__ if error else "")
    details: dict[str, Any] = {"command": command, "ms": round(seconds * 1000, 2)}
    if request is not None:
        details |= {"interface": request.sandbox.interface, "network": request.network}
    if isinstance(outcome, Answer):
        if outcome.result is not None:
            details["addresses"] = [
                f"{assigned.address} from {assigned.pool}" for assigned in outcome.result.addresses
            ]
        elif outcome.released is not None:
            details["released"] = outcome.released
    if error is not None:
        details |= {"error": in_brief(error), "code": error.cni_code}
        whole = {"error": error.message, "details": list(error.details)}
        log_request(logging.DEBUG, "all that an answer says in brief", trace, **whole)
    log_request(logging.WARNING if error else logging.INFO, "answered", trace, **details)
