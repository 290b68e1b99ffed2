"""The SpiderIPPool objects of a subnet: what an automatic pool is made of, and what adoption adds to a pool made by hand.

What must always hold: whatever else stands on an object stays: annotations, labels and fields that others wrote. Doing it
twice changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from actors.resources.admission import SPIDERPOOL, admit
from actors.resources.inheritance import INHERITED, inherit
from actors.resources.intervals import IntervalSet
from actors.resources.ippool import KIND
from actors.resources.names import label_value
from actors.resources.subnet import IP_VERSION, IPPOOL_CIDR, OWNER_SUBNET, SpiderSubnet, cidr_label
from actors.resources.subnet import KIND as SUBNET
from actors.subnets.messages import AutoPool


def automatic_pool(
    current: Mapping[str, Any] | None,
    wanted: AutoPool | None,
    subnet: SpiderSubnet,
    subnet_object: Mapping[str, Any],
    ips: IntervalSet,
) -> dict[str, Any]:
    """An application's pool with these addresses, in place of `current`, or anew. `wanted`: how the application wants it;
    None to leave that as it is."""
    obj = dict(current or {"apiVersion": SPIDERPOOL, "kind": KIND, "metadata": {}, "spec": {}})
    metadata, spec = dict(obj["metadata"]), dict(obj["spec"])
    spec = {"ipVersion": subnet.family, "subnet": subnet_object["spec"]["subnet"], **spec}
    spec["ips"] = list(ips.ranges_text(subnet.family))
    if wanted is not None:
        metadata["name"] = wanted.name
        metadata["labels"] = {**(metadata.get("labels") or {}), **dict(wanted.labels)}
        metadata["annotations"] = {**(metadata.get("annotations") or {}), **dict(wanted.annotations)}
        spec["podAffinity"] = {"matchLabels": dict(wanted.affinity)}
    return _of_subnet({**obj, "metadata": metadata, "spec": spec}, subnet, subnet_object)


def adopted_pool(
    current: Mapping[str, Any], subnet: SpiderSubnet, subnet_object: Mapping[str, Any]
) -> dict[str, Any]:
    """A pool made by hand, as one of the subnet's."""
    return _of_subnet(
        {**current, "metadata": dict(current["metadata"]), "spec": dict(current["spec"])},
        subnet,
        subnet_object,
    )


def _of_subnet(obj: dict[str, Any], subnet: SpiderSubnet, subnet_object: Mapping[str, Any]) -> dict[str, Any]:
    """With what every pool of a subnet has; `obj` and its metadata are the caller's own."""
    metadata = obj["metadata"]
    obj["spec"], note = inherit(obj["spec"], metadata, subnet_object["spec"])
    metadata["labels"] = {
        **(metadata.get("labels") or {}),
        OWNER_SUBNET: label_value(subnet.name),
        IP_VERSION: f"IPv{subnet.family}",
        IPPOOL_CIDR: cidr_label(subnet.subnet),
    }
    metadata["annotations"] = {**(metadata.get("annotations") or {}), INHERITED: note}
    metadata["ownerReferences"] = _owners(metadata.get("ownerReferences") or (), subnet)
    return admit(obj)


def _owners(before: Any, subnet: SpiderSubnet) -> list[dict[str, Any]]:
    """The subnet as the controller; other owners stay, but none as the controller."""
    others = [
        {key: value for key, value in owner.items() if key != "controller"}
        for owner in before
        if not (owner.get("kind") == SUBNET and owner.get("apiVersion") == SPIDERPOOL)
    ]
    mine = {
        "apiVersion": SPIDERPOOL,
        "kind": SUBNET,
        "name": subnet.name,
        "uid": subnet.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }
    return [*others, mine]
