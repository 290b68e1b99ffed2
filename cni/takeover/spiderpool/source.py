"""`--from spiderpool`: what a running Spiderpool holds, read from the cluster's objects, which are ours as well."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace

from actors.errors import InvalidObject, InvalidRequest
from actors.resources.ippool import IPPool
from actors.resources.pool_status import allocations_in
from actors.resources.spider_endpoint import interface_of, node_of, pod_of
from actors.store.contract import Object, Store
from cni.takeover.reading import ForeignAllocation, Reading, Tell


def add_options(_parser: argparse.ArgumentParser) -> None:
    """Add the options that it alone has."""


def open_source(_chosen: argparse.Namespace, store: Store) -> Spiderpool:
    """The Spiderpool of the cluster."""
    return Spiderpool(store)


@dataclass(frozen=True, slots=True)
class Spiderpool:
    """The Spiderpool of one cluster."""

    store: Store

    def read(self) -> Reading:
        """Its pools, and who has which address."""
        pools = self.store.list("SpiderIPPool").items
        endpoints = {pod_of(endpoint): endpoint for endpoint in self.store.list("SpiderEndpoint").items}
        allocations: list[ForeignAllocation] = []
        problems: list[str] = []
        for pool in pools:
            try:
                allocations += _allocations(pool, endpoints)
            except InvalidObject as error:
                problems.append(str(error))
        return Reading("Spiderpool", pools, tuple(allocations), problems=tuple(problems))

    def take(self, _reading: Reading, _tell: Tell) -> None:
        """Put Orbweaver in its place."""
        raise InvalidRequest("only the dry run is there yet")

    def give_back(self, _tell: Tell) -> None:
        """Put it back."""
        raise InvalidRequest("only the dry run is there yet")


def _allocations(obj: Object, endpoints: dict[str, Object]) -> list[ForeignAllocation]:
    """What one pool's status says, and the SpiderEndpoints of the pods that it names."""
    pool = IPPool.from_object(obj)
    allocations = []
    for value, (pod, uid) in sorted(allocations_in(pool, obj.get("status") or {}).items()):
        plain = ForeignAllocation(
            pool.family, value, pool.name, f"SpiderIPPool {pool.name}, status.allocatedIPs", pod, uid
        )
        allocations.append(_detailed(plain, endpoints.get(pod, {})))
    return allocations


def _detailed(plain: ForeignAllocation, endpoint: Object) -> ForeignAllocation:
    """With what the pod's SpiderEndpoint says beside; one that is not as it should be says nothing."""
    try:
        return replace(
            plain, interface=interface_of(endpoint, plain.family, plain.text), node=node_of(endpoint)
        )
    except (AttributeError, TypeError):
        return plain
