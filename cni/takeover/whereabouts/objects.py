"""Whereabouts' objects in the cluster: IPPool, OverlappingRangeIPReservation and NodeSlicePool.

What must always hold: an IPPool is Whereabouts' own, or frozen. Frozen, its range is none, so that Whereabouts can neither
give anything out of it nor take anything back: each of its processes reads the range before it writes, and writes by
compare-and-swap, so the one that froze the IPPool has seen everything that was ever given out of it. The range stands in
an annotation until the way back.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from actors.errors import InvalidObject
from actors.resources.addresses import Subnet, parse_address, parse_cidr
from actors.resources.fields import Fields
from actors.resources.metadata import open_object
from actors.store.contract import Object
from actors.store.kinds import WHEREABOUTS

IP_POOL = f"IPPool.{WHEREABOUTS}"
RESERVATION = f"OverlappingRangeIPReservation.{WHEREABOUTS}"
SLICE_POOL = f"NodeSlicePool.{WHEREABOUTS}"
API_VERSION = f"{WHEREABOUTS}/v1alpha1"

RANGE = "ipam.spidernet.io/taken-over-range"
"""Annotation of a frozen IPPool: the range that it had."""
_NO_RANGE = "taken over by Orbweaver"


@dataclass(frozen=True, slots=True)
class GivenAddress:
    """One address of an IPPool."""

    value: int
    """The address as a number."""
    container: str
    pod: str
    """`namespace/name`."""
    interface: str
    """Empty where an old version wrote it."""


@dataclass(frozen=True, slots=True)
class ForeignPool:
    """An IPPool of Whereabouts'."""

    name: str
    """Of the object."""
    namespace: str
    """Where Whereabouts keeps it."""
    subnet: Subnet
    """Its range."""
    first: int
    """The address that offsets are counted from."""
    entries: tuple[GivenAddress, ...]
    """Who has which address."""
    is_frozen: bool
    """Whether Orbweaver has its place."""
    obj: Object
    """As it was read."""

    @property
    def title(self) -> str:
        """For people."""
        return f"IPPool {self.namespace}/{self.name}"


def ip_pool_of(obj: Object) -> ForeignPool:
    """Parse an IPPool. Raises `InvalidObject`: what cannot be read may be an address in use."""
    meta, top = open_object({**obj, "kind": "IPPool"}, "IPPool")
    spec = top.inner("spec")
    former = meta.annotations.get(RANGE, "")
    text = former or spec.text("range")
    subnet = parse_cidr(text)
    _, first = parse_address(text.partition("/")[0])
    allocations = spec.inner("allocations")
    entries = []
    for offset in allocations.data:
        entry = allocations.inner(offset)
        if not (offset.isascii() and offset.isdecimal()) or not subnet.contains(first + int(offset)):
            raise allocations.error(
                f"IPPool {meta.namespace}/{meta.name}: spec.allocations names offset {offset[:40]!r}, which is no address of "
                f"{subnet}; take it out"
            )
        entries.append(
            GivenAddress(first + int(offset), entry.text("id"), entry.text("podref"), entry.text("ifname"))
        )
    return ForeignPool(
        meta.name,
        meta.namespace,
        subnet,
        first,
        tuple(sorted(entries, key=lambda entry: entry.value)),
        bool(former),
        obj,
    )


def frozen(pool: ForeignPool, *, empty: bool) -> Object:
    """The IPPool out of which Whereabouts gives nothing, with what it gave, or `empty`."""
    metadata = pool.obj["metadata"]
    range_text = pool.obj["spec"]["range"] if not pool.is_frozen else metadata["annotations"][RANGE]
    annotations = {**(metadata.get("annotations") or {}), RANGE: range_text}
    allocations = {} if empty else pool.obj["spec"].get("allocations") or {}
    return {
        **pool.obj,
        "kind": IP_POOL,
        "metadata": {**metadata, "annotations": annotations},
        "spec": {**pool.obj["spec"], "range": _NO_RANGE, "allocations": allocations},
    }


def frozen_new(name: str, namespace: str, subnet: Subnet) -> Object:
    """The IPPool of a range out of which nothing was ever given, frozen."""
    metadata = {"name": name, "namespace": namespace, "annotations": {RANGE: str(subnet)}}
    spec = {"range": _NO_RANGE, "allocations": {}}
    return {"apiVersion": API_VERSION, "kind": IP_POOL, "metadata": metadata, "spec": spec}


def given_back(pool: ForeignPool, entries: Iterable[GivenAddress]) -> Object:
    """The IPPool as Whereabouts' own again, with these entries."""
    metadata = pool.obj["metadata"]
    annotations = dict(metadata.get("annotations") or {})
    range_text = annotations.pop(RANGE, pool.obj["spec"]["range"])
    allocations = {
        str(entry.value - pool.first): {
            "id": entry.container,
            "podref": entry.pod,
            **({"ifname": entry.interface} if entry.interface else {}),
        }
        for entry in entries
    }
    return {
        **pool.obj,
        "kind": IP_POOL,
        "metadata": {**metadata, "annotations": annotations},
        "spec": {**pool.obj["spec"], "range": range_text, "allocations": allocations},
    }


def reservation(name: str, namespace: str, entry: GivenAddress) -> Object:
    """The reservation of an entry's address."""
    spec = {"podref": entry.pod, **({"ifname": entry.interface} if entry.interface else {})}
    return {
        "apiVersion": API_VERSION,
        "kind": RESERVATION,
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    }


def slices_of(obj: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Node and range of each slice that is a node's. Raises `InvalidObject`."""
    top = Fields.of(f"NodeSlicePool {obj['metadata']['name']}", "", obj)
    items = top.inner("status").items("allocations")
    slices = tuple((item.text("nodeName"), item.text("sliceRange")) for item in items)
    for _, text in slices:
        parse_cidr(text)
    return tuple((node, text) for node, text in slices if node)


def unreadable(title: str, error: InvalidObject) -> str:
    """What is said of an object that cannot be read."""
    return (
        f"{title} cannot be read ({error.message}), so it is not known which addresses are in use; repair it, or delete it if "
        "no pod uses its range"
    )
