"""What the API accepts: defaults and validation of an object before it is stored.

What must always hold:

* An admitted object parses: a SpiderIPPool that was let in is an `IPPool` to everybody who reads it later.
* A refusal is an `InvalidObject` that names the object, the field's path, the value, the rule and what to
  write instead. Nothing unknown is let in silently: a misspelt field is refused with the nearest known name.
* What the user wrote is not rewritten (`ips` are not merged, host bits of `subnet` stay), so that applying
  the same manifest again changes nothing. Defaults are only added.
* The checks are those of Spiderpool's webhook, so that its manifests pass and its pools can be given back to
  it. One is left out on purpose: pools may have different, overlapping subnets as long as no address is in
  two of them.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from actors.errors import InvalidObject
from actors.resources import (
    coordinator,
    ipam_claim,
    ippool,
    multus_config,
    namespace,
    network_attachment,
    node,
    pod,
    reservedip,
    statefulset,
    workload,
)
from actors.resources import subnet as subnets
from actors.resources.addresses import format_address, parse_address
from actors.resources.fields import Fields, nearest, shown
from actors.resources.intervals import IntervalSet
from actors.resources.ippool import OWNER_APPLICATION, IPPool
from actors.resources.json_text import UnreadableText, showable
from actors.resources.names import (
    LABEL_KEY_RULE,
    LABEL_RULE,
    LABEL_VALUE_RULE,
    SUBDOMAIN_LONGEST,
    SUBDOMAIN_RULE,
    is_label,
    is_label_key,
    is_label_value,
    is_network_name,
    is_subdomain,
)
from actors.resources.pool_status import listed_in
from actors.resources.reservedip import ReservedIP
from actors.resources.space import Space, parse_ranges
from actors.resources.space_rules import (
    check_gateway,
    check_kept,
    check_routes,
    check_space,
    ranges_text,
    unchanged,
)
from actors.resources.subnet import IPPOOL_CIDR, SUBNET_CIDR_LABEL, SpiderSubnet, cidr_label

SPIDERPOOL = "spiderpool.spidernet.io/v2beta1"
FINALIZER = "spiderpool.spidernet.io"
_LONGEST_OWNER = 512

API_VERSIONS = {
    ippool.KIND: SPIDERPOOL,
    reservedip.KIND: SPIDERPOOL,
    subnets.KIND: SPIDERPOOL,
    coordinator.KIND: SPIDERPOOL,
    "SpiderIPBlock": SPIDERPOOL,
    "SpiderEndpoint": SPIDERPOOL,
    pod.KIND: "v1",
    namespace.KIND: "v1",
    node.KIND: "v1",
    **{kind: f"{group}/v1" for kind, group in workload.GROUPS.items()},
    network_attachment.KIND: network_attachment.API_VERSION,
    ipam_claim.KIND: ipam_claim.API_VERSION,
    multus_config.KIND: SPIDERPOOL,
}
_READERS: dict[str, Callable[[Mapping[str, Any]], object]] = {
    **dict.fromkeys(workload.GROUPS, workload.Workload.from_object),
    pod.KIND: pod.Pod.from_object,
    namespace.KIND: namespace.Namespace.from_object,
    node.KIND: node.Node.from_object,
    statefulset.KIND: statefulset.StatefulSet.from_object,
    network_attachment.KIND: network_attachment.admit_network_attachment,
    ipam_claim.KIND: ipam_claim.IPAMClaim.from_object,
}


def admit(
    new: Mapping[str, Any], old: Mapping[str, Any] | None = None, others: Iterable[Mapping[str, Any]] = ()
) -> dict[str, Any]:
    """The object to store: a copy of `new` with defaults. `old` is what it replaces, None to create it;
    `others` are stored objects of the same kind (the object itself may be among them). Raises
    `InvalidObject`."""
    top = _open(new)
    kind = top.text("kind")
    admitted = copy.deepcopy(dict(new))
    if kind == ippool.KIND:
        top.only("apiVersion", "kind", "metadata", "spec", "status")
        _admit_pool(admitted, top, old, others)
    elif kind == reservedip.KIND:
        top.only("apiVersion", "kind", "metadata", "spec", "status")
        _admit_reserved(admitted, top, old)
    elif kind == subnets.KIND:
        top.only("apiVersion", "kind", "metadata", "spec", "status")
        _admit_subnet(admitted, top, old, others)
    elif kind == coordinator.KIND:
        top.only("apiVersion", "kind", "metadata", "spec", "status")
        top.inner("spec").only(*coordinator.SPEC_FIELDS)
        coordinator.SpiderCoordinator.from_object(new)
    elif kind == multus_config.KIND:
        multus_config.admit_multus_config(new, old, others)
    elif kind in _READERS:
        _READERS[kind](new)
    else:
        raise InvalidObject(
            f"{top.subject}: objects of this kind are written by Orbweaver only; read them, and change pools,"
            " pods or annotations instead"
        )
    return admitted


def _open(new: Mapping[str, Any]) -> Fields:
    """The top-level fields of an object whose kind, API version and name are right."""
    top = Fields.of("object", "", new)
    kind, version = top.text("kind"), top.text("apiVersion")
    if kind not in API_VERSIONS:
        raise top.refuse("kind", "which is not a kind that is kept here", nearest(kind, tuple(API_VERSIONS)))
    meta = top.inner("metadata")
    name = meta.text("name")
    top = Fields(f"{kind} {showable(name[:SUBDOMAIN_LONGEST])}" if name else kind, "", new)
    if version != API_VERSIONS[kind]:
        raise top.refuse(
            "apiVersion", f"but {kind} is of {API_VERSIONS[kind]}", f"write {API_VERSIONS[kind]}"
        )
    if not is_subdomain(name):
        raise top.inner("metadata").refuse(
            "name",
            "but must be a DNS subdomain (RFC 1123)",
            "write at most 253 lower-case letters, digits, '-' and '.', with a letter or digit at both ends",
        )
    return top


def _admit_pool(
    admitted: dict[str, Any],
    top: Fields,
    old: Mapping[str, Any] | None,
    others: Iterable[Mapping[str, Any]],
) -> None:
    spec = top.inner("spec")
    spec.only(*ippool.SPEC_FIELDS)
    if old is not None:
        check_kept(spec, old, "ipVersion", "subnet")
    pool = IPPool.from_object(admitted)
    check_space(spec, pool, old)
    _check_affinities(spec, pool, old)
    check_gateway(spec, pool)
    check_routes(spec, pool)
    if pool.pod_affinity is not None and pool.pod_affinity.empty:
        raise spec.refuse(
            "podAffinity", "which matches every pod", "name labels in it, or remove it to match all"
        )
    if old is not None:
        _check_automatic(spec, old)
        _check_in_use(spec, pool, old)
    _check_overlap(spec, pool, pool.available, _others(ippool.KIND, pool.name, others))

    _complete(admitted, spec, pool, IPPOOL_CIDR)
    for key, value in (("default", False), ("disable", False), ("vlan", 0)):
        admitted["spec"].setdefault(key, value)


def _complete(admitted: dict[str, Any], spec: Fields, space: Space, label: str) -> None:
    """Write the family and the label of the CIDR, and put our finalizer on: it holds what is deleted until its last address, or
    its last pool, is back. It is never put back while that is under way."""
    fields = {key: value for key, value in spec.data.items() if value is not None}
    admitted["spec"] = {"ipVersion": space.family, **fields}
    meta = admitted["metadata"]
    meta["labels"] = {**(meta.get("labels") or {}), label: cidr_label(space.subnet)}
    finalizers = list(meta.get("finalizers") or ())
    if not space.terminating and FINALIZER not in finalizers:
        meta["finalizers"] = [*finalizers, FINALIZER]


def _admit_subnet(
    admitted: dict[str, Any],
    top: Fields,
    old: Mapping[str, Any] | None,
    others: Iterable[Mapping[str, Any]],
) -> None:
    spec = top.inner("spec")
    spec.only(*subnets.SPEC_FIELDS)
    if old is not None:
        check_kept(spec, old, "ipVersion", "subnet")
    subnet = SpiderSubnet.from_object(admitted)
    check_space(spec, subnet, old)
    check_gateway(spec, subnet)
    check_routes(spec, subnet)
    if old is not None:
        _check_held(spec, subnet, old)
    _check_overlap(spec, subnet, subnet.available, _others(subnets.KIND, subnet.name, others))
    _complete(admitted, spec, subnet, SUBNET_CIDR_LABEL)


def _check_held(spec: Fields, subnet: SpiderSubnet, old: Mapping[str, Any]) -> None:
    """An address that a pool has must stay in the subnet; what an earlier edit took away is not held against this one."""
    before = SpiderSubnet.from_object(old)
    removed = before.listed.minus(subnet.listed)
    for pool, entry in sorted(before.controlled.items()):
        if lost := entry.ips.intersect(removed):
            raise spec.refuse(
                "ips",
                f"without excludeIPs {shown(spec.data.get('excludeIPs') or [])}, which takes away"
                f" {ranges_text(lost, subnet.family)} while SpiderIPPool {pool} has them",
                "leave them in until the pool is smaller, or gone",
            )


def _check_automatic(spec: Fields, old: Mapping[str, Any]) -> None:
    """The addresses of a pool that follows an application, and which pods may have them, are not for people to edit."""
    labels = (old.get("metadata") or {}).get("labels") or {}
    if OWNER_APPLICATION not in labels:
        return
    for key in ("ips", "excludeIPs", "podAffinity"):
        before = (old.get("spec") or {}).get(key) or None
        if (spec.data.get(key) or None) != before:
            raise spec.refuse(
                key,
                f"but the pool follows application {labels[OWNER_APPLICATION]}",
                "scale the application, or change its annotation ipam.spidernet.io/ippool-ip-number",
            )


def _admit_reserved(admitted: dict[str, Any], top: Fields, old: Mapping[str, Any] | None) -> None:
    spec = top.inner("spec")
    spec.only(*reservedip.SPEC_FIELDS)
    if old is not None:
        check_kept(spec, old, "ipVersion")
    reserved = ReservedIP.from_object(admitted)
    if not reserved.family:
        raise spec.refuse(
            "ips", "but must name at least one address", "write addresses or ranges of one family"
        )
    fields = {key: value for key, value in spec.data.items() if value is not None}
    admitted["spec"] = {"ipVersion": reserved.family, **fields}


def _check_affinities(spec: Fields, pool: IPPool, old: Mapping[str, Any] | None) -> None:
    """Refuse what no object of Kubernetes can match, because nobody means it."""
    for key, selector in (
        ("podAffinity", pool.pod_affinity),
        ("namespaceAffinity", pool.namespace_affinity),
        ("nodeAffinity", pool.node_affinity),
    ):
        if selector is not None and not unchanged(spec, old, key):
            for place, text in selector.label_keys():
                _check_name(spec, f"{key}.{place}", text, is_label_key, "the key of a label", LABEL_KEY_RULE)
            for place, text in selector.label_values():
                _check_name(
                    spec, f"{key}.{place}", text, is_label_value, "the value of a label", LABEL_VALUE_RULE
                )
    for key, names, accepts, what, rule in (
        ("nodeName", pool.node_names, is_subdomain, "the name of a node", SUBDOMAIN_RULE),
        ("namespaceName", pool.namespace_names, is_label, "the name of a namespace", LABEL_RULE),
        (
            "multusName",
            pool.multus_names,
            is_network_name,
            "the name of a network attachment",
            f"namespace/name, or a name alone: {SUBDOMAIN_RULE}",
        ),
    ):
        if not unchanged(spec, old, key):
            for index, text in enumerate(names):
                _check_name(spec, f"{key}[{index}]", text, accepts, what, rule)


def _check_name(
    spec: Fields, place: str, text: str, accepts: Callable[[str], bool], what: str, rule: str
) -> None:
    if not accepts(text):
        raise InvalidObject(
            f"{spec.subject}: {spec.at(place)} is {shown(text)}, which cannot be {what}; write {rule}"
        )


def _check_in_use(spec: Fields, pool: IPPool, old: Mapping[str, Any]) -> None:
    """An address in use must stay in the pool. It is read from the view that `status` has, as Spiderpool
    does."""
    status = Fields.of(spec.subject, "status", old.get("status") or {})
    text = status.text("allocatedIPs")
    try:
        allocated = listed_in(text)
    except UnreadableText as cause:
        raise status.refuse(
            "allocatedIPs", f"which cannot be read: {cause}", "remove the field, it is written anew"
        ) from cause
    for address, holder in Fields.of(spec.subject, status.at("allocatedIPs"), allocated).data.items():
        family, value = parse_address(address)
        if family == pool.family and value not in pool.listed:
            owner = holder.get("pod", "unknown") if isinstance(holder, Mapping) else "unknown"
            owner = owner if isinstance(owner, str) and len(owner) < _LONGEST_OWNER else shown(owner)
            raise spec.refuse(
                "ips",
                f"without excludeIPs {shown(spec.data.get('excludeIPs') or [])}, which takes away {address}"
                f" while pod {owner} uses it",
                "leave it in until the pod is gone",
            )


def _others(
    kind: str, name: str, objects: Iterable[Mapping[str, Any]]
) -> Iterator[tuple[int, str, IntervalSet]]:
    """Family, title and addresses of the stored objects of a kind but for the one of this name."""
    for obj in objects:
        if obj.get("kind") != kind or (obj.get("metadata") or {}).get("name") == name:
            continue
        try:
            read = IPPool.from_object if kind == ippool.KIND else SpiderSubnet.from_object
            other: IPPool | SpiderSubnet = read(obj)
        except InvalidObject:
            # A stored one that does not parse gives out no address, so it overlaps with nothing; and it
            # must not keep others from being created or mended.
            continue
        yield other.family, f"{kind} {other.name}", other.available


def _check_overlap(
    spec: Fields,
    space: IPPool | SpiderSubnet,
    available: IntervalSet,
    others: Iterable[tuple[int, str, IntervalSet]],
) -> None:
    what = "pool" if isinstance(space, IPPool) else "subnet"
    for family, title, theirs in others:
        shared = available.intersect(theirs) if family == space.family else IntervalSet()
        for low, _ in shared:
            index = _index(spec, space, low)
            raise InvalidObject(
                f"{spec.subject}: {spec.at('ips')}[{index}] is {shown(spec.texts('ips')[index])}, which"
                f" overlaps with {title} in {ranges_text(shared, space.family)}; an address may"
                f" be in one {what} only, so take it out of {spec.at('ips')} or add it to"
                f" {spec.at('excludeIPs')} of one of them"
            )


def _index(spec: Fields, pool: IPPool | SpiderSubnet, value: int) -> int:
    """Which entry of `spec.ips` has the address."""
    for index, text in enumerate(spec.texts("ips")):
        if value in parse_ranges(Fields(spec.subject, spec.path, {"ips": [text]}), "ips", pool.subnet):
            return index
    raise AssertionError(f"{format_address(pool.family, value)} is in the pool but in no range of it")
