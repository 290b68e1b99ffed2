"""The IPAMClaims that a pod's networks refer to: read before its addresses are decided on, written before it is answered.

What must always hold: a claim counts only for a network whose definition opts in (`allowPersistentIPs`), and it is one of
the pod's own namespace; its status names the addresses that are recorded for it, and is durable before an ADD is answered.
How long the addresses stay is decided elsewhere: `wanted` in `decisions/inherit.py`, `_retained` in `reclaim/rules.py`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from actors.decisions.annotations import NETWORKS, read_networks
from actors.errors import Conflict, InvalidObject, NoSuchResource, NotFound, PodRefused
from actors.resources import ipam_claim, network_attachment
from actors.resources.ipam_claim import IPAMClaim
from actors.resources.network_attachment import NetworkAttachment
from actors.resources.pod import Pod
from actors.store.contract import Store

log = logging.getLogger("orbweaver.endpoint")

ALLOWED = "allowPersistentIPs"
"""The key of a network's configuration."""
_TRIES = 8


class PersistentClaims:
    """Reads and writes claims in a store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def of_pod(self, pod: Pod) -> Mapping[str, IPAMClaim]:
        """By interface, the claims whose addresses the pod is to have. Raises `PodRefused`."""
        if "ipam-claim-reference" not in pod.annotations.get(NETWORKS, ""):
            return {}
        claims: dict[str, IPAMClaim] = {}
        for network in read_networks(pod):
            if not network.claim:
                continue
            if not self._allows(network.namespace, network.name):
                log.warning(
                    "a network does not keep addresses, so that a claim for it is passed over",
                    extra={"pod": pod.key, "network": network.key, "claim": network.claim},
                )
                continue
            other = next(
                (interface for interface, claim in claims.items() if claim.name == network.claim), None
            )
            if other is not None:
                raise PodRefused(
                    f"pod {pod.key}: annotation {NETWORKS} names IPAMClaim {network.claim} for {other} and for "
                    f"{network.interface}; make another IPAMClaim for one of them"
                )
            claims[network.interface] = self._claim(pod, network.key, network.claim)
        return claims

    def write(self, claim: IPAMClaim, ips: Sequence[str], pod: str) -> None:
        """Have the claim's status name the addresses (CIDR form) and the pod that has them now. Raises `NotFound` when the
        claim went meanwhile, `StoreUnavailable`."""
        for tries_left in reversed(range(_TRIES)):
            obj = self._store.get(ipam_claim.KIND, claim.name, claim.namespace)
            status = {**(obj.get("status") or {}), "ips": list(ips), "ownerPod": {"name": pod}}
            if obj.get("status") == status:
                return
            try:
                self._store.update_status({**obj, "status": status})
            except Conflict:
                if not tries_left:
                    raise
            else:
                return

    def _allows(self, namespace: str, name: str) -> bool:
        try:
            network = NetworkAttachment.from_object(self._store.get(network_attachment.KIND, name, namespace))
            top = network.configuration()
            return top.flag(ALLOWED) or any(plugin.flag(ALLOWED) for plugin in network.plugins())
        except (NotFound, NoSuchResource, InvalidObject):
            return False  # whoever attaches the pod to it says what is wrong with it

    def _claim(self, pod: Pod, network: str, name: str) -> IPAMClaim:
        what = f"pod {pod.key}: IPAMClaim {pod.namespace}/{name} of its network {network}"
        try:
            return IPAMClaim.from_object(self._store.get(ipam_claim.KIND, name, pod.namespace))
        except NotFound as error:
            raise PodRefused(f"{what} does not exist; create it, and the pod will be tried again") from error
        except NoSuchResource as error:
            raise PodRefused(
                f"{what} cannot be: the cluster has no kind IPAMClaim; install it (deploy/networks/ipamclaims.yaml)"
            ) from error
        except InvalidObject as error:
            raise PodRefused(f"{what} cannot be used: {error.message}") from error
