"""Taking over what another IPAM recorded in a pool's status, so that switching from a running Spiderpool loses nothing.

What must always hold: `status.allocatedIPs` is taken as truth exactly when it was not written here. The status says
so itself, by a digest of the content that was last written here or taken over here; a content with another digest
comes from elsewhere. Each of its addresses without a record gets one, before the pool gives out its first address,
and then the digest is set, so that an address released later is not brought back by the same content.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

from actors.allocation.block_writer import BlockActor, block_of
from actors.errors import Conflict, InvalidObject, NotFound
from actors.resources.addresses import Address, format_address
from actors.resources.blocks.block import Claim
from actors.resources.blocks.record import Record
from actors.resources.ippool import IPPool
from actors.resources.pod import KIND as POD
from actors.resources.pool_status import DIGEST, digest_of, foreign_allocations
from actors.resources.spider_endpoint import interface_of, node_of
from actors.resources.virtualmachine import GROUP, INSTANCE
from actors.runtime import ActorSource, get
from actors.store.contract import Object, Store

log = logging.getLogger("orbweaver.takeover")

TIMEOUT = 30.0


def take_over(
    pool: IPPool,
    store: Store,
    actors: ActorSource,
    now: Callable[[], float],
    read: Object | None = None,
) -> tuple[str, ...]:
    """Record what another IPAM allocated out of `pool`; returns the pods whose addresses were recorded. `read`: the pool's
    object, where it was just read.

    Raises `InvalidObject` for a status that cannot be read, and what the store raises.
    """
    while True:
        obj, read = read or store.get("SpiderIPPool", pool.name), None
        status = obj.get("status") or {}
        foreign = foreign_allocations(pool, status)
        if not foreign:
            return ()
        since = datetime.fromtimestamp(now(), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        refs = []
        for value, (pod, uid) in sorted(foreign.items()):
            claim = Claim(value, _record(pool, value, pod, uid, _endpoint(store, pod), since), named=True)
            block = block_of(actors, Address(pool.family, value)).within(TIMEOUT)
            refs.append(block.order(BlockActor.claim, claim))
        get(refs)
        try:
            store.update_status({**obj, "status": {**status, DIGEST: digest_of(status["allocatedIPs"])}})
        except Conflict:
            continue
        log.info(
            "took over what another IPAM had allocated", extra={"pool": pool.name, "addresses": len(foreign)}
        )
        pods = tuple(sorted({pod for pod, _ in foreign.values()}))
        # The leader's first scan may have come before: of those whose pods are gone it would hear with the next one.
        concerned = tuple(("Pod", *_split(pod)) for pod in pods)
        actors.get_actor("gc/local").changed.options(timeout=None).remote(concerned)
        return pods


def _split(pod: str) -> tuple[str, str]:
    namespace, _, name = pod.partition("/")
    return namespace, name


def _endpoint(store: Store, pod: str) -> Object:
    namespace, name = _split(pod)
    try:
        return store.get("SpiderEndpoint", name, namespace)
    except (NotFound, InvalidObject):
        return {}


def _record(pool: IPPool, value: int, pod: str, uid: str, endpoint: Object, since: str) -> Record:
    """What the status does not say, the pod's SpiderEndpoint may: interface, node, and the owner that keeps it. One that
    is not as it should be says nothing."""
    plain = Record(pool.name, pod, uid, "", "", "", "", since)
    try:
        detailed = _as_told(plain, pool.family, format_address(pool.family, value), endpoint)
    except (AttributeError, TypeError):
        return plain
    return plain if detailed.misfit() is not None else detailed


def _as_told(record: Record, family: int, address: str, endpoint: Object) -> Record:
    status = endpoint.get("status", {})
    kind, name = str(status.get("ownerControllerType") or POD), str(status.get("ownerControllerName") or "")
    if kind == INSTANCE:
        kind, machine = f"{INSTANCE}.{GROUP}", name
    else:
        machine = ""
    owner = f"{kind}/{name}" if kind != POD and name else ""
    interface = interface_of(endpoint, family, address)
    return replace(record, interface=interface, node=node_of(endpoint), owner=owner, machine=machine)
