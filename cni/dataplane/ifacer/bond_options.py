"""The options of a bond, `primary=eth1;miimon=100`, read whole or refused.

What must always hold: names are those of the kernel's bonding driver, and those that Spiderpool has for some of them; a
value that the kernel would refuse in the bond's mode is refused here, with what it must be; nothing is passed over.
The ranges and modes are those of drivers/net/bonding/bond_options.c.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from actors.errors import InvalidRequest

MODES = (
    "balance-rr",
    "active-backup",
    "balance-xor",
    "broadcast",
    "802.3ad",
    "balance-tlb",
    "balance-alb",
)
"""By number."""

Value = int | str | tuple[str, ...]
Wrong = Callable[[str], InvalidRequest]

_MAC = re.compile(r"[0-9a-f][02468ace](:[0-9a-f]{2}){5}")
_INT_MAX = 2**31 - 1
_ARP_TARGETS = 16
_EVERY = tuple(range(7))
_ARP = (0, 1, 2, 3)
_PRIMARY = (1, 5, 6)
_LACP = (4,)


@dataclass(frozen=True, slots=True)
class Option:
    """One option of a bond, as the kernel takes it."""

    kind: str = "number"
    """"number" from `low` to `high`, "interface" (a member), "addresses" (IPv4) or "mac"."""
    low: int = 0
    """The lowest number."""
    high: int = _INT_MAX
    """The highest."""
    names: tuple[str, ...] = ()
    """Words for the numbers from `low` on."""
    modes: tuple[int, ...] = _EVERY
    """The bond's modes in which the kernel takes it."""


def _named(*names: str, modes: tuple[int, ...] = _EVERY) -> Option:
    return Option(high=len(names) - 1, names=names, modes=modes)


def _flag(modes: tuple[int, ...] = _EVERY) -> Option:
    return Option(high=1, modes=modes)


OPTIONS = {
    "ad_actor_sys_prio": Option(low=1, high=65535, modes=_LACP),
    "ad_actor_system": Option("mac", modes=_LACP),
    "ad_lacp_rate": _named("slow", "fast", modes=_LACP),
    "ad_select": _named("stable", "bandwidth", "count"),
    "ad_user_port_key": Option(high=1023, modes=_LACP),
    "all_slaves_active": _flag(),
    "arp_all_targets": _named("any", "all"),
    "arp_interval": Option(modes=_ARP),
    "arp_ip_target": Option("addresses"),
    "arp_validate": _named(
        "none", "active", "backup", "all", "filter", "filter_active", "filter_backup", modes=_ARP
    ),
    "downdelay": Option(),
    "fail_over_mac": _named("none", "active", "follow"),
    "lp_interval": Option(low=1),
    "miimon": Option(),
    "min_links": Option(),
    "num_peer_notif": Option(high=255),
    "packets_per_slave": Option(high=65535, modes=(0,)),
    "primary": Option("interface", modes=_PRIMARY),
    "primary_reselect": _named("always", "better", "failure"),
    "resend_igmp": Option(high=255),
    "tlb_dynamic_lb": _flag(modes=(5, 6)),
    "updelay": Option(),
    "use_carrier": _flag(),
    "xmit_hash_policy": _named("layer2", "layer3+4", "layer2+3", "encap2+3", "encap3+4", "vlan+srcmac"),
}
"""By the name of its attribute, IFLA_BOND_… in linux/if_link.h."""

ALIASES = {
    "lacp_rate": "ad_lacp_rate",
    "num_grat_arp": "num_peer_notif",
    "num_unsol_na": "num_peer_notif",
    "peer_notif_delay": "num_peer_notif",
    "up_delay": "updelay",
}
"""The driver's own other names, and two of Spiderpool's: `up_delay`, and `peer_notif_delay`, which it sends to the kernel as
the number of notifications."""


