"""rtnetlink in the namespace of a socket: what there is, and what to add or remove. The only module that knows pyroute2.

How it works. pyroute2 gives the messages, their encoding and decoding; the socket is a plain one, because pyroute2's own
clients start an event loop for every question and fork for another namespace, which costs more than a whole ADD. Many
messages go out in one datagram and the kernel acknowledges each. Interfaces are decoded here: a full decoding reads
seventy attributes, and six are needed.

What must always hold: a socket belongs to the namespace in which it was made, wherever the thread goes later; every
message is acknowledged or an `OSError` with the kernel's number is raised; nothing is retried.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pyroute2.netlink.rtnl.fibmsg import fibmsg
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.ndmsg import ndmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from cni.dataplane.state import Link, Neighbour, Nic, Route, Rule

# linux/netlink.h and linux/rtnetlink.h
_REQUEST, _ACK, _DUMP, _ROOT_REPLACE, _EXCL, _CREATE = 1, 4, 0x300, 0x100, 0x200, 0x400
_NEWLINK, _DELLINK, _GETLINK, _NEWADDR, _GETADDR = 16, 17, 18, 20, 22
_NEWROUTE, _DELROUTE, _GETROUTE = 24, 25, 26
_NEWNEIGH, _DELNEIGH, _GETNEIGH = 28, 29, 30
_NEWRULE, _DELRULE, _GETRULE = 32, 33, 34
_ERROR, _DONE = 2, 3
_IFNAME, _ADDRESS, _MTU, _LINK, _MASTER = 3, 1, 4, 5, 10
_QUEUE, _LINKINFO, _ALIAS, _LINK_NAMESPACE = 13, 18, 20, 37
_INFO_KIND = 1
_SKIP_STATISTICS = 8
_CAPPED, _EXTENDED = 0x100, 0x200  # flags of an acknowledgement: without the request; with attributes
_TARGET_NAMESPACE = 10
_UP, _RUNNING = 1, 0x40
_PERMANENT = 0x80
_FIB_MATCH = 0x2000 | 0x1000  # the route itself, and the table that it was found in
_ONLINK = 4
_LINK_SCOPE = 253
_AF = {4: socket.AF_INET, 6: socket.AF_INET6}
_BUFFER = 1 << 18
_CLONE_NEWNET = 0x40000000
GONE = (errno.ESRCH, errno.ENOENT, errno.ENODEV, errno.EADDRNOTAVAIL, errno.ENXIO)
"""What the kernel says when that which is to be removed is not there."""

_libc = ctypes.CDLL(None, use_errno=True)


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


@dataclass(frozen=True, slots=True)
class Message:
    """One request to the kernel. `gone_ok`, `there_ok`: a removal of what is not there, or an addition of what is,
    is no error."""

    kind: int
    flags: int
    body: Any
    gone_ok: bool = False
    there_ok: bool = False


class Netlink:
    """A socket to the namespace in which this thread is now."""

    def __init__(self) -> None:
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
        addresses: dict[int, list[str]] = {}
        for index, address in self.addresses():
            addresses.setdefault(index, []).append(address)
        found = [_nic(frame, addresses) for frame in self._dump(_GETLINK, ifinfmsg())]
        return sorted((nic for nic in found if nic.name != "lo"), key=lambda nic: nic.index)

    def nic(self, *, name: str = "", index: int = 0) -> Nic | None:
        """One interface, without its addresses."""
        message = ifinfmsg()
        message["index"] = index
        if name:
            message["attrs"] = [("IFLA_IFNAME", name)]
        try:
            frames = self._ask(_GETLINK, message)
        except OSError as error:
            if error.errno in GONE:
                return None
            raise
        return _nic(frames[0], {})

    def running(self, index: int) -> bool:
        """Whether an interface is up and has its carrier."""
        message = ifinfmsg()
        message["index"] = index
        flags: int = struct.unpack_from("=I", self._ask(_GETLINK, message)[0], 24)[0]
        return bool(flags & _RUNNING)

    def links(self, kind: str = "") -> list[Link]:
        """Every interface, or every one of a kind, by index."""
        body = ifinfmsg()
        attributes: list[tuple[str, Any]] = [("IFLA_EXT_MASK", _SKIP_STATISTICS)]
        if kind:
            attributes.append(("IFLA_LINKINFO", {"attrs": [("IFLA_INFO_KIND", kind)]}))
        body["attrs"] = attributes
        found = [_link(frame) for frame in self._dump(_GETLINK, body)]
        # The kernel filters by a kind only when it knows that kind.
        return sorted((link for link in found if kind in ("", link.kind)), key=lambda link: link.index)

    def link(self, name: str) -> Link | None:
        """One interface."""
        body = ifinfmsg()
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
        found = []
        for frame in self._dump(_GETADDR, ifaddrmsg()):
            if frame[16] == socket.AF_INET6 and frame[19] == _LINK_SCOPE:
                continue  # before decoding: a host has one for each pod
            message = _decoded(ifaddrmsg, frame)
            text = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
            found.append((message["index"], f"{text}/{message['prefixlen']}"))
        return found

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
            body = rtmsg()
            body["family"] = family
            for frame in self._dump(_GETROUTE, body):
                if frame[23] == 1:  # rtm_type: unicast
                    found += _routes(_decoded(rtmsg, frame), names)
        return [route for route in found if route.table != 255]

    def route_to(self, address: str, names: dict[int, str], table: int) -> Route | None:
        """The host route to `address` itself in `table`, as the rules of this namespace find it."""
        message = rtmsg()
        family = 6 if ":" in address else 4
        message["family"], message["flags"] = _AF[family], _FIB_MATCH
        message["dst_len"] = 128 if family == 6 else 32
        message["attrs"] = [("RTA_DST", address)]
        try:
            answers = self._ask(_GETROUTE, message)
        except OSError as error:
            if error.errno in (*GONE, errno.ENETUNREACH, errno.EHOSTUNREACH):
                return None
            raise
        answer = _decoded(rtmsg, answers[0])
        index = answer.get_attr("RTA_OIF")
        if index is not None and index not in names:
            nic = self.nic(index=index)
            if nic is not None:
                names[index] = nic.name
        found = [one for one in _routes(answer, names) if one.table == table]
        return next((one for one in found if one.dst.partition("/")[0] == address), None)

    def rules(self) -> list[Rule]:
        """Every rule that looks up a table, of both families."""
        found = []
        for frame in self._dump(_GETRULE, fibmsg()):
            message = _decoded(fibmsg, frame)
            if message["family"] not in (socket.AF_INET, socket.AF_INET6):
                continue
            src, dst = message.get_attr("FRA_SRC"), message.get_attr("FRA_DST")
            found.append(
                Rule(
                    4 if message["family"] == socket.AF_INET else 6,
                    message.get_attr("FRA_PRIORITY") or 0,
                    message.get_attr("FRA_TABLE") or message["table"],
                    f"{src}/{message['src_len']}" if src else "",
                    f"{dst}/{message['dst_len']}" if dst else "",
                    message.get_attr("FRA_FWMARK") or 0,
                )
            )
        return found

    def neighbours(self, names: dict[int, str]) -> list[Neighbour]:
        """Every permanent neighbour on an interface in `names`."""
        found = []
        for frame in self._dump(_GETNEIGH, ndmsg()):
            message = _decoded(ndmsg, frame)
            if message["state"] & _PERMANENT and message["ifindex"] in names:
                mac = message.get_attr("NDA_LLADDR")
                if mac:
                    found.append(Neighbour(message.get_attr("NDA_DST"), names[message["ifindex"]], mac))
        return found

    def neighbour(self, address: str, name: str, index: int) -> Neighbour | None:
        """The permanent entry for `address` on one interface."""
        message = _neighbour_body(address, index)
        try:
            answer = _decoded(ndmsg, self._ask(_GETNEIGH, message)[0])
        except OSError as error:
            if error.errno in GONE:
                return None
            raise
        mac = answer.get_attr("NDA_LLADDR")
        return Neighbour(address, name, mac) if mac and answer["state"] & _PERMANENT else None

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

    def _encode(self, kind: int, flags: int, body: Any) -> bytes:
        self._sequence += 1
        body["header"]["type"], body["header"]["flags"] = kind, _REQUEST | flags
        body["header"]["sequence_number"] = self._sequence
        body.reset()
        body.encode()
        return bytes(body.data) + bytes(-len(body.data) % 4)


def add_veth(name: str, mac: str, mtu: int, *, peer: str, peer_mac: str, peer_namespace: int) -> Message:
    """A veth pair; the peer is born in the namespace of an open file, where moving it would take 20 ms. The end here is
    up, the peer is not: the kernel opens it before it is paired, and fails (ENOTCONN)."""
    body = ifinfmsg()
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
    body = ifinfmsg()
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
    body = ifinfmsg()
    body["index"] = index
    body["attrs"] = [("IFLA_MASTER", master)]
    return Message(_NEWLINK, 0, body)


def set_down(index: int) -> Message:
    """Take an interface down."""
    body = ifinfmsg()
    body["index"], body["change"] = index, _UP
    return Message(_NEWLINK, 0, body)


def set_link(
    index: int = 0, *, name: str = "", up: bool = False, mac: str = "", queue: int = 0, alias: str = ""
) -> Message:
    """Change an interface, found by its index or its name."""
    body = ifinfmsg()
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
    body = ifinfmsg()
    body["index"], body["flags"], body["change"] = index, 0, _UP
    return Message(_NEWLINK, 0, body, gone_ok=True)


def delete_link(name: str) -> Message:
    """Remove an interface, and with a veth its other end."""
    body = ifinfmsg()
    body["attrs"] = [("IFLA_IFNAME", name)]
    return Message(_DELLINK, 0, body, gone_ok=True)


def add_address(cidr: str, index: int) -> Message:
    """Give an interface an address."""
    address, _, length = cidr.partition("/")
    body = ifaddrmsg()
    body["family"] = _AF[6 if ":" in address else 4]
    body["prefixlen"], body["index"] = int(length), index
    body["attrs"] = [("IFA_LOCAL", address), ("IFA_ADDRESS", address)]
    return Message(_NEWADDR, _CREATE | _EXCL, body, there_ok=True)


def add_route(route: Route, index: int, *, replace: bool = False) -> Message:
    """Add a route, or put it in the place of another one to the same destination."""
    flags = _CREATE | (_ROOT_REPLACE if replace else _EXCL)
    return Message(_NEWROUTE, flags, _route_body(route, index), there_ok=not replace)


def delete_route(route: Route, index: int) -> Message:
    """Remove a route."""
    return Message(_DELROUTE, 0, _route_body(route, index), gone_ok=True)


def add_rule(rule: Rule) -> Message:
    """Add a rule."""
    return Message(_NEWRULE, _CREATE | _EXCL, _rule_body(rule), there_ok=True)


def delete_rule(rule: Rule) -> Message:
    """Remove a rule."""
    return Message(_DELRULE, 0, _rule_body(rule), gone_ok=True)


def add_neighbour(neighbour: Neighbour, index: int) -> Message:
    """Add or replace a permanent neighbour."""
    body = _neighbour_body(neighbour.address, index)
    body["state"] = _PERMANENT
    body["attrs"] = [("NDA_DST", neighbour.address), ("NDA_LLADDR", neighbour.mac)]
    return Message(_NEWNEIGH, _CREATE | _ROOT_REPLACE, body)


def delete_neighbour(address: str, index: int) -> Message:
    """Remove a neighbour."""
    return Message(_DELNEIGH, 0, _neighbour_body(address, index), gone_ok=True)


def differing_sysctls(values: Iterable[tuple[str, str]]) -> list[str]:
    """What of it is otherwise in the namespace in which this thread is. Raises `OSError`."""
    found = []
    for path, value in values:
        file = Path("/proc/sys") / path
        there = file.read_text().strip() if file.exists() else "nothing"
        if there != value:
            found.append(f"sysctl {path.replace('/', '.')} is {there}, not {value}")
    return found


def write_sysctls(values: Iterable[tuple[str, str]]) -> int:
    """Set what differs, in the namespace in which this thread is; returns how many. Raises `OSError`."""
    changed = 0
    for path, value in values:
        file = Path("/proc/sys") / path
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


def _attributes(frame: bytes, offset: int) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    while offset + 4 <= len(frame):
        length, kind = struct.unpack_from("=HH", frame, offset)
        found[kind & 0x3FFF] = frame[offset + 4 : offset + length]
        offset += (max(length, 4) + 3) & ~3
    return found


def _number(found: dict[int, bytes], kind: int) -> int:
    return int(struct.unpack("=I", found[kind])[0]) if kind in found else 0


def _nic(frame: bytes, addresses: dict[int, list[str]]) -> Nic:
    index, flags = struct.unpack_from("=iI", frame, 20)
    found = _attributes(frame, 32)
    return Nic(
        found[_IFNAME].rstrip(b"\0").decode(),
        index,
        found.get(_ADDRESS, b"").hex(":"),
        tuple(addresses.get(index, ())),
        bool(flags & _UP),
        _number(found, _LINK),
        _number(found, _MTU),
        _number(found, _QUEUE),
        struct.unpack("=i", found[_LINK_NAMESPACE])[0] if _LINK_NAMESPACE in found else -1,
        found.get(_ALIAS, b"").rstrip(b"\0").decode(errors="replace"),
    )


def _link(frame: bytes) -> Link:
    index, flags = struct.unpack_from("=iI", frame, 20)
    found = _attributes(frame, 32)
    kind = _attributes(found.get(_LINKINFO, b""), 0).get(_INFO_KIND, b"").rstrip(b"\0").decode()
    info: dict[str, Any] = {}
    if kind in ("bond", "vlan"):  # a full decoding reads seventy attributes
        data = _decoded(ifinfmsg, frame).get_nested("IFLA_LINKINFO", "IFLA_INFO_DATA")
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


def _routes(message: Any, names: dict[int, str]) -> list[Route]:
    family = 4 if message["family"] == socket.AF_INET else 6
    dst = message.get_attr("RTA_DST") or ("::" if family == 6 else "0.0.0.0")
    hops = [(message.get_attr("RTA_OIF"), message.get_attr("RTA_GATEWAY"), message["flags"])]
    for hop in message.get_attr("RTA_MULTIPATH") or ():
        gateway = next((value for name, value in hop["attrs"] if name == "RTA_GATEWAY"), None)
        hops.append((hop["oif"], gateway, hop["flags"]))
    return [
        Route(
            f"{dst}/{message['dst_len']}",
            names[index],
            gateway or "",
            message.get_attr("RTA_PREFSRC") or "",
            message.get_attr("RTA_TABLE") or message["table"],
            link=family == 4 and message["scope"] == _LINK_SCOPE,
            onlink=bool(flags & _ONLINK),
            proto=message["proto"],
            metric=message.get_attr("RTA_PRIORITY") or 0,
        )
        for index, gateway, flags in hops
        if index in names
    ]


def _route_body(route: Route, index: int) -> Any:
    address, _, length = route.dst.partition("/")
    body = rtmsg()
    body["family"], body["dst_len"] = _AF[route.family], int(length)
    body["proto"], body["type"] = route.proto, 1
    body["scope"] = _LINK_SCOPE if route.link and route.family == 4 else 0
    body["table"] = route.table if route.table < 256 else 0
    body["flags"] = _ONLINK if route.onlink else 0
    attributes: list[tuple[str, Any]] = [("RTA_TABLE", route.table), ("RTA_OIF", index)]
    if int(length):
        attributes.append(("RTA_DST", address))
    if route.gw:
        attributes.append(("RTA_GATEWAY", route.gw))
    if route.src:
        attributes.append(("RTA_PREFSRC", route.src))
    if route.metric:
        attributes.append(("RTA_PRIORITY", route.metric))
    body["attrs"] = attributes
    return body


def _rule_body(rule: Rule) -> Any:
    body = fibmsg()
    body["family"], body["action"] = _AF[rule.family], 1
    body["table"] = rule.table if rule.table < 256 else 0
    attributes: list[tuple[str, Any]] = [("FRA_TABLE", rule.table), ("FRA_PRIORITY", rule.priority)]
    for field, value in (("src", rule.src), ("dst", rule.dst)):
        if value:
            address, _, length = value.partition("/")
            body[f"{field}_len"] = int(length)
            attributes.append((f"FRA_{field.upper()}", address))
    if rule.mark:
        attributes += [("FRA_FWMARK", rule.mark), ("FRA_FWMASK", 0xFFFFFFFF)]
    body["attrs"] = attributes
    return body


def _neighbour_body(address: str, index: int) -> Any:
    body = ndmsg()
    body["family"], body["ifindex"] = _AF[6 if ":" in address else 4], index
    body["attrs"] = [("NDA_DST", address)]
    return body


def _describe(message: Message) -> str:
    name = {
        _NEWLINK: "add or set link",
        _DELLINK: "delete link",
        _NEWADDR: "add address",
        _NEWROUTE: "add route",
        _DELROUTE: "delete route",
        _NEWNEIGH: "add neighbour",
        _DELNEIGH: "delete neighbour",
        _NEWRULE: "add rule",
        _DELRULE: "delete rule",
    }.get(message.kind, str(message.kind))
    values = ", ".join(
        f"{key.partition('_')[2].lower()} {value}"
        for key, value in message.body["attrs"]
        if isinstance(value, str | int)
    )
    return f"{name} {values}"
