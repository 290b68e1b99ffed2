"""What becomes of an object that is created, updated or deleted: the API server's rules, as pure functions.

The embedded store applies these so that an actor cannot tell it from a Kubernetes API server. The rules are
those of the server's generic registry (k8s.io/apiserver `registry/rest` and apiextensions `customresource`).

What must always hold:

* The system's fields (`uid`, `creationTimestamp`, `generation`, `deletionTimestamp`) come from the store
  only; what a caller sends in them is ignored.
* A kind with the status subresource loses the status it is created with, keeps it through `update`, and takes
  nothing but the status from `update_status`. For a kind without the subresource, status is a field like any
  other, so a change of it counts for `generation`.
* An update that changes nothing has no `event`: the store writes nothing and the version stays.
* No function changes its arguments. The result may share parts with them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal

from actors.errors import Conflict, InvalidObject, NotFound, TooLarge
from actors.resources.json_text import DEEPEST_OBJECT, has_encoding, is_deeper
from actors.resources.names import is_label, is_subdomain
from actors.store.contract import Object
from actors.store.kinds import FOREIGN, INSTALLATION, KINDS, LEARNT, Kind

# etcd refuses a request beyond 1.5 MiB (--max-request-bytes), so a cluster could not take what is larger.
MAX_OBJECT_BYTES = 1_572_864

_SYSTEM = ("uid", "creationTimestamp", "generation", "deletionTimestamp", "deletionGracePeriodSeconds")

encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode
_canonical = json.JSONEncoder(separators=(",", ":"), sort_keys=True).encode


@dataclass(frozen=True, slots=True)
class WriteOutcome:
    """What a write leads to. `event` is None when nothing changes; a DELETED object is as it was last."""

    event: Literal["ADDED", "MODIFIED", "DELETED"] | None
    object: Object


@dataclass(frozen=True, slots=True)
class ObjectName:
    """Which object is meant, checked by `address` or `address_of`; `namespace` is "" for cluster scope."""

    kind: Kind
    namespace: str
    name: str

    def __str__(self) -> str:
        where = f"{self.namespace}/{self.name}" if self.namespace else self.name
        return f"{self.kind.name} {where}"


def kind_named(name: str) -> Kind:
    """The kind of exactly this name. Raises `InvalidObject`."""
    try:
        return KINDS.get(name) or FOREIGN.get(name) or INSTALLATION.get(name) or LEARNT[name]
    except KeyError:
        raise InvalidObject(f"the store holds no kind {name!r}; known are {', '.join(KINDS)}") from None


def address(kind: str, name: str, namespace: str = "") -> ObjectName:
    """Check the three parts against each other (RFC 1123 names, scope). Raises `InvalidObject`."""
    resource = kind_named(kind)
    label = kind == "Namespace"
    if not (is_label if label else is_subdomain)(name):
        raise InvalidObject(
            f"{kind} metadata.name {name[:300]!r} is not valid: lower case letters, digits, '-'"
            + (", at most 63 characters" if label else " and '.', at most 253 characters")
            + ", beginning and ending with a letter or digit (RFC 1123)"
        )
    if resource.namespaced:
        if not is_label(namespace):
            raise InvalidObject(
                f"{kind} {name} needs a namespace: metadata.namespace {namespace[:100]!r} is not "
                "an RFC 1123 label"
            )
    elif namespace:
        raise InvalidObject(
            f"{kind} {name} is cluster scoped: leave metadata.namespace out, not {namespace[:100]!r}"
        )
    return ObjectName(resource, namespace, name)


def address_of(obj: Object) -> ObjectName:
    """The address of an object, with the shape of its envelope checked. Raises `InvalidObject`."""
    metadata = obj.get("metadata")
    if not isinstance(metadata, dict):
        raise InvalidObject(f"a {obj.get('kind') or 'object'} needs metadata, a mapping with at least a name")
    parts = (obj.get("kind"), metadata.get("name"), metadata.get("namespace") or "")
    if not (isinstance(parts[0], str) and isinstance(parts[1], str) and isinstance(parts[2], str)):
        raise InvalidObject(
            f"an object needs kind and metadata.name as strings, not {parts[0]!r} and {parts[1]!r}"
        )
    where = address(parts[0], parts[1], parts[2])
    if obj.get("apiVersion") != where.kind.api_version:
        raise InvalidObject(
            f"{where} has apiVersion {obj.get('apiVersion')!r}; it must be {where.kind.api_version}"
        )
    for field in ("labels", "annotations"):
        mapping = metadata.get(field) or {}
        if not isinstance(mapping, dict) or not all(isinstance(value, str) for value in mapping.values()):
            raise InvalidObject(
                f"{where}: metadata.{field} must map strings to strings (quote numbers and booleans)"
            )
    finalizers = metadata.get("finalizers") or []
    if not isinstance(finalizers, list) or not all(isinstance(entry, str) for entry in finalizers):
        raise InvalidObject(f"{where}: metadata.finalizers must be a list of strings")
    return where


def encoded(obj: Object) -> str:
    """The object as JSON, in ASCII. Raises `InvalidObject` when it cannot be JSON, `TooLarge`."""
    try:
        text = encode(obj)
    except (TypeError, ValueError, RecursionError) as exc:
        raise InvalidObject(f"{_describe(obj)} is not valid JSON: {exc}") from exc
    if is_deeper(text, DEEPEST_OBJECT):
        raise InvalidObject(f"{_describe(obj)} is nested deeper than {DEEPEST_OBJECT}")
    if "\\ud" in text and not has_encoding(json.dumps(obj, ensure_ascii=False)):
        raise InvalidObject(
            f"{_describe(obj)} holds half of a surrogate pair (\\ud800 to \\udfff), which is no character"
        )
    if len(text) > MAX_OBJECT_BYTES:
        raise TooLarge(
            f"{_describe(obj)} is {len(text)} bytes; an object may have {MAX_OBJECT_BYTES} bytes "
            "(1.5 MiB) at most"
        )
    return text


def private_copy(obj: Object) -> Object:
    """A copy in JSON's types that shares nothing. Raises `InvalidObject` when it cannot be JSON."""
    text = encoded(obj)
    copy: Object = json.loads(text)
    metadata = copy.get("metadata")
    if isinstance(metadata, dict):
        # `labels:` with nothing behind it is null in YAML and means the same as no labels.
        copy["metadata"] = {key: value for key, value in metadata.items() if value is not None}
    return copy


