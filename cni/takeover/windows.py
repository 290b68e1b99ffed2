"""The pools that stand for what another IPAM's networks may give out, where each network has a range of its own.

What must always hold: every address that a network may give out is in exactly one pool, and a network names all pools that
its addresses are in, so that it may give out the same ones as before; two pools have no address in common, however the
ranges of the networks overlap.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from actors.resources.addresses import Subnet, format_address, parse_address, parse_cidr
from actors.resources.fields import Fields
from actors.resources.intervals import Interval, IntervalSet
from actors.resources.ippool import KIND
from actors.store.contract import Object
from actors.store.kinds import SPIDERPOOL

_HEAD = 2
"""How far behind a subnet's first address a range begins that begins with the subnet: behind the network's and a router's."""
MARK = "ipam.spidernet.io/taken-over-from"
"""The label of a pool that a takeover made: the name of the IPAM that its addresses are from."""


@dataclass(frozen=True, slots=True)
class Window:
    """What one network may give out of one range."""

    network: str
    """For people: `NetworkAttachmentDefinition default/blue`."""
    subnet: Subnet
    """Whose length its addresses get."""
    addresses: IntervalSet
    """What it may give out."""
    gateway: int | None = None
    """Of the default route that its pods get; None where they get none."""
    routes: tuple[tuple[str, str], ...] = ()
    """Other routes, as destination and gateway."""
    nodes: tuple[str, ...] = ()
    """The nodes that it is for alone; empty for all."""

    @property
    def terms(self) -> tuple[Any, ...]:
        """What a pool says once for all of its addresses."""
        return self.subnet, self.gateway, self.routes, self.nodes


@dataclass(frozen=True, slots=True)
class Pools:
    """What was made of windows."""

    objects: tuple[Object, ...]
    """SpiderIPPools, each disabled."""
    of_window: tuple[tuple[str, ...], ...]
    """The names of the pools of each window, in the order of the windows."""
    spans: Mapping[str, tuple[int, IntervalSet]]
    """By pool, the family and the addresses that it lists."""
    problems: tuple[str, ...]
    """A sentence for each pool that cannot be."""
    differences: tuple[str, ...] = ()
    """A sentence for what a pool lists beside."""

    def holding(self, family: int, value: int) -> str:
        """The pool that lists an address; "" where none does."""
        for name, (of, span) in self.spans.items():
            if of == family and value in span:
                return name
        return ""


@dataclass(frozen=True, slots=True)
class Routes:
    """What a network's routes are as a pool has them, of one family."""

    gateway: int | None
    """Of the default route."""
    others: tuple[tuple[str, str], ...]
    """As destination and gateway."""
    lost: tuple[str, ...]
    """Destinations of routes that a pool cannot have, because nothing says through which gateway."""


def routes_of(ipam: Fields, family: int, gateway: int | None) -> Routes:
    """The routes of an `ipam` of the CNI convention; one without gateway goes through `gateway`, that of the result's
    addresses. Raises `InvalidObject`."""
    default: int | None = None
    others, lost = [], []
    for item in ipam.items("routes"):
        destination = item.read("dst", parse_cidr)
        if destination.family != family:
            continue
        through = gateway
        if item.text("gw"):
            of, through = item.read("gw", parse_address)
            if of != family:
                raise item.refuse("gw", f"which is IPv{of}, of a route of IPv{family}")
        if through is None:
            lost.append(str(destination))
        elif destination.prefix == 0:
            default = through
        else:
            others.append((str(destination), format_address(family, through)))
    return Routes(default, tuple(others), tuple(lost))


def pools_of(source: str, windows: Sequence[Window], used: Iterable[tuple[int, int]] = ()) -> Pools:
    """The pools for these windows of the IPAM `source`. `used`: by place of its window, an address that somebody has; one that
    no window gives out any more is listed with the others, since a pool has to list what is in use."""
    objects: list[Object] = []
    names: dict[int, list[str]] = {index: [] for index in range(len(windows))}
    spans: dict[str, tuple[int, IntervalSet]] = {}
    problems: list[str] = []
    for family in (4, 6):
        members = {index: window for index, window in enumerate(windows) if window.subnet.family == family}
        for holders, addresses in _atoms({index: window.addresses for index, window in members.items()}):
            first = members[holders[0]]
            other = next((members[index] for index in holders if members[index].terms != first.terms), None)
            if other is not None:
                problems.append(_disagreement(first, other, addresses))
            name = _name(source, first.subnet, addresses, spans)
            spans[name] = family, addresses
            objects.append(_pool(source, name, first))
            for index in holders:
                names[index].append(name)
    beyond = _beyond(windows, used, names, spans)
    for name, addresses in beyond.items():
        family, span = spans[name]
        spans[name] = family, span.union(addresses)
    for obj in objects:
        family, span = spans[obj["metadata"]["name"]]
        obj["spec"]["ips"] = list(span.ranges_text(family))
    of_window = tuple(tuple(names[index]) for index in names)
    return Pools(tuple(objects), of_window, spans, tuple(problems), tuple(_beyond_texts(beyond, spans)))


