"""What a peer may ask the leader's actors: the whole list, as pure functions of its node and the call.

What must always hold: what is not listed here no peer can call; every argument is in range before an actor sees it; what a
peer says about where it is counts for nothing: records, releases and questions get the node that its token names. What can
only be known by asking (is that pod on that node, is there such a pool) is named in `Permit`, and whoever asks decides.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from actors.allocation.application_pools import KIND as APPLICATION_POOLS
from actors.allocation.application_pools import PoolsRequest
from actors.allocation.messages import Allocate
from actors.decisions.node_cni import KINDS
from actors.errors import InvalidObject, PeerRefused
from actors.resources.blocks.block import (
    BLOCK_SIZE,
    Asker,
    Claim,
    ClearSuspect,
    HolderEnded,
    Release,
    base_of,
    parse_block_name,
)
from actors.resources.blocks.record import CLAIM, Fence, Record
from actors.resources.interface_name import is_interface_name
from actors.resources.json_text import LONGEST
from actors.resources.names import is_label, is_subdomain
from actors.resources.workload import ASKED_BY

TEXT = 512
"""Characters of one text in a record or fence: two names of Kubernetes and what joins them."""
WHY = 300
LONGEST_QUARANTINE = 3600.0
"""Seconds, at most, for which a peer may keep an address from others."""
LONGEST_WAIT = 300.0
"""Seconds for which a request may wait for an address."""
TOGETHER = 64
"""Requests of one ADD that wait together: one for each interface and family."""
MAC = 60
"""Characters: 20 bytes of the longest one (InfiniBand) in hexadecimal, with colons."""
NAMES = 8
"""Names in one question about a sandbox."""
MANY = 4096
"""Names, versions of blocks, or sandboxes, in one call."""
OF_A_NODE = 256
"""Pods that came to a node, in one call; what each costs is a question and an object."""
_VERSION = 20
"""Digits of the largest version that etcd can count to."""


@dataclass(frozen=True, slots=True)
class PodOnNode:
    """A pod `namespace/name` that must be on the peer's node, and, unless that is empty, run this virtual machine."""

    pod: str
    machine: str = ""


@dataclass(frozen=True, slots=True)
class Permit:
    """What a peer's call may do, if what it needs is there."""

    args: tuple[Any, ...]
    """The arguments with which the call goes on."""
    pod: PodOnNode | None = None
    """The pod that must run on the peer's node; None for no such condition."""
    pool: str = ""
    """The SpiderIPPool that must be there, empty for none."""
    block: str = ""
    """The SpiderIPBlock that must be there, empty for none."""
    on_behalf: str = ""
    """The pod for which it speaks: the arguments are completed by whether that one is on the peer's node. Empty for none."""


PeerRule = Callable[[str, str, tuple[Any, ...], float], Permit]
"""Of the peer's node, the actor's key, the arguments, and the moment. Raises `PeerRefused`."""


def permit(node: str, actor: str, method: str, args: tuple[Any, ...], now: float) -> Permit:
    """What a peer's call may do. The types of the arguments have been checked before. Raises `PeerRefused`."""
    kind, _, key = actor.partition("/")
    rule = RULES.get((kind, method))
    if rule is None:
        raise PeerRefused(f"{kind} actors take no message {method!r} of a peer")
    return rule(node, key, args, now)


def _reached(node: str, key: str, args: tuple[Any, ...], now: float) -> Permit:
    (versions,) = _the_ledger(key, args, 1)
    _check(len(versions) <= MANY, f"at most {MANY} versions")
    for family, base, version in versions:
        _check(_is_address(family, base) and base == base_of(base), "a block is named by its first address")
        _check(
            version.isascii() and version.isdecimal() and len(version) <= _VERSION, "a version is a number"
        )
    return Permit(args)


def _about_pods(node: str, key: str, args: tuple[Any, ...], now: float) -> Permit:
    (pods,) = _the_ledger(key, args, 1)
    _check(len(pods) <= MANY and all(len(pod) <= TEXT for pod in pods), f"at most {MANY} names")
    return Permit(args)


