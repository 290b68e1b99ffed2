"""What one CNI ADD asks for, beside what the pod's own annotations say."""

from __future__ import annotations

from dataclasses import dataclass, field

from actors.decisions.detection import DetectionOverrides


@dataclass(frozen=True, slots=True)
class AddressRequest:
    """`ipv4_pools`, `ipv6_pools`, `clean_gateway`: from the network configuration (`default_ipv4_ippool`,
    `default_ipv6_ippool`, `clean_gateway`). `exact`: addresses asked for by `IP=` in CNI_ARGS, `args.cni.ips`
    or the `ips` capability (CNI conventions, "ips"); at most one of each family. `detection`:
    what this network wishes otherwise than the settings. `mac`: the interface's, where the runtime chose it."""

    interface: str = "eth0"
    ipv4_pools: tuple[str, ...] = ()
    ipv6_pools: tuple[str, ...] = ()
    clean_gateway: bool = False
    exact: tuple[tuple[int, int], ...] = ()
    detection: DetectionOverrides = field(default_factory=DetectionOverrides)
    mac: str = ""

    def pools(self, family: int) -> tuple[str, ...]:
        return self.ipv4_pools if family == 4 else self.ipv6_pools
