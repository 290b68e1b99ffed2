"""The status of a SpiderMultusConfig: what was made of it, and if nothing, why. Pure.

It has one condition, Ready, in the form that Kubernetes' own objects have, so that `kubectl wait` understands it.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from actors.decisions.brief import without_middle
from actors.networks.attachment import shown_master
from actors.networks.claims import NAME_TAKEN, Claimant
from actors.resources.json_text import showable
from actors.resources.multus_config import MultusConfig

READY = "Ready"
MADE = "Made"
EVENTS = {
    MADE: "NetworkMade",
    "Invalid": "NetworkInvalid",
    NAME_TAKEN: "NetworkNameTaken",
    "NoSuchKind": "NetworkNoSuchKind",
    "Refused": "NetworkRefused",
    "Terminating": "NetworkTerminating",
    "Unusable": "NetworkUnusable",
}
"""What an Event calls each reason of the condition."""


def is_ready(status: Mapping[str, Any]) -> bool:
    """Whether the status says that pods can be attached."""
    return _condition(status).get("status") == "True"


def status_of(claimant: Claimant, now: float, reason: str, text: str) -> dict[str, Any]:
    """The status to write; the one that is there, if that says the same. `reason`: `MADE`, or one word for why not."""
    ready = "True" if reason == MADE else "False"
    before = _condition(claimant.status)
    flipped = before.get("status") != ready
    at = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    condition = {
        "type": READY,
        "status": ready,
        "reason": reason,
        "message": showable(without_middle(text)),
        "observedGeneration": claimant.generation,
        "lastTransitionTime": at if flipped else before.get("lastTransitionTime") or at,
    }
    status: dict[str, Any] = {"conditions": [condition]}
    if reason == MADE:
        status["networkAttachmentDefinition"] = claimant.attachment
    if isinstance(claimant, MultusConfig) and shown_master(claimant):
        status["master"] = shown_master(claimant)
    return status


def _condition(status: Mapping[str, Any]) -> Mapping[str, Any]:
    conditions = status.get("conditions")
    for condition in conditions if isinstance(conditions, list) else ():
        if isinstance(condition, Mapping) and condition.get("type") == READY:
            return condition
    return {}
