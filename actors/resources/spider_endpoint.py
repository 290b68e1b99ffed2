"""A SpiderEndpoint, as far as its name and its reader go: which object tells of which pod.

What must always hold: every pod has exactly one name for its SpiderEndpoint, also one whose own name Kubernetes would
not take, and the object says which pod it is.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any

POD = "ipam.spidernet.io/pod"
"""Annotation of a SpiderEndpoint whose pod's name is no valid object name: the pod, as `namespace/name`."""

_NAME = re.compile(r"(?=.{1,253}\Z)[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")


def endpoint_name(pod: str) -> str:
    """The SpiderEndpoint's name for a pod. Without Kubernetes a pod may be named by a container id, which need not
    be a valid object name; then it is made one, and stays unique."""
    if _NAME.fullmatch(pod):
        return pod
    legal = re.sub(r"[^a-z0-9]+", "-", pod.lower()).strip("-")[:200]
    return f"{legal}-{hashlib.sha256(pod.encode()).hexdigest()[:8]}".lstrip("-")


def pod_of(obj: dict[str, Any]) -> str:
    """`namespace/name` of the pod that a SpiderEndpoint tells of."""
    metadata = obj["metadata"]
    annotated = metadata.get("annotations", {}).get(POD)
    return str(annotated or f"{metadata.get('namespace', '')}/{metadata['name']}")


def node_of(obj: dict[str, Any]) -> str:
    """The node that a SpiderEndpoint names, empty where it names none."""
    status = obj.get("status") or {}
    return str((status.get("current") or {}).get("node") or "")


def interface_of(obj: dict[str, Any], family: int, address: str) -> str:
    """The interface that has an address, given without prefix and as it is always written; empty where none is said to."""
    current = (obj.get("status") or {}).get("current") or {}
    for entry in current.get("ips") or ():
        if str(entry.get(f"ipv{family}", "")).partition("/")[0] == address:
            return str(entry.get("interface", ""))
    return ""


def pools_of(obj: dict[str, Any]) -> set[str]:
    """The pools that a SpiderEndpoint names."""
    entries = obj.get("status", {}).get("current", {}).get("ips", ())
    return {entry[key] for entry in entries for key in ("ipv4Pool", "ipv6Pool") if entry.get(key)}


def shows(obj: dict[str, Any], address: str) -> bool:
    """Whether a SpiderEndpoint tells that its pod has an address, given without prefix and as it is always written."""
    current = (obj.get("status") or {}).get("current") or {}
    addresses = (str(entry.get(key)) for entry in current.get("ips") or () for key in ("ipv4", "ipv6"))
    return any(text.partition("/")[0] == address for text in addresses)
