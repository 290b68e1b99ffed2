"""Which pools are considered for a pod: the first rule that applies decides, for all families at once.

The rules, from first to last, as in Spiderpool:

0. pod annotation `ipam.spidernet.io/subnets`, then `…/subnet`, where the settings enable subnets: the pools of the pod's
   application, and no others (`wish_of`);
1. pod annotation `ipam.spidernet.io/ippools`: pools for each interface, all interfaces in one request;
2. pod annotation `ipam.spidernet.io/ippool`;
3. namespace annotations `ipam.spidernet.io/default-ipv4-ippool` and `…-ipv6-…`;
4. the CNI configuration's `default_ipv4_ippool` and `default_ipv6_ippool`;
5. the cluster's defaults: those of the settings, then every pool with `spec.default: true`.

What must always hold:

* A rule that names pools of one family only gives the pod that family only, dual stack or not: Spiderpool's
  way to single-family pods in a dual-stack cluster. So it is with cluster defaults that exist for one family
  only.
* A family that is disabled in the settings is left out, and a note says so.
* A pool that is named but does not exist, and a wildcard that matches nothing, are refusals, not silence: who
  names an IPv6 pool does not get an IPv4-only pod without a word. The rest of the list is still tried.
* Wildcards (`*`, `?`, `[…]`) give the pools of the family in order of their names; a pool is considered once.
* What is searched through for one pod is bounded: its names by their reader, the search for names like a misspelt one
  by `_Hints`. Between two pools `go_on` may end it all, for a request whose time is over.

`ippools` may leave the interfaces out of its entries. Then the first entry is for eth0 and each further one
for the next additional network of the pod (its interface, else net1, net2, …). A single such entry is for
whichever interface asks.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from fnmatch import translate

from actors.decisions.annotations import (
    FIRST_INTERFACE,
    NAMESPACE_POOLS,
    NETWORKS,
    POD_POOL,
    POD_POOLS,
    POD_SUBNETS,
    PoolNames,
    SubnetWish,
    asks_for_subnets,
    is_wildcard,
    read_ippool,
    read_ippools,
    read_namespace_pools,
    read_networks,
    read_subnets,
)
from actors.decisions.auto_pool import ApplicationPools
from actors.decisions.brief import without_middle
from actors.decisions.detection import DetectionOverrides
from actors.decisions.filters import Refusal
from actors.decisions.settings import Settings
from actors.errors import PodRefused, SubnetsExhausted
from actors.resources.ippool import IPPool
from actors.resources.namespace import Namespace
from actors.resources.pod import Pod

FROM_PODS_POOLS = f"pod annotation {POD_POOLS}"
FROM_PODS_POOL = f"pod annotation {POD_POOL}"
FROM_NAMESPACE = f"namespace annotations {NAMESPACE_POOLS[4]} and {NAMESPACE_POOLS[6]}"
FROM_CNI = "CNI configuration default_ipv4_ippool and default_ipv6_ippool"
FROM_CLUSTER = "cluster default pools"
RULES = (FROM_PODS_POOLS, FROM_PODS_POOL, FROM_NAMESPACE, FROM_CNI, FROM_CLUSTER)


@dataclass(frozen=True, slots=True)
class AddressRequest:
    """What one CNI ADD asks for, beside what the pod's own annotations say."""

    interface: str = "eth0"
    """The one whose ADD it is (CNI_IFNAME)."""
    ipv4_pools: tuple[str, ...] = ()
    """`default_ipv4_ippool` of the network's configuration."""
    ipv6_pools: tuple[str, ...] = ()
    """`default_ipv6_ippool` of the network's configuration."""
    clean_gateway: bool = False
    """`clean_gateway` of the network's configuration: no default route by way of this interface."""
    exact: tuple[tuple[int, int], ...] = ()
    """Addresses asked for by `IP=` in CNI_ARGS, `args.cni.ips` or the `ips` capability (CNI conventions, "ips"), each with
    its family; at most one of each family."""
    detection: DetectionOverrides = field(default_factory=DetectionOverrides)
    """What this network wishes otherwise than the settings."""
    mac: str = ""
    """The interface's, where the runtime chose it; else empty."""

    def pools(self, family: int) -> tuple[str, ...]:
        return self.ipv4_pools if family == 4 else self.ipv6_pools


