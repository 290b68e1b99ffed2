"""Whether who holds an address is still there: garbage collection's own verdict, without its delays for a node's own DEL.

What is in use is told from pods and nodes, what is kept from StatefulSets and virtual machines.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from actors.allocation.messages import Allocation
from actors.audit.finding import Finding, ReleaseRecord, Rule
from actors.decisions.inherit import is_fixed
from actors.decisions.settings import Settings
from actors.reclaim.evidence import ClusterState, facts_of
from actors.reclaim.rules import Action, Recorded, Verdict, judge
from actors.resources.addresses import format_address
from actors.resources.namespace import Namespace
from actors.resources.node import Node
from actors.resources.pod import Pod
from actors.resources.statefulset import StatefulSet
from actors.resources.virtualmachine import VirtualMachine, lives

_LONG_AGO = float("-inf")


@dataclass(frozen=True, slots=True)
class SnapshotState:
    """A snapshot's objects as a source of verdicts, by `name` or `namespace/name`."""

    pods: Mapping[str, Pod]
    nodes: Mapping[str, Node]
    statefulsets: Mapping[str, StatefulSet]
    machines: Mapping[str, VirtualMachine]
    instances: Mapping[str, VirtualMachine]
    namespaces: Mapping[str, Namespace]
    pools: Iterable[str]

    def pod(self, pod: str) -> Pod | None:
        return self.pods.get(pod)

    def node(self, name: str) -> Node | None:
        return self.nodes.get(name)

    def statefulset(self, namespace: str, name: str) -> StatefulSet | None:
        return self.statefulsets.get(f"{namespace}/{name}")

    def machine_lives(self, namespace: str, name: str) -> bool:
        key = f"{namespace}/{name}"
        return lives(self.machines.get(key), self.instances.get(key))

    def namespace(self, name: str) -> bool:
        found = self.namespaces.get(name)
        return found is not None and not found.terminating

    def pool(self, name: str) -> bool:
        return name in self.pools


def verdict_on(
    held: Allocation, siblings: Sequence[Allocation], source: ClusterState, settings: Settings, now: float
) -> Verdict | None:
    """Why an address should be given back, or kept for the pod's next incarnation; None while its holder may have it.
    `siblings`: what else is recorded for the pod; `now` in seconds since the epoch."""
    recorded = [Recorded(format_address(one.family, one.value), one.record) for one in siblings]
    facts = facts_of(held.record, recorded, source, settings, _LONG_AGO)
    this = Recorded(format_address(held.family, held.value), held.record)
    verdict = judge(this, facts, now, replace(settings.gc, enabled=True))
    return verdict if verdict.action in (Action.RELEASE, Action.KEEP_FOR_NEXT) else None


def abandoned(
    held: Iterable[Allocation], source: ClusterState, settings: Settings, now: float, *, pods: bool
) -> Iterator[Finding]:
    """Records whose holder is gone. Without `pods` only what is kept for somebody can be judged."""
    of_pod: dict[str, list[Allocation]] = defaultdict(list)
    for one in held:
        for view in one.per_sandbox:
            of_pod[view.record.pod].append(view)
    for several in of_pod.values():
        for one in several:
            if not pods and not (one.record.is_retained and is_fixed(one.record)):
                continue
            verdict = verdict_on(one, several, source, settings, now)
            if verdict is not None:
                yield _finding(one, verdict)


def _finding(held: Allocation, verdict: Verdict) -> Finding:
    record = held.record
    since = f", since {record.since}" if record.since else ""
    return Finding(
        Rule.KEPT if record.is_retained else Rule.LEAKED,
        format_address(held.family, held.value),
        f"{verdict.text} (pool {record.pool}, node {record.node or 'unknown'}{since})",
        f"{record.container} {record.pod} {record.uid}",
        ReleaseRecord(held),
    )
