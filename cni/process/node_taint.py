"""Takes the taint off the agent's node that keeps pods away until the agent serves.

What must always hold: nothing but this taint is changed, and only once the agent serves; a node without it is not written. It
is looked for until it is gone once: who puts it there again wants pods to stay away.
"""

from __future__ import annotations

import logging

from actors.errors import Conflict
from actors.runtime.periodic import PeriodicThread
from actors.store.contract import Store

log = logging.getLogger("orbweaver.agent")

TAINT = "orbweaver.io/agent-not-ready"
_RETRY = 2.0


class NodeTaint:
    """One per agent that was asked to. `start` once it serves."""

    def __init__(self, store: Store, node: str, retry: float = _RETRY) -> None:
        self._store = store
        self._node = node
        self._retry = retry
        self._thread = PeriodicThread(
            "node-taint", self._try, log=log, failing="the node's taint cannot be taken off", retry=retry
        )

    def start(self) -> None:
        """Take it off soon."""
        self._thread.start()

    def stop(self) -> None:
        """Try no more."""
        self._thread.stop()

    def take_off(self) -> bool:
        """Take it off now; whether it was there. Raises what the store raises."""
        node = self._store.get("Node", self._node)
        spec = node.get("spec") or {}
        taints = spec.get("taints") or []
        left = [taint for taint in taints if taint.get("key") != TAINT]
        if len(left) == len(taints):
            return False
        self._store.update({**node, "spec": {**spec, "taints": left}})
        return True

    def _try(self) -> float | None:
        try:
            if self.take_off():
                log.info("pods may come to this node", extra={"node": self._node, "taint": TAINT})
        except Conflict:
            log.debug("the node changed meanwhile", extra={"node": self._node})
            return self._retry
        return None
