"""Spiderpool's admission webhooks, which refuse every write of pools, and with injection every pod, while no controller of it
answers.

What must always hold: they are off for as long as its controllers are, and afterwards as they were.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

from actors.store.contract import Object
from cni.takeover.spiderpool.installation import BEFORE, Side

KINDS = ("MutatingWebhookConfiguration", "ValidatingWebhookConfiguration")
_NAMES = ".spiderpool.spidernet.io"


@dataclass(frozen=True, slots=True)
class Webhooks:
    """Those of one installation."""

    side: Side

    def configurations(self) -> Iterator[Object]:
        """Its configurations, whether on or off."""
        for kind in KINDS:
            for obj in self.side.store.list(kind).items:
                entries = obj.get("webhooks") or _noted(obj)
                if any(self._is_its_own(entry) for entry in entries):
                    yield obj

    def switch_off(self) -> None:
        """Have API servers ask nobody; what was there is noted in each configuration."""
        for obj in self.configurations():
            self.side.change(obj, _off)

    def switch_on(self) -> None:
        """As they were."""
        for obj in self.configurations():
            self.side.change(obj, _on)

    def _is_its_own(self, entry: Object) -> bool:
        service = (entry.get("clientConfig") or {}).get("service") or {}
        namespace = self.side.installation.namespace
        return service.get("namespace") == namespace and str(entry.get("name", "")).endswith(_NAMES)


def _noted(obj: Object) -> list[Object]:
    text = (obj["metadata"].get("annotations") or {}).get(BEFORE)
    return list(json.loads(text)) if text else []


def _off(obj: Object) -> Object:
    if not obj.get("webhooks"):
        return obj
    metadata = obj["metadata"]
    note = {BEFORE: json.dumps(obj["webhooks"], separators=(",", ":"))}
    annotations = {**(metadata.get("annotations") or {}), **note}
    return {**obj, "metadata": {**metadata, "annotations": annotations}, "webhooks": []}


def _on(obj: Object) -> Object:
    noted = _noted(obj)
    if not noted:
        return obj
    metadata = obj["metadata"]
    annotations = {key: value for key, value in metadata["annotations"].items() if key != BEFORE}
    return {
        **obj,
        "metadata": {**metadata, "annotations": annotations},
        "webhooks": obj.get("webhooks") or noted,
    }
