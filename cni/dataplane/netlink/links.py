"""Interfaces: what a message about one says, and messages that make, change and remove them.

The only module that knows pyroute2, whose messages nest their attributes by kind of interface.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Sequence
from typing import Any

from cni.dataplane.netlink.codec import CREATE, EXCL, Message, attributes, number
from cni.dataplane.state import Link, Nic

# linux/rtnetlink.h and linux/if_link.h
NEWLINK, DELLINK, GETLINK = 16, 17, 18
IFNAME = 3
_ADDRESS, _MTU, _LINK, _MASTER = 1, 4, 5, 10
_QUEUE, _LINKINFO, _ALIAS, _GROUP, _LINK_NAMESPACE = 13, 18, 20, 27, 37
_INFO_KIND = 1
_UP = 1


@functools.cache
def link_class() -> Any:
    """pyroute2's class of messages about interfaces. The processes that change interfaces ask for it at their start; the
    agent, which only reads addresses and indices, never does."""
    # Here, because pyroute2 cannot be imported in part: it is 160 modules, a tenth of a second of CPU and 10 MB.
    from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

    return ifinfmsg


def add_veth(name: str, mac: str, mtu: int, *, peer: str, peer_mac: str, peer_namespace: int) -> Message:
    """A veth pair; the peer is born in the namespace of an open file, where moving it would take 20 ms. The end here is
    up, the peer is not: the kernel opens it before it is paired, and fails (ENOTCONN)."""
    body = link_class()()
    body["flags"] = body["change"] = _UP
    other = {
        "attrs": [
            ("IFLA_IFNAME", peer),
            ("IFLA_ADDRESS", peer_mac),
            ("IFLA_MTU", mtu),
            ("IFLA_NET_NS_FD", peer_namespace),
        ],
    }
    info = {"attrs": [("IFLA_INFO_KIND", "veth"), ("IFLA_INFO_DATA", {"attrs": [("VETH_INFO_PEER", other)]})]}
    body["attrs"] = [("IFLA_IFNAME", name), ("IFLA_ADDRESS", mac), ("IFLA_MTU", mtu), ("IFLA_LINKINFO", info)]
    return Message(NEWLINK, CREATE | EXCL, body)


def add_link(
    name: str,
    kind: str,
    info: Sequence[tuple[str, Any]] = (),
    *,
    parent: int = 0,
    mtu: int = 0,
    group: int = 0,
) -> Message:
    """A virtual interface, which is down. `info`: the attributes of its kind, by the kernel's names. `parent`: the index of
    the interface that it stands on."""
    body = link_class()()
    attributes: list[tuple[str, Any]] = [("IFLA_IFNAME", name)]
    attributes += [("IFLA_LINK", parent)] if parent else []
    attributes += [("IFLA_MTU", mtu)] if mtu else []
    attributes += [("IFLA_GROUP", group)] if group else []
    body["attrs"] = [*attributes, ("IFLA_LINKINFO", _kind(kind, info))]
    return Message(NEWLINK, CREATE | EXCL, body)


def _kind(kind: str, info: Sequence[tuple[str, Any]]) -> dict[str, list[tuple[str, Any]]]:
    data = [("IFLA_INFO_DATA", {"attrs": list(info)})] if info else []
    return {"attrs": [("IFLA_INFO_KIND", kind), *data]}


def set_master(index: int, master: int) -> Message:
    """Make an interface a member of a bond or bridge; 0 takes it out."""
    body = link_class()()
    body["index"] = index
    body["attrs"] = [("IFLA_MASTER", master)]
    return Message(NEWLINK, 0, body)


def set_note(index: int, note: str) -> Message:
    """Give an interface a note (`alias`), and take it out of its group."""
    body = link_class()()
    body["index"] = index
    body["attrs"] = [("IFLA_IFALIAS", note), ("IFLA_GROUP", 0)]
    return Message(NEWLINK, 0, body)


def set_down(index: int, *, gone_ok: bool = False) -> Message:
    """Take an interface down. `gone_ok`: it may have gone meanwhile."""
    body = link_class()()
    body["index"], body["flags"], body["change"] = index, 0, _UP
    return Message(NEWLINK, 0, body, gone_ok=gone_ok)


def set_link(
    index: int = 0, *, name: str = "", up: bool = False, mac: str = "", queue: int = 0, alias: str = ""
) -> Message:
    """Change an interface, found by its index or its name."""
    body = link_class()()
    body["index"] = index
    if up:
        body["flags"] = body["change"] = _UP
    attributes: list[tuple[str, Any]] = [("IFLA_IFNAME", name)] if name else []
    attributes += [("IFLA_ADDRESS", mac)] if mac else []
    attributes += [("IFLA_IFALIAS", alias)] if alias else []
    body["attrs"] = attributes + ([("IFLA_TXQLEN", queue)] if queue else [])
    return Message(NEWLINK, 0, body)


def delete_link(name: str) -> Message:
    """Remove an interface, and with a veth its other end."""
    body = link_class()()
    body["attrs"] = [("IFLA_IFNAME", name)]
    return Message(DELLINK, 0, body, gone_ok=True)


def decoded(kind: Any, frame: bytes) -> Any:
    """A message as pyroute2 reads it, with all of its nested attributes."""
    message = kind(frame)
    message.decode()
    return message


def _text(data: bytes) -> str:
    """A name as the kernel has it: a pod's interface may be called by any bytes, and no other may seem to have its name."""
    return data.rstrip(b"\0").decode(errors="backslashreplace")


