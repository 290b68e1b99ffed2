"""Tell the network segment that an address has a new MAC: gratuitous ARP and unsolicited neighbour advertisement.

What must always hold: one frame for each address, sent from the interface itself; nothing is awaited. It is the
one place of the coordinator that opens a packet socket; everything else that it does is netlink and sysctls.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable

from cni.dataplane.probing import frames


def announce(interface: str, mac: str, addresses: Iterable[str]) -> None:
    """Announce the addresses (CIDR form), in the namespace in which this thread is. Raises `OSError`."""
    hardware = bytes.fromhex(mac.replace(":", ""))
    kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
    with socket.socket(socket.AF_PACKET, kind, 0) as channel:
        channel.bind((interface, 0))
        for cidr in addresses:
            channel.send(frames.announcement(hardware, frames.packed(cidr.partition("/")[0])))
