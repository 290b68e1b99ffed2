"""rtnetlink in the namespace of a socket: what there is, and what to add or remove. The only module that knows pyroute2.

How it works. pyroute2 gives the messages about interfaces, whose attributes nest and differ by kind. Addresses, routes,
rules and neighbours, a few fixed fields each, are encoded here, and so is what is asked: with pyroute2 that was two
thirds of an ADD's CPU time. The socket is a plain one, because pyroute2's own clients start an event loop for every
question and fork for another namespace. Many messages go out in one datagram and the kernel acknowledges each.

What must always hold: a socket belongs to the namespace in which it was made, wherever the thread goes later; every
message is acknowledged or an `OSError` with the kernel's number is raised; nothing is retried.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import socket
import struct
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from cni.dataplane.state import Link, Neighbour, Nic, Route, Rule

# linux/netlink.h and linux/rtnetlink.h
_REQUEST, _ACK, _DUMP, _ROOT_REPLACE, _EXCL, _CREATE = 1, 4, 0x300, 0x100, 0x200, 0x400
_NEWLINK, _DELLINK, _GETLINK, _NEWADDR, _GETADDR = 16, 17, 18, 20, 22
_NEWROUTE, _DELROUTE, _GETROUTE = 24, 25, 26
_NEWNEIGH, _DELNEIGH, _GETNEIGH = 28, 29, 30
_NEWRULE, _DELRULE, _GETRULE = 32, 33, 34
_GETNSID, _NSID, _NSID_BY_FD = 90, 1, 3
_REMOVALS = (_DELROUTE, _DELNEIGH, _DELRULE)
_ERROR, _DONE = 2, 3
_IFNAME, _ADDRESS, _MTU, _LINK, _MASTER = 3, 1, 4, 5, 10
_QUEUE, _LINKINFO, _ALIAS, _LINK_NAMESPACE = 13, 18, 20, 37
_INFO_KIND = 1
_SKIP_STATISTICS = 8
_CAPPED, _EXTENDED = 0x100, 0x200  # flags of an acknowledgement: without the request; with attributes
_TARGET_NAMESPACE = 10
_IFA_FLAGS = 8
_LINK_HEADER, _ADDRESS_HEADER, _ROUTE_HEADER = 16, 8, 12  # bytes; rules and neighbours have that of routes
_FRA_DST, _FRA_SRC, _FRA_PRIORITY, _FRA_FWMARK, _FRA_TABLE, _FRA_FWMASK, _TO_TABLE = 1, 2, 6, 10, 15, 16, 1
_NDA_DST, _NDA_LLADDR = 1, 2
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_PRIORITY = 1, 4, 5, 6
_RTA_PREFSRC, _RTA_MULTIPATH, _RTA_TABLE = 7, 9, 15
_UP, _RUNNING = 1, 0x40
_PERMANENT = 0x80
_FIB_MATCH = 0x2000 | 0x1000  # the route itself, and the table that it was found in
_ONLINK = 4
_LINK_SCOPE = 253
_AF = {4: socket.AF_INET, 6: socket.AF_INET6}
_BUFFER = 1 << 18
_ALL_NAMESPACES, _IPV6_ADDRESSES = 8, 0x100
_CLONE_NEWNET = 0x40000000
GONE = (errno.ESRCH, errno.ENOENT, errno.ENODEV, errno.EADDRNOTAVAIL, errno.ENXIO)
"""What the kernel says when that which is to be removed is not there."""

_SYSCTLS = next(path for path in (Path("/host/proc/sys"), Path("/proc/sys")) if path.is_dir())
"""In a container that is not privileged /proc/sys can only be read; the DaemonSet has the host's beside it."""

_libc = ctypes.CDLL(None, use_errno=True)


@functools.cache
def link_class() -> Any:
    """pyroute2's class of messages about interfaces. The processes that change interfaces ask for it at their start; the
    agent, which only reads addresses and indices, never does."""
    # Here, because pyroute2 cannot be imported in part: it is 160 modules, a tenth of a second of CPU and 10 MB.
    from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

    return ifinfmsg


