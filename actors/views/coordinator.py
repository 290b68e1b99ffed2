"""The Coordinator actor: keeps the SpiderCoordinator's status, the cluster CIDRs that the coordinator plugin needs.

What must always hold: the object `default` exists; its status is written only when it differs; what cannot be read is
tried again and leaves the status as it is, so that a moment without the API server stops no pod. It looks again every
half minute, and when it is told of a change: of the object, of Services' CIDRs, of Calico's pools, of a node's network. Of
many changes at once it hears as of one. Only who leads writes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from actors.decisions.node_cni import NodeCniTypes
from actors.errors import Conflict, InvalidObject, NoSuchResource, NotFound, OrbweaverError
from actors.resources.coordinator import KIND, NAME, NOT_READY, SpiderCoordinator
from actors.runtime import Actor, ActorContext, Cancellable, message
from actors.store.contract import Object, Store
from actors.store.kinds import SPIDERPOOL
from actors.views.cidr_rules import CidrSources, find_cidrs

log = logging.getLogger("orbweaver.coordinator")

INTERVAL = 30.0
GATHER = 0.5
"""Seconds in which further changes belong to the same look: all nodes tell a new leader at once."""
_FRESH = {
    "apiVersion": SPIDERPOOL,
    "kind": KIND,
    "metadata": {"name": NAME},
    "spec": {"mode": "auto", "podCIDRType": "auto", "podRPFilter": 0},
}


class CoordinatorActor(Actor):
    """One in a cluster, named `coordinator/local` in the active controller."""

    def __init__(
        self,
        context: ActorContext,
        *,
        store: Store,
        nodes: Callable[[], NodeCniTypes] = lambda: NodeCniTypes({}),
        may_write: Callable[[], bool] = lambda: True,
    ) -> None:
        """`nodes`: what the nodes' agents tell; `may_write`: whether this process leads."""
        super().__init__(context)
        self._store = store
        self._nodes = nodes
        self._may_write = may_write
        self._gathering: Cancellable | None = None

    def on_activate(self) -> None:
        self.after(0.0, self._again)

    @message
    def changed(self) -> None:
        """Something that tells of the cluster's CIDRs may be another than before."""
        if self._gathering is None:
            self._gathering = self.after(GATHER, self._gathered)

    @message
    def sync(self) -> None:
        """Compare the status with the cluster, and write it when it differs. Raises `StoreUnavailable`."""
        if not self._may_write():
            return
        try:
            obj = self._store.get(KIND, NAME)
        except NotFound:
            try:
                obj = self._store.create(_FRESH)
            except Conflict:
                obj = self._store.get(KIND, NAME)
        before = obj.get("status") or {}
        try:
            seen = self._look(str(before.get("podCIDRType", "")))
            wanted = find_cidrs(SpiderCoordinator.from_object(obj).pod_cidr_type, seen).status()
        except InvalidObject as error:
            wanted = {"phase": NOT_READY, "reason": str(error), "overlayPodCIDR": [], "serviceCIDR": []}
        if wanted == before:
            return
        try:
            self._store.update_status({**obj, "status": wanted})
        except Conflict:
            log.debug("the object changed meanwhile, its watch event repeats this")
            return
        log.info("the cluster's CIDRs changed", extra={"coordinator": NAME, **wanted})
        for reason, text, wrong in _news(before, wanted):
            events = self.get_actor("events/local").cidrs.options(timeout=None)
            events.remote(NAME, str(obj["metadata"].get("uid", "")), reason, text, wrong)

    def _gathered(self) -> None:
        self._gathering = None
        self._try()

    def _again(self) -> None:
        self._try()
        self.after(INTERVAL, self._again)

    def _try(self) -> None:
        try:
            self.sync()
        except OrbweaverError as error:
            log.warning("the cluster's CIDRs could not be read, will try again", extra={"error": str(error)})

    def _look(self, before: str) -> CidrSources:
        pods = self._store.list("Pod", "kube-system").items
        return CidrSources(
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
            nodes=self._nodes().or_as_before(before),
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


def _news(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[tuple[str, str, bool]]:
    """What a person should hear: reason, text, and whether something has to be done."""
    if now["phase"] == NOT_READY and before.get("reason") != now.get("reason"):
        yield "ClusterNotReady", str(now["reason"]), True
    kind, was = now.get("podCIDRType"), before.get("podCIDRType")
    if kind and was and kind != was:
        yield "PodCIDRTypeChanged", f"the pods' CIDRs are those of {kind} now, and were those of {was}", False
    if now.get("note") and now.get("note") != before.get("note"):
        yield "NodesDiffer", str(now["note"]), True
