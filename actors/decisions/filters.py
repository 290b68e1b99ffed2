"""Which of the candidate pools this pod may not use, and why; and in which order the others are tried.

What must always hold: every filter is asked about every pool, so that one look at the answer shows all that
has to change; a filter sees values only and returns None or a `Refusal`. Names outrank affinities where a
pool has both (`nodeName` over `nodeAffinity`, `namespaceName` over `namespaceAffinity`), as in Spiderpool.

The more specific pool is tried first: one with pod affinity comes before one without; among equals, node names, then node
affinity, then namespace names, then namespace affinity, then multus names decide likewise, as Spiderpool ranks them.
Pools that are equal in all of this keep the order in which they were named. (Spiderpool shuffles those; its documentation
promises the order of the annotation, which is what we keep.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import islice

from actors.decisions.auto_pool import belongs, owner_of
from actors.resources.addresses import format_address
from actors.resources.application import Application
from actors.resources.ippool import IPPool
from actors.resources.namespace import Namespace
from actors.resources.node import Node
from actors.resources.pod import Pod

ADDRESS = "address"
"""The rule that refuses a pool because it cannot give the one address that is asked for."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a pool was not taken. `rule` is one or two words for counting ("node affinity"); `reason` says what did not fit
    and what would."""

    pool: str
    rule: str
    reason: str

    def __str__(self) -> str:
        return f"pool {self.pool} refused: {self.rule}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Applicant:
    """Who asks, for which interface and family."""

    pod: Pod
    """With the labels that affinities are about."""
    namespace: Namespace | None
    """The pod's; None where there is no such object."""
    node: Node | None
    """Where it is to run; likewise."""
    interface: str
    """Of the pod."""
    family: int
    """4 or 6."""
    network: str | None
    """The network attachment that the interface belongs to, `namespace/name`; None when there is none."""
    agent_namespace: str
    """Where one is looked for that a pool names without a namespace."""
    exact: int | None = None
    """The one address that is wanted, as a number; None for any."""
    application: Application | None = None
    """The pod's, where it asks for addresses of a subnet, proven by its owners' UIDs."""

    @property
    def node_name(self) -> str:
        return self.node.name if self.node else self.pod.node


DISABLED = "disabled"
"""The rule of a pool's refusal that still leaves a pod the address that it has."""

Filter = Callable[[IPPool, Applicant], Refusal | None]


def by_terminating(pool: IPPool, _applicant: Applicant) -> Refusal | None:
    """A pool that is being deleted serves nobody new."""
    if not pool.terminating:
        return None
    return Refusal(pool.name, "terminating", "the pool is being deleted; use another one")


def by_disabled(pool: IPPool, _applicant: Applicant) -> Refusal | None:
    """A pool that is switched off (`spec.disable`) serves nobody new."""
    if not pool.disabled:
        return None
    return Refusal(pool.name, DISABLED, "spec.disable is true; set it to false")


def by_family(pool: IPPool, applicant: Applicant) -> Refusal | None:
    """A pool serves one family."""
    if pool.family == applicant.family:
        return None
    return Refusal(
        pool.name,
        "family",
        f"it is an IPv{pool.family} pool named where IPv{applicant.family} pools go; name it under"
        f" ipv{pool.family}",
    )


def by_node(pool: IPPool, applicant: Applicant) -> Refusal | None:
    """`spec.nodeName`, and without it `spec.nodeAffinity`: a node whose labels are not known does not match."""
    name = applicant.node_name
    if pool.node_names:
        if name in pool.node_names:
            return None
        return Refusal(
            pool.name,
            "node name",
            f"spec.nodeName {_listed(pool.node_names)} does not have node {name or '(unknown)'}; add the node"
            " there or let the pod run on one of these",
        )
    if pool.node_affinity is None:
        return None
    if applicant.node is None:
        return Refusal(
            pool.name,
            "node affinity",
            f"{pool.node_affinity} cannot be checked, because the labels of node {name or '(unknown)'} are"
            " not known; apply a Node object for it",
        )
    if pool.node_affinity.matches(applicant.node.labels):
        return None
    return Refusal(
        pool.name,
        "node affinity",
        f"{pool.node_affinity} does not match node {name} ({_labels(applicant.node.labels)}); change"
        " spec.nodeAffinity or the node's labels",
    )