def enter(descriptor: int) -> None:
    """Move this thread into the network namespace of an open file. Raises `OSError`."""
    if _libc.setns(descriptor, _CLONE_NEWNET):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


@contextmanager
def inside(descriptor: int) -> Iterator[None]:
    """Be in that network namespace with this thread, and afterwards back in its own."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        enter(descriptor)
        try:
            yield
        finally:
            enter(home)
    finally:
        os.close(home)


class TooMany(OSError):
    """There is more in a namespace than is looked at. The socket cannot be used any more."""


@dataclass(frozen=True, slots=True)
class Message:
    """One request to the kernel. `gone_ok`, `there_ok`: a removal of what is not there, or an addition of what is,
    is no error. `body`: encoded, or a message of pyroute2's. `text`: what it is about, where the body does not tell."""

    kind: int
    flags: int
    body: Any
    gone_ok: bool = False
    there_ok: bool = False
    text: str = ""


class Netlink:
    """A socket to the namespace in which this thread is now. `most`: how many things of one kind are looked at; a pod may
    fill its namespace with what it likes. Beyond it `TooMany` is raised."""

    def __init__(self, most: int = 1 << 20) -> None:
        self._most = most
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE
        )
        self._socket.bind((0, 0))
        # Answers repeat the whole request unless asked not to (NETLINK_CAP_ACK), and say why only if asked (EXT_ACK).
        self._socket.setsockopt(270, 10, 1)
        self._socket.setsockopt(270, 11, 1)
        self._sequence = 0

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ---- what there is ------------------------------------------------------------------------------------

    def nics(self) -> list[Nic]:
        """Every interface but `lo`, with its addresses, by index."""
        addresses: dict[int, list[tuple[str, bool]]] = {}
        for index, address, dynamic in self._addresses():
            addresses.setdefault(index, []).append((address, dynamic))
        found = [_nic(frame, addresses) for frame in self._list(_GETLINK, _LINK_HEADER)]
        return sorted((nic for nic in found if nic.name != "lo"), key=lambda nic: nic.index)

    def nic(self, *, name: str = "", index: int = 0) -> Nic | None:
        """One interface, without its addresses."""
        named = _attribute(_IFNAME, name.encode() + b"\0") if name else b""
        try:
            frame = self._query(_GETLINK, struct.pack("=B3xi8x", 0, index) + named)
        except OSError as error:
            if error.errno in GONE:
                return None
            raise
        return _nic(frame, {})

    def running(self, index: int) -> bool:
        """Whether an interface is up and has its carrier."""
        message = link_class()()
        message["index"] = index
        flags: int = struct.unpack_from("=I", self._ask(_GETLINK, message)[0], 24)[0]
        return bool(flags & _RUNNING)

    def links(self, kind: str = "") -> list[Link]:
        """Every interface, or every one of a kind, by index."""
        body = link_class()()
        attributes: list[tuple[str, Any]] = [("IFLA_EXT_MASK", _SKIP_STATISTICS)]
        if kind:
            attributes.append(("IFLA_LINKINFO", {"attrs": [("IFLA_INFO_KIND", kind)]}))
        body["attrs"] = attributes
        found = [_link(frame) for frame in self._dump(_GETLINK, body)]
        # The kernel filters by a kind only when it knows that kind.
        return sorted((link for link in found if kind in ("", link.kind)), key=lambda link: link.index)

    def link(self, name: str) -> Link | None:
        """One interface."""
        body = link_class()()
        body["attrs"] = [("IFLA_IFNAME", name), ("IFLA_EXT_MASK", _SKIP_STATISTICS)]
        try:
            frames = self._ask(_GETLINK, body)
        except OSError as error:
            if error.errno in GONE:
                return None
            raise
        return _link(frames[0])

    def addresses(self) -> list[tuple[int, str]]:
        """(interface index, address in CIDR form); no link-local IPv6 ones."""
        return [(index, address) for index, address, _ in self._addresses()]

    def _addresses(self) -> list[tuple[int, str, bool]]:
        found = []
        for frame in self._list(_GETADDR, _ADDRESS_HEADER):
            family, length, _, scope, index = struct.unpack_from("=BBBBI", frame, 16)
            if family == socket.AF_INET6 and scope == _LINK_SCOPE:
                continue  # a host has one for each pod
            attributes = _attributes(frame, 24)
            address = attributes.get(2) or attributes[1]  # IFA_LOCAL, IFA_ADDRESS
            dynamic = family == socket.AF_INET6 and not _number(attributes, _IFA_FLAGS) & _PERMANENT
            found.append((index, f"{socket.inet_ntop(family, address)}/{length}", dynamic))
        return found

    def namespace_number(self, descriptor: int) -> int:
        """The number here of another namespace, which is an open file; -1 where it has none."""
        attribute = _attribute(_NSID_BY_FD, struct.pack("=I", descriptor))
        found = _attributes(self._query(_GETNSID, bytes(4) + attribute), 20)
        return int(struct.unpack("=i", found[_NSID])[0]) if _NSID in found else -1

    def addresses_in(self, namespace: int) -> list[str] | None:
        """The addresses (without length) in another namespace, by this one's number for it; None when it is gone."""
        self._sequence += 1
        attribute = struct.pack("=HHi", 8, _TARGET_NAMESPACE, namespace)
        head = struct.pack("=IHHII", 24 + len(attribute), _GETADDR, _REQUEST | _DUMP, self._sequence, 0)
        # The kernel heeds the attribute only where it checks all of a request (NETLINK_GET_STRICT_CHK).
        self._socket.setsockopt(270, 12, 1)
        try:
            frames = self._collect(head + bytes(8) + attribute)
        except OSError as error:
            if error.errno in (*GONE, errno.EINVAL):
                return None
            raise
        finally:
            self._socket.setsockopt(270, 12, 0)
        found = []
        for frame in frames:
            attributes = _attributes(frame, 24)
            raw = attributes.get(2) or attributes[1]  # IFA_LOCAL, IFA_ADDRESS
            found.append(socket.inet_ntop(frame[16], raw))
        return found

    def routes(self, names: dict[int, str]) -> list[Route]:
        """Every unicast route outside the table of local addresses."""
        found: list[Route] = []
        for family in _AF.values():  # a dump of all families at once leaves IPv6 out
            for frame in self._list(_GETROUTE, _ROUTE_HEADER, family):
                if frame[23] == 1:  # rtm_type: unicast
                    found += _routes(frame, names)
        return [route for route in found if route.table != 255]

    def route_to(self, address: str, names: dict[int, str], table: int) -> Route | None:
        """The host route to `address` itself in `table`, as the rules of this namespace find it."""
        family, raw = _packed(address)
        head = struct.pack("=8BI", family, len(raw) * 8, 0, 0, 0, 0, 0, 0, _FIB_MATCH)
        try:
            frame = self._query(_GETROUTE, head + _attribute(_RTA_DST, raw))
        except OSError as error:
            if error.errno in (*GONE, errno.ENETUNREACH, errno.EHOSTUNREACH):
                return None
            raise
        index = _number(_attributes(frame, 28), _RTA_OIF)
        if index and index not in names:
            nic = self.nic(index=index)
            if nic is not None:
                names[index] = nic.name
        found = [one for one in _routes(frame, names) if one.table == table]
        return next((one for one in found if one.dst.partition("/")[0] == address), None)

    def rules(self) -> list[Rule]:
        """Every rule that looks up a table, of both families."""
        found = []
        for frame in self._list(_GETRULE, _ROUTE_HEADER):
            family, dst_length, src_length, _, table, _, _, action = struct.unpack_from("=8B", frame, 16)
            if family not in (socket.AF_INET, socket.AF_INET6) or action != _TO_TABLE:
                continue
            attributes = _attributes(frame, 28)
            dst, src = attributes.get(_FRA_DST), attributes.get(_FRA_SRC)
            found.append(
                Rule(
                    4 if family == socket.AF_INET else 6,
                    _number(attributes, _FRA_PRIORITY),
                    _number(attributes, _FRA_TABLE) or table,
                    f"{socket.inet_ntop(family, src)}/{src_length}" if src else "",
                    f"{socket.inet_ntop(family, dst)}/{dst_length}" if dst else "",
                    _number(attributes, _FRA_FWMARK),
                )
            )
        return found

    def neighbours(self, names: dict[int, str]) -> list[Neighbour]:
        """Every permanent neighbour on an interface in `names`."""
        found = [_neighbour(frame, names) for frame in self._list(_GETNEIGH, _ROUTE_HEADER)]
        return [one for one in found if one is not None]

    def neighbour(self, address: str, name: str, index: int) -> Neighbour | None:
        """The permanent entry for `address` on one interface."""
        try:
            frame = self._query(_GETNEIGH, _neighbour_body(address, index))
        except OSError as error:
            if error.errno in GONE:
                return None
            raise
        return _neighbour(frame, {index: name})

    # ---- what to change -----------------------------------------------------------------------------------

    def send(self, messages: Sequence[Message]) -> int:
        """Do all of it, in order; returns how many took effect. Raises the first `OSError`, after all were tried."""
        if not messages:
            return 0
        first = self._sequence + 1
        frames = b"".join(self._encode(one.kind, _ACK | one.flags, one.body) for one in messages)
        self._socket.send(frames)
        outstanding = set(range(first, self._sequence + 1))
        failed: OSError | None = None
        done = 0
        while outstanding:
            for kind, sequence, frame in _frames(self._socket.recv(_BUFFER)):
                if kind != _ERROR or sequence not in outstanding:
                    continue
                outstanding.discard(sequence)
                number = -struct.unpack_from("=i", frame, 16)[0]
                message = messages[sequence - first]
                if number == 0:
                    done += 1
                elif not (message.gone_ok and number in GONE) and not (
                    message.there_ok and number == errno.EEXIST
                ):
                    reason = _reason(frame) or os.strerror(number)
                    failed = failed or OSError(number, f"{reason} ({_describe(message)})")
        if failed is not None:
            raise failed
        return done

    def _ask(self, kind: int, body: Any) -> list[bytes]:
        return self._collect(self._encode(kind, 0, body))

    def _dump(self, kind: int, body: Any) -> list[bytes]:
        return self._collect(self._encode(kind, _DUMP, body))

    def _list(self, kind: int, size: int, family: int = 0) -> list[bytes]:
        """A dump without further conditions; `size`: of the kind's own header."""
        return self._collect(self._framed(kind, _DUMP, bytes((family,)) + bytes(size - 1)))

    def _query(self, kind: int, body: bytes) -> bytes:
        return self._collect(self._framed(kind, 0, body))[0]

    def _framed(self, kind: int, flags: int, body: bytes) -> bytes:
        self._sequence += 1
        return struct.pack("=IHHII", 16 + len(body), kind, _REQUEST | flags, self._sequence, 0) + body

    def _collect(self, request: bytes) -> list[bytes]:
        self._socket.send(request)
        dump = struct.unpack_from("=H", request, 6)[0] & _DUMP == _DUMP
        found: list[bytes] = []
        while True:
            for kind, sequence, frame in _frames(self._socket.recv(_BUFFER)):
                if sequence != self._sequence:
                    continue
                if kind == _DONE:
                    return found
                if kind == _ERROR:
                    number = -struct.unpack_from("=i", frame, 16)[0]
                    raise OSError(number, os.strerror(number))
                found.append(frame)
            if not dump and found:
                return found
            if len(found) > self._most:
                raise TooMany(
                    errno.E2BIG,
                    f"the network namespace has more than {self._most} interfaces, addresses, routes or rules",
                )

    def _encode(self, kind: int, flags: int, body: Any) -> bytes:
        if isinstance(body, bytes):
            return self._framed(kind, flags, body)
        self._sequence += 1
        body["header"]["type"], body["header"]["flags"] = kind, _REQUEST | flags
        body["header"]["sequence_number"] = self._sequence
        body.reset()
        body.encode()
        return bytes(body.data) + bytes(-len(body.data) % 4)


