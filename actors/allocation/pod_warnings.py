"""What the owner of a pod is told although the pod gets its addresses: once for each pod, not at every ADD.

What must always hold: a warning never fails a request, and what is remembered of them is bounded: of the pod that was
warned longest ago it may be told again.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable

from actors.allocation.messages import Sandbox

log = logging.getLogger("orbweaver.endpoint")

REMEMBERED = 4096


class PodWarnings:
    """One per process. `tell` makes an Event of a warning, where there are Events: the sandbox, a word, a text."""

    def __init__(self, tell: Callable[[Sandbox, str, str], object]) -> None:
        self.tell = tell
        self._told: OrderedDict[tuple[str, str, str], None] = OrderedDict()
        self._lock = threading.Lock()  # the Endpoints of several pods run at once

    def warn(self, sandbox: Sandbox, reason: str, texts: Iterable[str]) -> None:
        """Tell what this pod was not told yet."""
        for text in texts:
            if self._is_new((sandbox.key, sandbox.uid, text)):
                log.warning("a pod does not get all it asks for", extra={"pod": sandbox.key, "reason": text})
                self.tell(sandbox, reason, f"pod {sandbox.key}: {text}")

    def _is_new(self, warning: tuple[str, str, str]) -> bool:
        with self._lock:
            new = warning not in self._told
            self._told[warning] = None
            self._told.move_to_end(warning)
            if len(self._told) > REMEMBERED:
                self._told.popitem(last=False)
        return new