def _about_names(node: str, key: str, args: tuple[Any, ...], now: float) -> Permit:
    _the_ledger(key, args)
    _check(1 <= len(args) <= NAMES and all(len(name) <= TEXT for name in args), f"1 to {NAMES} names")
    return Permit(args)


def _about_its_node(node: str, key: str, args: tuple[Any, ...], now: float) -> Permit:
    (named,) = _the_ledger(key, args, 1)
    _check(named == node, f"it may ask about its own node, which is {node}")
    return Permit(args)


def _allocate(node: str, key: str, args: tuple[Any, ...], now: float) -> Permit:
    _check(is_subdomain(key), "a pool has a name")
    (request,) = _arguments(args, 1)
    request = _own_request(node, request)
    return Permit((request,), PodOnNode(request.record.pod, request.record.machine), pool=key)


def _own_request(node: str, request: Allocate) -> Allocate:
    """What a pool is asked, as the peer may have it asked. Raises `PeerRefused`."""
    assert isinstance(request, Allocate)
    if request.exact is not None:
        _check(_is_address(6, request.exact), "an address is a number in its family's range")
    _check(len(request.unless) <= NAMES and all(len(name) <= TEXT for name in request.unless), "few names")
    if request.instead_of is not None:
        _check_fence(request.instead_of)
    _check(0 <= request.wait <= LONGEST_WAIT, f"nobody waits for longer than {LONGEST_WAIT:g} s")
    _check(1 <= request.together <= TOGETHER, f"at most {TOGETHER} requests wait together")
    record = _own(request.record, node)
    return request if record is request.record else replace(request, record=record)


def _withdraw(node: str, key: str, args: tuple[Any, ...], now: float) -> Permit:
    _check(is_subdomain(key), "a pool has a name")
    named, container, claim = _arguments(args, 3)
    _check(named == node, f"it may withdraw what its own node asked for, which is {node}")
    _check(len(container) <= TEXT and len(claim) <= TEXT, "an ADD has a short name")
    return Permit(args, pool=key)


def _claim(node: str, key: str, args: tuple[Any, ...], now: float) -> Permit:
    (claim,) = _arguments(args, 1)
    assert isinstance(claim, Claim)
    _check_in_block(key, claim.value)
    _check(claim.instead_of is not None, "an address that it has not yet is asked of a pool")
    assert claim.instead_of is not None
    _check_fence(claim.instead_of)
    record = _own(claim.record, node)
    _check(is_subdomain(record.pool), "it names the pool that gave it")
    if record is not claim.record:
        claim = replace(claim, record=record)
    return Permit((claim,), PodOnNode(record.pod, record.machine), block=key)


def _release(node: str, key: str, args: tuple[Any, ...], now: float) -> Permit:
    (release,) = _arguments(args, 1)
    assert isinstance(release, Release)
    _check_in_block(key, release.value)
    _check_fence(release.fence)
    _check(not release.forced, "only the leader takes an address by force")
    quarantine = release.quarantine
    if quarantine is not None:
        _check(
            len(quarantine.why) <= WHY and 0 <= quarantine.until < math.inf,
            "a quarantine has a reason and an end",
        )
        quarantine = replace(quarantine, until=min(quarantine.until, now + LONGEST_QUARANTINE))
    _check(len(release.by) <= TEXT, "a pod has a name")
    # The leader's clock, so that the order in which addresses cool does not hang on all nodes' clocks.
    mine = replace(release, at=now, quarantine=quarantine, asker=Asker(node), by="")
    return Permit((mine,), block=key, on_behalf=release.by)


def _clear_suspect(node: str, key: str, args: tuple[Any, ...], now: float) -> Permit:
    (clear,) = _arguments(args, 1)
    assert isinstance(clear, ClearSuspect)
    _check_in_block(key, clear.value)
    _check_fence(clear.fence)
    _check(len(clear.mac) <= MAC and clear.mac.isprintable(), "a MAC is short")
    return Permit((replace(clear, asker=Asker(node)),), block=key)