class NewAddresses:
    """Addresses that router advertisements give to interfaces of other namespaces: of each one for which this one has a
    number, which a veth pair between them brings about (NETLINK_LISTEN_ALL_NSID). Needs CAP_NET_BROADCAST. Raises
    `OSError`."""

    def __init__(self) -> None:
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
        self._socket = socket.socket(socket.AF_NETLINK, kind, socket.NETLINK_ROUTE)
        try:
            self._socket.setsockopt(270, _ALL_NAMESPACES, 1)
            self._socket.bind((0, _IPV6_ADDRESSES))
        except OSError:
            self._socket.close()
            raise

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def read(self) -> list[tuple[int, str]]:
        """(number of the namespace, address) of what came; an `OSError` with ENOBUFS says that some was lost."""
        data, ancillary, _, _ = self._socket.recvmsg(_BUFFER, 64)
        numbers = [
            int(struct.unpack("=i", value)[0])
            for level, kind, value in ancillary
            if (level, kind) == (270, _ALL_NAMESPACES)
        ]
        found = []
        for kind, _, frame in _frames(data):
            if kind != _NEWADDR or not numbers:
                continue
            family, _, _, scope, _ = struct.unpack_from("=BBBBI", frame, 16)
            attributes = _attributes(frame, 24)
            if family == socket.AF_INET6 and scope == 0 and not _number(attributes, _IFA_FLAGS) & _PERMANENT:
                found.append((numbers[0], socket.inet_ntop(family, attributes[1])))
        return found