@dataclass(frozen=True, slots=True)
class Candidates:
    """The pools to consider for one address."""

    interface: str
    """Of the pod."""
    family: int
    """4 or 6."""
    pools: tuple[str, ...]
    """Their names, in the order in which the rule names them."""
    refusals: tuple[Refusal, ...]
    """Names that the rule gives and that no pool has, and why."""
    clean_gateway: bool
    """Whether its pod is to have no default route by way of this interface."""


@dataclass(frozen=True, slots=True)
class Choice:
    """`source` is the rule that applied, "" when none did. `notes` tell about the rules and families passed
    over."""

    source: str
    candidates: tuple[Candidates, ...]
    notes: tuple[str, ...]


def choose(
    pod: Pod,
    namespace: Namespace | None,
    pools: Mapping[str, IPPool],
    request: AddressRequest,
    settings: Settings,
    damaged: Mapping[str, str] | None = None,
    go_on: Callable[[], None] = lambda: None,
    auto: ApplicationPools | None = None,
) -> Choice:
    """Apply the rules. `damaged`: pools whose object cannot be read, and why. `go_on` raises what ends the search. `auto`:
    the pools that were made for the pod's application, which outrank every other rule. Raises `PodRefused` for an annotation
    that cannot be read or does not fit the request."""
    if wish_of(pod, settings) is not None:
        return _considered(
            *_of_application(pod, auto, request, settings),
            pod,
            pools,
            request,
            settings,
            damaged or {},
            go_on,
        )
    notes: list[str] = []
    for rule in RULES:
        chosen = _apply(rule, pod, namespace, pools, request, settings)
        if chosen is None:
            notes.append(f"{rule}: not given")
            continue
        choice = _considered(rule, chosen, pod, pools, request, settings, damaged or {}, go_on)
        return replace(choice, notes=(*notes, *choice.notes))
    return Choice("", (), tuple(notes))


def wish_of(pod: Pod, settings: Settings) -> SubnetWish | None:
    """What the pod asks of subnets; None where it asks for nothing, or where the settings say that this says nothing.
    Raises `PodRefused`."""
    if not (settings.enable_subnets and asks_for_subnets(pod.annotations)):
        return None
    wish = read_subnets(f"pod {pod.key}", pod.annotations)
    assert wish is not None
    if not settings.enable_auto_pools:
        raise PodRefused(
            f"pod {pod.key}: annotation {wish.source} asks for an automatic pool from a SpiderSubnet, but the settings switch"
            f" those off (enableAutoPoolForApplication: false); name pools in {POD_POOL}, or have it switched on"
        )
    if pod.owner is None:
        raise PodRefused(
            f"pod {pod.key}: annotation {wish.source} asks for an automatic pool from a SpiderSubnet, but the pod has no"
            " controller that such a pool could follow; make it by a Deployment, StatefulSet or the like, or name pools in"
            f" {POD_POOL}"
        )
    return wish


def wished_slots(pod: Pod, asking: str, settings: Settings) -> tuple[tuple[str, int], ...]:
    """The interfaces and families for which an ADD of the interface `asking` gets addresses of SpiderSubnets, as far as the pod
    says it; empty where it asks for none, or for none there. Raises `PodRefused`."""
    wish = wish_of(pod, settings)
    if wish is None:
        return ()
    served, _ = _only_served(pod, wish.interfaces, asking, settings)
    slots = tuple(
        (names.interface, family)
        for names in served
        for family in (4, 6)
        if names.names(family) and settings.enabled(family)
    )
    return slots if asking in (interface for interface, _ in slots) else ()


