"""Who could hold an address: the cluster's pods, nodes, namespaces, StatefulSets and pools, remembered or read anew.

What must always hold: `CachedClusterState` answers from caches and costs the API server nothing, so it may only say where to
look; `LiveClusterState` answers with what the API server has now, each object read at most once in its short life, and decides.
Of a cached pod only what a verdict needs is kept: there may be a hundred thousand.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

from actors.errors import NoSuchResource, NotFound
from actors.resources import ipam_claim
from actors.resources.names import is_label, is_subdomain
from actors.resources.namespace import Namespace
from actors.resources.node import Node
from actors.resources.pod import MIRROR, Pod
from actors.resources.statefulset import StatefulSet
from actors.resources.virtualmachine import INSTANCE, MACHINE, VirtualMachine, lives
from actors.store.caches.catalog import Catalog
from actors.store.caches.excerpts import TOLERATIONS
from actors.store.caches.informer import Informer
from actors.store.contract import Object, Store

T = TypeVar("T")

LIST_TIMEOUT = 300.0
"""Seconds for listing the pods of a whole cluster, page by page."""

_MANAGER = "kube-controller-manager"
_POD_METADATA = ("name", "namespace", "uid", "resourceVersion", "deletionTimestamp")
_POD_SPEC = ("nodeName",)
_POD_STATUS = ("phase", "reason", "podIPs")


class CachedClusterState:
    """The caches: those of the catalog, and one of all pods while it is started."""

    def __init__(self, store: Store, catalog: Catalog) -> None:
        self._store = store
        self._catalog = catalog
        self._pods: Informer | None = None

    def start(self, changed: Callable[[Any], None]) -> None:
        """List and watch the pods, and tell `changed` the key of each one that changes."""
        pods = self._pods = Informer(self._store, "Pod", transform=_slim, list_timeout=LIST_TIMEOUT)
        pods.subscribe(changed)
        pods.start()

    def wait_synced(self, timeout: float) -> bool:
        """Whether all pods are known within `timeout` seconds. Until they are, every pod seems to be gone."""
        pods = self._pods
        return pods is not None and pods.wait_synced(timeout)

    def stop(self) -> None:
        """Forget the pods."""
        pods, self._pods = self._pods, None
        if pods is not None:
            pods.stop()

    def pod(self, pod: str) -> Pod | None:
        namespace, _, name = pod.partition("/")
        pods = self._pods
        cached: Pod | None = None if pods is None else pods.get(name, namespace)
        return cached

    def node(self, name: str) -> Node | None:
        cached: Node | None = self._catalog.informer("Node").get(name)
        return cached

    def statefulset(self, namespace: str, name: str) -> StatefulSet | None:
        cached: StatefulSet | None = self._catalog.informer("StatefulSet").get(name, namespace)
        return cached

    def machine_lives(self, namespace: str, name: str) -> bool:
        machine, instance = (
            self._catalog.informer(kind).get(name, namespace) for kind in (MACHINE, INSTANCE)
        )
        return lives(machine, instance)

    def claim_lives(self, namespace: str, name: str) -> bool:
        return self._catalog.informer(ipam_claim.KIND).get(name, namespace) is not None

    def namespace(self, name: str) -> bool:
        return _stays(self._catalog.informer("Namespace").get(name))

    def pool(self, name: str) -> bool:
        return self._catalog.informer("SpiderIPPool").get(name) is not None


class LiveClusterState:
    """The API server's word. Make one for a few pods that are judged together, and drop it then. Safe to call from any
    thread; raises `StoreUnavailable`, and `InvalidObject` for an object that cannot be understood. `remembered`: a
    StatefulSet as it was seen before, because its status does not say how many pods it had; without it any number is
    believed."""

    def __init__(
        self, store: Store, remembered: Callable[[str, str], StatefulSet | None] | None = None
    ) -> None:
        self._store = store
        self._remembered = remembered
        self._read: dict[tuple[str, str, str], Any] = {}
        self._lock = threading.Lock()

    def pod(self, pod: str) -> Pod | None:
        namespace, _, name = pod.partition("/")
        return self._once("Pod", namespace, name, Pod.from_object)

    def node(self, name: str) -> Node | None:
        return self._once("Node", "", name, Node.from_object) if name else None

    def statefulset(self, namespace: str, name: str) -> StatefulSet | None:
        remembered = self._remembered
        if remembered is None:
            return self._once("StatefulSet", namespace, name, StatefulSet.from_object)
        before = remembered(namespace, name)
        return self._once("StatefulSet", namespace, name, lambda obj: StatefulSet.watched(obj, before))

    def machine_lives(self, namespace: str, name: str) -> bool:
        machine = self._once(MACHINE, namespace, name, VirtualMachine.from_machine)
        instance = self._once(INSTANCE, namespace, name, VirtualMachine.from_instance)
        return lives(machine, instance)

    def claim_lives(self, namespace: str, name: str) -> bool:
        return self._once(ipam_claim.KIND, namespace, name, bool) is not None

    def namespace(self, name: str) -> bool:
        return _stays(self._once("Namespace", "", name, Namespace.from_object))

    def pool(self, name: str) -> bool:
        return self._once("SpiderIPPool", "", name, bool) is not None

    def _once(self, kind: str, namespace: str, name: str, parse: Callable[[Object], T]) -> T | None:
        if not is_subdomain(name) or (namespace and not is_label(namespace)):
            return None  # no object can be named so; the store would refuse the question
        key = (kind, namespace, name)
        with self._lock:
            if key in self._read:
                answer: T | None = self._read[key]
                return answer
        try:
            answer = parse(self._store.get(kind, name, namespace))
        except NotFound:
            answer = None
        except NoSuchResource:
            if kind not in (MACHINE, INSTANCE, ipam_claim.KIND):
                raise
            answer = None  # no KubeVirt, no machine; and no claim where there is no such kind
        with self._lock:
            return self._read.setdefault(key, answer)


def _stays(namespace: Namespace | None) -> bool:
    return namespace is not None and not namespace.terminating


def trimmed_pod(obj: Object) -> Object:
    """A Pod object with nothing in it but what a verdict needs; for lists of all pods of a cluster. Of the cluster's own
    kube-controller-manager also its arguments, which say the cluster's CIDRs (`views/coordinator.py`)."""
    parts = {"metadata": _POD_METADATA, "spec": _POD_SPEC, "status": _POD_STATUS}
    kept: Object = {}
    for part, fields in parts.items():
        content = obj.get(part) or {}
        kept[part] = {field: content[field] for field in fields if field in content}
    mirrored = ((obj.get("metadata") or {}).get("annotations") or {}).get(MIRROR)
    if mirrored is not None:
        kept["metadata"]["annotations"] = {MIRROR: mirrored}
    tolerations = (obj.get("spec") or {}).get("tolerations") or ()
    for_ever = [toleration for toleration in tolerations if "tolerationSeconds" not in toleration]
    if for_ever:
        kept["spec"]["tolerations"] = for_ever[:TOLERATIONS]
    labels = (obj.get("metadata") or {}).get("labels") or {}
    if kept["metadata"].get("namespace") == "kube-system" and labels.get("component") == _MANAGER:
        kept["metadata"]["labels"] = {"component": _MANAGER}
        kept["spec"]["containers"] = [
            {word: container[word] for word in ("command", "args") if word in container}
            for container in (obj.get("spec") or {}).get("containers") or ()
        ]
    return kept


def _slim(obj: Object) -> Pod:
    pod = Pod.from_object(trimmed_pod(obj))
    # The same few texts a hundred thousand times.
    return replace(
        pod, namespace=sys.intern(pod.namespace), node=sys.intern(pod.node), labels=_NONE, annotations=_NONE
    )


_NONE: Mapping[str, str] = {}
