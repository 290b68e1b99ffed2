"""The SpiderIPPools that a takeover makes for another IPAM's ranges: made without giving anything out, enabled when what
is in use is recorded, and taken away on the way back.

What must always hold: a pool that no takeover made is never changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from actors.errors import Conflict, InvalidObject, InvalidRequest, NotFound
from actors.resources.admission import FINALIZER, admit
from actors.resources.ippool import KIND, IPPool
from actors.resources.pool_status import allocations_in
from actors.store.contract import Object, Store
from cni.takeover.windows import MARK

NODES = "ipam.spidernet.io/taken-over-nodes"
"""Annotation of a pool that several nodes gave out of before: those whose own records are here, with commas between."""
_TRIES = 20


def marked(store: Store, source: str) -> tuple[Object, ...]:
    """The pools that a takeover from `source` made."""
    return tuple(obj for obj in store.list(KIND).items if _is_marked(obj, source))


def _is_marked(obj: Object, source: str) -> bool:
    return bool((obj["metadata"].get("labels") or {}).get(MARK) == source)


def overlap_problems(store: Store, wanted: Iterable[Object], source: str) -> tuple[str, ...]:
    """A sentence for each pool that could not be made beside those that are there."""
    there = store.list(KIND).items
    wanted = tuple(wanted)
    wanted_names = {obj["metadata"]["name"] for obj in wanted}
    others = [
        obj for obj in there if not (_is_marked(obj, source) and obj["metadata"]["name"] in wanted_names)
    ]
    names = {obj["metadata"]["name"] for obj in others}
    problems = []
    for obj in wanted:
        name = obj["metadata"]["name"]
        if name in names:
            problems.append(
                f"there is a SpiderIPPool {name} that is no takeover's: delete it or take it over by hand"
            )
            continue
        try:
            admit(obj, None, others)
        except InvalidObject as error:
            problems.append(str(error))
    return tuple(problems)


def make(store: Store, wanted: Object, source: str) -> None:
    """Have this pool. One that an earlier takeover made, and that still stands, gets what it lists. Raises `InvalidRequest` for
    one of somebody else."""
    name = wanted["metadata"]["name"]
    try:
        store.create(admit(wanted))
    except Conflict:
        there = store.get(KIND, name)
        if not _is_marked(there, source):
            raise InvalidRequest(f"there is a SpiderIPPool {name} that is no takeover's; delete it") from None
        ips = _with_used(wanted, there)
        _change(
            store, name, lambda spec: {**wanted["spec"], "ips": ips, "disable": spec.get("disable", True)}
        )


def _with_used(wanted: Object, there: Object) -> list[str]:
    """What a pool is to list, with what is in use of it now: another node may have had that beyond its range."""
    pool = IPPool.from_object(wanted)
    used = allocations_in(IPPool.from_object(there), there.get("status") or {})
    return list(pool.ips.union((value, value) for value in used).ranges_text(pool.family))


def enable(store: Store, name: str) -> None:
    """Let a pool give out what is free in it."""
    _change(store, name, lambda spec: {**spec, "disable": False})


def disable(store: Store, name: str) -> None:
    """Let it give out nothing more; whoever has an address of it keeps that."""
    _change(store, name, lambda spec: {**spec, "disable": True})


def remove(store: Store, name: str) -> None:
    """Delete a pool out of which nothing is recorded any more."""
    for _ in range(_TRIES):
        try:
            store.delete(KIND, name)
            obj = store.get(KIND, name)
            finalizers = [entry for entry in obj["metadata"].get("finalizers") or () if entry != FINALIZER]
            store.update({**obj, "metadata": {**obj["metadata"], "finalizers": finalizers}})
        except NotFound:
            return
        except Conflict:
            continue
        return
    raise Conflict(f"SpiderIPPool {name} is written by others without end; repeat the command")


def noted_nodes(store: Store, name: str) -> frozenset[str]:
    """The nodes that are noted on a pool as those whose own records are here; none where there is no such pool."""
    try:
        return _nodes(store.get(KIND, name))
    except NotFound:
        return frozenset()


def note_nodes(store: Store, name: str, change: Callable[[frozenset[str]], frozenset[str]]) -> frozenset[str]:
    """Change that note; returns what it says now."""
    for _ in range(_TRIES):
        obj = store.get(KIND, name)
        nodes = change(_nodes(obj))
        annotations = {**(obj["metadata"].get("annotations") or {}), NODES: ",".join(sorted(nodes))}
        try:
            store.update({**obj, "metadata": {**obj["metadata"], "annotations": annotations}})
        except Conflict:
            continue
        return nodes
    raise Conflict(f"SpiderIPPool {name} is written by others without end; repeat the command")


def _nodes(obj: Object) -> frozenset[str]:
    text = (obj["metadata"].get("annotations") or {}).get(NODES, "")
    return frozenset(node for node in text.split(",") if node)


def _change(store: Store, name: str, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    for _ in range(_TRIES):
        obj = store.get(KIND, name)
        spec = change(obj["spec"])
        if spec == obj["spec"]:
            return
        try:
            store.update(admit({**obj, "spec": spec}, obj))
        except Conflict:
            continue
        return
    raise Conflict(f"SpiderIPPool {name} is written by others without end; repeat the command")
