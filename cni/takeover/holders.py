"""What the cluster's pods say of an address that another IPAM gave out: whose it is, on which node and interface.

What must always hold: a pod that cannot be read, or says nothing, is passed over; what it would have said stays empty.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field, replace
from typing import Any

from actors.errors import InvalidObject
from actors.resources.addresses import parse_address
from actors.resources.json_text import UnreadableText, read_json
from actors.resources.pod import KIND, NETWORK_STATUS, Pod
from actors.store.contract import Store
from cni.takeover.reading import ForeignAllocation

_LONGEST = 1 << 18
"""Bytes of an object's annotations, by Kubernetes' rule."""


@dataclass(frozen=True, slots=True)
class Holders:
    """The pods of a cluster at one moment."""

    pods: dict[str, Pod] = field(default_factory=dict)
    """By `namespace/name`."""
    by_address: dict[tuple[int, int], tuple[Pod, ...]] = field(default_factory=dict)
    """By family and value, the pods that report to have it. Those on the host's network report the node's."""

    @classmethod
    def read(cls, store: Store) -> Holders:
        """All of the cluster."""
        pods, by_address = {}, defaultdict(list)
        for obj in store.list(KIND).items:
            try:
                pod = Pod.from_object(obj)
            except InvalidObject:
                continue
            pods[pod.key] = pod
            if pod.finished or (obj.get("spec") or {}).get("hostNetwork"):
                continue
            for text in pod.reported:
                try:
                    by_address[parse_address(text)].append(pod)
                except InvalidObject:
                    continue
        return cls(pods, {(family, value): tuple(there) for (family, value), there in by_address.items()})

    def completed(self, plain: ForeignAllocation) -> ForeignAllocation:
        """The allocation with what its pod says beside."""
        pod = self.pods.get(plain.pod)
        if pod is None or (plain.uid and plain.uid != pod.uid):
            return plain
        return replace(
            plain,
            uid=pod.uid,
            node=plain.node or pod.node,
            interface=plain.interface or interface_of(pod, plain.text),
        )


def interface_of(pod: Pod, address: str) -> str:
    """The interface on which Multus says that the pod has an address; "" where it does not."""
    try:
        entries: Any = read_json(
            pod.annotations.get(NETWORK_STATUS) or "[]", longest=_LONGEST, only_showable=False
        )
        for entry in entries:
            if address in entry.get("ips", ()):
                return str(entry.get("interface", ""))
    except (UnreadableText, AttributeError, TypeError):
        return ""
    return ""
