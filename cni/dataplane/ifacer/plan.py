"""What the plugin `ifacer` has to do on this host: the steps from what there is to what its configuration asks for.

What must always hold: a pure function of the configuration and of what was read; no steps means that everything is as
it should be; whatever would take the node off the network, or change what somebody else made, is refused with the
reason and the remedy. Interfaces are brought up last, when everything is there: until then no other request takes a
half-made one for whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from actors.errors import InvalidRequest
from cni.dataplane.ifacer.bond_options import MODES, Value
from cni.dataplane.ifacer.mark import BORN, is_ours, note, noted_members
from cni.dataplane.ifacer.settings import BondSettings, IfacerSettings
from cni.dataplane.state import Link, Route

VLAN_PROTOCOL = 0x8100
"""802.1Q (linux/if_ether.h); provider bridges' 802.1ad is another."""
_AUTOMATIC = ("fe80:", "ff")
"""Where the routes that every IPv6 interface has by itself lead."""
_ENSLAVERS = ("bond", "team")


@dataclass(frozen=True, slots=True)
class HostLinks:
    """What there is. `links`: at least those that the configuration names, and every VLAN. `addresses`, `routes`: of
    interfaces that are to become members of a bond, or to be removed, by name."""

    links: tuple[Link, ...]
    addresses: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    routes: tuple[Route, ...] = ()

    def link(self, name: str) -> Link | None:
        return next((link for link in self.links if link.name == name), None)

    def name(self, index: int) -> str:
        return next((link.name for link in self.links if link.index == index), f"interface {index}")


@dataclass(frozen=True, slots=True)
class CreateBond:
    """Make a bond without members, whose MTU is theirs."""

    name: str
    mode: int
    options: tuple[tuple[str, Value], ...]
    mtu: int

    def __str__(self) -> str:
        return f"there is no bond {self.name}"


@dataclass(frozen=True, slots=True)
class Enslave:
    """`was_up`: to bring it up again if this is undone."""

    member: str
    bond: str
    was_up: bool

    def __str__(self) -> str:
        return f"{self.member} is not a member of bond {self.bond}"


@dataclass(frozen=True, slots=True)
class CreateVlan:
    """Make the VLAN interface on its parent."""

    name: str
    parent: str
    vlan: int

    def __str__(self) -> str:
        return f"there is no VLAN interface {self.name}"


@dataclass(frozen=True, slots=True)
class Mark:
    """`note`: that ifacer made it."""

    name: str
    note: str

    def __str__(self) -> str:
        return f"{self.name} does not say that ifacer made it, or of which members"


@dataclass(frozen=True, slots=True)
class BringUp:
    """Set an interface up."""

    name: str

    def __str__(self) -> str:
        return f"{self.name} is not up"


Step = CreateBond | Enslave | CreateVlan | Mark | BringUp


def make_plan(settings: IfacerSettings, host: HostLinks) -> tuple[Step, ...]:
    """The steps, in order. Raises `InvalidRequest` for what must not be done."""
    if not settings.vlan and settings.bond is None:
        return ()
    steps: list[Step] = []
    down: list[str] = []
    _refuse_missing(settings, host)
    if settings.bond is not None:
        bond_steps, members_down = _bond_steps(settings, settings.bond, host)
        steps += bond_steps
        down += members_down
    base = host.link(settings.base)
    if base is None or not base.up:
        down.append(settings.base)
    if settings.vlan:
        there = _vlan(settings, base, host)
        if there is None:
            steps.append(CreateVlan(settings.vlan_name, settings.base, settings.vlan))
        if there is None or there.group == BORN:
            steps.append(Mark(settings.vlan_name, note()))
        if there is None or not there.up:
            down.append(settings.vlan_name)
    return (*steps, *(BringUp(name) for name in down))


def _refused(settings: IfacerSettings, what: str) -> InvalidRequest:
    return InvalidRequest(f"ifacer of network {settings.network}: {what}")


def _refuse_missing(settings: IfacerSettings, host: HostLinks) -> None:
    missing = [name for name in settings.interfaces if host.link(name) is None]
    if missing:
        are = "are no interfaces" if len(missing) > 1 else "is no interface"
        raise _refused(
            settings,
            f'{", ".join(missing)} in "interfaces" {are} of this node; correct the name, or keep pods of this network '
            "from nodes that do not have it",
        )


# ---- bonds ------------------------------------------------------------------------------------------------


def _bond_steps(
    settings: IfacerSettings, bond: BondSettings, host: HostLinks
) -> tuple[list[Step], list[str]]:
    there = host.link(bond.name)
    steps: list[Step] = []
    members = [link for name in settings.interfaces if (link := host.link(name)) is not None]
    if there is None:
        steps.append(CreateBond(bond.name, bond.mode, bond.options, min(link.mtu for link in members)))
    else:
        _refuse_another_bond(settings, bond, there, members, host)
    if there is None:
        steps.append(Mark(bond.name, note(settings.interfaces)))
    elif is_ours(there):
        text = note((*noted_members(there), *settings.interfaces))
        steps += [Mark(bond.name, text)] if there.alias != text or there.group == BORN else []
    down = []
    for member in members:
        if there is not None and member.master == there.index:
            if not member.up:
                down.append(member.name)
        else:
            _refuse_in_use(settings, bond, member, host)
            steps.append(Enslave(member.name, bond.name, member.up))
    return steps, down


