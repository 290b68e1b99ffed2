"""Which prefixes are advertised, and which of a pod's addresses the host gets a way to: pure functions of values."""

from __future__ import annotations

import ipaddress
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cni.dataplane.coordinator.advertised import (
    ADDRESSES,
    INTERFACES,
    PREFIXES,
    AdvertisedPrefixes,
    reachable,
    read_advertisement,
)
from cni.dataplane.coordinator.renumbering import PAUSE_MOST, REMEMBERED, Replanning
from cni.dataplane.state import Nic

HEAD = struct.pack(">BBHBBHII", 134, 0, 0, 64, 0, 1800, 0, 0)


def option(prefix: str, valid: int = 3600, length: int = 64, flags: int = 0xC0) -> bytes:
    head = struct.pack(">BBBBIII", 3, 4, length, flags, valid, valid, 0)
    return head + ipaddress.IPv6Address(prefix).packed


def nic(*addresses: str, dynamic: tuple[str, ...] = ()) -> Nic:
    return Nic("eth0", 2, "02:00:00:00:00:01", (*addresses, *dynamic), dynamic=dynamic)


def test_prefixes_of_an_advertisement() -> None:
    mtu = struct.pack(">BBHI", 5, 1, 0, 1500)

    told = list(read_advertisement(HEAD + option("2001:db8:1::") + mtu + option("2001:db8:2::", 60)))

    assert told == [("2001:db8:1::/64", 3600), ("2001:db8:2::/64", 60)]


@pytest.mark.parametrize(
    "damaged",
    [
        option("2001:db8::", length=0),  # all of the Internet
        option("2001:db8::", length=48),
        option("2001:db8::", length=129),
        option("2001:db8::", flags=0x80),  # on the link, but no addresses are made of it
        option("fe80::"),
        option("ff02::"),
        b"\x03\x00" + bytes(30),  # an option without a length
        b"\x03\x05" + bytes(30),  # longer than the message
        b"\x03\x01" + bytes(6),
    ],
)
def test_what_makes_no_addresses_is_left_out(damaged: bytes) -> None:
    assert list(read_advertisement(HEAD + damaged)) == []


@given(st.binary(max_size=200))
def test_any_bytes_are_read(message: bytes) -> None:
    for prefix, _ in read_advertisement(HEAD[:1] + message):
        assert ipaddress.IPv6Network(prefix).prefixlen == 64


def test_a_prefix_lasts_as_long_as_it_was_advertised_for() -> None:
    known = AdvertisedPrefixes()

    assert known.heard(5, HEAD + option("2001:db8:1::", 100), now=0.0) == ("2001:db8:1::/64",)
    assert known.heard(5, HEAD + option("2001:db8:1::", 100), now=50.0) == ()  # renewed, not new
    assert known.valid(149.0) == ((5, "2001:db8:1::/64"),)
    assert known.valid(150.0) == ()
    assert known.heard(5, HEAD + option("2001:db8:1::", 100), now=200.0) == ("2001:db8:1::/64",)
    assert known.heard(5, HEAD + option("2001:db8:1::", 0), now=201.0) == ()  # taken back
    assert known.valid(201.0) == ()


def test_what_is_heard_is_bounded() -> None:
    known = AdvertisedPrefixes()
    for number in range(1000):
        message = b"".join(option(f"2001:db8:{number:x}:{one:x}::") for one in range(40))
        known.heard(number, HEAD + message, now=0.0)

    assert len(known.valid(1.0)) == INTERFACES * PREFIXES


def test_only_recorded_addresses_and_advertised_ones_are_reached() -> None:
    own, slaac = "10.6.0.9/16", "2001:db8:1::9/64"
    pod = nic(own, "198.51.100.7/32", "2001:db8:1::7/64", dynamic=(slaac, "2001:db8:2::9/64"))

    assert reachable(pod, {"10.6.0.9"}, (), ()) == (own,)
    # A permanent address in an advertised prefix was given by hand.
    assert reachable(pod, {"10.6.0.9"}, ("2001:db8:1::/64",), ()) == (own, slaac)
    assert reachable(pod, (), ("2001:db8:1::/64",), ()) == (slaac,)
    assert reachable(nic(), {"10.6.0.9"}, (), ()) == ()  # it gave its own one up


@pytest.mark.parametrize("taken", ["2001:db8:1::9", "2001:db8:1::/112", "2001:db8::/32"])
def test_what_is_others_is_not_reached_in_the_pod(taken: str) -> None:
    pod = nic("10.6.0.9/16", dynamic=("2001:db8:1::9/64",))

    assert reachable(pod, {"10.6.0.9"}, ("2001:db8:1::/64",), ("10.6.0.1", taken)) == ("10.6.0.9/16",)


def test_addresses_of_routers_are_bounded_and_recorded_ones_are_not() -> None:
    recorded = {f"2001:db8:1::{number:x}" for number in range(1, 100)}
    mine = tuple(f"{one}/64" for one in sorted(recorded))
    pod = nic(*mine, dynamic=tuple(f"2001:db8:1::ffff:{number:x}/64" for number in range(1000)))

    assert len(reachable(pod, recorded, ("2001:db8:1::/64",), ())) == len(mine) + ADDRESSES


def test_a_pod_that_gives_itself_addresses_without_end_is_planned_ever_more_seldom() -> None:
    pod, planned, now = Replanning(), [], 0.0
    for number in range(36_000):  # an hour, ten a second
        now = number / 10
        pod.wants(f"2001:db8::{number:x}", now)
        if pod.take(now):
            planned.append(now)

    assert planned[0] == 0.0
    assert len(planned) < 3600 / PAUSE_MOST + 8
    assert len(pod.known) <= REMEMBERED
    pod.wants("2001:db8::abcd:1", now + 1000)
    assert pod.take(now + 1000)  # and at once again when it had been quiet


def test_an_address_that_is_renewed_is_planned_once() -> None:
    pod = Replanning()
    for now in range(100):
        pod.wants("2001:db8::1", now)
        assert pod.take(now) is (now == 0)