class RouterAdvertisements:
    """Router advertisements that come in on this namespace's interfaces. Raises `OSError`."""

    def __init__(self) -> None:
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        self._socket = socket.socket(socket.AF_INET6, kind, socket.IPPROTO_ICMPV6)
        blocked = bytearray(b"\xff" * 32)
        blocked[134 // 8] &= ~(1 << 134 % 8)
        self._socket.setsockopt(socket.IPPROTO_ICMPV6, 1, bytes(blocked))  # ICMP6_FILTER, linux/icmpv6.h
        self._socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        self._socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVHOPLIMIT, 1)

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def read(self) -> tuple[int, bytes] | None:
        """(index of the interface, message) of the next one; None when there is none now, or it was no neighbour's (RFC
        4861 section 6.1.2)."""
        try:
            message, ancillary, _, source = self._socket.recvmsg(1 << 16, 128)
        except BlockingIOError:
            return None
        told = {kind: value for level, kind, value in ancillary if level == socket.IPPROTO_IPV6}
        index: int = struct.unpack_from("=i", told[socket.IPV6_PKTINFO], 16)[0]
        (hops,) = struct.unpack("=i", told[socket.IPV6_HOPLIMIT])
        return (index, message) if hops == 255 and source[0].startswith("fe80:") else None


