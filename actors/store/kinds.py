"""The kinds of object that a store holds, as Kubernetes names them."""

from __future__ import annotations

from dataclasses import dataclass, replace

from actors.errors import InvalidObject

SPIDERPOOL = "spiderpool.spidernet.io/v2beta1"
PLUMBING = "k8s.cni.cncf.io"
"""API group of the Network Plumbing Working Group."""
WHEREABOUTS = "whereabouts.cni.cncf.io"
"""API group of the IPAM plugin Whereabouts."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of object that the store holds."""

    name: str
    """As in manifests; behind a point its group, where another group's kind has that name too."""
    api_version: str
    """`group/version`, or `v1`."""
    plural: str
    """As in URLs."""
    short: str
    """What people may type in its place, empty for nothing."""
    namespaced: bool
    """Whether its objects lie in namespaces."""
    status: bool
    """It has a status subresource, so `update` leaves the status alone."""
    scale: bool = False
    """It has that one, which says how many pods it wants."""

    @property
    def bare_name(self) -> str:
        """As the API server knows it."""
        return self.name.partition(".")[0]

    @property
    def group(self) -> str:
        """The API group, empty for the core one."""
        group, slash, _ = self.api_version.partition("/")
        return group if slash else ""


KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("SpiderIPPool", SPIDERPOOL, "spiderippools", "sp", namespaced=False, status=True),
        Kind("SpiderIPBlock", SPIDERPOOL, "spideripblocks", "sb", namespaced=False, status=False),
        Kind("SpiderEndpoint", SPIDERPOOL, "spiderendpoints", "se", namespaced=True, status=False),
        Kind("SpiderReservedIP", SPIDERPOOL, "spiderreservedips", "sr", namespaced=False, status=False),
        Kind("SpiderCoordinator", SPIDERPOOL, "spidercoordinators", "scc", namespaced=False, status=True),
        Kind("SpiderSubnet", SPIDERPOOL, "spidersubnets", "ss", namespaced=False, status=True),
        Kind("SpiderMultusConfig", SPIDERPOOL, "spidermultusconfigs", "smc", namespaced=True, status=True),
        Kind(
            "NetworkAttachmentDefinition",
            "k8s.cni.cncf.io/v1",
            "network-attachment-definitions",
            "net-attach-def",
            namespaced=True,
            status=False,
        ),
        Kind("IPAMClaim", f"{PLUMBING}/v1alpha1", "ipamclaims", "ipamclaim", namespaced=True, status=True),
        Kind("Pod", "v1", "pods", "po", namespaced=True, status=True),
        Kind("Namespace", "v1", "namespaces", "ns", namespaced=False, status=True),
        Kind("Node", "v1", "nodes", "no", namespaced=False, status=True),
        Kind("Event", "v1", "events", "ev", namespaced=True, status=False),
        Kind("VirtualMachine", "kubevirt.io/v1", "virtualmachines", "vm", namespaced=True, status=True),
        Kind(
            "VirtualMachineInstance",
            "kubevirt.io/v1",
            "virtualmachineinstances",
            "vmi",
            namespaced=True,
            status=True,
        ),
        Kind("Lease", "coordination.k8s.io/v1", "leases", "lease", namespaced=True, status=False),
        Kind("Secret", "v1", "secrets", "secret", namespaced=True, status=False),
        Kind("StatefulSet", "apps/v1", "statefulsets", "sts", namespaced=True, status=True),
        Kind("Deployment", "apps/v1", "deployments", "deploy", namespaced=True, status=True),
        Kind("ReplicaSet", "apps/v1", "replicasets", "rs", namespaced=True, status=True),
        Kind("DaemonSet", "apps/v1", "daemonsets", "ds", namespaced=True, status=True),
        Kind("Job", "batch/v1", "jobs", "job", namespaced=True, status=True),
        Kind("CronJob", "batch/v1", "cronjobs", "cj", namespaced=True, status=True),
    )
}

