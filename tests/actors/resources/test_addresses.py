"""Addresses: strict reading, canonical printing, subnets and ranges."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.errors import InvalidObject
from actors.resources.addresses import (
    Address,
    Subnet,
    format_address,
    format_range,
    parse_address,
    parse_address_of,
    parse_cidr,
    parse_range,
)

MAPPED = 0xFFFF


@given(st.ip_addresses())
def test_reads_and_prints_as_the_standard_library_does(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    """Every address that is not IPv4-mapped has the text that `ipaddress` gives it, and goes there and
    back."""
    if address.version == 6 and int(address) >> 32 == MAPPED:
        return

    assert format_address(address.version, int(address)) == str(address)
    assert parse_address(str(address)) == (address.version, int(address))


@pytest.mark.parametrize("value", [0, 1, 0xFFFF, 0x10000, 0x0A000001, 0xFFFFFFFF, 0x100000000])
def test_low_ipv6_addresses_have_no_dotted_tail(value: int) -> None:
    """inet_ntop would print ::10.0.0.1, which other programs print as ::a00:1."""
    assert format_address(6, value) == str(ipaddress.IPv6Address(value))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "10.1",
        "010.0.0.1",
        "10.0.0.256",
        " 10.0.0.1",
        "10.0.0.1/24",
        "fe80::1%eth0",
        "::g",
        "\uff110.0.0.1",
        "a\0b",
        "1:\0",
    ],
)
def test_refuses_what_is_not_strictly_an_address(text: str) -> None:
    """A refusal shows the value and a right form."""
    with pytest.raises(InvalidObject, match=r"is not an IP address; write .*10\.6\.168\.71") as refusal:
        parse_address(text)
    assert repr(text) in refusal.value.message


def test_refuses_an_ipv4_mapped_address_and_says_how_to_write_it() -> None:
    with pytest.raises(InvalidObject, match=r"write it as the IPv4 address 10\.0\.0\.1"):
        parse_address("::ffff:10.0.0.1")


def test_refuses_the_other_family() -> None:
    with pytest.raises(InvalidObject, match="IPv6 address where an IPv4"):
        parse_address_of("fd00::1", 4)


def test_a_subnet_may_be_written_with_host_bits() -> None:
    subnet = parse_cidr("10.6.0.1/16")

    assert subnet == Subnet(4, 0x0A060000, 16)
    assert str(subnet) == "10.6.0.0/16"
    assert (subnet.first, subnet.last, subnet.size) == (0x0A060000, 0x0A06FFFF, 65536)


@given(st.ip_addresses().flatmap(lambda a: st.tuples(st.just(a), st.integers(0, a.max_prefixlen))), st.data())
def test_a_subnet_is_what_the_standard_library_says(
    parts: tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, int], data: st.DataObject
) -> None:
    address, prefix = parts
    if address.version == 6 and int(address) >> 32 == MAPPED:
        return
    network = ipaddress.ip_network(f"{address}/{prefix}", strict=False)
    subnet = parse_cidr(f"{address}/{prefix}")

    assert subnet.first == int(network.network_address)
    assert subnet.last == int(network.broadcast_address)
    other = data.draw(st.integers(0, 2**address.max_prefixlen - 1))
    assert subnet.contains(other) == (subnet.first <= other <= subnet.last)


@pytest.mark.parametrize(
    "text",
    ["10.6.0.0", "10.6.0.0/", "10.6.0.0/33", "10.6.0.0/08", "10.6.0.0/+8", "10.6/16", "fd00::/129", "/8"],
)
def test_refuses_what_is_not_a_subnet(text: str) -> None:
    with pytest.raises(InvalidObject, match="write"):
        parse_cidr(text)


def test_a_range_is_one_address_or_two() -> None:
    assert parse_range("10.0.0.7", 4) == (0x0A000007, 0x0A000007)
    assert parse_range("fd00::1-fd00::ff", 6) == (0xFD << 120 | 1, 0xFD << 120 | 0xFF)
    assert format_range(4, 0x0A000007, 0x0A000007) == "10.0.0.7"
    assert format_range(4, 0x0A000007, 0x0A000009) == "10.0.0.7-10.0.0.9"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "10.0.0.9-10.0.0.1",
            r"ends before it starts; write the lower address first: 10\.0\.0\.1-10\.0\.0\.9",
        ),
        ("10.0.0.1 - 10.0.0.9", "without spaces"),
        ("10.0.0.1-fd00::1", "IPv6 address where an IPv4"),
        ("10.0.0.0/24", "is not an IPv4 address or range"),
        ("10.0.0.1-", "is not an IPv4 address or range"),
    ],
)
def test_refuses_a_broken_range(text: str, says: str) -> None:
    with pytest.raises(InvalidObject, match=says):
        parse_range(text, 4)


@given(st.sampled_from([4, 6]), st.integers(0, 2**32 - 1))
def test_an_address_is_its_pair_and_reads_as_text(family: int, value: int):
    address = Address(family, value)

    assert address == (family, value)
    assert hash(address) == hash((family, value))
    assert address.text == format_address(family, value)