def _refuse_another_bond(
    settings: IfacerSettings, bond: BondSettings, there: Link, members: list[Link], host: HostLinks
) -> None:
    if there.kind != "bond":
        what = f"of kind {there.kind}" if there.kind else "a card"
        raise _refused(
            settings,
            f'there is an interface {bond.name} already, which is {what} and no bond; choose another "bond.name"',
        )
    differences = []
    mode = there.info.get("IFLA_BOND_MODE", bond.mode)
    if mode != bond.mode:
        differences.append(f"mode {mode} ({MODES[mode]}) and not {bond.mode} ({MODES[bond.mode]})")
    joined = {link.name for link in members if link.master == there.index}
    for name, wanted in bond.options:
        if name == "primary" and wanted not in joined:
            continue  # it shows once it is a member
        current = _option(there, name, host)
        if current != (set(wanted) if isinstance(wanted, tuple) else wanted):
            differences.append(f"{name} {current} and not {wanted}")
    others = [
        link.name
        for link in host.links
        if link.master == there.index and link.name not in settings.interfaces
    ]
    if others and len(joined) < len(members):
        differences.append(f'the member {", ".join(others)}, which is not in "interfaces"')
    if differences:
        raise _refused(
            settings,
            f"the bond {bond.name} of this node has {'; '.join(differences)}; change the configuration to what the node has, "
            f"or, when nothing uses it any more, remove the bond (ip link delete {bond.name}) so that the next pod makes it "
            "anew",
        )


def _option(there: Link, name: str, host: HostLinks) -> object:
    value = there.info.get(f"IFLA_BOND_{name.upper()}")
    if name == "primary":
        return host.name(value) if value else "none"
    if name == "arp_ip_target":
        return set(value or ())
    return value


def _refuse_in_use(settings: IfacerSettings, bond: BondSettings, member: Link, host: HostLinks) -> None:
    """A member of a bond has no network of its own: it is taken down, and what it was used for stops."""
    if member.master:
        raise _refused(
            settings,
            f"{member.name} cannot become a member of {bond.name}: it belongs to {host.name(member.master)}; take it out "
            f"(ip link set {member.name} nomaster), or name another interface",
        )
    uses = uses_of(member, host)
    if uses:
        raise _refused(
            settings,
            f"{member.name} cannot become a member of {bond.name}: it {', '.join(uses)}, and a member loses all that, which "
            f"may take this node off the network; name an interface that nothing uses, or free {member.name} first (ip addr "
            f"flush dev {member.name}). To have the node itself on the bond, make {bond.name} in the node's own network "
            "configuration: ifacer takes it as it finds it",
        )


def uses_of(link: Link, host: HostLinks) -> list[str]:
    """What an interface is used for in its own namespace, in words; empty for nothing."""
    uses = []
    addresses = host.addresses.get(link.name, ())
    if addresses:
        uses.append(f"has the address {', '.join(addresses)}")
    routes = [
        route for route in host.routes if route.dev == link.name and not route.dst.startswith(_AUTOMATIC)
    ]
    if any(route.default for route in routes):
        uses.append("carries the default route")
    if any(not route.default for route in routes):
        shown = next(route for route in routes if not route.default)
        uses.append(f"carries the route to {shown.dst}")
    above = [
        other.name for other in host.links if other.parent == link.index and other.kind not in ("", "veth")
    ]
    if above:
        uses.append(f"is what {', '.join(above)} stands on")
    return uses


# ---- VLANs ------------------------------------------------------------------------------------------------


def _vlan(settings: IfacerSettings, base: Link | None, host: HostLinks) -> Link | None:
    """The VLAN interface if it is there and right."""
    name, vlan = settings.vlan_name, settings.vlan
    there = host.link(name)
    if there is not None:
        other = [there.kind or "a card"]
        if there.kind == "vlan":
            other = []
            if there.info.get("IFLA_VLAN_ID") != vlan:
                other.append(f"VLAN {there.info.get('IFLA_VLAN_ID')}")
            if there.info.get("IFLA_VLAN_PROTOCOL", VLAN_PROTOCOL) != VLAN_PROTOCOL:
                other.append("of protocol 802.1ad")
            if base is None or there.parent != base.index:
                other.append(f"on {host.name(there.parent)}")
        if other:
            raise _refused(
                settings,
                f"there is an interface {name} already, which is {' '.join(other)} and not VLAN {vlan} on {settings.base}; "
                f'rename or remove it (ip link delete {name}), or name another one in "interfaces"',
            )
    for link in host.links:
        if link.kind == "vlan" and link.name != name and link.info.get("IFLA_VLAN_ID") == vlan:
            raise _refused(
                settings,
                f"VLAN {vlan} is on this node already, as {link.name} on {host.name(link.parent)}, and a second interface "
                f'{name} for it would divide its frames; use {link.name} as the "master" of this network, without ifacer, '
                f"or remove it (ip link delete {link.name})",
            )
    master = next((link for link in host.links if base is not None and link.index == base.master), None)
    if there is None and master is not None and master.kind in _ENSLAVERS:
        raise _refused(
            settings,
            f"{settings.base} belongs to the {master.kind} {master.name}, and a VLAN on it would take frames of VLAN {vlan} "
            f'away from {master.name}; put the VLAN on {master.name}: "interfaces": ["{master.name}"]',
        )
    return there
