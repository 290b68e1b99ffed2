"""What an object that has pods says of them: how many it wants, from which template, and whose it is itself.

What must always hold: of the template only the annotations that ask for a pool are kept, none longer than an annotation may
be, so that a cache of a whole cluster's controllers stays small whatever tenants write into them. A number of replicas is a
wish, which costs nothing: `observed` is how many pods there are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from actors.resources.application import Application
from actors.resources.fields import Fields
from actors.resources.json_text import LONGEST
from actors.resources.metadata import Metadata, Owner, open_object

PREFIX = "ipam.spidernet.io"
SUBNETS, SUBNET = f"{PREFIX}/subnets", f"{PREFIX}/subnet"
IP_NUMBER, RECLAIM = f"{PREFIX}/ippool-ip-number", f"{PREFIX}/ippool-reclaim"
ASKED_BY = (SUBNETS, SUBNET, IP_NUMBER, RECLAIM)
"""Annotations of a pod by which it asks for an automatic pool, and says how large."""
DEPLOYMENT, REPLICASET, STATEFULSET, DAEMONSET, JOB, CRONJOB = (
    "Deployment",
    "ReplicaSet",
    "StatefulSet",
    "DaemonSet",
    "Job",
    "CronJob",
)
GROUPS = {
    DEPLOYMENT: "apps",
    REPLICASET: "apps",
    STATEFULSET: "apps",
    DAEMONSET: "apps",
    JOB: "batch",
    CRONJOB: "batch",
}
"""Kubernetes' own kinds of controllers, and their API groups."""
MOST_REPLICAS = (1 << 31) - 1


@dataclass(frozen=True, slots=True)
class Workload:
    """What runs pods, as far as pools for applications depend on it."""

    application: Application
    """Which object it is."""
    replicas: int = 0
    """The pods that it wants at once."""
    observed: int = 0
    """Those that it was seen to have."""
    owner: Owner | None = None
    """Who controls it."""
    annotations: Mapping[str, str] = field(default_factory=dict)
    """Those of its pods' template that ask for a pool."""
    host_network: bool = False
    """Its pods have the node's addresses and need none."""
    terminating: bool = False
    """Whether it is being deleted."""
    version: str = ""
    """The resourceVersion that was read."""
    counted: bool = True
    """Whether anything says how many pods it wants."""
    generation: int = 0
    """That of what it wants, where it may be that others than Kubernetes say so."""

    @property
    def asks(self) -> bool:
        """Whether its pods ask for an automatic pool."""
        return not self.host_network and (SUBNETS in self.annotations or SUBNET in self.annotations)

    @property
    def is_part(self) -> bool:
        """Whether a Deployment or CronJob made it, or has adopted it, and says how many pods there are."""
        return self.owner is not None and (
            (self.application.kind, self.application.group, self.owner.kind, self.owner.group)
            in ((REPLICASET, "apps", DEPLOYMENT, "apps"), (JOB, "batch", CRONJOB, "batch"))
        )

    @classmethod
    def from_object(cls, obj: Mapping[str, Any]) -> Workload:
        """Parse an object of one of Kubernetes' own kinds. Raises `InvalidObject`."""
        top = Fields.of("object", "", obj)
        kind = top.text("kind")
        if kind not in GROUPS:
            raise top.refuse("kind", f"but must be one of {', '.join(GROUPS)}")
        meta, top = open_object(obj, kind)
        spec, status = top.inner("spec"), top.inner("status")
        if kind == CRONJOB:
            spec = spec.inner("jobTemplate").inner("spec")
        return _workload(
            meta,
            Application(GROUPS[kind], "v1", kind, meta.namespace or "default", meta.name, meta.uid),
            spec.inner("template"),
            replicas=_REPLICAS[kind](spec, status),
            observed=_OBSERVED[kind](spec, status),
        )

    @classmethod
    def of_another_kind(
        cls, obj: Mapping[str, Any], group: str, version: str, kind: str, scale: Mapping[str, Any] | None
    ) -> Workload:
        """Parse an object of somebody else's kind, and its `scale` subresource (autoscaling/v1), if it has one, which says
        how many pods it wants. That it has a template where Kubernetes' kinds have theirs is usual, and not more. Raises
        `InvalidObject`."""
        meta, top = open_object({key: value for key, value in obj.items() if key != "kind"}, kind)
        counted = Fields.of(f"scale of {top.subject}", "", scale or {})
        template = _mapping(_mapping(top.data.get("spec")).get("template"))
        whole = {
            "metadata": {
                "annotations": _short(_mapping(_mapping(template.get("metadata")).get("annotations")))
            }
        }
        workload = _workload(
            meta,
            Application(group, version, kind, meta.namespace or "default", meta.name, meta.uid),
            Fields.of(top.subject, "spec.template", whole),
            replicas=_count(counted.inner("spec"), "replicas", 0),
            observed=_count(counted.inner("status"), "replicas", 0),
        )
        host_network = _mapping(template.get("spec")).get("hostNetwork") is True
        generation = top.inner("metadata").number("generation", 0)
        return replace(workload, host_network=host_network, counted=scale is not None, generation=generation)


