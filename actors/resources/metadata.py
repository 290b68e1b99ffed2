"""The `metadata` that every Kubernetes object carries, as a value.

What must always hold: `deleted_at` is seconds since the epoch and is Kubernetes' `deletionTimestamp`, which
already includes the grace period: it is the time by which the object should be gone, not when it was deleted.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from actors.resources.fields import Fields
from actors.resources.json_text import showable

_KIND = re.compile(r"[A-Za-z][A-Za-z0-9]{0,62}")
_API_VERSION = re.compile(r"([a-z0-9][-a-z0-9.]{0,252}/)?[a-z0-9][-a-z0-9]{0,62}")
# What the API server takes as a path segment (apimachinery, pkg/api/validation/path), of characters that can be shown.
_NAME = re.compile(r"[!-$&-.0-~]{1,253}")
_SHOWN = 253
_UID = re.compile(r"[!-~]{1,128}")


@dataclass(frozen=True, slots=True)
class Owner:
    """The controller of an object, from `metadata.ownerReferences`. Whoever may create an object writes these as he
    likes, and the API server checks nothing of them: that such an owner exists, and has this UID, is for the reader to
    find out."""

    api_version: str
    kind: str
    name: str
    uid: str

    @property
    def group(self) -> str:
        """The API group, empty for the core one."""
        group, slash, _ = self.api_version.partition("/")
        return group if slash else ""


@dataclass(frozen=True, slots=True)
class Metadata:
    """What every object says of itself."""

    namespace: str
    """Empty for a kind of cluster scope."""
    name: str
    """Within kind and namespace."""
    uid: str
    """Empty before it was stored."""
    version: str
    """The opaque resourceVersion, "" for an object that was not stored yet."""
    labels: Mapping[str, str]
    """Checked to be texts."""
    annotations: Mapping[str, str]
    """Checked to be texts."""
    deleted_at: float | None
    """The deletionTimestamp in seconds since the epoch; None if it is not being deleted."""
    owner: Owner | None
    """The controller among its ownerReferences."""


def open_object(obj: object, kind: str) -> tuple[Metadata, Fields]:
    """The metadata of an object and its top-level fields. Raises `InvalidObject` if it is not of that
    kind."""
    top = Fields.of(kind, "", obj)
    if top.text("kind", kind) != kind:
        raise top.refuse("kind", f"but must be {kind}")
    meta = top.inner("metadata")
    namespace, name = meta.text("namespace"), meta.text("name")
    if not name:
        raise meta.refuse("name", "but every object needs a name")
    subject = showable(
        f"{kind} {namespace[:_SHOWN]}/{name[:_SHOWN]}" if namespace else f"{kind} {name[:_SHOWN]}"
    )
    top = Fields.of(subject, "", top.data)
    meta = top.inner("metadata")
    return (
        Metadata(
            namespace=namespace,
            name=name,
            uid=meta.text("uid"),
            version=meta.text("resourceVersion"),
            labels=meta.labels("labels"),
            annotations=meta.labels("annotations"),
            deleted_at=moment(meta, "deletionTimestamp"),
            owner=_controller(meta),
        ),
        top,
    )


def moment(meta: Fields, key: str) -> float | None:
    """A time of RFC 3339 in seconds since the epoch, None where there is none. Raises `InvalidObject`."""
    value: Any = meta.data.get(key)
    if value is None:
        return None
    if isinstance(value, datetime):  # a YAML reader makes these of unquoted timestamps
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
    try:
        moment = datetime.fromisoformat(meta.text(key))
    except ValueError as cause:
        raise meta.refuse(key, "but must be a time of RFC 3339, such as 2025-01-31T12:00:00Z") from cause
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _controller(meta: Fields) -> Owner | None:
    """The first reference that says so; none where no object can be named as it says."""
    for reference in meta.items("ownerReferences"):
        if reference.flag("controller"):
            named = Owner(
                reference.text("apiVersion"),
                reference.text("kind"),
                reference.text("name"),
                reference.text("uid"),
            )
            return named if _can_be(named) else None
    return None


def _can_be(owner: Owner) -> bool:
    return (
        _KIND.fullmatch(owner.kind) is not None
        and _API_VERSION.fullmatch(owner.api_version) is not None
        and _NAME.fullmatch(owner.name) is not None
        and _UID.fullmatch(owner.uid) is not None
    )