def stands_on(frame: bytes) -> tuple[int, int]:
    """(number of the namespace, index there) of what an interface stands on in another namespace; (-1, 0) for nothing."""
    attrs = attributes(frame, 32)
    if _LINK_NAMESPACE not in attrs:
        return -1, 0
    return struct.unpack("=i", attrs[_LINK_NAMESPACE])[0], number(attrs, _LINK)


def nic_of(frame: bytes, addresses: dict[int, list[tuple[str, bool]]]) -> Nic:
    """The interface that a message tells of. `addresses`: by its index, in CIDR form, and whether the kernel learnt them."""
    index, flags = struct.unpack_from("=iI", frame, 20)
    mine = addresses.get(index, ())
    attrs = attributes(frame, 32)
    return Nic(
        _text(attrs[IFNAME]),
        index,
        attrs.get(_ADDRESS, b"").hex(":"),
        tuple(address for address, _ in mine),
        bool(flags & _UP),
        number(attrs, _LINK),
        number(attrs, _MTU),
        number(attrs, _QUEUE),
        struct.unpack("=i", attrs[_LINK_NAMESPACE])[0] if _LINK_NAMESPACE in attrs else -1,
        _text(attrs.get(_ALIAS, b"")),
        tuple(address for address, dynamic in mine if dynamic),
    )


def link_of(frame: bytes) -> Link:
    """The same as a link of the host, with what is special to a bond or VLAN."""
    index, flags = struct.unpack_from("=iI", frame, 20)
    attrs = attributes(frame, 32)
    kind = _text(attributes(attrs.get(_LINKINFO, b""), 0).get(_INFO_KIND, b""))
    info: dict[str, Any] = {}
    if kind in ("bond", "vlan"):  # a full decoding reads seventy attributes
        data = decoded(link_class(), frame).get_nested("IFLA_LINKINFO", "IFLA_INFO_DATA")
        info = dict(data["attrs"]) if data is not None else {}
    return Link(
        _text(attrs[IFNAME]),
        index,
        kind,
        bool(flags & _UP),
        number(attrs, _MTU),
        number(attrs, _MASTER),
        0 if _LINK_NAMESPACE in attrs else number(attrs, _LINK),
        _text(attrs.get(_ALIAS, b"")),
        number(attrs, _GROUP),
        info,
    )
