"""What Spiderpool needs to find when it comes back: every address in use in its own form, and nothing of ours that counts.

What must always hold: this is done while neither side runs, from the blocks alone, of which each must be readable; they
are deleted only after everything in them stands where Spiderpool reads it. A status that nobody of ours has taken over
yet stays in force beside what the blocks say.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from actors.decisions.annotations import read_ippools
from actors.errors import Conflict, InvalidObject, NotFound, PodRefused, TakeoverUnfinished
from actors.resources.addresses import Address, format_address
from actors.resources.admission import FINALIZER
from actors.resources.blocks.allocation import Allocation
from actors.resources.blocks.block import Block
from actors.resources.blocks.record import Record
from actors.resources.ippool import IPPool
from actors.resources.pod import MIRROR, Pod
from actors.resources.pool_status import DIGEST, LISTED, allocations_in, foreign_allocations
from actors.resources.spider_endpoint import endpoint_name, pod_of
from actors.resources.virtualmachine import INSTANCE
from actors.store.contract import Object, Store
from actors.store.kinds import SPIDERPOOL
from actors.views.endpoints import endpoint_status
from cni.takeover.reading import Tell
from cni.takeover.recording import unjudged_text
from cni.takeover.spiderpool.installation import exists, listed

_STATIC = ("StatefulSet", INSTANCE)
"""Owners whose pods keep their addresses: their SpiderEndpoints outlive the pods, so that Spiderpool puts no owner on them."""
_ATTEMPTS = 20
_EVERY = 200
"""Objects after which a line says how far it is."""


@dataclass(frozen=True, slots=True)
class Holdings:
    """Everything that is recorded, as it was read at one moment at which nobody writes."""

    allocations: tuple[Allocation, ...] = ()
    """What the blocks record."""
    pools: Mapping[str, IPPool] = field(default_factory=dict)
    """By name, those that can be read."""
    problems: tuple[str, ...] = ()
    """A sentence for each thing that cannot be given back as it is."""

    @classmethod
    def read(cls, store: Store) -> Holdings:
        """Raises what the store raises."""
        allocations: list[Allocation] = []
        problems: list[str] = []
        pods = {_key(obj): obj for obj in store.list("Pod").items}
        for obj in store.list("SpiderIPBlock").items:
            try:
                block = Block.from_object(obj)
            except InvalidObject as error:
                problems.append(f"{error}; repair it, see `orbweaver check`")
                continue
            allocations += [
                Allocation(block.family, value, _with_object_uid(record, pods.get(record.pod)))
                for value, record in sorted(block.records.items())
            ]
            problems += [
                unjudged_text(Address(block.family, value), unjudged)
                for value, unjudged in sorted(block.unjudged.items())
            ]
        pools: dict[str, IPPool] = {}
        for obj in store.list("SpiderIPPool").items:
            try:
                pool = IPPool.from_object(obj)
                foreign_allocations(pool, obj.get("status") or {})
            except InvalidObject as error:
                problems.append(str(error))
            else:
                pools[pool.name] = pool
        counts: dict[str, int] = defaultdict(int)
        for allocation in allocations:
            counts[allocation.record.pool] += 1
        problems += [
            f"pool {name} has {count} addresses in use, and Spiderpool keeps {LISTED} at most: let some pods use another pool"
            for name, count in sorted(counts.items())
            if count > LISTED
        ]
        return cls(tuple(allocations), pools, tuple(problems))


def _with_object_uid(record: Record, pod: Object | None) -> Record:
    """With the UID of the pod's object, by which Spiderpool judges: ours is the runtime's, which is another one for a static
    pod, and which some runtimes do not tell."""
    if pod is None or record.is_retained or record.uid not in ("", Pod.from_object(pod).uid):
        return record
    return replace(record, uid=str(pod["metadata"]["uid"]))


def give_back_pools(store: Store, holdings: Holdings, tell: Tell) -> None:
    """Write each pool's `status.allocatedIPs` as Spiderpool keeps it. Without our digest, so that this content, or what
    Spiderpool makes of it, is taken over should we come again."""
    by_pool: dict[str, list[Allocation]] = defaultdict(list)
    for allocation in holdings.allocations:
        by_pool[allocation.record.pool].append(allocation)
    names = [obj["metadata"]["name"] for obj in store.list("SpiderIPPool").items]
    theirs = _uids_there(store)
    for name in names:
        _change(store, name, partial(_with_allocations, recorded=by_pool[name], theirs=theirs))
    tell(f"pools: {len(names)} written, with {len(holdings.allocations)} addresses")


def _with_allocations(
    obj: Object, recorded: Iterable[Allocation], theirs: Mapping[tuple[str, str], str]
) -> Object:
    status = dict(obj.get("status") or {})
    entries = {
        format_address(allocation.family, allocation.value): {
            "pod": allocation.record.holder if not allocation.record.ipam_claim else allocation.record.pod,
            "podUid": allocation.record.uid,
        }
        for allocation in recorded
    }
    pool = IPPool.from_object(obj)
    for value, (pod, uid) in foreign_allocations(pool, status).items():
        entry = {"pod": pod, "podUid": theirs.get((pod, uid), uid)}
        entries.setdefault(format_address(pool.family, value), entry)
    status.pop(DIGEST, None)
    status.pop("allocatedIPs", None)
    if entries:
        status["allocatedIPs"] = json.dumps(entries, separators=(",", ":"))
    return {**obj, "status": {**status, "allocatedIPCount": len(entries)}}


def give_back_endpoints(store: Store, holdings: Holdings, tell: Tell) -> None:
    """Write each pod's SpiderEndpoint as Spiderpool makes it: with its finalizer, and with the pod as owner where it goes
    with the pod. Those of nobody go."""
    by_holder: dict[str, list[Allocation]] = defaultdict(list)
    for allocation in holdings.allocations:
        record = allocation.record
        by_holder[record.pod if record.ipam_claim else record.holder].append(allocation)
    pods = {_key(obj): obj for obj in store.list("Pod").items}
    present = {pod_of(obj): obj for obj in store.list("SpiderEndpoint").items}
    for number, (holder, held) in enumerate(sorted(by_holder.items()), 1):
        wanted = endpoint_of(holder, held, holdings.pools, pods)
        _write_endpoint(store, holder, wanted, present.get(holder))
        if number % _EVERY == 0:
            tell(f"SpiderEndpoints: {number} of {len(by_holder)} written")
    foreign = _foreign_holders(store)
    for holder, obj in present.items():
        if holder not in by_holder and holder not in foreign:
            _remove(store, obj)
    tell(f"SpiderEndpoints: {len(by_holder)} written")


def endpoint_of(
    holder: str, held: list[Allocation], pools: Mapping[str, IPPool], pods: Mapping[str, Object]
) -> Object:
    """The SpiderEndpoint of a pod, or of a virtual machine, in Spiderpool's form."""
    namespace, _, name = holder.partition("/")
    newest = max(
        held, key=lambda allocation: (bool(allocation.record.container), allocation.record.since)
    ).record
    pod = pods.get(newest.pod)
    status = endpoint_status(holder, held, pools)
    clean = _interfaces_without_gateway(pod)
    for entry in status["current"]["ips"]:
        if "ipv4Gateway" in entry or "ipv6Gateway" in entry:
            entry["cleanGateway"] = entry["interface"] in clean
        routes = [
            {"dst": str(route.destination), "gw": format_address(route.family, route.gateway)}
            for key in ("ipv4Pool", "ipv6Pool")
            if (pool := pools.get(entry.get(key, ""))) is not None
            for route in pool.routes
        ]
        if routes:
            entry["routes"] = routes
    metadata: dict[str, Any] = {
        "name": endpoint_name(name),
        "namespace": namespace,
        "finalizers": [FINALIZER],
    }
    if status["ownerControllerType"] not in _STATIC and newest.uid:
        owner = {"apiVersion": "v1", "kind": "Pod", "name": newest.pod.partition("/")[2], "uid": newest.uid}
        metadata["ownerReferences"] = [owner]
    return {"apiVersion": SPIDERPOOL, "kind": "SpiderEndpoint", "metadata": metadata, "status": status}