def solicit_routers(index: int) -> None:
    """Ask the routers on an interface of this namespace to advertise now (RFC 4861 section 4.1). Raises `OSError`."""
    with socket.socket(
        socket.AF_INET6, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.IPPROTO_ICMPV6
    ) as channel:
        channel.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
        channel.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
        channel.sendto(struct.pack(">BBHI", 133, 0, 0, 0), ("ff02::2", 0, 0, index))


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
    return Message(_NEWLINK, _CREATE | _EXCL, body)


def add_link(
    name: str, kind: str, info: Sequence[tuple[str, Any]] = (), *, parent: int = 0, mtu: int = 0
) -> Message:
    """A virtual interface, which is down. `info`: the attributes of its kind, by the kernel's names. `parent`: the index of
    the interface that it stands on."""
    body = link_class()()
    attributes: list[tuple[str, Any]] = [("IFLA_IFNAME", name)]
    attributes += [("IFLA_LINK", parent)] if parent else []
    attributes += [("IFLA_MTU", mtu)] if mtu else []
    body["attrs"] = [*attributes, ("IFLA_LINKINFO", _kind(kind, info))]
    return Message(_NEWLINK, _CREATE | _EXCL, body)


def _kind(kind: str, info: Sequence[tuple[str, Any]]) -> dict[str, list[tuple[str, Any]]]:
    data = [("IFLA_INFO_DATA", {"attrs": list(info)})] if info else []
    return {"attrs": [("IFLA_INFO_KIND", kind), *data]}


