"""What a store must do; the SQLite file and the Kubernetes API server both keep this contract.

What must always hold:

* An object is a plain mapping in Kubernetes' JSON form (`apiVersion`, `kind`, `metadata`, …). What a store
  returns may be shared with others: copy before you change it.
* Versions of objects of one kind grow: `version_number` orders them, and nothing else may be read into them
  (Kubernetes KEP-5504 promises this of every API server; it was so before).
* Every write is a compare-and-swap. `update` and `update_status` need `metadata.resourceVersion` and raise
  `Conflict` when it is not the newest; `create` raises `Conflict` when the name is taken; `delete` checks the
  preconditions it is given.
* A write that returned is durable: it survives kill -9 of every process and a loss of power.
* A write that raised `StoreUnavailable` with `maybe_written` may or may not have taken place; the caller finds
  out by reading. Without it nothing was written.
* An object with finalizers is not removed by `delete`: it gets a `deletionTimestamp`, and goes with the update
  that takes the last finalizer away. `metadata.generation` grows when anything but metadata and status changes.
* A watch delivers every change after `since` in order, each at least once, or raises `WatchExpired`.
* Every call returns or raises within `timeout` seconds.

Errors: `NotFound`, `Conflict`, `WatchExpired`, `StoreUnavailable`, `InvalidObject`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias

from actors.errors import InvalidObject
from actors.store.kinds import Kind

Object: TypeAlias = dict[str, Any]
_DIGITS = 20
"""Of the largest version: etcd counts with 64 bits."""


def version_number(version: str) -> int:
    """The place of a version in the order of a kind's changes; -1 for the empty version of what does not exist. Raises
    `InvalidObject` for what is none."""
    if not version:
        return -1
    if not version.isascii() or not version.isdecimal() or len(version) > _DIGITS:
        raise InvalidObject(f"{version[:40]!r} is not the version of an object")
    return int(version)


@dataclass(frozen=True, slots=True)
class Listing:
    """All objects of a kind at one moment; `version` is where a watch goes on from."""

    items: tuple[Object, ...]
    version: str


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """One change. A deleted object comes as it was last. A bookmark has only kind and resourceVersion."""

    type: Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK"]
    object: Object


class Watch(Protocol):
    """A running watch: iterate for events; `close` from any thread ends the iteration."""

    def __iter__(self) -> Iterator[WatchEvent]: ...

    def close(self) -> None: ...


class Store(Protocol):
    """See the module's text for what every implementation promises. Safe to call from any thread."""

    def get(self, kind: str, name: str, namespace: str = "", *, timeout: float = 10.0) -> Object: ...

    def list(self, kind: str, namespace: str | None = None, *, timeout: float = 30.0) -> Listing: ...

    def versions(self, kind: str, *, timeout: float = 30.0) -> dict[str, str]:
        """The version of each object of a cluster-scoped kind, by name, at one moment not older than the call; without
        the objects, which may be large."""
        ...

    def watch(self, kind: str, since: str) -> Watch: ...

    def create(self, obj: Object, *, timeout: float = 10.0) -> Object: ...

    def update(self, obj: Object, *, timeout: float = 10.0) -> Object: ...

    def update_status(self, obj: Object, *, timeout: float = 10.0) -> Object: ...

    def delete(
        self,
        kind: str,
        name: str,
        namespace: str = "",
        *,
        uid: str | None = None,
        version: str | None = None,
        grace: int | None = None,
        timeout: float = 10.0,
    ) -> None:
        """`grace`: the seconds, from 1, that a pod's processes have to end by themselves; None: what the pod says. A pod that
        is being deleted already can be given less. Stores that no kubelet reads take no notice of it."""
        ...

    def kinds(self, api_version: str, *, timeout: float = 10.0) -> tuple[Kind, ...]:
        """The kinds of an API version (`argoproj.io/v1alpha1`) that objects can be read of here, under their names alone.
        Raises `NoSuchResource` where there is no such version."""
        ...

    def scale(self, kind: str, name: str, namespace: str, *, timeout: float = 10.0) -> Object:
        """The `scale` of an object (autoscaling/v1): how many pods it wants, and has; with the object's UID."""
        ...

    def trouble(self) -> str | None:
        """Why writes fail now, as far as it is known without asking for one; None when nothing is known. It does not
        wait, and is not known for a store that is elsewhere."""
        ...

    def close(self) -> None: ...
