"""The audit: all rules on one snapshot, and what of two audits counts.

What must always hold: under concurrent change nothing is reported that was only on its way. A finding counts when a
second look, at a snapshot read later than views may lag behind, has it with the same evidence; the rest is in flux.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from actors.audit.blocks import attachments, recorded
from actors.audit.endpoints import endpoints
from actors.audit.finding import AuditRule, Finding
from actors.audit.holders import SnapshotState, abandoned
from actors.audit.notes import RuntimeNotes, unended
from actors.audit.pools import overlaps, places, states
from actors.audit.snapshot import Snapshot
from actors.audit.subnets import shares
from actors.decisions.settings import Settings
from actors.errors import InvalidObject
from actors.resources.blocks.allocation import Allocation
from actors.resources.intervals import IntervalSet
from actors.resources.ippool import IPPool
from actors.resources.namespace import Namespace
from actors.resources.node import Node
from actors.resources.pod import Pod
from actors.resources.reservedip import ReservedIP
from actors.resources.statefulset import StatefulSet
from actors.resources.subnet import SpiderSubnet
from actors.resources.virtualmachine import INSTANCE, MACHINE, VirtualMachine
from actors.store.contract import Object

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Audit:
    """`findings` in order of rule and subject; `held` is every record that could be read."""

    findings: tuple[Finding, ...]
    held: tuple[Allocation, ...]


def audit(
    snapshot: Snapshot,
    settings: Settings | None = None,
    now: float = 0.0,
    notes: RuntimeNotes | None = None,
) -> Audit:
    """Prove every rule on one snapshot. `settings`: those of the agents, else the defaults. `now` is in seconds since the
    epoch; without it no delay (of a lost node, of a pod that is Terminating) is over. `notes`: the runtime's, where this is
    one of the nodes."""
    held, findings = recorded(snapshot.blocks)
    all_findings = list(findings)
    pools, damaged = _parsed(snapshot.pools, IPPool.from_object)
    all_findings += [Finding(AuditRule.POOL, name, why) for name, why in damaged.items()]
    reserved: dict[int, IntervalSet] = {}
    for reserved_ip in _parsed(snapshot.reserved, ReservedIP.from_object)[0].values():
        reserved[reserved_ip.family] = reserved.get(reserved_ip.family, IntervalSet()).union(reserved_ip.ips)
    all_findings += attachments(held)
    all_findings += places(held, pools, damaged)
    all_findings += overlaps(pools.values())
    if settings is None or settings.enable_subnets:
        subnets, unreadable = _parsed(snapshot.subnets, SpiderSubnet.from_object)
        all_findings += [Finding(AuditRule.SUBNET, name, why) for name, why in unreadable.items()]
        all_findings += shares(subnets, pools, damaged)
    if all(finding.rule is not AuditRule.BLOCK for finding in findings):
        # A view tells perhaps what a damaged block does not; nobody may take it for wrong, least of all a repair.
        unjudged = {finding.subject for finding in findings if finding.rule is AuditRule.ENTRY}
        all_findings += states(held, snapshot.pools, pools, reserved, unjudged)
        all_findings += endpoints(held, snapshot.endpoints, unjudged)
    all_findings += _holders(snapshot, held, settings or Settings(), now)
    if notes is not None:
        all_findings += unended(held, notes)
    order = list(AuditRule)
    return Audit(
        tuple(sorted(all_findings, key=lambda finding: (order.index(finding.rule), finding.subject))), held
    )


def _holders(
    snapshot: Snapshot, held: tuple[Allocation, ...], settings: Settings, now: float
) -> Iterable[Finding]:
    """Of a pod that cannot be read nothing is said; where it is another object, that who depends on it cannot be judged."""
    pods, unknown = _parsed(snapshot.pods or (), Pod.from_object)
    nodes, bad_nodes = _parsed(snapshot.nodes, Node.from_object)
    sets, bad_sets = _parsed(snapshot.statefulsets, StatefulSet.from_object)
    machines, bad_machines = _parsed(snapshot.machines, VirtualMachine.from_machine)
    instances, bad_instances = _parsed(snapshot.instances, VirtualMachine.from_instance)
    namespaces, bad_namespaces = _parsed(snapshot.namespaces, Namespace.from_object)
    bad = {
        "Node": bad_nodes,
        "StatefulSet": bad_sets,
        MACHINE: bad_machines,
        INSTANCE: bad_instances,
        "Namespace": bad_namespaces,
    }
    damaged = {(kind, key): why for kind, reasons in bad.items() for key, why in reasons.items()}
    pools = frozenset(obj["metadata"]["name"] for obj in snapshot.pools)
    claims = frozenset(
        f"{obj['metadata'].get('namespace', '')}/{obj['metadata']['name']}" for obj in snapshot.claims
    )
    source = SnapshotState(pods, nodes, sets, machines, instances, namespaces, pools, claims, damaged)
    known = (allocation for allocation in held if not unknown.keys() & set(allocation.record.pods))
    return abandoned(known, source, settings, now, pods=snapshot.pods is not None)


def confirm(first: Iterable[Finding], second: Iterable[Finding]) -> tuple[tuple[Finding, ...], int]:
    """What both looks found, as the second tells it, and how many were in flux: found by one of them only."""
    before = {finding.key for finding in first}
    after = {finding.key: finding for finding in second}
    kept = tuple(finding for key, finding in after.items() if key in before)
    return kept, len(before ^ set(after))


def _parsed(objects: Iterable[Object], parse: Callable[[Object], T]) -> tuple[dict[str, T], dict[str, str]]:
    """By key (`name`, or `namespace/name`): the values, and why others have none."""
    values: dict[str, T] = {}
    damaged: dict[str, str] = {}
    for obj in objects:
        metadata: dict[str, Any] = obj["metadata"]
        key = "/".join(part for part in (metadata.get("namespace"), metadata["name"]) if part)
        try:
            values[key] = parse(obj)
        except InvalidObject as error:
            damaged[key] = str(error)
    return values, damaged