def read_options(text: str, mode: int, members: Sequence[str], wrong: Wrong) -> tuple[tuple[str, Value], ...]:
    """(name, value) in the order given. Raises what `wrong` makes of the words that say what is wrong."""
    options: dict[str, Value] = {}
    for part in text.split(";"):
        key, sign, value = (word.strip() for word in part.partition("="))
        if not part.strip():
            continue
        if not sign or not key or not value:
            raise wrong(
                f'has {part.strip()!r}; it must be "name=value" pairs, such as "primary=eth1;miimon=100"'
            )
        name = ALIASES.get(key, key)
        option = OPTIONS.get(name)
        if key == "active_slave":
            raise wrong("has active_slave, which is the bond's state and changes with its links; use primary")
        if option is None:
            raise wrong(
                f"has {key!r}, which is no bond option; there are {', '.join(sorted({*OPTIONS, *ALIASES}))}"
            )
        if name in options:
            raise wrong(f"has {key!r} twice; keep one")
        if mode not in option.modes:
            names = ", ".join(f"{number} ({MODES[number]})" for number in option.modes)
            raise wrong(f"has {key!r}, which mode {mode} ({MODES[mode]}) does not take, only {names}")
        options[name] = _value(key, option, value, members, wrong)
    return _together(options, wrong)


def _value(key: str, option: Option, text: str, members: Sequence[str], wrong: Wrong) -> Value:
    if option.kind == "interface":
        if text not in members:
            raise wrong(f'has {key}={text}, which is not in "interfaces": {", ".join(members)}')
        return text
    if option.kind == "mac":
        mac = text.lower().replace("-", ":")
        if not _MAC.fullmatch(mac) or mac == "00:00:00:00:00:00":
            raise wrong(f"has {key}={text}; it must be the MAC of one station, such as 02:00:00:00:00:01")
        return mac
    if option.kind == "addresses":
        return _addresses(key, text, wrong)
    if text in option.names:
        return option.low + option.names.index(text)
    # No option has ten digits, and Python refuses to read thousands of them.
    if (
        not (text.isascii() and text.isdecimal())
        or len(text) > 10
        or not option.low <= int(text) <= option.high
    ):
        words = f", or one of {', '.join(option.names)}" if option.names else ""
        raise wrong(
            f"has {key}={text[:40]}; it must be a whole number from {option.low} to {option.high}{words}"
        )
    return int(text)


def _addresses(key: str, text: str, wrong: Wrong) -> tuple[str, ...]:
    words = [word.strip(" \"'") for word in text.strip("[]").split(",")]
    try:
        targets = [str(ipaddress.IPv4Address(word)) for word in words]
    except ValueError as error:
        raise wrong(f"has {key}={text}; it must be IPv4 addresses, such as 10.6.0.1,10.6.0.2") from error
    if len(targets) > _ARP_TARGETS:
        raise wrong(f"has {len(targets)} addresses in {key}; the kernel takes {_ARP_TARGETS}")
    return tuple(dict.fromkeys(targets))


def _together(options: dict[str, Value], wrong: Wrong) -> tuple[tuple[str, Value], ...]:
    """What the kernel refuses, or undoes, because of another option."""
    miimon, arp = options.get("miimon", 0), options.get("arp_interval", 0)
    assert isinstance(miimon, int)
    if miimon and arp:
        raise wrong("has both miimon and arp_interval; a bond watches its links in one way, so keep one")
    if arp and "arp_ip_target" not in options:
        raise wrong(
            "has arp_interval without arp_ip_target; say which addresses to ask, such as arp_ip_target=10.6.0.1"
        )
    for name in ("updelay", "downdelay"):
        delay = options.get(name)
        if isinstance(delay, int) and delay:
            if not miimon:
                raise wrong(f"has {name} without miimon; add miimon, in milliseconds, such as miimon=100")
            if delay % miimon:
                raise wrong(f"has {name}={delay}; it must be a multiple of miimon={miimon}")
    return tuple(options.items())