def created(where: ObjectName, obj: Object, current: Object | None, *, uid: str, now: str) -> WriteOutcome:
    """A new object. Raises `Conflict` when the name is taken, `InvalidObject` when it has a version."""
    if current is not None:
        raise Conflict(f"{where} exists already; read it and update it, or choose another name")
    sent = obj["metadata"]
    if sent.get("resourceVersion"):
        raise InvalidObject(f"{where}: metadata.resourceVersion must not be set on an object to be created")
    metadata = {key: value for key, value in sent.items() if key not in _SYSTEM}
    metadata |= {"uid": uid, "creationTimestamp": now, "generation": 1}
    result = {**obj, "metadata": metadata}
    if where.kind.status:
        result.pop("status", None)
    return WriteOutcome("ADDED", result)


def updated(where: ObjectName, obj: Object, current: Object | None) -> WriteOutcome:
    """A new state of everything but the system's fields and, with the subresource, the status."""
    current = _held(where, obj, current)
    before = current["metadata"]
    metadata = {key: value for key, value in obj["metadata"].items() if key not in _SYSTEM}
    metadata |= {key: before[key] for key in _SYSTEM if key in before}
    result = {**obj, "metadata": metadata}
    if where.kind.status:
        result.pop("status", None)
        if "status" in current:
            result["status"] = current["status"]
    finalizers = metadata.get("finalizers") or []
    if before.get("deletionTimestamp"):
        added = set(finalizers) - set(before.get("finalizers") or [])
        if added:
            raise InvalidObject(
                f"{where} is being deleted: finalizers cannot be added ({', '.join(sorted(added))})"
            )
        if not finalizers:
            return WriteOutcome("DELETED", result)
    if not _same(_content(where.kind, result), _content(where.kind, current)):
        metadata["generation"] = before.get("generation", 0) + 1
    elif _same(result, current):
        return WriteOutcome(None, current)
    return WriteOutcome("MODIFIED", result)


