"""The VLANs and bonds of a node that `ifacer` made: which of them can go, and why others stay.

What must always hold: an interface goes only if its mark says that ifacer made it and nothing but such an interface uses
it: no address, no route, no bridge or bond above it, no member that somebody else gave it, no interface on it, in no
network namespace that is seen here. `judge` is pure.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cni.dataplane.ifacer.mark import is_ours, noted_members
from cni.dataplane.ifacer.plan import HostLinks, uses_of
from cni.dataplane.netlink.rtnetlink import Netlink
from cni.dataplane.state import Link

NAMESPACES = (Path("/var/run/netns"), Path("/var/run/docker/netns"))
"""Where container runtimes keep the network namespaces of pods."""
CONTAINERD = (Path("/run/containerd"), Path("/run/k3s/containerd"))
"""The state of containerd: with `netns_mounts_under_state_dir` a plugin of it keeps them there, in `NAME/netns`."""
CONTAINERD_PLUGIN = "io.containerd."
"""What the names of its plugins begin with."""


@dataclass(frozen=True, slots=True)
class JudgedLinks:
    """What is to become of VLANs and bonds."""

    going: tuple[Link, ...]
    """In the order in which they go: what stands on another one first."""
    used: tuple[tuple[Link, str], ...]
    """Made by ifacer too; and by what they are used, in words."""
    unmarked: tuple[Link, ...]
    """Nothing tells who made them."""


def judge(host: HostLinks, elsewhere: frozenset[int] = frozenset()) -> JudgedLinks:
    """`elsewhere`: the indexes of those on which interfaces of other namespaces stand."""
    going: list[Link] = []
    there = host
    while True:
        ours = [link for link in there.links if is_ours(link)]
        free = next((link for link in ours if not _uses(link, there, elsewhere)), None)
        if free is None:
            break
        going.append(free)
        there = HostLinks(tuple(_without(free, there.links)), there.addresses, there.routes)
    unmarked = tuple(link for link in there.links if link.kind in ("bond", "vlan") and not is_ours(link))
    return JudgedLinks(tuple(going), tuple((link, _uses(link, there, elsewhere)) for link in ours), unmarked)


def members(bond: Link, host: HostLinks) -> list[Link]:
    """The interfaces that leaving a bond takes down."""
    return [link for link in host.links if link.master == bond.index]


def stood_on(host: Netlink, directories: Iterable[Path]) -> frozenset[int]:
    """The indexes of interfaces on which interfaces of the namespaces kept there stand. Raises `OSError`."""
    indexes: set[int] = set()
    for directory in directories:
        for path in directory.iterdir() if directory.is_dir() else ():
            try:
                descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            try:
                indexes |= host.stood_on_from(descriptor)
            except OSError as error:
                if error.errno != errno.EINVAL:  # a file that a namespace was mounted on before
                    raise OSError(error.errno, error.strerror, str(path)) from error
            finally:
                os.close(descriptor)
    return frozenset(indexes)


def _without(gone: Link, links: Iterable[Link]) -> Iterable[Link]:
    return (link for link in links if link is not gone)


def _uses(link: Link, host: HostLinks, elsewhere: frozenset[int]) -> str:
    uses = uses_of(link, host)
    if any(other.index == link.master for other in host.links):
        uses.append(f"belongs to {host.name(link.master)}")
    noted = noted_members(link)
    others = [member.name for member in members(link, host) if member.name not in noted]
    if others:
        uses.append(f"has the member {', '.join(others)}, which ifacer did not give it")
    if link.index in elsewhere:
        uses.append("is what interfaces in other network namespaces stand on")
    return ", ".join(uses)
