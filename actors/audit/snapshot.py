"""Everything that an audit reads, as the store gave it.

What must always hold: blocks are read first. A record is written after the pod it names was made, so a pod that is
not in a later list is gone; what else changed between the lists shows as different at the second look.
"""

from __future__ import annotations

from dataclasses import dataclass

from actors.errors import NoSuchResource
from actors.resources import ipam_claim, subnet
from actors.resources.virtualmachine import INSTANCE, MACHINE
from actors.store.contract import Object, Store


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All objects that the audit compares, as the store had them, read one kind after the other."""

    blocks: tuple[Object, ...] = ()
    """SpiderIPBlocks, the truth."""
    endpoints: tuple[Object, ...] = ()
    """SpiderEndpoints, what pods are shown to have."""
    pools: tuple[Object, ...] = ()
    """SpiderIPPools."""
    reserved: tuple[Object, ...] = ()
    """SpiderReservedIPs."""
    subnets: tuple[Object, ...] = ()
    """SpiderSubnets."""
    statefulsets: tuple[Object, ...] = ()
    """Owners that may keep addresses."""
    machines: tuple[Object, ...] = ()
    """VirtualMachines, likewise."""
    instances: tuple[Object, ...] = ()
    """VirtualMachineInstances, likewise."""
    claims: tuple[Object, ...] = ()
    """IPAMClaims, likewise."""
    nodes: tuple[Object, ...] = ()
    """For whether a pod's sandbox may still run."""
    namespaces: tuple[Object, ...] = ()
    """For what is gone with its namespace."""
    pods: tuple[Object, ...] | None = None
    """The holders; None where pods have no objects (a host without Kubernetes), so that nothing can be said of them."""

    @classmethod
    def read(cls, store: Store, *, pods: bool) -> Snapshot:
        """Raises `StoreUnavailable`."""
        return cls(
            blocks=store.list("SpiderIPBlock").items,
            endpoints=store.list("SpiderEndpoint").items,
            pools=store.list("SpiderIPPool").items,
            reserved=store.list("SpiderReservedIP").items,
            subnets=_served(store, subnet.KIND),
            statefulsets=store.list("StatefulSet").items,
            machines=_served(store, MACHINE),
            instances=_served(store, INSTANCE),
            claims=_served(store, ipam_claim.KIND),
            nodes=store.list("Node").items,
            namespaces=store.list("Namespace").items,
            pods=store.list("Pod").items if pods else None,
        )


def _served(store: Store, kind: str) -> tuple[Object, ...]:
    """All objects of a kind that need not be installed."""
    try:
        return store.list(kind).items
    except NoSuchResource:
        return ()
