"""Whether who holds an address is still there: garbage collection's own verdict, without its delays for a node's own DEL.

What is in use is told from pods and nodes, what is kept from StatefulSets and virtual machines.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from actors.audit.finding import AuditRule, Finding, ReleaseRecord
from actors.decisions.inherit import is_fixed
from actors.decisions.settings import Settings
from actors.errors import InvalidObject, OrbweaverError
from actors.reclaim.facts import ClusterState, facts_of
from actors.reclaim.rules import Action, RecordedAddress, Verdict, judge
from actors.resources.addresses import format_address
from actors.resources.blocks.allocation import Allocation
from actors.resources.namespace import Namespace
from actors.resources.node import Node
from actors.resources.pod import Pod
from actors.resources.statefulset import StatefulSet
from actors.resources.virtualmachine import INSTANCE, MACHINE, VirtualMachine, lives

T = TypeVar("T")

_LONG_AGO = float("-inf")


@dataclass(frozen=True, slots=True)
class SnapshotState:
    """A snapshot's objects as a source of verdicts, by `name` or `namespace/name`."""

    pods: Mapping[str, Pod]
    """All pods that could be read."""
    nodes: Mapping[str, Node]
    """By name."""
    statefulsets: Mapping[str, StatefulSet]
    """By `namespace/name`."""
    machines: Mapping[str, VirtualMachine]
    """KubeVirt's VirtualMachines."""
    instances: Mapping[str, VirtualMachine]
    """KubeVirt's running instances."""
    namespaces: Mapping[str, Namespace]
    """By name."""
    pools: Iterable[str]
    """Names of the pools that are there, readable or not."""
    claims: frozenset[str] = frozenset()
    """The IPAMClaims, by `namespace/name`."""
    damaged: Mapping[tuple[str, str], str] = field(default_factory=dict)
    """Those that cannot be read, by kind and name, and why; whoever asks for one gets `InvalidObject`."""

    def _read(self, kind: str, key: str, objects: Mapping[str, T]) -> T | None:
        if (kind, key) in self.damaged:
            raise InvalidObject(self.damaged[kind, key])
        return objects.get(key)

    def pod(self, pod: str) -> Pod | None:
        return self.pods.get(pod)

    def node(self, name: str) -> Node | None:
        return self._read("Node", name, self.nodes)

    def statefulset(self, namespace: str, name: str) -> StatefulSet | None:
        return self._read("StatefulSet", f"{namespace}/{name}", self.statefulsets)

    def machine_lives(self, namespace: str, name: str) -> bool:
        key = f"{namespace}/{name}"
        return lives(
            self._read(MACHINE, key, self.machines),
            self._read(INSTANCE, key, self.instances),
        )

    def claim_lives(self, namespace: str, name: str) -> bool:
        return f"{namespace}/{name}" in self.claims

    def namespace(self, name: str) -> bool:
        entry = self._read("Namespace", name, self.namespaces)
        return entry is not None and not entry.terminating

    def pool(self, name: str) -> bool:
        return name in self.pools


def verdict_on(
    held: Allocation, siblings: Sequence[Allocation], source: ClusterState, settings: Settings, now: float
) -> Verdict | None:
    """Why an address should be given back, or kept for the pod's next incarnation; None while its holder may have it.
    `siblings`: what else is recorded for the pod; `now` in seconds since the epoch."""
    recorded = [
        RecordedAddress(format_address(sibling.family, sibling.value), sibling.record) for sibling in siblings
    ]
    facts = facts_of(held.record, recorded, source, settings, _LONG_AGO)
    this = RecordedAddress(format_address(held.family, held.value), held.record)
    verdict = judge(this, facts, now, replace(settings.gc, enabled=True))
    return verdict if verdict.action in (Action.RELEASE, Action.KEEP_FOR_NEXT) else None


def abandoned(
    held: Iterable[Allocation], source: ClusterState, settings: Settings, now: float, *, pods: bool
) -> Iterator[Finding]:
    """Records whose holder is gone. Without `pods` only what is kept for somebody can be judged."""
    of_pod: dict[str, list[Allocation]] = defaultdict(list)
    for allocation in held:
        for view in allocation.per_sandbox:
            of_pod[view.record.pod].append(view)
    for several in of_pod.values():
        for allocation in several:
            if not pods and not (allocation.record.is_retained and is_fixed(allocation.record)):
                continue
            try:
                verdict = verdict_on(allocation, several, source, settings, now)
            except Exception as error:  # one record that cannot be judged must not keep the others from it
                yield _unjudged(allocation, error)
                continue
            if verdict is not None:
                yield _finding(allocation, verdict)


def _unjudged(held: Allocation, error: Exception) -> Finding:
    why = str(error) if isinstance(error, OrbweaverError) else f"{type(error).__name__}: {error}"
    return Finding(
        AuditRule.UNJUDGED,
        format_address(held.family, held.value),
        f"whether pod {held.record.pod} may have it cannot be told: {why}",
        f"{held.record.container} {held.record.pod} {held.record.uid}",
    )


def _finding(held: Allocation, verdict: Verdict) -> Finding:
    record = held.record
    since = f", since {record.since}" if record.since else ""
    return Finding(
        AuditRule.KEPT if record.is_retained else AuditRule.LEAKED,
        format_address(held.family, held.value),
        f"{verdict.text} (pool {record.pool}, node {record.node or 'unknown'}{since})",
        f"{record.container} {record.pod} {record.uid}",
        ReleaseRecord(held),
    )
