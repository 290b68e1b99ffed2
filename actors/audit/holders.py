"""Whether who holds an address is still there: pods for what is in use; StatefulSets and machines for what is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from actors.audit.finding import Finding, ReleaseRecord, Rule
from actors.decisions.inherit import is_fixed, owning_statefulset
from actors.messages import Held
from actors.resources.addresses import format_address
from actors.resources.pod import Pod
from actors.resources.record import Record


def why_gone(record: Record, pod: Pod | None) -> str | None:
    """Why the pod that a record names holds the address no more; None while it may. `pod` is the one that has its name
    now. A pod that is being deleted holds its address until its DEL."""
    if record.waits and is_fixed(record):
        return None
    if record.machine and not record.container:
        return None  # taken over from another IPAM, which names the machine and not its pod
    if pod is None:
        return f"pod {record.pod} does not exist"
    if record.uid and pod.uid and record.uid != pod.uid:
        return f"pod {record.pod} with UID {record.uid} does not exist; the pod of that name now has UID {pod.uid}"
    if pod.deleted_at is None and pod.ended is not None:
        return f"pod {record.pod} has ended: {pod.ended}"
    return None


def why_unwanted(record: Record, wanted: bool) -> str | None:
    """Why nobody will come back for an address that is kept; None when it is not kept. `wanted`: its StatefulSet or
    virtual machine is there and may want it."""
    if not record.waits or not is_fixed(record) or wanted:
        return None
    if record.machine:
        return f"kept for virtual machine {record.holder}, which does not exist"
    return f"kept for pod {record.pod}, which no StatefulSet {owning_statefulset(record)} wants"


def leaked(held: Iterable[Held], pods: Mapping[str, Pod]) -> Iterator[Finding]:
    """Records whose pod (by `namespace/name`) is gone."""
    for one in held:
        why = why_gone(one.record, pods.get(one.record.pod))
        if why is not None:
            yield _dirty(Rule.LEAKED, one, why)


def unwanted(held: Iterable[Held], wanted: Callable[[Record], bool]) -> Iterator[Finding]:
    """What is kept for pods and machines that nobody starts again."""
    for one in held:
        why = why_unwanted(one.record, wanted(one.record))
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