def _considered(
    source: str,
    chosen: tuple[PoolNames, ...],
    pod: Pod,
    pools: Mapping[str, IPPool],
    request: AddressRequest,
    settings: Settings,
    damaged: Mapping[str, str],
    go_on: Callable[[], None],
) -> Choice:
    """The candidates of the pools that a rule names."""
    hints = _Hints(pools)
    considered = []
    chosen, notes = _only_served(pod, chosen, request.interface, settings)
    for names in chosen:
        for family in (4, 6):
            wanted = names.names(family)
            if wanted and not settings.enabled(family):
                notes.append(
                    f"{names.interface} IPv{family}: left out, IPv{family} is disabled in the settings"
                )
            elif wanted:
                given, refusals = expand(wanted, family, pools, damaged, hints, go_on)
                considered.append(Candidates(names.interface, family, given, refusals, names.clean_gateway))
    return Choice(source, tuple(considered), tuple(notes))


def _of_application(
    pod: Pod, auto: ApplicationPools | None, request: AddressRequest, settings: Settings
) -> tuple[str, tuple[PoolNames, ...]]:
    """The pools that subnets made for the pod's application, and which annotation asked for them."""
    if auto is None:
        raise PodRefused(f"pod {pod.key}: which pools were made for its application is not known")
    interfaces = tuple(dict.fromkeys(pools_of.interface for pools_of in auto.interfaces))
    if request.interface not in interfaces:
        raise PodRefused(
            f"pod {pod.key}: annotation {auto.source} has entries for {', '.join(interfaces)} but none for interface"
            f" {request.interface}, which asks for an address now; add an entry with"
            f' "interface": "{request.interface}" to {POD_SUBNETS}'
        )
    empty = [
        f"{pools_of.interface} IPv{pools_of.family}: {pools_of.short}"
        for pools_of in auto.interfaces
        if not pools_of.pools and settings.enabled(pools_of.family)
    ]
    if empty:
        message = f"no SpiderSubnet has addresses for pod {pod.key} of {auto.application.title}"
        raise SubnetsExhausted(
            message, details=tuple(empty), brief=without_middle(f"{message}: {'; '.join(empty)}")
        )
    return f"pod annotation {auto.source}", tuple(
        PoolNames(
            interface,
            auto.names(interface, 4),
            auto.names(interface, 6),
            request.clean_gateway and interface == request.interface,
        )
        for interface in interfaces
    )


def expand(
    names: Iterable[str],
    family: int,
    pools: Mapping[str, IPPool],
    damaged: Mapping[str, str],
    hints: _Hints | None = None,
    go_on: Callable[[], None] = lambda: None,
) -> tuple[tuple[str, ...], tuple[Refusal, ...]]:
    """Replace wildcards by the names of pools of the family, and drop what is not there, with a refusal."""
    hints = hints or _Hints(pools)
    chosen: dict[str, None] = {}
    refusals: list[Refusal] = []
    for name in names:
        go_on()
        if name in pools:
            chosen[name] = None
        elif name in damaged:
            refusals.append(Refusal(name, "damaged", f"{damaged[name]}; mend the object"))
        elif is_wildcard(name):
            fits = name_matcher(name)
            matching = [p.name for p in pools.values() if p.family == family and fits(p.name)]
            if not matching:
                refusals.append(
                    Refusal(
                        name,
                        "exists",
                        f"no IPv{family} pool has a name like this; {hints.like(name, family)}",
                    )
                )
            chosen.update(dict.fromkeys(sorted(matching)))
        else:
            refusals.append(Refusal(name, "exists", f"there is no such pool; {hints.like(name, family)}"))
    return tuple(chosen), tuple(dict.fromkeys(refusals))


def name_matcher(pattern: str) -> Callable[[str], object]:
    """Whether a name is one that a wildcard means. Go's patterns, which Spiderpool takes, negate a class with ^, Python's
    with !."""
    return re.compile(translate(pattern.replace("[^", "[!"))).match


