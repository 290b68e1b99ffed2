"""The annotations that pods and namespaces choose pools, routes and networks with. Which one wins says `candidates.py`.

What must always hold: an annotation is read whole or the pod is refused; nothing is guessed. Keys that Spiderpool passes
over are passed over with a warning (`ignored_keys`). A refusal names
the pod, the annotation and the field, and shows a right form. An annotation is read only when its rule is
reached, so a broken one that another outranks hurts nobody. Field names are taken in any case (`cleanGateway`
too), because Spiderpool's JSON reader does that and manifests rely on it. Whoever may create pods writes these texts, so
their size, depth, alphabet and number are bounded before anything is done with them, and a refusal says the bound.

Reference for the facts: Spiderpool's annotation reference, and the "Kubernetes Network Custom Resource
Definition De-facto Standard" for the network annotations.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, TypeAlias, TypeVar

from actors.decisions.auto_pool import Size
from actors.errors import InvalidObject, PodRefused
from actors.resources.addresses import Address, parse_address, parse_address_of, parse_cidr
from actors.resources.fields import Fields, nearest, shown
from actors.resources.interface_name import RULE as INTERFACE_RULE
from actors.resources.interface_name import is_interface_name
from actors.resources.json_text import UnreadableText, read_json, showable
from actors.resources.names import SUBDOMAIN_LONGEST
from actors.resources.namespace import Namespace
from actors.resources.pod import Pod
from actors.resources.space import PoolRoute
from actors.resources.workload import IP_NUMBER, RECLAIM, SUBNET, SUBNETS

T = TypeVar("T")

PREFIX = "ipam.spidernet.io"
POD_POOLS = f"{PREFIX}/ippools"
POD_POOL = f"{PREFIX}/ippool"
POD_ROUTES = f"{PREFIX}/routes"
POD_DEFAULT_ROUTE_NIC = f"{PREFIX}/default-route-nic"
POD_SUBNETS, POD_SUBNET = SUBNETS, SUBNET
POD_IP_NUMBER, POD_RECLAIM = IP_NUMBER, RECLAIM
NAMESPACE_POOLS = {4: f"{PREFIX}/default-ipv4-ippool", 6: f"{PREFIX}/default-ipv6-ippool"}
NETWORKS = "k8s.v1.cni.cncf.io/networks"
DEFAULT_NETWORK = "v1.multus-cni.io/default-network"

FIRST_INTERFACE = "eth0"
"""The interface that container runtimes give the cluster's default network."""

_EXAMPLES = {
    POD_POOLS: '[{"interface": "eth0", "ipv4": ["blue"], "ipv6": ["blue-v6"], "cleangateway": false}]',
    POD_POOL: '{"ipv4": ["blue"], "ipv6": ["blue-v6"]}',
    POD_SUBNETS: '[{"interface": "eth0", "ipv4": ["floor-1", "floor-2"], "ipv6": ["floor-v6"]}]',
    POD_SUBNET: '{"ipv4": ["floor-1"], "ipv6": ["floor-v6"]}',
    POD_IP_NUMBER: '"+1" for one address more than there are replicas, "5" for five',
    POD_RECLAIM: '"false"',
    POD_ROUTES: '[{"dst": "10.0.0.0/16", "gw": "192.168.1.1"}]',
    POD_DEFAULT_ROUTE_NIC: "net1",
    NAMESPACE_POOLS[4]: '["blue", "green"]',
    NAMESPACE_POOLS[6]: '["blue-v6"]',
    NETWORKS: (
        '[{"name": "macvlan-conf", "namespace": "kube-system", "interface": "net1", "ips": ["10.6.168.71"]}]'
        " or kube-system/macvlan-conf@net1"
    ),
    DEFAULT_NETWORK: "kube-system/macvlan-conf",
}
_KEYS = {
    POD_POOLS: ("interface", "ipv4", "ipv6", "cleangateway"),
    POD_POOL: ("ipv4", "ipv6"),
    POD_SUBNETS: ("interface", "ipv4", "ipv6"),
    POD_SUBNET: ("interface", "ipv4", "ipv6"),
    POD_ROUTES: ("dst", "gw"),
}
_IGNORED_TOLD = 5
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?", re.ASCII)
_SIZE = re.compile(r"(\+?)([0-9]{1,9})", re.ASCII)
_TRUE, _FALSE = ("1", "t", "T", "TRUE", "true", "True"), ("0", "f", "F", "FALSE", "false", "False")

