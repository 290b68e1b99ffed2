"""The Coordinator actor: keeps the SpiderCoordinator's status, the cluster CIDRs that the coordinator plugin needs.

What must always hold: the object `default` exists; its status is written only when it differs; what cannot be read is
tried again and leaves the status as it is, so that a moment without the API server stops no pod. It looks again every
half minute, and whenever the object changes: the other kinds change about never, and a watch on each would cost more.
"""

from __future__ import annotations

import logging
from typing import Any

from actors.errors import Conflict, InvalidObject, NoSuchResource, NotFound, OrbweaverError
from actors.resources.coordinator import KIND, NAME, NOT_READY, SpiderCoordinator
from actors.runtime import Actor, ActorContext, message
from actors.store.contract import Object, Store
from actors.store.kinds import SPIDERPOOL
from actors.views.cidr_rules import ClusterCidrs, find_cidrs

log = logging.getLogger("orbweaver.coordinator")

INTERVAL = 30.0
_FRESH = {
    "apiVersion": SPIDERPOOL,
    "kind": KIND,
    "metadata": {"name": NAME},
    "spec": {"mode": "auto", "podCIDRType": "auto", "podRPFilter": 0},
}


class CoordinatorActor(Actor):
    """One in a cluster, named `coordinator/local` in the active controller."""

    def __init__(self, context: ActorContext, *, store: Store) -> None:
        super().__init__(context)
        self._store = store

    def on_activate(self) -> None:
        self.after(0.0, self._again)

    @message
    def sync(self) -> None:
        """Compare the status with the cluster, and write it when it differs. Raises `StoreUnavailable`."""
        try:
            obj = self._store.get(KIND, NAME)
        except NotFound:
            try:
                obj = self._store.create(_FRESH)
            except Conflict:
                obj = self._store.get(KIND, NAME)
        try:
            wanted = find_cidrs(SpiderCoordinator.from_object(obj).pod_cidr_type, self._look()).status()
        except InvalidObject as error:
            wanted = {"phase": NOT_READY, "reason": str(error), "overlayPodCIDR": [], "serviceCIDR": []}
        if wanted == obj.get("status"):
            return
        try:
            self._store.update_status({**obj, "status": wanted})
        except Conflict:
            log.debug("the object changed meanwhile, its watch event repeats this")
            return
        log.info("the cluster's CIDRs changed", extra={"coordinator": NAME, **wanted})

    def _again(self) -> None:
        try:
            self.sync()
        except OrbweaverError as error:
            log.warning("the cluster's CIDRs could not be read, will try again", extra={"error": str(error)})
        self.after(INTERVAL, self._again)

    def _look(self) -> ClusterCidrs:
        pods = self._store.list("Pod", "kube-system").items
        return ClusterCidrs(
            service_cidrs=self._listed("ServiceCIDR"),
            kubeadm=self._config("kubeadm-config"),
            managers=[
                pod
                for pod in pods
                if (pod["metadata"].get("labels") or {}).get("component") == "kube-controller-manager"
            ],
            calico=self._listed("IPPool"),
            cilium=self._config("cilium-config"),
            cilium_pools=self._listed("CiliumPodIPPool"),
            flannel=self._config("kube-flannel-cfg", "kube-flannel") is not None,
        )

    def _listed(self, kind: str) -> tuple[dict[str, Any], ...] | None:
        try:
            return self._store.list(kind).items
        except NoSuchResource:
            return None

    def _config(self, name: str, namespace: str = "kube-system") -> Object | None:
        try:
            return self._store.get("ConfigMap", name, namespace)
        except NotFound:
            return None
