"""A real API server in place of the embedded store's file, for tests that were written for the file.

A directory stands for a store: opening another one than the last empties the API server first, opening the same
one again goes on with what is there. Objects of Kubernetes' own are completed to what the API server demands.
What must always hold: the store under test is `KubernetesStore` itself; only what a test applies passes through
here.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from actors.errors import Conflict, InvalidObject, NoSuchResource, NotFound
from actors.store.contract import Listing, Object
from actors.store.kinds import KINDS
from actors.store.kubernetes.store import KubernetesStore
from tests.tools.apiserver import ApiServer

_KEPT = frozenset({"Namespace", "Lease", "Secret"})
"""Kinds that one test's leader cannot take for the next one's: no namespace ever ends without its controller, the others are
those of the process that wrote them."""


PATIENCE = 60.0
"""Seconds for one answer of the API server, which on a machine with much else to do may take longer than the product waits."""


class ClusterStore(KubernetesStore):
    """A store that completes what is written, and is patient."""

    def get(self, kind: str, name: str, namespace: str = "", *, timeout: float = PATIENCE) -> Object:
        return super().get(kind, name, namespace, timeout=timeout)

    def list(self, kind: str, namespace: str | None = None, *, timeout: float = PATIENCE) -> Listing:
        return super().list(kind, namespace, timeout=timeout)

    def update_status(self, obj: Object, *, timeout: float = PATIENCE) -> Object:
        return super().update_status(obj, timeout=timeout)

    def delete(
        self, kind: str, name: str, namespace: str = "", *, timeout: float = PATIENCE, **more: Any
    ) -> None:
        super().delete(kind, name, namespace, timeout=timeout, **more)

    def create(self, obj: Object, *, timeout: float = PATIENCE) -> Object:
        completed = self._owned(_completed(obj))
        namespace = obj["metadata"].get("namespace", "")
        try:
            return super().create(completed, timeout=timeout)
        except Conflict:
            if obj["kind"] != "Namespace":
                raise
            return self.get("Namespace", obj["metadata"]["name"])  # the server makes the first ones by itself
        except NotFound:
            with contextlib.suppress(Conflict):
                super().create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
            return super().create(completed, timeout=timeout)

    def _owned(self, obj: Object) -> Object:
        """With the UIDs of the owners that are there: "u" stands for them."""
        metadata = obj["metadata"]
        owners = [dict(owner) for owner in metadata.get("ownerReferences", ())]
        for owner in owners:
            if owner["uid"] == "u":
                with contextlib.suppress(NotFound, NoSuchResource, InvalidObject):
                    owning = self.get(owner["kind"], owner["name"], metadata.get("namespace", ""))
                    owner["uid"] = owning["metadata"]["uid"]
        return {**obj, "metadata": {**metadata, "ownerReferences": owners}} if owners else obj

    def update(self, obj: Object, *, timeout: float = PATIENCE) -> Object:
        return super().update(_completed(obj), timeout=timeout)


class Cluster:
    """Opens stores on one API server."""

    def __init__(self, server: ApiServer) -> None:
        self._server = server
        self._directory: Path | None = None

    def open(self, path: Path) -> ClusterStore:
        """The store for a file's path."""
        store = ClusterStore(self._server.access())
        if path.parent != self._directory:
            self._directory = path.parent
            _empty(store, self._server)
        return store


def _empty(store: KubernetesStore, server: ApiServer) -> None:
    for kind in sorted(KINDS.keys() - _KEPT):
        try:
            objects = store.list(kind).items
        except NoSuchResource:
            continue
        for obj in objects:
            metadata = obj["metadata"]
            if metadata.get("finalizers"):
                store.update({**obj, "metadata": {**metadata, "finalizers": []}})
            # No kubelet ends a pod, so not even a grace period may be waited for, and nobody collects what a Job leaves, which
            # would keep it; and an API server takes names of Events that the store would not.
            at_once = {"gracePeriodSeconds": 0} if kind == "Pod" else {}
            server.ask("DELETE", _path(kind, metadata), {"propagationPolicy": "Background", **at_once})


def _path(kind: str, metadata: dict[str, Any]) -> str:
    of = KINDS[kind]
    root = f"/apis/{of.api_version}" if of.group else f"/api/{of.api_version}"
    within = f"/namespaces/{metadata['namespace']}" if of.namespaced else ""
    return f"{root}{within}/{of.plural}/{metadata['name']}"


def _completed(obj: Object) -> Object:
    spec: dict[str, Any] = dict(obj.get("spec") or {})
    containers = {"containers": [{"name": "c", "image": "none"}]}
    if obj.get("kind") == "Pod":
        spec = containers | spec
        owners = [{"uid": "u"} | owner for owner in obj["metadata"].get("ownerReferences", ())]
        metadata = obj["metadata"] | ({"ownerReferences": owners} if owners else {})
        return {**obj, "metadata": metadata, "spec": spec}
    if obj.get("kind") == "VirtualMachineInstance":
        owners = [{"uid": "u"} | owner for owner in obj["metadata"].get("ownerReferences", ())]
        return {**obj, "metadata": obj["metadata"] | ({"ownerReferences": owners} if owners else {})}
    if obj.get("kind") == "Deployment":
        labels = {"app": obj["metadata"]["name"]}
        given = spec.get("template") or {}
        metadata = {"labels": labels, **(given.get("metadata") or {})}
        template = {**given, "metadata": metadata, "spec": {**containers, **(given.get("spec") or {})}}
        return {**obj, "spec": {"selector": {"matchLabels": labels}, **spec, "template": template}}
    if obj.get("kind") == "StatefulSet":
        labels = {"app": obj["metadata"]["name"]}
        template = {"metadata": {"labels": labels}, "spec": containers}
        spec = {"selector": {"matchLabels": labels}, "template": template, "serviceName": "s"} | spec
        return {**obj, "spec": spec}
    return obj
