"""rtnetlink in the namespace of a socket: what there is, and what to add or remove.

How it works. The socket is a plain one, because pyroute2's own clients start an event loop for every question and fork
for another namespace. Many messages go out in one datagram and the kernel acknowledges each.

What must always hold: a socket belongs to the namespace in which it was made, wherever the thread goes later; every
message is acknowledged or an `OSError` with the kernel's number is raised; nothing is retried.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from cni.dataplane.netlink.codec import (
    ACK,
    BUFFER,
    CAP_ACK,
    DONE,
    DUMP,
    ERROR,
    EXT_ACK,
    GONE,
    OPTIONS,
    REQUEST,
    STRICT,
    Message,
    attribute,
    attributes,
    framed,
    frames,
    number,
    packed,
    reason,
)
from cni.dataplane.netlink.links import DELLINK, GETLINK, IFNAME, link_class, link_of, nic_of, stands_on
from cni.dataplane.netlink.routes import (
    GETADDR,
    GETNEIGH,
    GETROUTE,
    GETRULE,
    LINK_SCOPE,
    NEWADDR,
    PERMANENT,
    REMOVALS,
    RTA_DST,
    RTA_OIF,
    neighbour_body,
    neighbour_of,
    routes_of,
    rule_of,
)
from cni.dataplane.state import Link, Neighbour, Nic, PolicyRule, Route

_SKIP_STATISTICS = 8
_TARGET_NAMESPACE = 10
_IFA_FLAGS = 8
_LINK_HEADER, _ADDRESS_HEADER, _ROUTE_HEADER = 16, 8, 12  # bytes; rules and neighbours have that of routes
_RUNNING = 0x40
_FIB_MATCH = 0x2000 | 0x1000  # the route itself, and the table that it was found in
_ALL_NAMESPACES, _IPV6_ADDRESSES = 8, 0x100
_NEWNSID, _GETNSID, _NSID, _NSID_BY_FD = 88, 90, 1, 3  # linux/rtnetlink.h, linux/net_namespace.h
_ANY_NUMBER = -1
_LINK_TARGET_NAMESPACE = 46


_TOGETHER = 100
"""Messages that are sent at once: the kernel answers each, and the answers of thousands do not fit into the socket."""


class TooMany(OSError):
    """There is more in a namespace than is looked at. The socket cannot be used any more."""


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
        self._socket.setsockopt(OPTIONS, CAP_ACK, 1)
        self._socket.setsockopt(OPTIONS, EXT_ACK, 1)
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
        nics = [nic_of(frame, addresses) for frame in self._list(GETLINK, _LINK_HEADER)]
        return sorted((nic for nic in nics if nic.name != "lo"), key=lambda nic: nic.index)

    def nic(self, *, name: str = "", index: int = 0) -> Nic | None:
        """One interface, without its addresses."""
        named = attribute(IFNAME, name.encode() + b"\0") if name else b""
        try:
            frame = self._query(GETLINK, struct.pack("=B3xi8x", 0, index) + named)
        except OSError as error:
            if error.errno in GONE:
                return None
            raise
        return nic_of(frame, {})

    def running(self, index: int) -> bool:
        """Whether an interface is up and has its carrier."""
        message = link_class()()
        message["index"] = index
        flags: int = struct.unpack_from("=I", self._ask(GETLINK, message)[0], 24)[0]
        return bool(flags & _RUNNING)

    def links(self, kind: str = "") -> list[Link]:
        """Every interface, or every one of a kind, by index."""
        body = link_class()()
        wanted: list[tuple[str, Any]] = [("IFLA_EXT_MASK", _SKIP_STATISTICS)]
        if kind:
            wanted.append(("IFLA_LINKINFO", {"attrs": [("IFLA_INFO_KIND", kind)]}))
        body["attrs"] = wanted
        links = [link_of(frame) for frame in self._dump(GETLINK, body)]
        # The kernel filters by a kind only when it knows that kind.
        return sorted((link for link in links if kind in ("", link.kind)), key=lambda link: link.index)

    def link(self, name: str) -> Link | None:
        """One interface."""
        body = link_class()()
        body["attrs"] = [("IFLA_IFNAME", name), ("IFLA_EXT_MASK", _SKIP_STATISTICS)]
        try:
            frames = self._ask(GETLINK, body)
        except OSError as error:
            if error.errno in GONE:
                return None
            raise
        return link_of(frames[0])

    def addresses(self) -> list[tuple[int, str]]:
        """(interface index, address in CIDR form); no link-local IPv6 ones."""
        return [(index, address) for index, address, _ in self._addresses()]

    def _addresses(self) -> list[tuple[int, str, bool]]:
        addresses = []
        for frame in self._list(GETADDR, _ADDRESS_HEADER):
            family, length, _, scope, index = struct.unpack_from("=BBBBI", frame, 16)
            if family == socket.AF_INET6 and scope == LINK_SCOPE:
                continue  # a host has one for each pod
            attrs = attributes(frame, 24)
            address = attrs.get(2) or attrs[1]  # IFA_LOCAL, IFA_ADDRESS
            dynamic = family == socket.AF_INET6 and not number(attrs, _IFA_FLAGS) & PERMANENT
            addresses.append((index, f"{socket.inet_ntop(family, address)}/{length}", dynamic))
        return addresses

    def namespace_number(self, descriptor: int) -> int:
        """The number here of another namespace, which is an open file; -1 where it has none."""
        wanted = attribute(_NSID_BY_FD, struct.pack("=I", descriptor))
        attrs = attributes(self._query(_GETNSID, bytes(4) + wanted), 20)
        return int(struct.unpack("=i", attrs[_NSID])[0]) if _NSID in attrs else -1

    def stood_on_from(self, descriptor: int) -> frozenset[int]:
        """The indexes of interfaces of this namespace on which interfaces of another one, which is an open file, stand; a
        veth's other end counts as well. Both namespaces get a number here, which harms nobody."""
        namespace = self.namespace_number(descriptor)
        if namespace == _ANY_NUMBER:
            body = bytes(4) + attribute(_NSID, struct.pack("=i", _ANY_NUMBER))
            body += attribute(_NSID_BY_FD, struct.pack("=I", descriptor))
            self.send([Message(_NEWNSID, 0, body, text="the number of a network namespace")])
            namespace = self.namespace_number(descriptor)
        frames = self._dump_in(namespace, GETLINK, _LINK_HEADER, _LINK_TARGET_NAMESPACE)
        own = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            here = self.namespace_number(own)
        finally:
            os.close(own)
        return frozenset(
            index for where, index in map(stands_on, frames) if where == here and where != _ANY_NUMBER
        )

    def addresses_in(self, namespace: int) -> list[str] | None:
        """The addresses (without length) in another namespace, by this one's number for it; None when it is gone."""
        try:
            frames = self._dump_in(namespace, GETADDR, _ADDRESS_HEADER, _TARGET_NAMESPACE)
        except OSError as error:
            if error.errno in (*GONE, errno.EINVAL):
                return None
            raise
        addresses = []
        for frame in frames:
            attrs = attributes(frame, 24)
            raw = attrs.get(2) or attrs[1]  # IFA_LOCAL, IFA_ADDRESS
            addresses.append(socket.inet_ntop(frame[16], raw))
        return addresses

    def routes(self, names: dict[int, str]) -> list[Route]:
        """Every unicast route outside the table of local addresses."""
        routes: list[Route] = []
        for family in (socket.AF_INET, socket.AF_INET6):  # a dump of all families at once leaves IPv6 out
            for frame in self._list(GETROUTE, _ROUTE_HEADER, family):
                if frame[23] == 1:  # rtm_type: unicast
                    routes += routes_of(frame, names)
        return [route for route in routes if route.table != 255]

    def route_to(self, address: str, names: dict[int, str], table: int) -> Route | None:
        """The host route to `address` itself in `table`, as the rules of this namespace find it."""
        family, raw = packed(address)
        head = struct.pack("=8BI", family, len(raw) * 8, 0, 0, 0, 0, 0, 0, _FIB_MATCH)
        try:
            frame = self._query(GETROUTE, head + attribute(RTA_DST, raw))
        except OSError as error:
            if error.errno in (*GONE, errno.ENETUNREACH, errno.EHOSTUNREACH):
                return None
            raise
        index = number(attributes(frame, 28), RTA_OIF)
        if index and index not in names:
            nic = self.nic(index=index)
            if nic is not None:
                names[index] = nic.name
        in_table = [route for route in routes_of(frame, names) if route.table == table]
        return next((route for route in in_table if route.dst.partition("/")[0] == address), None)

    def rules(self) -> list[PolicyRule]:
        """Every rule that looks up a table, of both families."""
        rules = [rule_of(frame) for frame in self._list(GETRULE, _ROUTE_HEADER)]
        return [rule for rule in rules if rule is not None]

    def neighbours(self, names: dict[int, str]) -> list[Neighbour]:
        """Every permanent neighbour on an interface in `names`."""
        neighbours = [neighbour_of(frame, names) for frame in self._list(GETNEIGH, _ROUTE_HEADER)]
        return [neighbour for neighbour in neighbours if neighbour is not None]

    def neighbour(self, address: str, name: str, index: int) -> Neighbour | None:
        """The permanent entry for `address` on one interface."""
        try:
            frame = self._query(GETNEIGH, neighbour_body(address, index))
        except OSError as error:
            if error.errno in GONE:
                return None
            raise
        return neighbour_of(frame, {index: name})

    # ---- what to change -----------------------------------------------------------------------------------

    def send(self, messages: Sequence[Message]) -> int:
        """Do all of it, in order; returns how many took effect. Raises the first `OSError`, after all were tried."""
        failed: OSError | None = None
        done = 0
        for start in range(0, len(messages), _TOGETHER):
            try:
                done += self._send(messages[start : start + _TOGETHER])
            except OSError as error:
                failed = failed or error
        if failed is not None:
            raise failed
        return done

    def _send(self, messages: Sequence[Message]) -> int:
        first = self._sequence + 1
        request = b"".join(
            self._encode(message.kind, ACK | message.flags, message.body) for message in messages
        )
        self._socket.send(request)
        outstanding = set(range(first, self._sequence + 1))
        failed: OSError | None = None
        done = 0
        while outstanding:
            for kind, sequence, frame in frames(self._socket.recv(BUFFER)):
                if kind != ERROR or sequence not in outstanding:
                    continue
                outstanding.discard(sequence)
                code = -struct.unpack_from("=i", frame, 16)[0]
                message = messages[sequence - first]
                if code == 0:
                    done += 1
                elif not (message.gone_ok and code in GONE) and not (
                    message.there_ok and code == errno.EEXIST
                ):
                    why = reason(frame) or os.strerror(code)
                    failed = failed or OSError(code, f"{why} ({_describe(message)})")
        if failed is not None:
            raise failed
        return done

    def _ask(self, kind: int, body: Any) -> list[bytes]:
        return self._collect(self._encode(kind, 0, body))

    def _dump(self, kind: int, body: Any) -> list[bytes]:
        return self._collect(self._encode(kind, DUMP, body))

    def _list(self, kind: int, size: int, family: int = 0) -> list[bytes]:
        """A dump without further conditions; `size`: of the kind's own header."""
        return self._collect(self._framed(kind, DUMP, bytes((family,)) + bytes(size - 1)))

    def _dump_in(self, namespace: int, kind: int, size: int, target: int) -> list[bytes]:
        """A dump of another namespace, by its number here; `target`: the attribute that names it."""
        # The kernel heeds the attribute only where it checks all of a request (NETLINK_GET_STRICT_CHK).
        self._socket.setsockopt(OPTIONS, STRICT, 1)
        try:
            named = attribute(target, struct.pack("=i", namespace))
            return self._collect(self._framed(kind, DUMP, bytes(size) + named))
        finally:
            self._socket.setsockopt(OPTIONS, STRICT, 0)

    def _query(self, kind: int, body: bytes) -> bytes:
        return self._collect(self._framed(kind, 0, body))[0]

    def _framed(self, kind: int, flags: int, body: bytes) -> bytes:
        self._sequence += 1
        return framed(kind, flags, self._sequence, body)

    def _collect(self, request: bytes) -> list[bytes]:
        self._socket.send(request)
        dump = struct.unpack_from("=H", request, 6)[0] & DUMP == DUMP
        answers: list[bytes] = []
        while True:
            for kind, sequence, frame in frames(self._socket.recv(BUFFER)):
                if sequence != self._sequence:
                    continue
                if kind == DONE:
                    return answers
                if kind == ERROR:
                    code = -struct.unpack_from("=i", frame, 16)[0]
                    raise OSError(code, os.strerror(code))
                answers.append(frame)
            if not dump and answers:
                return answers
            if len(answers) > self._most:
                raise TooMany(
                    errno.E2BIG,
                    f"the network namespace has more than {self._most} interfaces, addresses, routes or rules",
                )

    def _encode(self, kind: int, flags: int, body: Any) -> bytes:
        if isinstance(body, bytes):
            return self._framed(kind, flags, body)
        self._sequence += 1
        body["header"]["type"], body["header"]["flags"] = kind, REQUEST | flags
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
            self._socket.setsockopt(OPTIONS, _ALL_NAMESPACES, 1)
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
        data, ancillary, _, _ = self._socket.recvmsg(BUFFER, 64)
        numbers = [
            int(struct.unpack("=i", value)[0])
            for level, kind, value in ancillary
            if (level, kind) == (OPTIONS, _ALL_NAMESPACES)
        ]
        new = []
        for kind, _, frame in frames(data):
            if kind != NEWADDR or not numbers:
                continue
            family, _, _, scope, _ = struct.unpack_from("=BBBBI", frame, 16)
            attrs = attributes(frame, 24)
            if family == socket.AF_INET6 and scope == 0 and not number(attrs, _IFA_FLAGS) & PERMANENT:
                new.append((numbers[0], socket.inet_ntop(family, attrs[1])))
        return new


def _describe(message: Message) -> str:
    if message.text:
        return f"{'delete' if message.kind in REMOVALS else 'add'} {message.text}"
    values = ", ".join(
        f"{key.partition('_')[2].lower()} {value}"
        for key, value in message.body["attrs"]
        if isinstance(value, str | int)
    )
    return f"{'delete link' if message.kind == DELLINK else 'add or set link'} {values}"
