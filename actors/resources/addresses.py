"""IP addresses and subnets as integers: parsing text, printing text. The only module that knows netaddr.

What must always hold:

* An address is an `Address`, the pair (family, value): family 4 or 6, value 0 .. 2**32-1 or 2**128-1. Everything between
  parsing and printing is integer arithmetic, so a /10 or an IPv6 /64 costs what a /24 costs.
* Text is read strictly, as `inet_pton` reads it: no leading zeros, no short forms ("10.1"), no zone, no
  spaces. What a lenient reader would take for octal ("010.0.0.1") is refused, not guessed.
* An IPv4-mapped IPv6 address ("::ffff:10.0.0.1") is refused: Go programs print it as IPv4, so the same pod
  would be recorded under two names.
* Text is printed as RFC 5952 asks (lower case, longest run of zeros shortened) and never with a dotted IPv4
  tail.
* Every refusal is an `InvalidObject` that names the value, the rule and a right form. Who calls it adds the
  object and the field.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import NamedTuple

from netaddr import AddrFormatError
from netaddr.strategy import ipv6 as _v6

from actors.errors import InvalidObject

IPV4 = 4
IPV6 = 6
WIDTH = {IPV4: 32, IPV6: 128}
"""Bits in an address of each family."""

_MAPPED = 0xFFFF  # ::ffff:0:0/96, RFC 4291 section 2.5.5.2


class Address(NamedTuple):
    """One address. It is equal to the plain pair, as which it travels between processes."""

    family: int
    value: int

    @property
    def text(self) -> str:
        """As people write it."""
        return format_address(self.family, self.value)


def parse_address(text: str) -> Address:
    """The address that `text` names. Raises `InvalidObject`. IPv4 is on the path of every ADD, hence the system's reader."""
    try:
        if ":" not in text:
            return Address(IPV4, int.from_bytes(socket.inet_pton(socket.AF_INET, text), "big"))
        value = int(_v6.str_to_int(text))
    except (AddrFormatError, OSError, ValueError, TypeError) as cause:
        raise InvalidObject(
            f"{text!r} is not an IP address; write four decimal numbers without leading zeros, such as"
            " 10.6.168.71, or an IPv6 address without zone, such as fd00:6::71"
        ) from cause
    if value >> 32 == _MAPPED:
        raise InvalidObject(
            f"{text!r} is an IPv4-mapped IPv6 address; write it as the IPv4 address"
            f" {format_address(4, value & 0xFFFFFFFF)}"
        )
    return Address(IPV6, value)


def is_unicast(family: int, value: int) -> bool:
    """Whether an interface or a router of the network can have the address: neither unspecified, loopback, multicast nor
    IPv4's limited broadcast (RFC 1122 section 3.2.1.3, RFC 4291 section 2.4)."""
    if family == IPV4:
        return value not in (0, 0xFFFFFFFF) and value >> 24 != 127 and value >> 28 != 0xE
    return value > 1 and value >> 120 != 0xFF


def is_link_local(family: int, value: int) -> bool:
    """Whether it is valid on one link alone (RFC 3927, RFC 4291 section 2.5.6)."""
    return value >> 16 == 0xA9FE if family == IPV4 else value >> 118 == 0xFE80 >> 6


def parse_address_of(text: str, family: int) -> int:
    """The value of `text`, which must be an address of this family. Raises `InvalidObject`."""
    actual, value = parse_address(text)
    if actual != family:
        raise InvalidObject(f"{text!r} is an IPv{actual} address where an IPv{family} address is needed")
    return value


def format_address(family: int, value: int) -> str:
    """The canonical text of an address. This is on the path of every ADD, hence the system's printer."""
    if family == IPV4:
        return socket.inet_ntop(socket.AF_INET, value.to_bytes(4, "big"))
    if 0xFFFF < value <= 0xFFFFFFFF:
        # inet_ntop prints these with a dotted tail (::10.0.0.1), which Go and Kubernetes print in hex.
        return f"::{value >> 16:x}:{value & 0xFFFF:x}"
    return socket.inet_ntop(socket.AF_INET6, value.to_bytes(16, "big"))


def format_range(family: int, low: int, high: int) -> str:
    """One address, or "low-high"."""
    text = format_address(family, low)
    return text if low == high else f"{text}-{format_address(family, high)}"


@dataclass(frozen=True, slots=True)
class Subnet:
    """A CIDR block. `network` is its first address; host bits that were written are dropped."""

    family: int
    network: int
    prefix: int

    @property
    def first(self) -> int:
        return self.network

    @property
    def last(self) -> int:
        return self.network | ((1 << (WIDTH[self.family] - self.prefix)) - 1)

    @property
    def size(self) -> int:
        return 1 << (WIDTH[self.family] - self.prefix)

    def contains(self, value: int) -> bool:
        """Whether an address of the same family lies inside."""
        return value >> (WIDTH[self.family] - self.prefix) == self.network >> (
            WIDTH[self.family] - self.prefix
        )

    def __str__(self) -> str:
        return f"{format_address(self.family, self.network)}/{self.prefix}"


def parse_cidr(text: str) -> Subnet:
    """The subnet of "10.6.0.0/16"; "10.6.0.1/16", with host bits, is the same one. Raises `InvalidObject`."""
    address, slash, digits = text.partition("/")
    if not slash or not (digits.isascii() and digits.isdigit()) or (len(digits) > 1 and digits[0] == "0"):
        raise InvalidObject(
            f"{text!r} is not a subnet in CIDR form; write address/prefix length, such as 10.6.0.0/16 or"
            " fd00:6::/112"
        )
    family, value = parse_address(address)
    width = WIDTH[family]
    if len(digits) > 3 or int(digits) > width:
        raise InvalidObject(
            f"{text!r} has a prefix length over {width}, the most that IPv{family} has; write 0 to {width}"
        )
    host_bits = width - int(digits)
    return Subnet(family, value >> host_bits << host_bits, int(digits))


def parse_range(text: str, family: int) -> tuple[int, int]:
    """The inclusive (low, high) of "10.6.0.10" or "10.6.0.10-10.6.0.20". Raises `InvalidObject`."""
    low_text, dash, high_text = text.partition("-")
    try:
        low = parse_address_of(low_text, family)
        high = parse_address_of(high_text, family) if dash else low
    except InvalidObject as cause:
        example = "10.6.0.10-10.6.0.20" if family == IPV4 else "fd00:6::10-fd00:6::20"
        raise InvalidObject(
            f"{text!r} is not an IPv{family} address or range: {cause.message}; a range is written first-last"
            f" without spaces, such as {example}"
        ) from cause
    if high < low:
        raise InvalidObject(
            f"{text!r} ends before it starts; write the lower address first:"
            f" {format_range(family, high, low)}"
        )
    return low, high
