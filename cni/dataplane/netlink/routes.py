"""Addresses, routes, rules and neighbours: what a message about one says, and messages that add and remove them.

They have a few fixed fields each and are encoded here: with pyroute2 that was two thirds of an ADD's CPU time.
"""

from __future__ import annotations

import socket
import struct

from cni.dataplane.netlink.codec import (
    CREATE,
    EXCL,
    ROOT_REPLACE,
    Message,
    attribute,
    attributes,
    number,
    packed,
)
from cni.dataplane.state import Neighbour, PolicyRule, Route

# linux/rtnetlink.h, linux/fib_rules.h, linux/neighbour.h
NEWADDR, GETADDR = 20, 22
NEWROUTE, DELROUTE, GETROUTE = 24, 25, 26
NEWNEIGH, DELNEIGH, GETNEIGH = 28, 29, 30
NEWRULE, DELRULE, GETRULE = 32, 33, 34
REMOVALS = (DELROUTE, DELNEIGH, DELRULE)
_FRA_DST, _FRA_SRC, _FRA_PRIORITY, _FRA_FWMARK, _FRA_TABLE, _FRA_FWMASK, _TO_TABLE = 1, 2, 6, 10, 15, 16, 1
_NDA_DST, _NDA_LLADDR = 1, 2
RTA_DST, RTA_OIF = 1, 4
_RTA_GATEWAY, _RTA_PRIORITY = 5, 6
_RTA_PREFSRC, _RTA_MULTIPATH, _RTA_TABLE = 7, 9, 15
PERMANENT = 0x80
LINK_SCOPE = 253
_ONLINK = 4
_AF = {4: socket.AF_INET, 6: socket.AF_INET6}


def add_address(cidr: str, index: int) -> Message:
    """Give an interface an address."""
    address, _, length = cidr.partition("/")
    family, raw = packed(address)
    body = struct.pack("=BBBBI", family, int(length), 0, 0, index) + attribute(2, raw) + attribute(1, raw)
    return Message(NEWADDR, CREATE | EXCL, body, there_ok=True, text=f"address {cidr}")


def add_route(route: Route, index: int, *, replace: bool = False) -> Message:
    """Add a route, or put it in the place of another one to the same destination."""
    flags = CREATE | (ROOT_REPLACE if replace else EXCL)
    body = _route_body(route, index)
    return Message(NEWROUTE, flags, body, there_ok=not replace, text=f"route {route}")


def delete_route(route: Route, index: int) -> Message:
    """Remove a route."""
    return Message(DELROUTE, 0, _route_body(route, index), gone_ok=True, text=f"route {route}")


def add_rule(rule: PolicyRule) -> Message:
    """Add a rule."""
    return Message(NEWRULE, CREATE | EXCL, _rule_body(rule), there_ok=True, text=f"rule {rule}")


def delete_rule(rule: PolicyRule) -> Message:
    """Remove a rule."""
    return Message(DELRULE, 0, _rule_body(rule), gone_ok=True, text=f"rule {rule}")


def add_neighbour(neighbour: Neighbour, index: int) -> Message:
    """Add or replace a permanent neighbour."""
    mac = bytes.fromhex(neighbour.mac.replace(":", ""))
    body = neighbour_body(neighbour.address, index, PERMANENT) + attribute(_NDA_LLADDR, mac)
    return Message(NEWNEIGH, CREATE | ROOT_REPLACE, body, text=f"neighbour {neighbour}")


def delete_neighbour(address: str, index: int) -> Message:
    """Remove a neighbour."""
    return Message(DELNEIGH, 0, neighbour_body(address, index), gone_ok=True, text=f"neighbour {address}")


def neighbour_of(frame: bytes, names: dict[int, str]) -> Neighbour | None:
    """The permanent neighbour that a message tells of; None for others, and for interfaces that are not in `names`."""
    family, index, state = struct.unpack_from("=B3xiH", frame, 16)
    attrs = attributes(frame, 28)
    address, mac = attrs.get(_NDA_DST), attrs.get(_NDA_LLADDR)
    if not state & PERMANENT or index not in names or not address or not mac:
        return None
    return Neighbour(socket.inet_ntop(family, address), names[index], mac.hex(":"))