def _interfaces_without_gateway(pod: Object | None) -> frozenset[str]:
    """The interfaces for which the pod's annotation says `cleangateway`."""
    if pod is None:
        return frozenset()
    try:
        choices = read_ippools(Pod.from_object(pod)) or ()
    except (PodRefused, InvalidObject):
        return frozenset()
    return frozenset(choice.interface for choice in choices if choice.clean_gateway)


def delete_blocks(store: Store, tell: Tell) -> None:
    """Delete every block; what they recorded counts no more."""
    names = [obj["metadata"]["name"] for obj in store.list("SpiderIPBlock").items]
    for number, name in enumerate(names, 1):
        try:
            store.delete("SpiderIPBlock", name)
        except NotFound:
            continue
        if number % _EVERY == 0:
            tell(f"blocks: {number} of {len(names)} deleted")
    if names:
        tell(f"blocks: {len(names)} deleted")


def make_foreign(store: Store) -> None:
    """Let each pool's status count as another IPAM's word, whoever wrote it last, with the UIDs that runtimes know static pods
    by."""
    here = {(pod, there): uid for (pod, uid), there in _uids_there(store).items()}
    for obj in store.list("SpiderIPPool").items:
        _change(store, obj["metadata"]["name"], partial(_foreign, here=here))


def free_coordinators(store: Store) -> None:
    """Take Spiderpool's finalizer off each SpiderCoordinator: nobody of ours has anything to do before one goes, so that it
    would never. Spiderpool puts it on again with its next write."""
    for obj in listed(store, "SpiderCoordinator"):
        metadata = obj["metadata"]
        finalizers = [name for name in metadata.get("finalizers") or () if name != FINALIZER]
        if finalizers != (metadata.get("finalizers") or []):
            with suppress(NotFound, Conflict):
                store.update({**obj, "metadata": {**metadata, "finalizers": finalizers}})