def set_master(index: int, master: int) -> Message:
    """Make an interface a member of a bond or bridge; 0 takes it out."""
    body = link_class()()
    body["index"] = index
    body["attrs"] = [("IFLA_MASTER", master)]
    return Message(_NEWLINK, 0, body)


def set_down(index: int) -> Message:
    """Take an interface down."""
    body = link_class()()
    body["index"], body["change"] = index, _UP
    return Message(_NEWLINK, 0, body)


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
    return Message(_NEWLINK, 0, body)


def put_down(index: int) -> Message:
    """Take an interface down."""
    body = link_class()()
    body["index"], body["flags"], body["change"] = index, 0, _UP
    return Message(_NEWLINK, 0, body, gone_ok=True)


def delete_link(name: str) -> Message:
    """Remove an interface, and with a veth its other end."""
    body = link_class()()
    body["attrs"] = [("IFLA_IFNAME", name)]
    return Message(_DELLINK, 0, body, gone_ok=True)


def add_address(cidr: str, index: int) -> Message:
    """Give an interface an address."""
    address, _, length = cidr.partition("/")
    family, raw = _packed(address)
    body = struct.pack("=BBBBI", family, int(length), 0, 0, index) + _attribute(2, raw) + _attribute(1, raw)
    return Message(_NEWADDR, _CREATE | _EXCL, body, there_ok=True, text=f"address {cidr}")


def add_route(route: Route, index: int, *, replace: bool = False) -> Message:
    """Add a route, or put it in the place of another one to the same destination."""
    flags = _CREATE | (_ROOT_REPLACE if replace else _EXCL)
    body = _route_body(route, index)
    return Message(_NEWROUTE, flags, body, there_ok=not replace, text=f"route {route}")


def delete_route(route: Route, index: int) -> Message:
    """Remove a route."""
    return Message(_DELROUTE, 0, _route_body(route, index), gone_ok=True, text=f"route {route}")


def add_rule(rule: Rule) -> Message:
    """Add a rule."""
    return Message(_NEWRULE, _CREATE | _EXCL, _rule_body(rule), there_ok=True, text=f"rule {rule}")


def delete_rule(rule: Rule) -> Message:
    """Remove a rule."""
    return Message(_DELRULE, 0, _rule_body(rule), gone_ok=True, text=f"rule {rule}")


def add_neighbour(neighbour: Neighbour, index: int) -> Message:
    """Add or replace a permanent neighbour."""
    mac = bytes.fromhex(neighbour.mac.replace(":", ""))
    body = _neighbour_body(neighbour.address, index, _PERMANENT) + _attribute(_NDA_LLADDR, mac)
    return Message(_NEWNEIGH, _CREATE | _ROOT_REPLACE, body, text=f"neighbour {neighbour}")


def delete_neighbour(address: str, index: int) -> Message:
    """Remove a neighbour."""
    return Message(_DELNEIGH, 0, _neighbour_body(address, index), gone_ok=True, text=f"neighbour {address}")


def differing_sysctls(values: Iterable[tuple[str, str]]) -> list[str]:
    """What of it is otherwise in the namespace in which this thread is. Raises `OSError`."""
    found = []
    for path, value in values:
        file = _SYSCTLS / path
        there = file.read_text().strip() if file.exists() else "nothing"
        if there != value:
            found.append(f"sysctl {path.replace('/', '.')} is {there}, not {value}")
    return found


