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
import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from actors.errors import InvalidObject
from actors.resources import (
    coordinator,
    ippool,
    namespace,
    network_attachment,
    node,
    pod,
    reservedip,
    statefulset,
)
from actors.resources.addresses import format_address, format_range, parse_address, parse_cidr, parse_range
from actors.resources.fields import Fields, nearest, shown
from actors.resources.intervals import IntervalSet
from actors.resources.ippool import IPPool, is_router_of
from actors.resources.names import (
    LABEL_KEY_RULE,
    LABEL_RULE,
    LABEL_VALUE_RULE,
    SUBDOMAIN_RULE,
    is_label,
    is_label_key,
    is_label_value,
    is_network_name,
    is_subdomain,
)
from actors.resources.reservedip import ReservedIP
from actors.resources.withheld import special_block

SPIDERPOOL = "spiderpool.spidernet.io/v2beta1"
FINALIZER = "spiderpool.spidernet.io"
CIDR_LABEL = "ipam.spidernet.io/ippool-cidr"
"""Spiderpool finds the pools of a subnet by this label."""

API_VERSIONS = {
    ippool.KIND: SPIDERPOOL,
    reservedip.KIND: SPIDERPOOL,
    coordinator.KIND: SPIDERPOOL,
    "SpiderIPBlock": SPIDERPOOL,
    "SpiderEndpoint": SPIDERPOOL,
    pod.KIND: "v1",
    namespace.KIND: "v1",
    node.KIND: "v1",
    statefulset.KIND: "apps/v1",
    network_attachment.KIND: network_attachment.API_VERSION,
}
_READERS: dict[str, Callable[[Mapping[str, Any]], object]] = {
    pod.KIND: pod.Pod.from_object,
    namespace.KIND: namespace.Namespace.from_object,
    node.KIND: node.Node.from_object,
    statefulset.KIND: statefulset.StatefulSet.from_object,
    network_attachment.KIND: network_attachment.admit_network_attachment,
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
    elif kind == coordinator.KIND:
        top.only("apiVersion", "kind", "metadata", "spec", "status")
        top.inner("spec").only(*coordinator.SPEC_FIELDS)
        coordinator.SpiderCoordinator.from_object(new)
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
    top = Fields(f"{kind} {name}" if name else kind, "", new)
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
        _keep(spec, old, "ipVersion", "subnet")
    pool = IPPool.from_object(admitted)
    _check_space(spec, pool, old)
    _check_affinities(spec, pool, old)
    _check_gateway(spec, pool)
    _check_routes(spec, pool)
    if pool.pod_affinity is not None and pool.pod_affinity.empty:
        raise spec.refuse(
            "podAffinity", "which matches every pod", "name labels in it, or remove it to match all"
        )
    if old is not None:
        _check_in_use(spec, pool, old)
    _check_overlap(spec, pool, others)

    fields = {key: value for key, value in spec.data.items() if value is not None}
    admitted["spec"] = {"ipVersion": pool.family, **fields}
    for key, value in (("default", False), ("disable", False), ("vlan", 0)):
        admitted["spec"].setdefault(key, value)
    meta = admitted["metadata"]
    meta["labels"] = {**(meta.get("labels") or {}), CIDR_LABEL: re.sub(r"[.:/]", "-", str(pool.subnet))}
    if not pool.terminating and FINALIZER not in (finalizers := list(meta.get("finalizers") or ())):
        # It holds a deleted pool until its last address is released; never put back while that is under way.
        meta["finalizers"] = [*finalizers, FINALIZER]


def _admit_reserved(admitted: dict[str, Any], top: Fields, old: Mapping[str, Any] | None) -> None:
    spec = top.inner("spec")
    spec.only(*reservedip.SPEC_FIELDS)
    if old is not None:
        _keep(spec, old, "ipVersion")
    reserved = ReservedIP.from_object(admitted)
    if not reserved.family:
        raise spec.refuse(
            "ips", "but must name at least one address", "write addresses or ranges of one family"
        )
    fields = {key: value for key, value in spec.data.items() if value is not None}
    admitted["spec"] = {"ipVersion": reserved.family, **fields}


def _keep(spec: Fields, old: Mapping[str, Any], *keys: str) -> None:
    """Refuse to change these fields. A field that is left out keeps its meaning (`ipVersion` is inferred)."""
    before = Fields.of(spec.subject, "spec", old.get("spec") or {})
    for key in keys:
        was, now = before.data.get(key), spec.data.get(key)
        if was is None or now is None or was == now or (key == "subnet" and _same_subnet(was, now)):
            continue
        raise spec.refuse(
            key, f"but it was {shown(was)} and cannot change", "create another object with the new value"
        )


def _same_subnet(was: Any, now: Any) -> bool:
    return isinstance(was, str) and isinstance(now, str) and parse_cidr(was) == parse_cidr(now)


def _check_space(spec: Fields, pool: IPPool, old: Mapping[str, Any] | None) -> None:
    """Refuse a pool where no host can be. One that was stored before may still be changed otherwise."""
    if old is None and (block := special_block(pool.family, pool.subnet.first, pool.subnet.last)):
        raise spec.refuse(
            "subnet", f"which is inside {block}, where no host can be", "write the subnet of your network"
        )
    if _unchanged(spec, old, "ips"):
        return
    for index, text in enumerate(spec.texts("ips")):
        low, high = parse_range(text, pool.family)
        if block := special_block(pool.family, low, high):
            raise InvalidObject(
                f"{spec.subject}: {spec.at('ips')}[{index}] is {shown(text)}, which is inside {block}, where no host can be;"
                " take it out"
            )


def _unchanged(spec: Fields, old: Mapping[str, Any] | None, key: str) -> bool:
    return old is not None and (old.get("spec") or {}).get(key) == spec.data.get(key)


def _check_affinities(spec: Fields, pool: IPPool, old: Mapping[str, Any] | None) -> None:
    """Refuse what no object of Kubernetes can match, because nobody means it."""
    for key, selector in (
        ("podAffinity", pool.pod_affinity),
        ("namespaceAffinity", pool.namespace_affinity),
        ("nodeAffinity", pool.node_affinity),
    ):
        if selector is not None and not _unchanged(spec, old, key):
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
        if not _unchanged(spec, old, key):
            for index, text in enumerate(names):
                _check_name(spec, f"{key}[{index}]", text, accepts, what, rule)


def _check_name(
    spec: Fields, place: str, text: str, accepts: Callable[[str], bool], what: str, rule: str
) -> None:
    if not accepts(text):
        raise InvalidObject(
            f"{spec.subject}: {spec.at(place)} is {shown(text)}, which cannot be {what}; write {rule}"
        )


def _check_gateway(spec: Fields, pool: IPPool) -> None:
    if pool.gateway is not None and pool.gateway in pool.ips.minus(pool.exclude_ips):
        raise spec.refuse(
            "gateway",
            f"which is also one of the addresses to give out ({_ranges(pool.ips, pool.family)})",
            f"add it to {spec.at('excludeIPs')} or take it out of {spec.at('ips')}",
        )


def _check_routes(spec: Fields, pool: IPPool) -> None:
    seen = set()
    for item, route in zip(spec.items("routes"), pool.routes, strict=True):
        if route.destination.prefix == 0:
            raise item.refuse("dst", "which is the default route", f"set {spec.at('gateway')} for it")
        if route.destination in seen:
            raise item.refuse("dst", "which an earlier route has too", "keep one of them")
        seen.add(route.destination)
        if not is_router_of(pool.subnet, route.gateway):
            raise item.refuse(
                "gw",
                f"which is not inside {spec.at('subnet')} {pool.subnet}",
                "a pod reaches only routers in its own subnet; write one of these",
            )


def _check_in_use(spec: Fields, pool: IPPool, old: Mapping[str, Any]) -> None:
    """An address in use must stay in the pool. It is read from the view that `status` has, as Spiderpool
    does."""
    status = Fields.of(spec.subject, "status", old.get("status") or {})
    text = status.text("allocatedIPs")
    try:
        allocated = json.loads(text) if text else {}
    except ValueError as cause:
        raise status.refuse(
            "allocatedIPs", "which is not JSON", "remove the field, it is written anew"
        ) from cause
    listed = pool.ips.minus(pool.exclude_ips)
    for address, holder in Fields.of(spec.subject, status.at("allocatedIPs"), allocated).data.items():
        family, value = parse_address(address)
        if family == pool.family and value not in listed:
            owner = holder.get("pod", "unknown") if isinstance(holder, Mapping) else "unknown"
            raise spec.refuse(
                "ips",
                f"without excludeIPs {shown(spec.data.get('excludeIPs') or [])}, which takes away {address}"
                f" while pod {owner} uses it",
                "leave it in until the pod is gone",
            )


def _check_overlap(spec: Fields, pool: IPPool, others: Iterable[Mapping[str, Any]]) -> None:
    for obj in others:
        if obj.get("kind") != ippool.KIND or (obj.get("metadata") or {}).get("name") == pool.name:
            continue
        try:
            other = IPPool.from_object(obj)
        except InvalidObject:
            # A stored pool that does not parse gives out no address, so it overlaps with nothing; and it
            # must not keep others from being created or mended.
            continue
        shared = pool.available.intersect(other.available) if other.family == pool.family else IntervalSet()
        for low, _ in shared:
            index = _index(spec, pool, low)
            raise InvalidObject(
                f"{spec.subject}: {spec.at('ips')}[{index}] is {shown(spec.texts('ips')[index])}, which"
                f" overlaps with SpiderIPPool {other.name} in {_ranges(shared, pool.family)}; an address may"
                f" be in one pool only, so take it out of {spec.at('ips')} or add it to"
                f" {spec.at('excludeIPs')} of one of them"
            )


def _index(spec: Fields, pool: IPPool, value: int) -> int:
    """Which entry of `spec.ips` has the address."""
    for index, text in enumerate(spec.texts("ips")):
        if value in ippool.parse_ranges(Fields(spec.subject, spec.path, {"ips": [text]}), "ips", pool.subnet):
            return index
    raise AssertionError(f"{format_address(pool.family, value)} is in the pool but in no range of it")


def _ranges(ips: IntervalSet, family: int) -> str:
    found = [format_range(family, low, high) for low, high in ips]
    return ", ".join(found[:5]) + (f" and {len(found) - 5} more ranges" if len(found) > 5 else "")