def by_namespace(pool: IPPool, applicant: Applicant) -> Refusal | None:
    """`spec.namespaceName`, and without it `spec.namespaceAffinity`."""
    name = applicant.pod.namespace
    if pool.namespace_names:
        if name in pool.namespace_names:
            return None
        return Refusal(
            pool.name,
            "namespace name",
            f"spec.namespaceName {_listed(pool.namespace_names)} does not have namespace {name}; add it"
            " there",
        )
    if pool.namespace_affinity is None:
        return None
    # Kubernetes puts this label on every namespace (KEP-2161); without an object it is all that is known.
    labels = applicant.namespace.labels if applicant.namespace else {"kubernetes.io/metadata.name": name}
    if pool.namespace_affinity.matches(labels):
        return None
    return Refusal(
        pool.name,
        "namespace affinity",
        f"{pool.namespace_affinity} does not match namespace {name} ({_labels(labels)}); change "
        "spec.namespaceAffinity or the namespace's labels",
    )


def by_pod(pool: IPPool, applicant: Applicant) -> Refusal | None:
    """A pool that was made for an application is for its pods alone, whatever labels others give theirs: also the addresses
    that it has to spare."""
    if pool.auto_created:
        if applicant.application is not None and belongs(pool.labels, applicant.application):
            return None
        return Refusal(
            pool.name,
            "pod affinity",
            f"it was made for {_owner(pool)} and serves no other; name a pool of your own, or a SpiderSubnet that one is made"
            " from",
        )
    if pool.pod_affinity is None:
        return None
    if pool.pod_affinity.matches(applicant.pod.labels):
        return None
    return Refusal(
        pool.name,
        "pod affinity",
        f"{pool.pod_affinity} does not match pod {applicant.pod.key} ({_labels(applicant.pod.labels)});"
        " change spec.podAffinity or the pod's labels",
    )


def _owner(pool: IPPool) -> str:
    owner = owner_of(pool.labels)
    return f"the pods of {owner.title}" if owner is not None else "one application"


def by_network(pool: IPPool, applicant: Applicant) -> Refusal | None:
    """`spec.multusName`: the interface's network attachment is one of these."""
    if not pool.multus_names:
        return None
    wanted = [name if "/" in name else f"{applicant.agent_namespace}/{name}" for name in pool.multus_names]
    if applicant.network in wanted:
        return None
    network = f"network {applicant.network}" if applicant.network else "no network attachment that is known"
    return Refusal(
        pool.name,
        "multus name",
        f"spec.multusName {_listed(tuple(wanted))} does not fit interface {applicant.interface}, which has"
        f" {network}; add the network there or attach the pod to one of these",
    )


def by_address(pool: IPPool, applicant: Applicant) -> Refusal | None:
    """A pool has the one address that is asked for."""
    if applicant.exact is None or pool.family != applicant.family or applicant.exact in pool.available:
        return None
    text = format_address(applicant.family, applicant.exact)
    if applicant.exact in pool.exclude_ips:
        return Refusal(
            pool.name, ADDRESS, f"{text} is in spec.excludeIPs; ask for another address or remove it there"
        )
    if applicant.exact in pool.withheld:
        return Refusal(pool.name, ADDRESS, f"{pool.withheld_reason}; ask for another address")
    return Refusal(
        pool.name,
        ADDRESS,
        f"{text} is not one of its addresses ({_ranges(pool)}); ask for one of these or add it to spec.ips",
    )


FILTERS: tuple[Filter, ...] = (
    by_terminating,
    by_disabled,
    by_family,
    by_node,
    by_namespace,
    by_pod,
    by_network,
    by_address,
)


def refusals(pool: IPPool, applicant: Applicant) -> tuple[Refusal, ...]:
    """All reasons for which the pod may not use the pool; none if it may."""
    return tuple(refusal for check in FILTERS if (refusal := check(pool, applicant)) is not None)


_NAMED = 16
"""Names and labels that a refusal shows: a pod may have ten thousand labels, and be refused by a thousand pools."""


def _listed(names: tuple[str, ...]) -> str:
    more = f", and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"[{', '.join(names[:_NAMED])}{more}]"


def _labels(labels: Mapping[str, str]) -> str:
    if not labels:
        return "no labels"
    more = f" and {len(labels) - _NAMED} more" if len(labels) > _NAMED else ""
    named = sorted(islice(labels.items(), _NAMED))
    return f"labels {', '.join(f'{key}={value}' for key, value in named)}{more}"


def _ranges(pool: IPPool) -> str:
    ranges = pool.available.ranges_text(pool.family)
    if not ranges:
        return "it has none"
    return ", ".join(ranges[:3]) + (f" and {len(ranges) - 3} more ranges" if len(ranges) > 3 else "")


def rank(pool: IPPool) -> tuple[bool, ...]:
    """Lower is tried earlier."""
    return (
        pool.pod_affinity is None,
        not pool.node_names,
        pool.node_affinity is None,
        not pool.namespace_names,
        pool.namespace_affinity is None,
        not pool.multus_names,
    )


def by_affinity(pools: Iterable[IPPool]) -> tuple[IPPool, ...]:
    """The pools in the order of trying; stable."""
    return tuple(sorted(pools, key=rank))
