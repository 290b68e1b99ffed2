"""The network configuration of the plugin `ifacer`, read whole or refused.

What must always hold: field names, defaults and meanings are those of Spiderpool's ifacer; a wrong value is an
`InvalidRequest` that names the field and shows a right form. Names are found without regard to case, as there. The options of a
bond are read in `bond_options.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from actors.errors import InvalidRequest
from actors.resources.fields import shown
from actors.resources.interface_name import NAME_LENGTH, is_interface_name
from cni.dataplane.ifacer.bond_options import MODES, Value, read_options

DEFAULT_BOND = "sp_bond0"
MEMBERS = 32
"""Interfaces of one bond. A network's author may write what he likes, and the agent reads it for every pod."""
LONGEST_OPTIONS = 4096


@dataclass(frozen=True, slots=True)
class BondSettings:
    """`mode`: 0 to 6. `options`: as `bond_options` reads them."""

    name: str
    mode: int = 0
    options: tuple[tuple[str, Value], ...] = ()


@dataclass(frozen=True, slots=True)
class IfacerSettings:
    """`vlan`: 0 for none. With a bond, `interfaces` are its members, else the one interface to work on."""

    network: str
    interfaces: tuple[str, ...]
    vlan: int = 0
    bond: BondSettings | None = None

    @property
    def base(self) -> str:
        """The interface that a VLAN stands on."""
        return self.bond.name if self.bond else self.interfaces[0]

    @property
    def vlan_name(self) -> str:
        """Empty for none."""
        return f"{self.base}.{self.vlan}" if self.vlan else ""

    @property
    def master(self) -> str:
        """The interface that the next plugin in the list has as its "master"."""
        return self.vlan_name or self.base


def read_ifacer_settings(conf: Mapping[str, Any]) -> IfacerSettings:
    """Understand the plugin's configuration. Raises `InvalidRequest`."""
    network = str(conf.get("name", ""))
    fields = {key.lower(): value for key, value in conf.items()}
    interfaces = _interfaces(fields.get("interfaces"), network)
    vlan = fields.get("vlanid")
    if vlan is None:
        vlan = 0
    if isinstance(vlan, bool) or not isinstance(vlan, int) or not 0 <= vlan <= 4094:
        raise _wrong(
            "vlanID", network, f"is {shown(vlan)}; it must be a whole number from 1 to 4094, or 0 for none"
        )
    bond = _bond(fields.get("bond"), interfaces, network)
    if len(interfaces) > 1 and bond is None:
        raise _wrong(
            "interfaces",
            network,
            f'names {", ".join(interfaces)}, and several are joined to a bond; add "bond": {{"name": "bond0", "mode": 1}}, '
            "or name one interface",
        )
    settings = IfacerSettings(network, interfaces, vlan, bond)
    name = settings.vlan_name
    if len(name.encode()) > NAME_LENGTH:
        raise _wrong(
            "vlanID",
            network,
            f"is {vlan}, so the VLAN interface would be {name}, which has more than {NAME_LENGTH} bytes; give "
            f"{settings.base} a shorter name",
        )
    return settings


def _wrong(field: str, network: str, what: str) -> InvalidRequest:
    return InvalidRequest(f'"{field}" of network {network} (ifacer) {what}')


def _interfaces(value: Any, network: str) -> tuple[str, ...]:
    right = 'it must be a list of names of interfaces of the node, such as ["eth1"]'
    if not isinstance(value, list) or not value:
        raise _wrong(
            "interfaces",
            network,
            f"is {shown(value)}; {right}" if value is not None else f"is missing; {right}",
        )
    if len(value) > MEMBERS:
        raise _wrong("interfaces", network, f"names {len(value)} interfaces; a bond has {MEMBERS} at most")
    for name in value:
        if not isinstance(name, str) or not is_interface_name(name):
            raise _wrong("interfaces", network, f"has {shown(name)}; {right}")
        if name == "lo":
            raise _wrong("interfaces", network, f"has lo, which has no network behind it; {right}")
        if value.count(name) > 1:
            raise _wrong("interfaces", network, f"has {name} twice; name it once")
    return tuple(value)


def _bond(value: Any, interfaces: tuple[str, ...], network: str) -> BondSettings | None:
    if value is None:
        return None
    if not isinstance(value, dict):
        raise _wrong(
            "bond",
            network,
            f'is {shown(value)}; it must be an object, such as {{"name": "bond0", "mode": 1}}',
        )
    fields = {key.lower(): entry for key, entry in value.items()}
    if len(interfaces) < 2:
        raise _wrong(
            "bond",
            network,
            f'needs at least two members, and "interfaces" names {interfaces[0]} only; add the others, or leave "bond" out',
        )
    name = fields.get("name")
    name = DEFAULT_BOND if name is None or name == "" else name
    if not isinstance(name, str) or not is_interface_name(name) or name == "lo":
        raise _wrong(
            "bond.name",
            network,
            f"is {shown(name)}; it must be an interface's name of 1 to {NAME_LENGTH} bytes",
        )
    if name in interfaces:
        raise _wrong(
            "bond.name", network, f'is {name}, which is also in "interfaces"; give the bond a name of its own'
        )
    mode = fields.get("mode")
    mode = 0 if mode is None else mode
    if isinstance(mode, bool) or not isinstance(mode, int) or not 0 <= mode < len(MODES):
        known = ", ".join(f"{number} ({word})" for number, word in enumerate(MODES))
        raise _wrong("bond.mode", network, f"is {shown(mode)}; it must be one of {known}")
    options = fields.get("options")
    options = "" if options is None else options
    if isinstance(options, str) and len(options) > LONGEST_OPTIONS:
        raise _wrong(
            "bond.options", network, f"has {len(options)} characters; {LONGEST_OPTIONS} hold every option"
        )
    if not isinstance(options, str):
        raise _wrong(
            "bond.options",
            network,
            f'is {shown(options)}; it must be text, such as "primary=eth1;miimon=100"',
        )
    read = read_options(options, mode, interfaces, lambda what: _wrong("bond.options", network, what))
    return BondSettings(name, mode, read)