def _holder_ended(node: str, key: str, args: tuple[Any, ...], now: float) -> Permit:
    (ended,) = _arguments(args, 1)
    assert isinstance(ended, HolderEnded)
    _check_in_block(key, ended.value)
    _check(len(ended.container) <= TEXT, "a container has a short id")
    return Permit((replace(ended, node=node),), block=key)


def _watching(node: str, key: str, args: tuple[Any, ...], now: float) -> Permit:
    _check(key == "local", "there is one that hears who watches, named local")
    named, _, unseen = _arguments(args, 3)
    _check(named == node, f"it may speak for its own node, which is {node}")
    _check(len(unseen) <= MANY, f"at most {MANY} sandboxes")
    for sandbox in unseen:
        namespace, _, name = sandbox.pod.partition("/")
        _check(is_subdomain(namespace) and is_subdomain(name), "a sandbox is one of a pod")
        _check(
            max(len(sandbox.container), len(sandbox.uid), len(sandbox.interface)) <= TEXT,
            "a sandbox's texts are short",
        )
    return Permit(args)


def _moved(node: str, key: str, args: tuple[Any, ...], now: float) -> Permit:
    _check(key == "local", "there is one that hears of moves, named local")
    named, pods = _arguments(args, 2)
    _check(named == node, f"it may speak for its own node, which is {node}")
    _check(len(pods) <= OF_A_NODE and all(len(pod) <= TEXT for pod in pods), f"at most {OF_A_NODE} names")
    return Permit(args)


def _cni(node: str, key: str, args: tuple[Any, ...], now: float) -> Permit:
    _check(key == "local", "there is one that hears of nodes, named local")
    named, kind = _arguments(args, 2)
    _check(named == node, f"it may speak for its own node, which is {node}")
    _check(kind in KINDS, f"a node's network is one of {', '.join(KINDS)}")
    return Permit(args)


def _pools_for(node: str, key: str, args: tuple[Any, ...], now: float) -> Permit:
    _check(key == "local", "there is one that knows the pools of applications, named local")
    (request,) = _arguments(args, 1)
    assert isinstance(request, PoolsRequest)
    namespace, _, name = request.pod.partition("/")
    _check(is_label(namespace) and is_subdomain(name), "a pod has a name")
    _check(0 <= request.wait <= LONGEST_WAIT, f"nobody waits for longer than {LONGEST_WAIT:g} s")
    owner = request.owner
    texts = (owner.api_version, owner.kind, owner.name, owner.uid)
    _check(
        all(len(text) <= TEXT and text.isprintable() for text in texts),
        "an owner's texts are short and plain",
    )
    _check(
        len(request.annotations) <= len(ASKED_BY)
        and all(key in ASKED_BY and len(text) <= LONGEST for key, text in request.annotations),
        f"annotations that ask for a pool, of {LONGEST} characters at most",
    )
    return Permit(args, PodOnNode(request.pod))


def _pools_and_addresses(node: str, key: str, args: tuple[Any, ...], now: float) -> Permit:
    request, wanted = _arguments(args, 2)
    _pools_for(node, key, (request,), now)
    _check(1 <= len(wanted) <= TOGETHER, f"1 to {TOGETHER} addresses")
    mine = []
    for family, question in wanted:
        _check(family in (4, 6), "an address is of a family")
        own = _own_request(node, question)
        _check(own.record.pod == request.pod, "an address is for the pod whose pools are asked for")
        _check(
            not own.record.machine and own.instead_of is None, "a pod that has nothing asks for both at once"
        )
        _check(own.exact is None and not own.wait, "any address that is free now will do")
        mine.append((family, own))
    return Permit((request, tuple(mine)), PodOnNode(request.pod))