def write_sysctls(values: Iterable[tuple[str, str]]) -> int:
    """Set what differs, in the namespace in which this thread is; returns how many. Raises `OSError`."""
    changed = 0
    for path, value in values:
        file = _SYSCTLS / path
        if file.read_text().strip() != value:
            file.write_text(value)
            changed += 1
    return changed


def _frames(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    offset = 0
    while offset < len(data):
        length, kind, _, sequence = struct.unpack_from("=IHHI", data, offset)
        yield kind, sequence, data[offset : offset + length]
        offset += (length + 3) & ~3


def _decoded(kind: Any, frame: bytes) -> Any:
    message = kind(frame)
    message.decode()
    return message


def _reason(frame: bytes) -> str:
    """What the kernel says of a refusal beyond its number; often nothing."""
    flags = struct.unpack_from("=H", frame, 6)[0]
    if not flags & _EXTENDED:
        return ""
    request = 16 if flags & _CAPPED else struct.unpack_from("=I", frame, 20)[0]
    return _attributes(frame, 20 + request).get(1, b"").rstrip(b"\0").decode(errors="replace")


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def _attributes(frame: bytes, offset: int) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    while offset + 4 <= len(frame):
        length, kind = struct.unpack_from("=HH", frame, offset)
        found[kind & 0x3FFF] = frame[offset + 4 : offset + length]
        offset += (max(length, 4) + 3) & ~3
    return found


def _number(found: dict[int, bytes], kind: int) -> int:
    return int(struct.unpack("=I", found[kind])[0]) if kind in found else 0


def _nic(frame: bytes, addresses: dict[int, list[tuple[str, bool]]]) -> Nic:
    index, flags = struct.unpack_from("=iI", frame, 20)
    mine = addresses.get(index, ())
    found = _attributes(frame, 32)
    return Nic(
        found[_IFNAME].rstrip(b"\0").decode(),
        index,
        found.get(_ADDRESS, b"").hex(":"),
        tuple(address for address, _ in mine),
        bool(flags & _UP),
        _number(found, _LINK),
        _number(found, _MTU),
        _number(found, _QUEUE),
        struct.unpack("=i", found[_LINK_NAMESPACE])[0] if _LINK_NAMESPACE in found else -1,
        found.get(_ALIAS, b"").rstrip(b"\0").decode(errors="replace"),
        tuple(address for address, dynamic in mine if dynamic),
    )


def _link(frame: bytes) -> Link:
    index, flags = struct.unpack_from("=iI", frame, 20)
    found = _attributes(frame, 32)
    kind = _attributes(found.get(_LINKINFO, b""), 0).get(_INFO_KIND, b"").rstrip(b"\0").decode()
    info: dict[str, Any] = {}
    if kind in ("bond", "vlan"):  # a full decoding reads seventy attributes
        data = _decoded(link_class(), frame).get_nested("IFLA_LINKINFO", "IFLA_INFO_DATA")
        info = dict(data["attrs"]) if data is not None else {}
    return Link(
        found[_IFNAME].rstrip(b"\0").decode(),
        index,
        kind,
        bool(flags & _UP),
        _number(found, _MTU),
        _number(found, _MASTER),
        0 if _LINK_NAMESPACE in found else _number(found, _LINK),
        info,
    )


def _neighbour(frame: bytes, names: dict[int, str]) -> Neighbour | None:
    family, index, state = struct.unpack_from("=B3xiH", frame, 16)
    attributes = _attributes(frame, 28)
    address, mac = attributes.get(_NDA_DST), attributes.get(_NDA_LLADDR)
    if not state & _PERMANENT or index not in names or not address or not mac:
        return None
    return Neighbour(socket.inet_ntop(family, address), names[index], mac.hex(":"))


def _routes(frame: bytes, names: dict[int, str]) -> list[Route]:
    family, length, _, _, table, proto, scope, _, flags = struct.unpack_from("=8BI", frame, 16)
    attributes = _attributes(frame, 28)

    def text(raw: bytes | None) -> str:
        return socket.inet_ntop(family, raw) if raw else ""

    dst = text(attributes.get(_RTA_DST)) or ("::" if family == socket.AF_INET6 else "0.0.0.0")
    hops = [(_number(attributes, _RTA_OIF), attributes.get(_RTA_GATEWAY), flags)]
    several = attributes.get(_RTA_MULTIPATH, b"")
    while len(several) >= 8:
        size, hop_flags, _, index = struct.unpack_from("=HBBi", several)
        hops.append((index, _attributes(several[:size], 8).get(_RTA_GATEWAY), hop_flags))
        several = several[(max(size, 8) + 3) & ~3 :]
    return [
        Route(
            f"{dst}/{length}",
            names[index],
            text(gateway),
            text(attributes.get(_RTA_PREFSRC)),
            _number(attributes, _RTA_TABLE) or table,
            link=family == socket.AF_INET and scope == _LINK_SCOPE,
            onlink=bool(hop_flags & _ONLINK),
            proto=proto,
            metric=_number(attributes, _RTA_PRIORITY),
        )
        for index, gateway, hop_flags in hops
        if index in names
    ]


def _packed(address: str) -> tuple[int, bytes]:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return family, socket.inet_pton(family, address)


def _route_body(route: Route, index: int) -> bytes:
    address, _, length = route.dst.partition("/")
    family, raw = _packed(address)
    scope = _LINK_SCOPE if route.link and route.family == 4 else 0
    table, flags = (route.table if route.table < 256 else 0), (_ONLINK if route.onlink else 0)
    body = struct.pack("=8BI", family, int(length), 0, 0, table, route.proto, scope, 1, flags)
    body += _attribute(_RTA_TABLE, struct.pack("=I", route.table)) + _attribute(
        _RTA_OIF, struct.pack("=I", index)
    )
    if int(length):
        body += _attribute(_RTA_DST, raw)
    if route.gw:
        body += _attribute(_RTA_GATEWAY, _packed(route.gw)[1])
    if route.src:
        body += _attribute(_RTA_PREFSRC, _packed(route.src)[1])
    if route.metric:
        body += _attribute(_RTA_PRIORITY, struct.pack("=I", route.metric))
    return body


def _rule_body(rule: Rule) -> bytes:
    attributes = _attribute(_FRA_TABLE, struct.pack("=I", rule.table))
    attributes += _attribute(_FRA_PRIORITY, struct.pack("=I", rule.priority))
    lengths = {_FRA_DST: 0, _FRA_SRC: 0}
    for kind, value in ((_FRA_SRC, rule.src), (_FRA_DST, rule.dst)):
        if value:
            address, _, length = value.partition("/")
            lengths[kind] = int(length)
            attributes += _attribute(kind, _packed(address)[1])
    if rule.mark:
        attributes += _attribute(_FRA_FWMARK, struct.pack("=I", rule.mark))
        attributes += _attribute(_FRA_FWMASK, struct.pack("=I", 0xFFFFFFFF))
    table = rule.table if rule.table < 256 else 0
    head = (_AF[rule.family], lengths[_FRA_DST], lengths[_FRA_SRC], 0, table, 0, 0, _TO_TABLE, 0)
    return struct.pack("=8BI", *head) + attributes


def _neighbour_body(address: str, index: int, state: int = 0) -> bytes:
    family, raw = _packed(address)
    return struct.pack("=B3xiHBB", family, index, state, 0, 0) + _attribute(_NDA_DST, raw)


def _describe(message: Message) -> str:
    if message.text:
        return f"{'delete' if message.kind in _REMOVALS else 'add'} {message.text}"
    values = ", ".join(
        f"{key.partition('_')[2].lower()} {value}"
        for key, value in message.body["attrs"]
        if isinstance(value, str | int)
    )
    return f"{'delete link' if message.kind == _DELLINK else 'add or set link'} {values}"