def status_updated(where: ObjectName, obj: Object, current: Object | None) -> WriteOutcome:
    """A new status; everything else in `obj` is ignored, its metadata included."""
    if not where.kind.status:
        raise InvalidObject(f"{where.kind.name} has no status subresource: write its status with update")
    current = _held(where, obj, current)
    result = {**current, "metadata": {**current["metadata"]}}
    result.pop("status", None)
    if "status" in obj:
        result["status"] = obj["status"]
    return WriteOutcome(None, current) if _same(result, current) else WriteOutcome("MODIFIED", result)


def deleted(
    where: ObjectName, current: Object | None, *, uid: str | None, version: str | None, now: str
) -> WriteOutcome:
    """Gone, or marked as being deleted while finalizers hold it. Raises `NotFound` or `Conflict`."""
    if current is None:
        raise NotFound(f"{where} does not exist")
    metadata = current["metadata"]
    if uid is not None and uid != metadata["uid"]:
        raise Conflict(
            f"{where} has uid {metadata['uid']}, not {uid}: the one to be deleted was replaced by another"
        )
    if version is not None and version != metadata["resourceVersion"]:
        raise Conflict(
            f"{where} changed since version {version} (it is at {metadata['resourceVersion']}): read it again"
        )
    if not metadata.get("finalizers"):
        return WriteOutcome("DELETED", {**current, "metadata": {**metadata}})
    if metadata.get("deletionTimestamp"):
        return WriteOutcome(None, current)
    # The mark counts for the generation, as in the API server (registry store, markAsDeleting).
    marks = {
        "deletionTimestamp": now,
        "deletionGracePeriodSeconds": 0,
        "generation": metadata["generation"] + 1,
    }
    return WriteOutcome("MODIFIED", {**current, "metadata": {**metadata, **marks}})


def _held(where: ObjectName, obj: Object, current: Object | None) -> Object:
    """The compare of the compare-and-swap."""
    sent = obj["metadata"]
    version = sent.get("resourceVersion")
    if not version:
        raise InvalidObject(f"{where}: an update needs metadata.resourceVersion; read the object first")
    if current is None:
        raise NotFound(f"{where} does not exist")
    held = current["metadata"]
    if sent.get("uid") and sent["uid"] != held["uid"]:
        raise Conflict(f"{where} has uid {held['uid']}, not {sent['uid']}: it was deleted and created again")
    if version != held["resourceVersion"]:
        raise Conflict(
            f"{where} changed since version {version} (it is at {held['resourceVersion']}): read it again"
        )
    return current


def _content(kind: Kind, obj: Object) -> Object:
    left_out = ("metadata", "status") if kind.status else ("metadata",)
    return {key: value for key, value in obj.items() if key not in left_out}


def _same(before: Object, after: Object) -> bool:
    # Python holds 1, 1.0 and True equal; JSON does not, and a write from one to the other must not be lost.
    return before == after and _canonical(before) == _canonical(after)


def _describe(obj: Any) -> str:
    metadata = obj.get("metadata") if isinstance(obj, dict) else None
    name = metadata.get("name") if isinstance(metadata, dict) else None
    return f"{obj.get('kind') if isinstance(obj, dict) else 'the object'} {name or '(no name)'}"
