"""The objects of an installation, by name, in the order in which they go.

What must always hold: every object that `deploy/`, its components or the chart make is here, and nothing else; who installs
something anew adds it (a test compares). What is named `orbweaver-uninstall` is missing on purpose: it takes the rest away.
"""

from __future__ import annotations

from collections.abc import Iterator

from actors.cluster.leadership import LEASE
from actors.cluster.webhook_certificates import SECRET
from actors.store.kinds import KINDS, SPIDERPOOL

AGENT, CONTROLLER = "orbweaver-agent", "orbweaver-controller"
LABEL, COMPONENT = "app.kubernetes.io/name", "app.kubernetes.io/component"
NETWORKS_DEFINITION = "network-attachment-definitions.k8s.cni.cncf.io"

FIRST = (
    ("ValidatingWebhookConfiguration", "orbweaver"),
    ("Job", "orbweaver-defaults"),
    ("PodDisruptionBudget", CONTROLLER),
    ("Deployment", CONTROLLER),
)
"""What would put back, or judge, what goes later."""

_POLICIES = (
    *(
        "agent-blocks",
        "agent-endpoints",
        "agent-events",
        "agent-ipam-claims",
        "agent-networks",
        "agent-pool-status",
        "agent-taint",
    ),
    *(
        "automatic-pools",
        "multus-configs",
        "pool-affinities",
        "pools",
        "pools-in-use",
        "reserved-addresses",
        "subnets-in-use",
    ),
)
_BY_KIND: dict[str, tuple[str, ...]] = {
    "ValidatingAdmissionPolicyBinding": tuple(f"orbweaver-{name}" for name in _POLICIES),
    "ValidatingAdmissionPolicy": tuple(f"orbweaver-{name}" for name in _POLICIES),
    "ServiceMonitor": (AGENT, CONTROLLER),
    "PrometheusRule": ("orbweaver",),
    "Service": ("orbweaver-webhook", "orbweaver-agent-metrics", "orbweaver-controller-metrics"),
    "NetworkPolicy": (CONTROLLER,),
    "Pod": ("orbweaver-test",),
    "RoleBinding": (AGENT, CONTROLLER, "orbweaver-test"),
    "Role": (AGENT, CONTROLLER, "orbweaver-test"),
    "ClusterRoleBinding": (
        *(AGENT, "orbweaver-agent-networks", "orbweaver-agent-taint", CONTROLLER),
        *("orbweaver-defaults", "orbweaver-test"),
    ),
    "ClusterRole": (
        *(AGENT, "orbweaver-agent-networks", "orbweaver-agent-taint", "orbweaver-check", CONTROLLER),
        *("orbweaver-defaults", "orbweaver-test"),
    ),
    "ServiceAccount": (AGENT, CONTROLLER, "orbweaver-defaults", "orbweaver-test"),
    "ConfigMap": (
        *("orbweaver-conf", "orbweaver-cni", "orbweaver-dashboards"),
        *("orbweaver-defaults", "orbweaver-test"),
    ),
    "Secret": (SECRET,),
    "Lease": (LEASE,),
    "DaemonSet": (AGENT,),
}


def last() -> Iterator[tuple[str, str]]:
    """Kind and name of what goes when nodes and addresses are done; the DaemonSet is the very last, because it says which
    directories the nodes have."""
    for kind, names in _BY_KIND.items():
        yield from ((kind, name) for name in names)


def definitions() -> dict[str, str]:
    """The kinds of our own group, with the names of their definitions."""
    group = SPIDERPOOL.partition("/")[0]
    return {kind.name: f"{kind.plural}.{group}" for kind in KINDS.values() if kind.api_version == SPIDERPOOL}