MOST_INTERFACES = 32
"""Interfaces of one pod that are served, and so twice as many addresses at most."""
MOST_POOLS, MOST_WILDCARDS = 256, 32
"""Pools that one annotation may name, and how many of those names may be wildcards: each is compared with all pools."""
MOST_ROUTES, MOST_IPS = 256, 16
"""Routes of one pod; addresses that it asks for on one interface."""


@dataclass(frozen=True, slots=True)
class PoolNames:
    """One choice of pools. `interface` is "" where the annotation does not name it."""

    interface: str
    ipv4: tuple[str, ...]
    ipv6: tuple[str, ...]
    clean_gateway: bool = False

    def names(self, family: int) -> tuple[str, ...]:
        return self.ipv4 if family == 4 else self.ipv6


@dataclass(frozen=True, slots=True)
class SubnetWish:
    """What an application asks for: for each interface the subnets to make a pool from, in order; how large it is to be,
    None for the cluster's default; and whether it goes with the application. `source`: the annotation that says so."""

    source: str
    interfaces: tuple[PoolNames, ...]
    size: Size | None = None
    reclaim: bool = True


@dataclass(frozen=True, slots=True)
class NetworkSelection:
    """One network attachment that the pod asks for, by annotation."""

    namespace: str
    """Of the NetworkAttachmentDefinition."""
    name: str
    """Its name."""
    interface: str
    """The interface's name in the pod, as it says or as its place in the list gives it."""
    ips: tuple[Address, ...]
    """The addresses that it wants there."""
    claim: str = ""
    """The IPAMClaim of the pod's namespace whose addresses it is to have, empty for none."""

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.name}"


def asks_for_subnets(annotations: Mapping[str, str]) -> bool:
    """Whether a pool is to be made for the application of a pod with these annotations."""
    return POD_SUBNETS in annotations or POD_SUBNET in annotations


def read_subnets(subject: str, annotations: Mapping[str, str]) -> SubnetWish | None:
    """What `ipam.spidernet.io/subnets`, else `subnet`, and the two that go with them ask for; None without either.
    `subject`: whose annotations they are ("pod shop/web-0"), for refusals. Raises `PodRefused`."""
    key = POD_SUBNETS if POD_SUBNETS in annotations else POD_SUBNET
    if key not in annotations:
        return None
    with _reading_of(subject, key) as place:
        if key == POD_SUBNET:
            entry = Fields.of(place, "", _folded(_json(place, annotations[key])), PodRefused)
            choices: tuple[PoolNames, ...] = (
                _pool_names(entry, entry.text("interface") or FIRST_INTERFACE, False, "subnet"),
            )
        else:
            entries = _mappings(place, annotations[key])
            if not entries:
                raise PodRefused(f"{place}: the list is empty, but must have one entry for each interface")
            _bound(place, entries, MOST_INTERFACES, "interfaces")
            choices = tuple(_pool_names(entry, entry.text("interface"), False, "subnet") for entry in entries)
        interfaces = [choice.interface for choice in choices]
        for interface in interfaces:
            _check_interface(place, interface)
            if interfaces.count(interface) > 1:
                raise PodRefused(f"{place}: interface {interface} has two entries; keep one")
        for family in (4, 6):
            named = [name for choice in choices for name in choice.names(family)]
            _bound_names(place, named, "subnets")
            for name in named:
                if named.count(name) > 1:
                    raise PodRefused(
                        f"{place}: subnet {shown(name)} is named twice for IPv{family}; keep one"
                    )
    return SubnetWish(key, choices, _size(subject, annotations), _reclaim(subject, annotations))


def _size(subject: str, annotations: Mapping[str, str]) -> Size | None:
    if POD_IP_NUMBER not in annotations:
        return None
    with _reading_of(subject, POD_IP_NUMBER) as place:
        matched = (
            _SIZE.fullmatch(annotations[POD_IP_NUMBER].strip())
            if len(annotations[POD_IP_NUMBER]) < 64
            else None
        )
        if matched is None:
            raise PodRefused(
                f"{place}: it is {shown(annotations[POD_IP_NUMBER])}, but must be a number of addresses, or + and a number"
            )
        return Size(int(matched[2]), bool(matched[1]))