def _foreign(obj: Object, here: Mapping[tuple[str, str], str]) -> Object:
    before = obj.get("status") or {}
    status = {key: value for key, value in before.items() if key != DIGEST}
    return _with_uids({**obj, "status": status} if status != before else obj, here)


def give_back_uids(store: Store) -> None:
    """Let each pool's status name static pods by the UIDs of their objects again, where nobody of ours has taken it over."""
    theirs = _uids_there(store)
    for obj in store.list("SpiderIPPool").items:
        _change(store, obj["metadata"]["name"], partial(_with_uids_there, theirs=theirs))


def _with_uids_there(obj: Object, theirs: Mapping[tuple[str, str], str]) -> Object:
    try:
        return _with_uids(obj, theirs)
    except InvalidObject:
        return obj  # nobody of ours can have written it


def _uids_there(store: Store) -> dict[tuple[str, str], str]:
    """By static pod and the UID that its runtime knows it by, the UID of its object, by which Spiderpool judges."""
    return {
        (_key(obj), Pod.from_object(obj).uid): str(obj["metadata"]["uid"])
        for obj in store.list("Pod").items
        if MIRROR in (obj["metadata"].get("annotations") or {})
    }


def _with_uids(obj: Object, instead: Mapping[tuple[str, str], str]) -> Object:
    """The pool with other UIDs in its status, by pod and UID."""
    pool, status = IPPool.from_object(obj), obj.get("status") or {}
    entries = allocations_in(pool, status)
    if not any(entry in instead for entry in entries.values()):
        return obj
    allocated = {
        format_address(pool.family, value): {"pod": pod, "podUid": instead.get((pod, uid), uid)}
        for value, (pod, uid) in entries.items()
    }
    return {**obj, "status": {**status, "allocatedIPs": json.dumps(allocated, separators=(",", ":"))}}


def _foreign_holders(store: Store) -> frozenset[str]:
    """Whoever has an address by a status that nobody of ours has taken over."""
    holders: set[str] = set()
    for obj in store.list("SpiderIPPool").items:
        foreign = foreign_allocations(IPPool.from_object(obj), obj.get("status") or {})
        holders.update(pod for pod, _ in foreign.values())
    return frozenset(holders)


def _write_endpoint(store: Store, holder: str, wanted: Object, current: Object | None) -> None:
    """`current` is the object as it is believed to be."""
    name, namespace = wanted["metadata"]["name"], wanted["metadata"]["namespace"]
    for _ in range(_ATTEMPTS):
        try:
            if current is None:
                store.create(wanted)
            elif current["metadata"].get("deletionTimestamp"):
                _remove(store, current)  # its last pod went, and the next one has the name
                store.create(wanted)
            else:
                _update(store, current, wanted)
        except (Conflict, NotFound):
            current = exists(store, "SpiderEndpoint", name, namespace)
        else:
            return
    raise TakeoverUnfinished(
        f"the SpiderEndpoint of {holder} is written by somebody else all the time; repeat the command"
    )


def _update(store: Store, current: Object, wanted: Object) -> None:
    kept = {key: value for key, value in current["metadata"].items() if key != "ownerReferences"}
    metadata = {**kept, **wanted["metadata"]}
    changed = {**current, "metadata": metadata, "status": wanted["status"]}
    if changed != current:
        store.update(changed)


def _remove(store: Store, obj: Object) -> None:
    metadata = obj["metadata"]
    try:
        if metadata.get("finalizers"):
            store.update({**obj, "metadata": {**metadata, "finalizers": []}})
        store.delete("SpiderEndpoint", metadata["name"], metadata["namespace"], uid=metadata["uid"])
    except NotFound:
        return


def _change(store: Store, pool: str, how: Callable[[Object], Object]) -> None:
    """Write what `how` makes of a pool's status, however often somebody else writes it meanwhile."""
    for _ in range(_ATTEMPTS):
        try:
            obj = store.get("SpiderIPPool", pool)
            changed = how(obj)
            if changed != obj:
                store.update_status(changed)
        except Conflict:
            continue
        except NotFound:
            return
        else:
            return
    raise TakeoverUnfinished(f"pool {pool} is written by somebody else all the time; repeat the command")


def _key(obj: Object) -> str:
    return f"{obj['metadata'].get('namespace', '')}/{obj['metadata']['name']}"