def routes_of(frame: bytes, names: dict[int, str]) -> list[Route]:
    """The routes that a message tells of: one for each of its next hops whose interface is in `names`, by index."""
    family, length, _, _, table, proto, scope, _, flags = struct.unpack_from("=8BI", frame, 16)
    attrs = attributes(frame, 28)

    def text(raw: bytes | None) -> str:
        return socket.inet_ntop(family, raw) if raw else ""

    dst = text(attrs.get(RTA_DST)) or ("::" if family == socket.AF_INET6 else "0.0.0.0")
    hops = [(number(attrs, RTA_OIF), attrs.get(_RTA_GATEWAY), flags)]
    several = attrs.get(_RTA_MULTIPATH, b"")
    while len(several) >= 8:
        size, hop_flags, _, index = struct.unpack_from("=HBBi", several)
        hops.append((index, attributes(several[:size], 8).get(_RTA_GATEWAY), hop_flags))
        several = several[(max(size, 8) + 3) & ~3 :]
    return [
        Route(
            f"{dst}/{length}",
            names[index],
            text(gateway),
            text(attrs.get(_RTA_PREFSRC)),
            number(attrs, _RTA_TABLE) or table,
            link=family == socket.AF_INET and scope == LINK_SCOPE,
            onlink=bool(hop_flags & _ONLINK),
            proto=proto,
            metric=number(attrs, _RTA_PRIORITY),
        )
        for index, gateway, hop_flags in hops
        if index in names
    ]


def rule_of(frame: bytes) -> PolicyRule | None:
    """The rule that a message tells of, if it looks up a table."""
    family, dst_length, src_length, _, table, _, _, action = struct.unpack_from("=8B", frame, 16)
    if family not in (socket.AF_INET, socket.AF_INET6) or action != _TO_TABLE:
        return None
    attrs = attributes(frame, 28)
    dst, src = attrs.get(_FRA_DST), attrs.get(_FRA_SRC)
    return PolicyRule(
        4 if family == socket.AF_INET else 6,
        number(attrs, _FRA_PRIORITY),
        number(attrs, _FRA_TABLE) or table,
        f"{socket.inet_ntop(family, src)}/{src_length}" if src else "",
        f"{socket.inet_ntop(family, dst)}/{dst_length}" if dst else "",
        number(attrs, _FRA_FWMARK),
    )


def _route_body(route: Route, index: int) -> bytes:
    address, _, length = route.dst.partition("/")
    family, raw = packed(address)
    scope = LINK_SCOPE if route.link and route.family == 4 else 0
    table, flags = (route.table if route.table < 256 else 0), (_ONLINK if route.onlink else 0)
    body = struct.pack("=8BI", family, int(length), 0, 0, table, route.proto, scope, 1, flags)
    body += attribute(_RTA_TABLE, struct.pack("=I", route.table)) + attribute(
        RTA_OIF, struct.pack("=I", index)
    )
    if int(length):
        body += attribute(RTA_DST, raw)
    if route.gw:
        body += attribute(_RTA_GATEWAY, packed(route.gw)[1])
    if route.src:
        body += attribute(_RTA_PREFSRC, packed(route.src)[1])
    if route.metric:
        body += attribute(_RTA_PRIORITY, struct.pack("=I", route.metric))
    return body


def _rule_body(rule: PolicyRule) -> bytes:
    parts = attribute(_FRA_TABLE, struct.pack("=I", rule.table))
    parts += attribute(_FRA_PRIORITY, struct.pack("=I", rule.priority))
    lengths = {_FRA_DST: 0, _FRA_SRC: 0}
    for kind, value in ((_FRA_SRC, rule.src), (_FRA_DST, rule.dst)):
        if value:
            address, _, length = value.partition("/")
            lengths[kind] = int(length)
            parts += attribute(kind, packed(address)[1])
    if rule.mark:
        parts += attribute(_FRA_FWMARK, struct.pack("=I", rule.mark))
        parts += attribute(_FRA_FWMASK, struct.pack("=I", 0xFFFFFFFF))
    table = rule.table if rule.table < 256 else 0
    head = (_AF[rule.family], lengths[_FRA_DST], lengths[_FRA_SRC], 0, table, 0, 0, _TO_TABLE, 0)
    return struct.pack("=8BI", *head) + parts


def neighbour_body(address: str, index: int, state: int = 0) -> bytes:
    """The body of a message about a neighbour; `state` as NUD_… has it, 0 for none."""
    family, raw = packed(address)
    return struct.pack("=B3xiHBB", family, index, state, 0, 0) + attribute(_NDA_DST, raw)