def _reclaim(subject: str, annotations: Mapping[str, str]) -> bool:
    text = annotations.get(POD_RECLAIM, "true")
    with _reading_of(subject, POD_RECLAIM) as place:
        if text not in (*_TRUE, *_FALSE):
            raise PodRefused(f"{place}: it is {shown(text)}, but must be true or false")
    return text in _TRUE


def read_ippools(pod: Pod) -> tuple[PoolNames, ...] | None:
    """`ipam.spidernet.io/ippools`; None when the pod does not have it. Raises `PodRefused`."""
    if POD_POOLS not in pod.annotations:
        return None
    with _reading(pod.key, POD_POOLS) as subject:
        entries = _mappings(subject, pod.annotations[POD_POOLS])
        if not entries:
            raise PodRefused(f"{subject}: the list is empty, but must have one entry for each interface")
        _bound(subject, entries, MOST_INTERFACES, "interfaces")
        choices = [
            _pool_names(entry, entry.text("interface"), entry.flag("cleangateway")) for entry in entries
        ]
        _bound_names(subject, [name for choice in choices for name in (*choice.ipv4, *choice.ipv6)])
        named = [choice.interface for choice in choices if choice.interface]
        if named and len(named) != len(choices):
            raise PodRefused(
                f"{subject}: some entries name their interface and some do not; name it in all, or in none to"
                " take the order of the interfaces"
            )
        for interface in named:
            _check_interface(subject, interface)
            if named.count(interface) > 1:
                raise PodRefused(f"{subject}: interface {interface} has two entries; keep one")
        return tuple(choices)


def read_ippool(pod: Pod) -> PoolNames | None:
    """`ipam.spidernet.io/ippool`; None when the pod does not have it. Raises `PodRefused`."""
    if POD_POOL not in pod.annotations:
        return None
    with _reading(pod.key, POD_POOL) as subject:
        entry = Fields.of(subject, "", _folded(_json(subject, pod.annotations[POD_POOL])), PodRefused)
        return _pool_names(entry, "", False)


def read_namespace_pools(pod: Pod, namespace: Namespace | None) -> PoolNames | None:
    """The namespace's default pools; None when it has none. Raises `PodRefused`."""
    by_family: dict[int, tuple[str, ...]] = {4: (), 6: ()}
    for family, key in NAMESPACE_POOLS.items():
        text = namespace.annotations.get(key) if namespace else None
        if text is None or not text.strip():
            continue
        with _reading(pod.key, key, f"namespace {pod.namespace}: ") as subject:
            names = Fields(subject, "", {"": _json(subject, text)}, PodRefused).texts("")
            _check_names(subject, names)
            by_family[family] = names
    return PoolNames("", by_family[4], by_family[6]) if by_family[4] or by_family[6] else None


def read_routes(pod: Pod) -> tuple[PoolRoute, ...]:
    """`ipam.spidernet.io/routes`. Raises `PodRefused`."""
    if POD_ROUTES not in pod.annotations:
        return ()
    with _reading(pod.key, POD_ROUTES) as subject:
        routes = []
        entries = _mappings(subject, pod.annotations[POD_ROUTES])
        _bound(subject, entries, MOST_ROUTES, "routes")
        for entry in entries:
            for key in ("dst", "gw"):
                if not entry.text(key):
                    raise entry.refuse(key, "but every route needs dst and gw")
            destination = entry.read("dst", parse_cidr)
            gateway = entry.read("gw", partial(parse_address_of, family=destination.family))
            routes.append(PoolRoute(destination, gateway))
        return tuple(routes)


def read_default_route_nic(pod: Pod) -> str | None:
    """`ipam.spidernet.io/default-route-nic`; None when absent or empty. Raises `PodRefused`."""
    interface = pod.annotations.get(POD_DEFAULT_ROUTE_NIC, "").strip()
    if not interface:
        return None
    with _reading(pod.key, POD_DEFAULT_ROUTE_NIC) as subject:
        _check_interface(subject, interface)
    return interface


def read_networks(pod: Pod) -> tuple[NetworkSelection, ...]:
    """The additional networks, in order, each with the interface that it gets. Raises `PodRefused`."""
    return _networks(pod, NETWORKS, pod.annotations.get(NETWORKS, ""), pod.namespace)


