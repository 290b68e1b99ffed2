"""ARP and neighbour discovery frames: what we send is what the RFCs say, and nothing that comes in can hurt."""

from __future__ import annotations

import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cni.dataplane.probing import frames
from cni.dataplane.probing.frames import Claimed, announcement, packed, probe, question, read

MAC, OTHER = bytes.fromhex("02000000000a"), bytes.fromhex("02000000000b")
V4, GATEWAY4 = packed("10.6.0.7"), packed("10.6.0.1")
V6, GATEWAY6 = packed("fd00:6::a8:1234"), packed("fd00:6::1")
MACS = st.binary(min_size=6, max_size=6)
ADDRESSES = st.binary(min_size=4, max_size=4).filter(any) | st.binary(min_size=16, max_size=16).filter(
    lambda address: any(address) and address[0] != 0xFF
)
# What a Linux host of another namespace sent: duplicate address detection with a nonce option (RFC 3971, RFC 7527).
LINUX_DAD = bytes.fromhex(
    "3333ff583e9b82784d583e9b86dd600000000020 3aff 00000000000000000000000000000000 ff0200000000000000000001ff583e9b"
    "8700b24900000000 fe8000000000000080784dfffe583e9b 0e0122e0f99d54f7".replace(" ", "")
)


@given(MACS, ADDRESSES)
def test_a_probe_claims_nothing_and_an_announcement_does(mac: bytes, address: bytes):
    assert read(probe(mac, address)) == Claimed(address, mac, probing=True)
    assert read(announcement(mac, address)) == Claimed(address, mac, probing=False)


@pytest.mark.parametrize("own, target", [(V4, GATEWAY4), (V6, GATEWAY6)])
def test_a_question_is_asked_as_the_holder_of_the_address(own: bytes, target: bytes):
    frame = question(MAC, own, target)

    assert read(frame) == Claimed(own, MAC, probing=False)
    assert target in frame


def test_an_arp_probe_is_that_of_rfc_5227():
    head = bytes.fromhex("ffffffffffff 02000000000a 0806 0001 0800 06 04 0001")

    assert probe(MAC, V4)[:42] == head + MAC + bytes(4) + bytes(6) + V4
    assert len(probe(MAC, V4)) == 60, "the least that Ethernet carries"


def test_a_solicitation_is_that_of_rfc_4862():
    frame = probe(MAC, V6)

    assert frame[:14] == bytes.fromhex("3333ffa81234 02000000000a 86dd")
    assert frame[20:22] == bytes((58, 255)), "ICMPv6, hop limit 255"
    assert frame[22:38] == bytes(16)
    assert frame[38:54] == packed("ff02::1:ffa8:1234")
    assert frame[54:56] == bytes((135, 0))
    assert frame[62:] == V6, "and no option, as the source is unspecified"
    assert question(MAC, V6, GATEWAY6)[78:] == b"\x01\x01" + MAC


def test_the_groups_are_where_answers_and_other_probes_arrive():
    assert frames.groups(V4) == ()
    assert frames.groups(V6) == (bytes.fromhex("333300000001"), bytes.fromhex("3333ffa81234"))


def test_what_a_real_kernel_sends_is_understood():
    link_local = packed("fe80::8078:4dff:fe58:3e9b")

    assert read(LINUX_DAD) == Claimed(link_local, bytes.fromhex("82784d583e9b"), probing=True)


def test_replies_and_tagged_frames_count():
    reply = bytearray(announcement(OTHER, V4))
    reply[21] = 2
    tagged = bytes(reply[:12]) + bytes.fromhex("81000064") + bytes(reply[12:])

    assert read(bytes(reply)) == read(tagged) == Claimed(V4, OTHER, probing=False)


@pytest.mark.parametrize(
    "place, value",
    [
        (20, 17),  # not ICMPv6
        (21, 64),  # forwarded by a router
        (54, 128),  # an echo request
        (55, 1),  # not code 0
        (56, 0x55),  # checksum
        (70, 0x99),  # target, so checksum
        (19, 8),  # length
    ],
)
def test_a_damaged_advertisement_says_nothing(place: int, value: int):
    frame = bytearray(announcement(OTHER, V6))
    frame[place] = value

    assert read(bytes(frame)) is None


@pytest.mark.parametrize(
    "options", [b"\x02\x00" + OTHER, b"\x02\x02" + OTHER, b"\x02", b"\x02\x01" + OTHER + b"\0"]
)
def test_damaged_options_say_nothing(options: bytes):
    """With a right checksum: RFC 4861 section 7.1.2 has a node discard the message."""
    body = struct.pack(">I", 0x20000000) + V6 + options

    assert read(frames._icmp6(OTHER, V6, frames.ALL_NODES, 136, body)) is None


def test_an_advertisement_without_option_is_its_senders():
    body = struct.pack(">I", 0x60000000) + V6

    assert read(frames._icmp6(OTHER, V6, frames.ALL_NODES, 136, body)) == Claimed(V6, OTHER, probing=False)


@given(
    st.binary(max_size=200)
    | st.builds(
        lambda kind, rest: MAC + OTHER + kind + rest,
        st.sampled_from([b"\x08\x06", b"\x86\xdd", b"\x81\x00\x00\x01\x08\x06", b"\x81\x00\x00\x01\x86\xdd"]),
        st.binary(max_size=120),
    )
    | st.builds(
        lambda made, at, byte, length: (made[:at] + bytes((byte,)) + made[at + 1 :])[:length],
        st.sampled_from(
            [probe(MAC, V4), probe(MAC, V6), announcement(OTHER, V6), question(MAC, V6, GATEWAY6)]
        ),
        st.integers(0, 90),
        st.integers(0, 255),
        st.integers(0, 90),
    )
)
@example(b"")
@example(LINUX_DAD[:77])
def test_garbage_never_raises_and_never_claims_nobodys_address(frame: bytes):
    said = read(frame)

    assert said is None or (len(said.address) in (4, 16) and len(said.mac) == 6 and any(said.address))


def test_checksums_of_odd_length_are_those_of_rfc_1071():
    assert frames._checksum(b"\x00\x01\xf2\x03\xf4\xf5\xf6\xf7") == 0xFFFF ^ 0xDDF2
    assert frames._checksum(b"\x01") == frames._checksum(b"\x01\x00")
