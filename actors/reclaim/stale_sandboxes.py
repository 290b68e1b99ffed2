"""Which recorded addresses belong to a sandbox that the node does not run any more.

What must always hold: a sandbox counts as gone only by evidence: the runtime's own note of the attachment names a
network namespace that is not there. A sandbox without a note may be one whose ADD is under way; it counts as gone only
beside a newer one of the same pod that is there. In doubt an address is kept. Pure functions; `cni/server/libcni_cache.py`
reads the node.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from actors.resources.blocks.record import Record
from actors.resources.pod import Pod


@dataclass(frozen=True, slots=True)
class NotedSandboxes:
    """Container ids of which the runtime has notes: those with a network namespace that is there, and those without."""

    alive: frozenset[str] = frozenset()
    gone: frozenset[str] = frozenset()


def is_left_behind(
    record: Record, of_pod: Iterable[Record], sandboxes: NotedSandboxes, *, has_pods: bool
) -> bool:
    """Whether the node's reconcile may release a record; `of_pod` is all that is recorded for its pod's name.

    In a cluster (`has_pods`) a gone sandbox alone proves nothing: the kubelet makes a new one for a pod that lives, which
    takes its address over, and a pod that is gone is the cluster's garbage collection to judge.
    """
    if not record.container or record.container in sandboxes.alive:
        return False
    if record.container in sandboxes.gone and not has_pods:
        return True
    return any(
        other.container in sandboxes.alive
        and other.container != record.container
        and other.node == record.node
        and other.since > record.since
        for other in of_pod
    )


def is_on_its_way_out(pod: Pod | None, uid: str) -> bool:
    """Whether a sandbox made for the pod with this UID has nothing to come back for: its end is then the end of what it
    holds, DEL or not. `pod`: the one that has the name now. A pod that lives gets another sandbox when its own dies, and
    that one takes its addresses over."""
    if pod is None or pod.finished or pod.deleted_at is not None:
        return True
    return bool(uid) and bool(pod.uid) and pod.uid != uid
