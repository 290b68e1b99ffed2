"""The cluster-wide settings that decisions depend on.

What must always hold: they are a value, handed in with every decision; at least one family is enabled.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from actors.decisions.detection import Detection
from actors.errors import InvalidObject

AGENT_NAMESPACE = "orbweaver-system"
"""In which `deploy/` has agents and controllers run, and in which they are taken to run when nothing says it."""


@dataclass(frozen=True, slots=True)
class GCSettings:
    """What garbage collection may do, and when; times are in seconds."""

    enabled: bool = True
    """Whether the leader collects at all."""
    interval: float = 600.0
    """Between two scans of everything."""
    dead_on_ready: bool = True
    """Whether a Terminating pod of a node that is Ready loses its addresses."""
    dead_on_ready_delay: float = 0.0
    """How long after its grace period."""
    dead_on_not_ready: bool = True
    """The same on a node that is not Ready."""
    dead_on_not_ready_delay: float = 0.0
    """Likewise."""
    lost_nodes: bool = True
    """Whether the pods of a node that is lost lose theirs: its object is gone, or it is not Ready and out of service."""
    not_ready_delay: float = 300.0
    """After so long without being Ready a node counts as lost too."""
    own_del: float = 5.0
    """For nodes where nobody sees when a sandbox has ended: how long the runtime of a Ready one may take for its own DEL."""
    agent_away: float = 120.0
    """For how long after its last word the release is left to the node's agent, which sees that."""


@dataclass(frozen=True, slots=True)
class NetworkSettings:
    """Several interfaces without another meta plugin ("networks" mode)."""

    enabled: bool = False
    isolated: bool = False
    """Whether pods may use networks of their own namespace alone, beside those of `shared_namespaces`."""
    shared_namespaces: tuple[str, ...] = ()
    """Whose networks everybody may use."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The cluster's settings. The names are those of Spiderpool's ConfigMap, as far as it has them."""

    enable_ipv4: bool = True
    """Whether pods get IPv4 addresses."""
    enable_ipv6: bool = True
    """Whether pods get IPv6 addresses."""
    enable_statefulset: bool = True
    """Whether a StatefulSet's pods keep theirs."""
    enable_kubevirt: bool = True
    """Whether virtual machines do."""
    keep_scaled_down: bool = False
    """A StatefulSet that is scaled down keeps the addresses of the pods that it may start again."""
    default_ipv4_pools: tuple[str, ...] = ()
    """The cluster's default pools, wildcards allowed, tried beside the pools with `spec.default: true`."""
    default_ipv6_pools: tuple[str, ...] = ()
    """Likewise."""
    agent_namespace: str = AGENT_NAMESPACE
    """Where a network attachment named without namespace is looked for, when it is the default network or in a pool's
    `multusName`."""
    multus_cluster_network: str | None = None
    """The network attachment ("namespace/name") that the first interface gets when the pod does not choose one."""
    networks_annotated: bool = False
    """A pod has no interface beside the first one but those that its annotation of networks names (Kubernetes with Multus)."""
    enable_subnets: bool = True
    """Pools are made for applications that name a SpiderSubnet; without it their annotations say nothing."""
    enable_auto_pools: bool = True
    """Without it the pods of such applications are refused."""
    spare_addresses: int = 1
    """How many more than replicas such a pool has, where the application does not say."""
    multus_configs: bool = True
    """Networks are made from SpiderMultusConfigs."""
    coordinators: bool = True
    """The SpiderCoordinator is made, and its status kept."""
    detection: Detection = field(default_factory=Detection)
    """What is looked for on the wire before an address is given out."""
    gc: GCSettings = field(default_factory=GCSettings)
    """What is taken back, and when."""
    networks: NetworkSettings = field(default_factory=NetworkSettings)
    """How pods are attached to further networks."""

    def __post_init__(self) -> None:
        if not (self.enable_ipv4 or self.enable_ipv6):
            raise InvalidObject(
                "settings: enableIPv4 and enableIPv6 are both false; enable at least one family"
            )

    def enabled(self, family: int) -> bool:
        return self.enable_ipv4 if family == 4 else self.enable_ipv6

    def default_pools(self, family: int) -> tuple[str, ...]:
        return self.default_ipv4_pools if family == 4 else self.default_ipv6_pools