def workload_excerpt(obj: Mapping[str, Any]) -> dict[str, Any]:
    """Of an object what `from_object` reads, and no annotation that is longer than may be read; for lists."""
    metadata, spec, status = (_mapping(obj.get(part)) for part in ("metadata", "spec", "status"))
    job = _mapping(_mapping(spec.get("jobTemplate")).get("spec"))
    kept = {**_kept(spec), "jobTemplate": {"spec": _kept(job)}} if job else _kept(spec)
    return {
        "apiVersion": obj.get("apiVersion"),
        "kind": obj.get("kind"),
        "metadata": {key: metadata[key] for key in _METADATA if key in metadata},
        "spec": kept,
        "status": {key: status[key] for key in _COUNTED if key in status},
    }


_METADATA = (
    "name",
    "namespace",
    "uid",
    "resourceVersion",
    "generation",
    "deletionTimestamp",
    "ownerReferences",
)
_COUNTED = ("replicas", "desiredNumberScheduled", "active")
_SIZES = ("replicas", "completions", "parallelism", "ordinals")


def _kept(spec: Mapping[str, Any]) -> dict[str, Any]:
    template = _mapping(spec.get("template"))
    annotations = _mapping(_mapping(template.get("metadata")).get("annotations"))
    inner = _mapping(template.get("spec"))
    return {
        **{key: spec[key] for key in _SIZES if key in spec},
        "template": {
            "metadata": {"annotations": _short(annotations)},
            "spec": {key: inner[key] for key in ("hostNetwork",) if key in inner},
        },
    }


def _short(annotations: Mapping[str, Any]) -> dict[str, str]:
    """Those that ask for a pool. What is too long is cut where its reader still sees that."""
    return {key: value[: LONGEST + 1] for key in ASKED_BY if isinstance(value := annotations.get(key), str)}


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _workload(
    meta: Metadata, application: Application, template: Fields, *, replicas: int, observed: int
) -> Workload:
    annotations = template.inner("metadata").inner("annotations").data
    return Workload(
        application=application,
        replicas=replicas,
        observed=observed,
        owner=meta.owner,
        annotations=_short(annotations),
        host_network=template.inner("spec").flag("hostNetwork"),
        terminating=meta.deleted_at is not None,
        version=meta.version,
    )


def _count(fields: Fields, key: str, default: int) -> int:
    count = fields.number(key, default)
    if not 0 <= count <= MOST_REPLICAS:
        raise fields.refuse(key, f"but must be a number from 0 to {MOST_REPLICAS}")
    return count


def _replicas(spec: Fields, status: Fields) -> int:
    return _count(spec, "replicas", 1)  # what the API server fills in


def _on_nodes(spec: Fields, status: Fields) -> int:
    return _count(status, "desiredNumberScheduled", 0)


def _of_job(spec: Fields, status: Fields) -> int:
    """A Job that wants no completion, or nothing at once, is counted as one pod, as Spiderpool counts it."""
    for key in ("completions", "parallelism"):
        if spec.has(key):
            return max(1, _count(spec, key, 1))
    return 1


def _counted(spec: Fields, status: Fields) -> int:
    return _count(status, "replicas", 0)


def _active(spec: Fields, status: Fields) -> int:
    return _count(status, "active", 0)


_REPLICAS = {
    DEPLOYMENT: _replicas,
    REPLICASET: _replicas,
    STATEFULSET: _replicas,
    DAEMONSET: _on_nodes,
    JOB: _of_job,
    CRONJOB: _of_job,
}
_OBSERVED = {
    DEPLOYMENT: _counted,
    REPLICASET: _counted,
    STATEFULSET: _counted,
    DAEMONSET: _on_nodes,
    JOB: _active,
    CRONJOB: _of_job,  # it lists its Jobs, not their pods
}