def _beyond(
    windows: Sequence[Window],
    used: Iterable[tuple[int, int]],
    names: Mapping[int, Sequence[str]],
    spans: Mapping[str, tuple[int, IntervalSet]],
) -> dict[str, IntervalSet]:
    """By pool, the addresses in use that it has to list beside those that it is for."""
    beyond: dict[str, IntervalSet] = {}
    for index, value in used:
        subnet = windows[index].subnet
        known = any(family == subnet.family and value in span for family, span in spans.values())
        if not known and names[index] and subnet.contains(value):
            name = names[index][0]
            beyond[name] = beyond.get(name, IntervalSet()).union([(value, value)])
    return beyond


def _beyond_texts(
    beyond: Mapping[str, IntervalSet], spans: Mapping[str, tuple[int, IntervalSet]]
) -> Iterator[str]:
    for name, addresses in beyond.items():
        ranges = ", ".join(addresses.ranges_text(spans[name][0]))
        yield (
            f"{ranges}: in use, and no network gives it out any more; pool {name} lists it as long as it is, so take it out of "
            "spec.ips when its pod is gone"
        )


def _atoms(sets: Mapping[int, IntervalSet]) -> list[tuple[tuple[int, ...], IntervalSet]]:
    """The addresses by who has them: one sweep from low to high."""
    edges: dict[int, list[tuple[bool, int]]] = {}
    for index, members in sets.items():
        for low, high in members:
            edges.setdefault(low, []).append((True, index))
            edges.setdefault(high + 1, []).append((False, index))
    parts: dict[tuple[int, ...], list[Interval]] = {}
    inside: set[int] = set()
    before = 0
    for edge in sorted(edges):
        if inside:
            parts.setdefault(tuple(sorted(inside)), []).append((before, edge - 1))
        for begins, index in edges[edge]:
            (inside.add if begins else inside.discard)(index)
        before = edge
    return [(holders, IntervalSet(intervals)) for holders, intervals in parts.items()]


def _name(source: str, subnet: Subnet, addresses: IntervalSet, taken: Iterable[str]) -> str:
    """Of its subnet, where it begins there and no other pool has that name, else of its first address as well: another node
    may have another part of the same subnet."""
    name = f"{source}-{_word(subnet.family, subnet.network)}-{subnet.prefix}"
    assert addresses.first is not None
    if name not in taken and addresses.first <= subnet.first + _HEAD:
        return name
    return f"{name}-from-{_word(subnet.family, addresses.first)}"


def _word(family: int, value: int) -> str:
    """An address as names of objects take it."""
    return format_address(family, value).replace(":", "-").strip("-") or "0"


def _pool(source: str, name: str, window: Window) -> Object:
    family = window.subnet.family
    spec: dict[str, Any] = {
        "ipVersion": family,
        "subnet": str(window.subnet),
        "ips": [],
        "disable": True,
    }
    if window.gateway is not None:
        spec["gateway"] = format_address(family, window.gateway)
    if window.routes:
        spec["routes"] = [{"dst": destination, "gw": gateway} for destination, gateway in window.routes]
    if window.nodes:
        spec["nodeName"] = list(window.nodes)
    metadata = {"name": name, "labels": {MARK: source}}
    return {"apiVersion": SPIDERPOOL, "kind": KIND, "metadata": metadata, "spec": spec}


def _disagreement(first: Window, other: Window, addresses: IntervalSet) -> str:
    family = first.subnet.family
    words = ("subnet", "default gateway", "routes", "nodes")
    what = next(word for word, mine, its in zip(words, first.terms, other.terms, strict=True) if mine != its)
    return (
        f"{first.network} and {other.network} both give out {addresses.ranges_text(family)[0]}, and differ in their {what}: "
        "a pool has one for all of its addresses; make them alike, or their ranges apart"
    )