def read_default_network(
    pod: Pod, agent_namespace: str, cluster_network: str | None
) -> NetworkSelection | None:
    """The network of the first interface: the pod's own choice, else the cluster's. Raises `PodRefused`."""
    text = pod.annotations.get(DEFAULT_NETWORK, "") or cluster_network or ""
    networks = _networks(pod, DEFAULT_NETWORK, text, agent_namespace)
    return networks[0] if networks else None


def read_network_elements(pod: Pod, key: str, text: str, read: Callable[[Fields], T]) -> tuple[T | None, ...]:
    """What `read` makes of each network selection element of `text`, which annotation `key` has; None for one in the short
    form, which says nothing but the name. Raises `PodRefused`, also for what `read` refuses."""
    if not text.strip():
        return ()
    with _reading(pod.key, key) as subject:
        if not _is_json(text):
            return (None,) * (text.count(",") + 1)
        return tuple(read(element) for element in _network_elements(subject, text))


def ignored_keys(pod: Pod, *, subnets: bool = True) -> tuple[str, ...]:
    """A warning for each key in the pod's annotations that means nothing there, as `interface` in `ippool`: Spiderpool
    passes over it, and so do we, but whoever wrote it believes that it does something. The annotations can be read.
    `subnets`: whether those that name subnets are."""
    order = (*((POD_SUBNETS, POD_SUBNET) if subnets else ()), POD_POOLS, POD_POOL)
    first = next((key for key in order if key in pod.annotations), "")
    read = (first, POD_ROUTES)  # what another one outranks nobody reads
    return tuple(
        f"annotation {annotation}: {shown(key)} is no key of it and is ignored; {nearest(key, known)}"
        for annotation, known in _KEYS.items()
        if annotation in read and annotation in pod.annotations
        for key in _unknown_keys(_json(pod.key, pod.annotations[annotation]), known)
    )


def _unknown_keys(value: Any, known: tuple[str, ...]) -> list[str]:
    """Each once, the first few: they may be many, and one shows what is wrong."""
    entries = value if isinstance(value, list) else [value]
    keys = (
        key for entry in entries if isinstance(entry, Mapping) for key in entry if key.lower() not in known
    )
    return list(islice(dict.fromkeys(keys), _IGNORED_TOLD))


def _networks(pod: Pod, key: str, text: str, namespace: str) -> tuple[NetworkSelection, ...]:
    if not text.strip():
        return ()
    with _reading(pod.key, key) as subject:
        networks = []
        entries = _json_networks(subject, text) if _is_json(text) else _short_networks(subject, text)
        for index, (entry_namespace, name, interface, ips, claim) in enumerate(entries):
            if index == MOST_INTERFACES:
                raise PodRefused(
                    f"{subject}: it has more than {MOST_INTERFACES} networks, the most of one pod"
                )
            for part in filter(None, (entry_namespace, name, claim)):
                if len(part) > SUBDOMAIN_LONGEST or not _NAME.fullmatch(part):
                    raise PodRefused(f"{subject}: {_quoted(part)} is not the name of an object")
            if not name:
                raise PodRefused(f"{subject}: entry {index} has no name")
            if interface:
                _check_interface(subject, interface)
            interface = interface or f"net{index + 1}"
            networks.append(NetworkSelection(entry_namespace or namespace, name, interface, ips, claim))
        return tuple(networks)


def _is_json(text: str) -> bool:
    """The standard's test for the JSON form: one of these characters anywhere."""
    return any(mark in text for mark in '[{"')


def _network_elements(subject: str, text: str) -> tuple[Fields, ...]:
    value = _json(subject, text, only_showable=False)  # what Multus takes beside is not for us to judge
    if isinstance(value, dict):  # Multus takes one object for a list of one
        value = [value]
    return Fields(subject, "", {"": value}, PodRefused).items("")


_Entry: TypeAlias = tuple[str, str, str, tuple[Address, ...], str]
"""Of one network: namespace, name, interface, addresses and claim, each empty where it is not said."""


def _json_networks(subject: str, text: str) -> Iterator[_Entry]:
    for entry in _network_elements(subject, text):
        _bound(subject, entry.texts("ips"), MOST_IPS, "addresses for one interface")
        ips = tuple(
            entry.read("ips", lambda text: parse_address(text.partition("/")[0]), ip, index=index)
            for index, ip in enumerate(entry.texts("ips"))
        )
        claim = entry.text("ipam-claim-reference")
        yield entry.text("namespace"), entry.text("name"), entry.text("interface"), ips, claim