FOREIGN: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("ConfigMap", "v1", "configmaps", "cm", namespaced=True, status=False),
        Kind("ServiceCIDR", "networking.k8s.io/v1", "servicecidrs", "", namespaced=False, status=True),
        Kind("IPPool", "crd.projectcalico.org/v1", "ippools", "", namespaced=False, status=False),
        Kind("TokenReview", "authentication.k8s.io/v1", "tokenreviews", "", namespaced=False, status=False),
        *(
            Kind(
                name,
                "admissionregistration.k8s.io/v1",
                f"{name.lower()}s",
                "",
                namespaced=False,
                status=False,
            )
            for name in ("ValidatingWebhookConfiguration", "MutatingWebhookConfiguration")
        ),
        Kind("CiliumPodIPPool", "cilium.io/v2alpha1", "ciliumpodippools", "", namespaced=False, status=False),
        Kind(
            f"IPPool.{WHEREABOUTS}", f"{WHEREABOUTS}/v1alpha1", "ippools", "", namespaced=True, status=False
        ),
        Kind(
            f"NodeSlicePool.{WHEREABOUTS}",
            f"{WHEREABOUTS}/v1alpha1",
            "nodeslicepools",
            "",
            namespaced=True,
            status=False,
        ),
        Kind(
            f"OverlappingRangeIPReservation.{WHEREABOUTS}",
            f"{WHEREABOUTS}/v1alpha1",
            "overlappingrangeipreservations",
            "",
            namespaced=True,
            status=False,
        ),
    )
}
"""What a cluster may have beside: what tells its CIDRs is only read, a TokenReview is a question, of the webhook's
configuration we write whom API servers trust, and Whereabouts' objects are written by a takeover alone."""


def _part(name: str, api_version: str, *, namespaced: bool = True) -> Kind:
    return Kind(name, api_version, f"{name.lower()}s", "", namespaced=namespaced, status=False)


_ADMISSION, _RIGHTS = "admissionregistration.k8s.io/v1", "rbac.authorization.k8s.io/v1"
INSTALLATION: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        _part("CustomResourceDefinition", "apiextensions.k8s.io/v1", namespaced=False),
        replace(
            _part("ValidatingAdmissionPolicy", _ADMISSION, namespaced=False),
            plural="validatingadmissionpolicies",
        ),
        _part("ValidatingAdmissionPolicyBinding", _ADMISSION, namespaced=False),
        _part("ClusterRole", _RIGHTS, namespaced=False),
        _part("ClusterRoleBinding", _RIGHTS, namespaced=False),
        _part("Role", _RIGHTS),
        _part("RoleBinding", _RIGHTS),
        _part("ServiceAccount", "v1"),
        _part("Service", "v1"),
        _part("PodDisruptionBudget", "policy/v1"),
        replace(_part("NetworkPolicy", "networking.k8s.io/v1"), plural="networkpolicies"),
        _part("ServiceMonitor", "monitoring.coreos.com/v1"),
        _part("PrometheusRule", "monitoring.coreos.com/v1"),
    )
}
"""Of what, beside, an installation of ours consists; only `orbweaver uninstall` touches them."""

LEARNT: dict[str, Kind] = {}
"""Others' kinds that a cluster was found to have, by `Kind.group`: names alone are not unique, and they may come at any
time. They are only read."""

OTHERS = "*"
"""Where something is said for each kind: for all of these."""


def learn(kind: Kind) -> Kind:
    """Know a kind of somebody else's from now on, under its name and group; returns it as it is known."""
    known = replace(kind, name=f"{kind.name}.{kind.group}")
    return LEARNT.setdefault(known.name, known)


def find_kind(word: str) -> Kind:
    """The kind meant by a name, plural, singular or short name, in any case. Raises `InvalidObject`."""
    wanted = word.lower()
    for kind in KINDS.values():
        if wanted in (kind.name.lower(), kind.plural, kind.short):
            return kind
    known = ", ".join(f"{kind.plural} ({kind.short})" for kind in KINDS.values())
    raise InvalidObject(f"there is no kind {word!r} here; known are {known}")
