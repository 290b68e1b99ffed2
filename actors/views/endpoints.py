"""SpiderEndpoint objects: what is recorded for a pod, in Spiderpool's form.

What must always hold: the object says what is recorded and nothing else; a pod for which nothing is recorded has none.
It takes as few requests as can be: what was written last is remembered, and read only where that proves wrong. An agent
writes only objects of its own node's pods, as the API server demands (`deploy/admission/agent-endpoints.yaml`): one that
names another node it leaves to the leader. When they are written, `views.py` decides.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from actors.errors import Conflict, NotFound
from actors.resources.addresses import format_address
from actors.resources.blocks.allocation import Allocation
from actors.resources.ippool import IPPool
from actors.resources.spider_endpoint import POD, endpoint_name, node_of, pools_of
from actors.store.caches.catalog import Catalog
from actors.store.contract import Object, Store
from actors.store.kinds import SPIDERPOOL

log = logging.getLogger("orbweaver.views")


@dataclass(slots=True)
class EndpointViews:
    """Writes SpiderEndpoints."""

    store: Store
    """Where they are written."""
    catalog: Catalog
    """Has the pods and pools that they show."""
    node: str | None = None
    """An agent's, which writes those of its own pods alone; None for a leader."""
    written: dict[str, Object] = field(default_factory=dict)
    """The objects as this process left them, by pod."""
    rewritten: set[str] = field(default_factory=set)
    """The pods whose object had to be written, until somebody takes them from here."""
    left: set[str] = field(default_factory=set)
    """Those of which the object is the leader's to write, likewise."""

    def write(self, pod: str, held: Sequence[Allocation]) -> set[str]:
        """Write one view with as few requests as can be; returns the pools that the view named before."""
        # Taken out until it is known again: if the answer is lost, what was written last is no longer known.
        before = self.written.pop(pod, None)
        try:
            after = self._replace(pod, before, held)
        except (Conflict, NotFound):
            # It is not as this process left it, or was there before: read it, and try once more.
            before = self._find(pod)
            after = self._replace(pod, before, held)
        if after is not None:
            self.written[pod] = after
        return pools_of(before) if before is not None else set()

    def _replace(self, pod: str, before: Object | None, held: Sequence[Allocation]) -> Object | None:
        """Make the view say what is recorded; `before` is the object as it is believed to be."""
        if not held and before is None:
            before = self._find(pod)
        if before is not None and not self._may_write(node_of(before)):
            self.left.add(pod)  # it came from another node
            return None
        if not held:
            if before is not None:
                self.rewritten.add(pod)
                self._remove(before)
            return None
        status = endpoint_status(pod, held, self.catalog.pools().pools)
        if before is None and not self._may_write(status["current"]["node"]):
            return None  # it went to another node, whose agent writes it
        if before is None:
            namespace, _, name = pod.partition("/")
            metadata: dict[str, Any] = {"name": endpoint_name(name), "namespace": namespace}
            if metadata["name"] != name:
                metadata["annotations"] = {POD: pod}
            body = {
                "apiVersion": SPIDERPOOL,
                "kind": "SpiderEndpoint",
                "metadata": metadata,
                "status": status,
            }
            self.rewritten.add(pod)
            return self.store.create(body)
        if before.get("status") == status:
            return before
        self.rewritten.add(pod)
        return self.store.update({**before, "status": status})

    def _may_write(self, node: str) -> bool:
        return self.node is None or node in ("", self.node)

    def _find(self, pod: str) -> Object | None:
        namespace, _, name = pod.partition("/")
        try:
            return self.store.get("SpiderEndpoint", endpoint_name(name), namespace)
        except NotFound:
            return None

    def _remove(self, endpoint: Object) -> None:
        metadata = endpoint["metadata"]
        if metadata.get("finalizers"):
            # Spiderpool puts one on; it goes with the last address.
            endpoint = self.store.update({**endpoint, "metadata": {**metadata, "finalizers": []}})
        try:
            self.store.delete("SpiderEndpoint", metadata["name"], metadata["namespace"], uid=metadata["uid"])
        except NotFound:
            log.debug("a SpiderEndpoint went by itself", extra={"pod": metadata["name"]})


def endpoint_status(pod: str, held: Sequence[Allocation], pools: Mapping[str, IPPool]) -> dict[str, Any]:
    """Spiderpool's form: one entry an interface, both families in it. A pod's earlier sandbox, whose DEL is still to
    come, is not shown beside the current one."""
    first = max(
        held, key=lambda allocation: (bool(allocation.record.container), allocation.record.since)
    ).record
    entries: dict[str, dict[str, Any]] = {}
    for allocation in held:
        record, family = allocation.record, allocation.family
        if (record.container, record.uid) != (first.container, first.uid):
            continue
        pool = pools.get(record.pool)
        entry = entries.setdefault(record.interface, {"interface": record.interface, "vlan": 0})
        bits = pool.subnet.prefix if pool is not None else {4: 32, 6: 128}[family]
        entry[f"ipv{family}"] = f"{format_address(family, allocation.value)}/{bits}"
        entry[f"ipv{family}Pool"] = record.pool
        if pool is not None:
            entry["vlan"] = pool.vlan or entry["vlan"]  # the pool of the other family may name none
            if pool.gateway is not None:
                entry[f"ipv{family}Gateway"] = format_address(family, pool.gateway)
    kind, _, owner = first.owner.partition("/")
    kind, _, _ = kind.partition(".")  # a third party's is recorded with its API group
    return {
        "current": {
            "uid": first.uid,
            "node": first.node,
            "ips": [entries[name] for name in sorted(entries)],
        },
        "ownerControllerType": kind or "Pod",
        "ownerControllerName": owner or pod.partition("/")[2],
    }
