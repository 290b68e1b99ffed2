"""Pools: their status says what the blocks say, what is recorded lies in them, and no two have an address in common."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from actors.audit.finding import AuditRule, Finding, WriteStatus
from actors.decisions.brief import cut
from actors.resources.addresses import format_address, format_range
from actors.resources.admission import FINALIZER
from actors.resources.blocks.allocation import Allocation
from actors.resources.intervals import IntervalSet
from actors.resources.ippool import IPPool
from actors.resources.json_text import UnreadableText
from actors.resources.pool_status import DIGEST, LISTED, digest_of, listed_in
from actors.store.contract import Object

_NOTHING = IntervalSet()
_NAMED_IN_REFUSAL = 3
_LONGEST_NAMED = 64


def states(
    held: Iterable[Allocation],
    objects: Iterable[Object],
    pools: Mapping[str, IPPool],
    reserved: Mapping[int, IntervalSet],
    unjudged: Collection[str] = (),
) -> Iterator[Finding]:
    """Status, finalizer and deletion of each pool that can be read. A status that tells of an address whose record cannot
    be judged (`unjudged`) is not compared: it may be all that says who has it."""
    by_pool: dict[str, list[Allocation]] = defaultdict(list)
    for allocation in held:
        by_pool[allocation.record.pool].append(allocation)
    for obj in objects:
        metadata = obj["metadata"]
        name, version = metadata["name"], str(metadata.get("resourceVersion", ""))
        pool = pools.get(name)
        if pool is None:
            continue
        several = by_pool[name]
        for rule, field, why in _state(obj, pool, several, reserved.get(pool.family, _NOTHING)):
            if rule is AuditRule.STATUS and unjudged and set(unjudged) & _listed(obj):
                continue
            yield Finding(rule, name, why, f"{field} {version}", WriteStatus(name))


def _state(
    obj: Object, pool: IPPool, held: list[Allocation], reserved: IntervalSet
) -> Iterator[tuple[AuditRule, str, str]]:
    """Rule, field and what is wrong."""
    status = obj.get("status") or {}
    allocated = status.get("allocatedIPs") or ""
    if pool.terminating and not held:
        yield (
            AuditRule.LINGERS,
            "metadata",
            "it is being deleted and has no address in use, and is still there",
        )
        return
    if not pool.terminating and FINALIZER not in (obj["metadata"].get("finalizers") or ()):
        yield (
            AuditRule.FINALIZER,
            "finalizers",
            f"the finalizer {FINALIZER} is missing, so it would go with addresses in use",
        )
    if allocated and status.get(DIGEST) != digest_of(allocated):
        yield (
            AuditRule.FOREIGN,
            DIGEST,
            "status.allocatedIPs was written by another IPAM and is not recorded in blocks yet",
        )
        return
    if not status and not held:
        return  # nobody gave out of it, and nobody wrote anything
    expected = {
        format_address(allocation.family, allocation.value): {
            "pod": allocation.record.holder,
            "podUid": allocation.record.uid,
        }
        for allocation in held
    }
    listed = _told(allocated)
    if listed != (expected if len(held) <= LISTED else {}):
        yield AuditRule.STATUS, "allocatedIPs", f"status.allocatedIPs {_compared(listed, expected)}"
    numbers = {
        "allocatedIPCount": len(held),
        "totalIPCount": min(pool.available.minus(reserved).size, 2**63 - 1),
    }
    for key, number in numbers.items():
        if status.get(key) != number:
            yield AuditRule.STATUS, key, f"status.{key} is {status.get(key)}, but should be {number}"


def _listed(obj: Object) -> set[str]:
    listed = _told((obj.get("status") or {}).get("allocatedIPs") or "")
    return set(listed) if isinstance(listed, dict) else set()


def _told(allocated: str) -> Any:
    try:
        return listed_in(allocated)
    except UnreadableText:
        return None


def _compared(listed: Any, expected: Mapping[str, Any]) -> str:
    if not isinstance(listed, dict):
        return "cannot be read"
    more, less = sorted(set(listed) - set(expected)), sorted(set(expected) - set(listed))
    other = sorted(text for text in set(listed) & set(expected) if listed[text] != expected[text])
    parts = (("lists and should not", more), ("lacks", less), ("names another pod for", other))
    return ", ".join(f"{what} {_few(texts)}" for what, texts in parts if texts)


def _few(texts: list[str]) -> str:
    rest = f" and {len(texts) - _NAMED_IN_REFUSAL} more" if len(texts) > _NAMED_IN_REFUSAL else ""
    return ", ".join(cut(text, _LONGEST_NAMED) for text in texts[:_NAMED_IN_REFUSAL]) + rest


def places(
    held: Iterable[Allocation], pools: Mapping[str, IPPool], damaged: Iterable[str]
) -> Iterator[Finding]:
    """What is recorded lies in the pool that it names. Of a pool that cannot be read nothing is said."""
    unknown = set(damaged)
    for allocation in held:
        record, text = allocation.record, format_address(allocation.family, allocation.value)
        pool = pools.get(record.pool)
        if record.pool in unknown:
            continue
        if pool is None:
            yield Finding(
                AuditRule.NO_POOL, text, f"pool {record.pool} of pod {record.pod} does not exist", record.pool
            )
        elif pool.family != allocation.family or allocation.value not in pool.available:
            yield Finding(
                AuditRule.OUTSIDE,
                text,
                f"it is not among the addresses of pool {pool.name}, and pod {record.pod} has it",
                record.pool,
            )


def overlaps(pools: Iterable[IPPool]) -> Iterator[Finding]:
    """Pools that have addresses in common, each pair once. One pass over all intervals in order, so that pools apart
    from each other cost nothing."""
    for family in (4, 6):
        spans = sorted(
            (low, high, pool.name) for pool in pools if pool.family == family for low, high in pool.available
        )
        shared: dict[tuple[str, str], tuple[int, int]] = {}
        open_spans: list[tuple[int, str]] = []
        for low, high, name in spans:
            open_spans = [(end, other) for end, other in open_spans if end >= low]
            for end, other in open_spans:
                if other != name:
                    shared.setdefault((min(name, other), max(name, other)), (low, min(high, end)))
            open_spans.append((high, name))
        for (first, second), (low, high) in sorted(shared.items()):
            yield Finding(
                AuditRule.OVERLAP,
                first,
                f"pool {second} has {format_range(family, low, high)} of its addresses too",
                second,
            )
