"""Every pod's SpiderEndpoint says what is recorded for it, and there is none for a pod without a record."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from actors.audit.finding import AuditRule, Finding, WriteEndpoint
from actors.resources.addresses import format_address
from actors.resources.blocks.allocation import Allocation
from actors.resources.spider_endpoint import pod_of
from actors.store.contract import Object

Interfaces = Mapping[str, Mapping[str, str]]
"""Interface to what is told of it: addresses and pools, by the field's name."""


def endpoints(
    held: Iterable[Allocation], objects: Iterable[Object], unjudged: Collection[str] = ()
) -> Iterator[Finding]:
    """Compare both ways. One that tells of an address whose record cannot be judged (`unjudged`) may be all that says who
    has it."""
    by_pod: dict[str, list[Allocation]] = defaultdict(list)
    for allocation in held:
        by_pod[allocation.record.holder].append(allocation)
    for obj in objects:
        pod = pod_of(obj)
        version = str(obj["metadata"].get("resourceVersion", ""))
        several = by_pod.pop(pod, [])
        if unjudged and not _shown(obj).isdisjoint(unjudged):
            continue
        why = _difference(several, obj) if several else "nothing is recorded for the pod"
        if why is not None:
            yield Finding(AuditRule.ENDPOINT, pod, why, version, WriteEndpoint(pod))
    for pod, several in by_pod.items():
        texts = ", ".join(format_address(allocation.family, allocation.value) for allocation in several)
        identity = " ".join(
            sorted(f"{allocation.record.container} {allocation.record.uid}" for allocation in several)
        )
        yield Finding(
            AuditRule.ENDPOINT, pod, f"it is missing; recorded is {texts}", identity, WriteEndpoint(pod)
        )


def _shown(obj: Object) -> set[str]:
    current = (obj.get("status") or {}).get("current") or {}
    return {text for fields in _told(current).values() for text in fields.values()}


def _difference(several: Sequence[Allocation], obj: Object) -> str | None:
    """Why the object does not show the pod's newest sandbox. (An earlier one, whose DEL is still to come, is not shown;
    two that began in one second are as new as each other.)"""
    sandboxes: dict[tuple[str, str], list[Allocation]] = defaultdict(list)
    for allocation in several:
        sandboxes[allocation.record.container, allocation.record.uid].append(allocation)
    age = {
        key: max((bool(allocation.record.container), allocation.record.since) for allocation in of_sandbox)
        for key, of_sandbox in sandboxes.items()
    }
    newest = [of_sandbox for key, of_sandbox in sandboxes.items() if age[key] == max(age.values())]
    current = (obj.get("status") or {}).get("current") or {}
    shown = (current.get("uid", ""), current.get("node", ""), _told(current))
    expected = [
        (of_sandbox[0].record.uid, of_sandbox[0].record.node, _expected(of_sandbox)) for of_sandbox in newest
    ]
    if shown in expected:
        return None
    for what, index in (("UID", 0), ("node", 1)):
        if shown[index] not in [candidate[index] for candidate in expected]:
            return f"it tells of {what} {shown[index]!r}, recorded is {expected[0][index]!r}"
    return f"it tells of {_text(shown[2])}; recorded is {_text(expected[0][2])}"


def _told(current: Mapping[str, Any]) -> Interfaces:
    interfaces: dict[str, dict[str, str]] = {}
    for entry in current.get("ips") or ():
        fields = {
            f"ipv{family}": str(entry[f"ipv{family}"]).partition("/")[0]
            for family in (4, 6)
            if entry.get(f"ipv{family}")
        }
        pools = {key: str(entry[key]) for key in ("ipv4Pool", "ipv6Pool") if entry.get(key)}
        interfaces[str(entry.get("interface", ""))] = fields | pools
    return interfaces


def _expected(several: Sequence[Allocation]) -> Interfaces:
    interfaces: dict[str, dict[str, str]] = defaultdict(dict)
    for allocation in several:
        fields = interfaces[allocation.record.interface]
        fields[f"ipv{allocation.family}"] = format_address(allocation.family, allocation.value)
        fields[f"ipv{allocation.family}Pool"] = allocation.record.pool
    return interfaces


def _text(interfaces: Interfaces) -> str:
    each = (f"{name}: {', '.join(fields.values())}" for name, fields in sorted(interfaces.items()))
    return "; ".join(each) or "no interface"
