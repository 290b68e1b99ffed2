"""What a process keeps of objects that tenants make: the fields that decisions read, and no more bytes than usual ones have.

What must always hold: whoever may create pods, StatefulSets, namespaces or virtual machines makes them as large as the API
server takes them, 1.5 MB each, as many as he likes and without a single pod running; the caches of every agent and every
controller hold all of those. So a list is cut down page by page, before the next page comes, and an object whose labels and
annotations are larger than `USUAL` is kept without them: who needs them reads that one object (`is_whole`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from actors.resources.namespace import Namespace
from actors.resources.pod import Pod
from actors.resources.workload import GROUPS, workload_excerpt
from actors.store.contract import Object
from actors.store.kinds import OTHERS

USUAL = 32_768
"""Characters of an object's labels and annotations together; a pod of a service mesh has some five thousand."""

TOLERATIONS = 64
"""Tolerations without an end that are kept of a pod; those of DaemonSets have eight."""
_METADATA = ("name", "namespace", "uid", "resourceVersion", "deletionTimestamp", "ownerReferences")
_MARKS = ("labels", "annotations")
_NOTHING: Mapping[str, str] = {}


def pod_excerpt(obj: Object) -> Object:
    """Of a pod what its node's agent reads."""
    kept = _excerpt(obj, *_MARKS, spec=("nodeName", "restartPolicy"), status=("phase", "reason", "podIPs"))
    for_ever = [
        toleration
        for toleration in (obj.get("spec") or {}).get("tolerations") or ()
        if "tolerationSeconds" not in toleration
    ]
    return {**kept, "spec": {**kept["spec"], "tolerations": for_ever[:TOLERATIONS]}}


def namespace_excerpt(obj: Object) -> Object:
    """Of a namespace its labels, its annotations, and whether it goes."""
    return _excerpt(obj, *_MARKS)


def machine_excerpt(obj: Object) -> Object:
    """Of a virtual machine, its instance or an IPAMClaim who it is, whose, and whether it goes."""
    return _excerpt(obj)


EXCERPTS: Mapping[str, Callable[[Object], Object]] = {
    "Namespace": namespace_excerpt,
    **dict.fromkeys((*GROUPS, OTHERS), workload_excerpt),
    "VirtualMachine": machine_excerpt,
    "VirtualMachineInstance": machine_excerpt,
    "IPAMClaim": machine_excerpt,
}
"""What lists of agents and controllers are cut down to; of pods each of the two needs another part."""


def cached_pod(obj: Object) -> Pod:
    """A pod for the cache. Raises `InvalidObject`."""
    pod = Pod.from_object(obj)
    if _size(pod.labels, pod.annotations) <= USUAL:
        return pod
    return replace(pod, labels=_NOTHING, annotations=_NOTHING, is_whole=False)


def cached_namespace(obj: Object) -> Namespace:
    """A namespace for the cache. Raises `InvalidObject`."""
    namespace = Namespace.from_object(obj)
    if _size(namespace.labels, namespace.annotations) <= USUAL:
        return namespace
    return replace(namespace, labels=_NOTHING, annotations=_NOTHING, is_whole=False)


def _excerpt(obj: Object, *metadata: str, **parts: tuple[str, ...]) -> Object:
    kept: dict[str, Any] = {
        part: {field: content[field] for field in fields if field in content}
        for part, fields in {"metadata": (*_METADATA, *metadata), "spec": (), "status": (), **parts}.items()
        for content in (obj.get(part) or {},)
    }
    return {"apiVersion": obj["apiVersion"], "kind": obj["kind"], **kept}


def _size(*mappings: Mapping[str, str]) -> int:
    return sum(len(key) + len(value) for mapping in mappings for key, value in mapping.items())