def _apply(
    rule: str,
    pod: Pod,
    namespace: Namespace | None,
    pools: Mapping[str, IPPool],
    request: AddressRequest,
    settings: Settings,
) -> tuple[PoolNames, ...] | None:
    if rule == FROM_PODS_POOLS:
        several = read_ippools(pod)
        return None if several is None else _name_interfaces(pod, several, request.interface)
    names: PoolNames | None
    if rule == FROM_PODS_POOL:
        names = read_ippool(pod)
    elif rule == FROM_NAMESPACE:
        names = read_namespace_pools(pod, namespace)
    elif rule == FROM_CNI:
        names = PoolNames("", request.ipv4_pools, request.ipv6_pools)
    else:
        names = PoolNames("", _cluster_default(4, pools, settings), _cluster_default(6, pools, settings))
    if names is None or not (names.ipv4 or names.ipv6):
        return None
    return (PoolNames(request.interface, names.ipv4, names.ipv6, request.clean_gateway),)


def _name_interfaces(pod: Pod, chosen: tuple[PoolNames, ...], asking: str) -> tuple[PoolNames, ...]:
    if chosen[0].interface:
        names = [choice.interface for choice in chosen]
    elif len(chosen) == 1:
        names = [asking]
    else:
        further = [network.interface for network in read_networks(pod)]
        further += [f"net{index + 1}" for index in range(len(further), len(chosen) - 1)]
        names = [FIRST_INTERFACE, *further][: len(chosen)]
    if asking not in names:
        raise PodRefused(
            f"pod {pod.key}: annotation {POD_POOLS} has entries for {', '.join(names)} but none for interface"
            f" {asking}, "
            f'which asks for an address now; add an entry with "interface": "{asking}"'
        )
    if len(set(names)) != len(names):
        raise PodRefused(
            f"pod {pod.key}: annotation {POD_POOLS} leaves the interfaces out, and by their order they would"
            f" be {', '.join(names)}, which is ambiguous; name the interface in each entry"
        )
    return tuple(
        PoolNames(name, choice.ipv4, choice.ipv6, choice.clean_gateway)
        for name, choice in zip(names, chosen, strict=True)
    )


def _cluster_default(family: int, pools: Mapping[str, IPPool], settings: Settings) -> tuple[str, ...]:
    flagged = sorted(pool.name for pool in pools.values() if pool.default and pool.family == family)
    return (*settings.default_pools(family), *flagged)


def _only_served(
    pod: Pod, chosen: tuple[PoolNames, ...], asking: str, settings: Settings
) -> tuple[tuple[PoolNames, ...], list[str]]:
    """Leave out what is named for an interface that the pod's networks do not have, with a note: its address would be
    nobody's. Where the pod names no networks, Kubernetes gives it the first interface alone; elsewhere nobody says, so
    that its `ippools` are believed. An interface that asks by itself is always served."""
    networks = [network.interface for network in read_networks(pod)] if len(chosen) > 1 else []
    if not networks and not settings.networks_annotated:
        return chosen, []
    there = {asking, FIRST_INTERFACE, *networks}
    return tuple(names for names in chosen if names.interface in there), [
        f"{names.interface}: left out, no network in the pod's annotation {NETWORKS} gives it this interface; it gets its"
        " addresses when it asks for them"
        for names in chosen
        if names.interface not in there
    ]


class _Hints:
    """What is like a name that no pool has: for the first few such names of a pod, among so many pools, because the
    comparison of two names costs as much as all else that is done with one."""

    _MOST, _AMONG = 3, 500

    def __init__(self, pools: Mapping[str, IPPool]) -> None:
        self._pools = pools
        self._known: dict[int, list[str]] = {}
        self._given = 0

    def like(self, name: str, family: int) -> str:
        """A clause for a refusal."""
        known = self._known.get(family)
        if known is None:
            known = sorted(pool.name for pool in self._pools.values() if pool.family == family)
            self._known[family] = known
        if not known:
            return f"there is no IPv{family} pool at all, create one"
        self._given += 1
        close = (
            get_close_matches(name, known[: self._AMONG], n=3, cutoff=0.5)
            if self._given <= self._MOST
            else []
        )
        if close:
            return f"similar names are {', '.join(close)}"
        shown = ", ".join(known[:5])
        return f"IPv{family} pools are {shown}" + (f" and {len(known) - 5} more" if len(known) > 5 else "")
