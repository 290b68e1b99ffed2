"""Whether who holds an address is still there: pods for what is in use, StatefulSets for what is kept."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from actors.audit.finding import Finding, ReleaseRecord, Rule
from actors.decisions.inherit import owning_statefulset, still_wanted
from actors.messages import Held
from actors.resources.addresses import format_address
from actors.resources.pod import Pod
from actors.resources.record import Record
from actors.resources.statefulset import StatefulSet


def why_gone(record: Record, pod: Pod | None) -> str | None:
    """Why the pod that a record names holds the address no more; None while it may. `pod` is the one that has its name
    now. A pod that is being deleted holds its address until its DEL."""
    if record.waits and record.owner:
        return None
    if pod is None:
        return f"pod {record.pod} does not exist"
    if record.uid and pod.uid and record.uid != pod.uid:
        return f"pod {record.pod} with UID {record.uid} does not exist; the pod of that name now has UID {pod.uid}"
    if pod.deleted_at is None and pod.ended is not None:
        return f"pod {record.pod} has ended: {pod.ended}"
    return None


def why_unwanted(record: Record, statefulset: StatefulSet | None) -> str | None:
    """Why nobody will come back for an address that is kept; None when it is not kept for a StatefulSet, or may be."""
    name = owning_statefulset(record)
    if not record.waits or name is None or still_wanted(record, statefulset):
        return None
    return f"kept for pod {record.pod}, which no StatefulSet {name} wants"


def leaked(held: Iterable[Held], pods: Mapping[str, Pod]) -> Iterator[Finding]:
    """Records whose pod (by `namespace/name`) is gone."""
    for one in held:
        why = why_gone(one.record, pods.get(one.record.pod))
        if why is not None:
            yield _dirty(Rule.LEAKED, one, why)


def unwanted(held: Iterable[Held], statefulsets: Mapping[str, StatefulSet]) -> Iterator[Finding]:
    """What is kept for pods that no StatefulSet (by `namespace/name`) starts again."""
    for one in held:
        namespace = one.record.pod.partition("/")[0]
        why = why_unwanted(one.record, statefulsets.get(f"{namespace}/{owning_statefulset(one.record)}"))
        if why is not None:
            yield _dirty(Rule.KEPT, one, why)


def _dirty(rule: Rule, held: Held, why: str) -> Finding:
    record = held.record
    since = f", since {record.since}" if record.since else ""
    return Finding(
        rule,
        format_address(held.family, held.value),
        f"{why} (pool {record.pool}, node {record.node or 'unknown'}{since})",
        f"{record.container} {record.pod} {record.uid}",
        ReleaseRecord(held),
    )