RULES: dict[tuple[str, str], PeerRule] = {
    ("ledger", "reached"): _reached,
    ("ledger", "of_sandbox"): _about_names,
    ("ledger", "of_container"): _about_names,
    ("ledger", "of_pod"): _about_names,
    ("ledger", "of_pods"): _about_pods,
    ("ledger", "of_node"): _about_its_node,
    ("ledger", "holders"): _about_its_node,
    ("ledger", "sandboxes_of"): _about_its_node,
    ("ledger", "suspects_on"): _about_its_node,
    ("ledger", "suspects_of"): _about_names,
    ("pool", "allocate"): _allocate,
    ("pool", "withdraw"): _withdraw,
    ("block", "claim"): _claim,
    ("block", "release"): _release,
    ("block", "clear_suspect"): _clear_suspect,
    ("block", "holder_ended"): _holder_ended,
    ("watches", "watching"): _watching,
    ("watches", "moved"): _moved,
    ("watches", "cni"): _cni,
    (APPLICATION_POOLS, "pools_for"): _pools_for,
    (APPLICATION_POOLS, "allocate"): _pools_and_addresses,
}
"""All that agents ask. What only the leader's own actors tell each other (what a block was read or written as, what makes
an address suspect) is not among it."""


def completed(args: tuple[Any, ...], pod: str, machine: str) -> tuple[Any, ...]:
    """The arguments of a release on behalf of a pod that is on the peer's node."""
    (release,) = args
    assert isinstance(release, Release)
    assert release.asker is not None
    return (replace(release, asker=replace(release.asker, pod=pod, machine=machine)),)


def _own(record: Record, node: str) -> Record:
    """The record as the peer may have it written. Raises `PeerRefused`."""
    _check(
        record.node == node,
        f"it may record for its own node, which is {node}, and not for {record.node[:TEXT]!r}",
    )
    namespace, slash, name = record.pod.partition("/")
    _check(bool(slash) and is_subdomain(namespace) and is_subdomain(name), "a record names its pod")
    owner = record.machine.removeprefix(CLAIM)
    _check(owner == "" or is_subdomain(owner), "a virtual machine has a name, and so has a claim")
    _check(is_interface_name(record.interface), "a record names its interface")
    _check(record.request == "" or is_interface_name(record.request), "an interface has a name")
    texts = (
        record.pool,
        record.uid,
        record.container,
        record.owner,
        record.since,
        record.network,
        record.claim,
    )
    _check(
        all(len(text) <= TEXT and text.isprintable() for text in texts),
        "a record's texts are short and plain",
    )
    _check(len(record.mac) <= MAC and record.mac.isprintable(), "a MAC is short")
    _check(bool(record.container), "a record names its container")
    # Who shares an address is the block's to know.
    return replace(record, other_sandboxes=()) if record.other_sandboxes else record


def _check_fence(fence: Fence) -> None:
    texts = (fence.container, fence.pod, fence.uid, fence.claim)
    _check(all(len(text) <= TEXT for text in texts), "a fence's texts are short")


def _check_in_block(key: str, value: int) -> None:
    try:
        _, base = parse_block_name(key)
    except InvalidObject as error:
        raise PeerRefused(error.message) from error
    _check(base <= value < base + BLOCK_SIZE, "the address is one of the block's")


def _is_address(family: int, value: int) -> bool:
    return family in (4, 6) and 0 <= value < 1 << (32 if family == 4 else 128)


def _the_ledger(key: str, args: tuple[Any, ...], count: int | None = None) -> tuple[Any, ...]:
    _check(key == "local", "there is one ledger, named local")
    return args if count is None else _arguments(args, count)


def _arguments(args: tuple[Any, ...], count: int) -> tuple[Any, ...]:
    _check(len(args) == count, f"it takes {count} arguments")
    return args


def _check(ok: bool, rule: str) -> None:
    if not ok:
        raise PeerRefused(f"the leader does not do this for a peer: {rule}")