def _short_networks(subject: str, text: str) -> Iterator[_Entry]:
    for item in (part.strip() for part in text.split(",")):
        place, at, interface = item.partition("@")
        namespace, slash, name = place.rpartition("/")
        if (
            not name
            or "/" in namespace
            or (slash and not namespace)
            or "@" in interface
            or (at and not interface)
        ):
            raise PodRefused(
                f"{subject}: {_quoted(item)} is not of the form name, namespace/name or namespace/name@interface"
            )
        yield namespace, name, interface, (), ""


def _pool_names(entry: Fields, interface: str, clean_gateway: bool, what: str = "pool") -> PoolNames:
    ipv4, ipv6 = entry.texts("ipv4"), entry.texts("ipv6")
    if not ipv4 and not ipv6:
        raise PodRefused(
            f"{entry.subject}: {entry.path or 'it'} names no {what}; name at least one in ipv4 or ipv6{_misspelt(entry)}"
        )
    _check_names(entry.subject, (*ipv4, *ipv6), what)
    return PoolNames(interface, ipv4, ipv6, clean_gateway)


def _misspelt(entry: Fields) -> str:
    unknown = _unknown_keys(entry.data, _KEYS[POD_POOLS])
    return (
        f" ({shown(unknown[0])} is no key of it; {nearest(unknown[0], _KEYS[POD_POOL])})" if unknown else ""
    )


def _check_names(subject: str, names: tuple[str, ...], what: str = "pool") -> None:
    for name in names:
        if not name.strip():
            raise PodRefused(f"{subject}: the name of a {what} is empty")
        if len(name) > SUBDOMAIN_LONGEST:
            raise PodRefused(
                f"{subject}: the name of a {what} has {len(name)} characters, but may have {SUBDOMAIN_LONGEST}"
            )
    _bound_names(subject, names, f"{what}s")


def _bound_names(subject: str, names: Sequence[str], what: str = "pools") -> None:
    _bound(subject, names, MOST_POOLS, what)
    _bound(subject, [name for name in names if is_wildcard(name)], MOST_WILDCARDS, "wildcards")


def _bound(subject: str, named: Sequence[object], most: int, what: str) -> None:
    if len(named) > most:
        raise PodRefused(f"{subject}: it has {len(named)} {what}, but may have {most}")


def is_wildcard(name: str) -> bool:
    """Whether a pool's name stands for all that are like it."""
    return "*" in name or "?" in name or ("[" in name and "]" in name)


def _quoted(word: str) -> str:
    """A word of the pod's in a refusal, which has the room for a name."""
    return repr(word) if len(word) <= SUBDOMAIN_LONGEST else f"{word[:64]!r}... ({len(word)} characters)"


def _check_interface(subject: str, interface: str) -> None:
    if not is_interface_name(interface):
        raise PodRefused(f"{subject}: {shown(interface)} is not the name of an interface; {INTERFACE_RULE}")


def _mappings(subject: str, text: str) -> tuple[Fields, ...]:
    value = _json(subject, text)
    if not isinstance(value, list):
        raise PodRefused(f"{subject}: it is {shown(value)}, but must be a list")
    return tuple(
        Fields.of(subject, f"[{index}]", _folded(entry), PodRefused) for index, entry in enumerate(value)
    )


def _folded(value: Any) -> Any:
    return {key.lower(): inner for key, inner in value.items()} if isinstance(value, Mapping) else value


def _json(subject: str, text: str, *, only_showable: bool = True) -> Any:
    try:
        return read_json(text, only_showable=only_showable)
    except UnreadableText as cause:
        raise PodRefused(f"{subject}: {cause}") from cause


@contextmanager
def _reading(pod: str, key: str, owner: str = "") -> Iterator[str]:
    """Gives the subject of error messages about a pod's annotation, or its namespace's, and adds a right form."""
    with _reading_of(f"pod {pod}", key, owner) as place:
        yield place


@contextmanager
def _reading_of(subject: str, key: str, owner: str = "") -> Iterator[str]:
    """The same about an annotation of anything."""
    try:
        yield f"{subject}: {owner}annotation {key}"
    except (PodRefused, InvalidObject) as cause:
        raise PodRefused(f"{showable(cause.message)}; a right form is: {_EXAMPLES[key]}") from cause
