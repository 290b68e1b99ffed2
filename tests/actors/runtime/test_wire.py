"""The protocol core: what goes in comes out, and whatever else comes in is a ProtocolError."""

from __future__ import annotations

import contextlib
import struct
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.errors import NoAddress, ProtocolError, Unsendable
from actors.runtime import Trace, wire, wire_value
from actors.runtime.wire import Incoming
from tests.actors.runtime.cast import Colour, Point, Shape

plain = (
    st.none()
    | st.booleans()
    | st.integers(-(1 << 130), 1 << 130)
    | st.text()
    | st.binary()
    | st.floats(allow_nan=False)
)
points = st.builds(Point, st.integers(), st.integers(), st.sampled_from(Colour))
shapes = st.builds(Shape, st.text(), st.lists(points).map(tuple), st.frozensets(st.text()))
values = st.recursive(
    plain | points | shapes,
    lambda inner: st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@wire_value
@dataclass(frozen=True)
class Measure:
    size: int | bool = 1


def opened() -> Incoming:
    incoming = Incoming()
    list(incoming.receive(wire.hello("peer")))
    return incoming


def framed(value: Any) -> bytes:
    body = msgpack.packb(value)
    return struct.pack(">I", len(body)) + body


@given(values)
def test_every_value_comes_back_as_it_was(value: Any) -> None:
    back = wire.decode_value(wire.encode_value(value))

    assert _typed(value) == _typed(back)


def _typed(value: Any) -> Any:
    """With the types, because 1, 1.0 and True are equal."""
    if isinstance(value, (list, tuple)):
        return [type(value), *map(_typed, value)]
    if isinstance(value, dict):
        return {_typed(key): _typed(item) for key, item in value.items()}
    return type(value), value


@given(values, st.lists(st.integers(1, 40), min_size=1))
def test_frames_survive_any_cut(value: Any, cuts: list[int]) -> None:
    trace = Trace("r", "ns/pod", "c")
    stream = (
        wire.hello("peer") + wire.call(7, "pool/a", "take", (value,), {"k": value}, 1.5, trace) + wire.ping(3)
    )
    incoming = Incoming()
    events: list[wire.PeerEvent] = []
    while stream:
        for cut in cuts:
            events += incoming.receive(stream[:cut])
            stream = stream[cut:]

    assert events == [
        wire.Hello("peer", wire.HIGHEST_VERSION, wire.FRAME_LIMIT),
        wire.CallReceived(7, "pool/a", "take", (value,), {"k": value}, 1.5, trace),
        wire.PingReceived(3),
    ]


@settings(max_examples=500)
@given(st.binary(max_size=200))
def test_garbage_raises_nothing_but_protocol_error(garbage: bytes) -> None:
    for incoming, data in (
        (Incoming(), garbage),
        (opened(), garbage),
        (opened(), struct.pack(">I", len(garbage)) + garbage),
    ):
        try:
            list(incoming.receive(data))
        except ProtocolError:
            assert incoming.state is wire.WireState.CLOSED


@settings(max_examples=500)
@given(st.data())
def test_a_damaged_frame_raises_nothing_but_protocol_error(data: st.DataObject) -> None:
    frame = bytearray(
        wire.call(1, "pool/a", "take", (Shape("s", (Point(1, 2),)),), {"a": [1, (2,)]}, 2.0, Trace("r"))
    )
    for _ in range(data.draw(st.integers(1, 4))):
        frame[data.draw(st.integers(0, len(frame) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(ProtocolError):
        list(opened().receive(bytes(frame)))


@given(
    st.lists(
        st.recursive(plain, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)), max_size=9
    )
)
def test_an_odd_frame_raises_nothing_but_protocol_error(body: list[Any]) -> None:
    for kind in range(8):
        with contextlib.suppress(ProtocolError):
            list(opened().receive(wire._frame([kind, *body])))


def test_a_frame_over_the_limit_is_refused_by_its_length_alone() -> None:
    incoming = opened()
    with pytest.raises(ProtocolError, match="over the limit"):
        list(incoming.receive(struct.pack(">I", wire.FRAME_LIMIT + 1)))


@pytest.mark.parametrize("depth", [40, 2000])
def test_deep_nesting_is_refused_by_both_sides(depth: int) -> None:
    value: Any = ()
    packed = msgpack.packb([])
    for _ in range(depth):
        value = (value,)
        packed = msgpack.packb([msgpack.ExtType(2, packed)])
    with pytest.raises(ProtocolError):
        wire.decode_value(wire.encode_value(value))
    with pytest.raises(ProtocolError):
        wire.decode_value(packed)


def test_deep_arrays_are_refused() -> None:
    with pytest.raises(ProtocolError):
        wire.decode_value(b"\x91" * 100_000 + b"\xc0")


@pytest.mark.parametrize(
    "body, says",
    [
        (["Nobody", {}], "the type 'Nobody' is not known"),
        (["Point", {"x": 1, "y": 2, "z": 3}], "no field 'z'"),
        (["Point", {"x": 1}], "without its field 'y'"),
        (["Point", [1, 2]], "not known"),
        ([["Point"], {}], "unhashable"),
        (["Point"], "not known"),
    ],
)
def test_unknown_types_and_fields_are_named(body: Any, says: str) -> None:
    with pytest.raises(ProtocolError, match=says):
        wire.decode_value(msgpack.packb(msgpack.ExtType(1, msgpack.packb(body))))


def test_an_unknown_member_of_an_enum_is_refused() -> None:
    with pytest.raises(ProtocolError, match="green"):
        wire.decode_value(msgpack.packb(msgpack.ExtType(3, msgpack.packb(["Colour", "green"]))))


def test_a_field_with_a_default_may_be_missing() -> None:
    packed = msgpack.packb(msgpack.ExtType(1, msgpack.packb(["Point", {"x": 1, "y": 2}])))

    assert wire.decode_value(packed) == Point(1, 2, Colour.RED)


def test_a_field_that_holds_its_default_is_not_sent() -> None:
    """A version that does not have the field takes the value then, and refuses it where the field says something."""
    assert wire.encode_value(Point(1, 2)) == wire.encode_value(Point(1, 2, Colour.RED))
    assert b"colour" not in wire.encode_value(Point(1, 2))
    assert b"colour" in wire.encode_value(Point(1, 2, Colour.BLUE))


def test_a_field_that_only_equals_its_default_is_sent_as_it_is() -> None:
    assert wire.decode_value(wire.encode_value(Measure(True))).size is True
    assert wire.decode_value(wire.encode_value(Measure(1))).size == 1


@pytest.mark.parametrize("value", [object(), {1, 2}, lambda: 0, [object()], type, Exception("x"), 1j])
def test_what_is_not_registered_cannot_be_sent(value: Any) -> None:
    with pytest.raises(ProtocolError, match="wire_value"):
        wire.encode_value(value)


def test_only_frozen_dataclasses_and_enums_can_be_registered() -> None:
    @dataclass
    class Open:
        x: int

    with pytest.raises(TypeError, match="frozen"):
        wire_value(Open)
    with pytest.raises(TypeError, match="registered"):
        wire_value(dataclass(frozen=True)(type("Point", (), {})))


def test_errors_cross_with_type_code_and_details() -> None:
    (event,) = opened().receive(
        wire.failure(4, NoAddress("none", details=("pool blue: full",), cni_code=150))
    )

    assert isinstance(event, wire.ReplyReceived)
    assert isinstance(event.error, NoAddress)
    assert (event.error.message, event.error.details, event.error.cni_code) == (
        "none",
        ("pool blue: full",),
        150,
    )


@pytest.mark.parametrize("lowest, highest, agreed", [(1, 1, 1), (1, 9, 2), (0, 1, 1), (2, 2, 2)])
def test_the_highest_common_version_is_spoken(lowest: int, highest: int, agreed: int) -> None:
    (event,) = Incoming().receive(wire.hello("peer", lowest=lowest, highest=highest))

    assert isinstance(event, wire.Hello)
    assert event.version == agreed


def test_without_a_common_version_the_error_names_both() -> None:
    with pytest.raises(ProtocolError, match=r"versions 3 to 4.*this process 1 to 2.*upgrade"):
        list(Incoming().receive(wire.hello("peer", lowest=3, highest=4)))


@pytest.mark.parametrize(
    "frames",
    [
        framed([1, "http", 1, 1, "x", 1]),
        framed([1, "orbweaver", 2, 1, "x", 1]),
        framed([1, "orbweaver", 1, 1, "x", 0]),
        wire.ping(1),
        wire.hello("peer") + wire.hello("peer"),
        wire.hello("peer") + framed([2]),
        wire.hello("peer") + framed([4, -1]),
        wire.hello("peer") + framed([99]),
        wire.hello("peer") + framed({}),
        wire.hello("peer") + framed([2, 1, "a/b", "m", [], {"a": 1}, None, ["only one"]]),
        wire.hello("peer") + framed([2, 1, "a/b", "m", [], {1: 1}, None, None]),
        wire.hello("peer") + framed([3, 1, False, "no map"]),
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
)
def test_frames_that_are_wrong_or_out_of_place_are_refused(frames: bytes) -> None:
    with pytest.raises(ProtocolError):
        list(Incoming().receive(frames))


@pytest.mark.parametrize(
    "fields",
    [
        {"x": "1", "y": 2},
        {"x": 1, "y": None},
        {"x": True, "y": 2},
        {"x": 1, "y": 2, "colour": "red"},
    ],
)
def test_a_field_of_another_type_is_refused(fields):
    packed = wire._pack(["Point", fields])
    with pytest.raises(ProtocolError, match="came as"):
        wire.decode_value(wire._pack([msgpack.ExtType(wire._EXT_VALUE, packed)]))


@pytest.mark.parametrize("points", [[Point(1, 2)], (Point(1, 2), None), ((1, 2),), "points"])
def test_a_nested_field_of_another_type_is_refused(points):
    packed = wire._pack(["Shape", {"name": "line", "points": points, "tags": frozenset()}])
    with pytest.raises(ProtocolError, match="points came as"):
        wire.decode_value(wire._pack([msgpack.ExtType(wire._EXT_VALUE, packed)]))


MODULUS = (1 << 61) - 1
"""Integers that differ by a multiple of it have one hash in Python."""


def _call(arguments: bytes, left: bytes = b"\xc0") -> bytes:
    """A CALL whose list of arguments and deadline are these bytes of msgpack."""
    body = b"\x98\x02\x01" + msgpack.packb("ledger/local") + msgpack.packb("reached")
    body += b"\x91" + arguments + b"\x80" + left + b"\xc0"
    return struct.pack(">I", len(body)) + body


def _integer(value: int) -> bytes:
    data = value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True)
    return bytes(msgpack.packb(msgpack.ExtType(wire._EXT_INTEGER, data)))


COLLIDING = [_integer(MODULUS * number) for number in range(1, 60_001)]


@pytest.mark.parametrize(
    "arguments",
    [
        b"\xdf" + struct.pack(">I", len(COLLIDING)) + b"".join(one + b"\xc0" for one in COLLIDING),
        bytes(
            msgpack.packb(
                msgpack.ExtType(
                    wire._EXT_FROZENSET, b"\xdd" + struct.pack(">I", len(COLLIDING)) + b"".join(COLLIDING)
                )
            )
        ),
    ],
    ids=["keys of a map", "members of a set"],
)
def test_integers_of_one_hash_never_meet(arguments: bytes) -> None:
    """With the interpreter's lock held, one such frame stopped the leader for half a minute, and so cost it its Lease."""
    frame = _call(arguments)
    assert len(frame) < wire.FRAME_LIMIT
    with pytest.raises(ProtocolError):
        list(opened().receive(frame))


@pytest.mark.parametrize("value", [1 << 260, -(1 << 260), 10**400, 1 << 4_000_000], ids=lambda value: "")
def test_an_integer_larger_than_any_address_is_none(value: int) -> None:
    with pytest.raises(ProtocolError, match="an integer has"):
        list(opened().receive(_call(_integer(value))))
    with pytest.raises(Unsendable):
        wire.encode_value(value)


@pytest.mark.parametrize("left", [(1 << 64) - 1, 1 << 100, 1 << 130])
def test_nobody_waits_for_longer_than_a_day(left: int) -> None:
    (event,) = opened().receive(_call(b"\xc0", bytes(wire.encode_value(left))))
    assert isinstance(event, wire.CallReceived)
    assert event.left == 86_400


def test_names_in_a_trace_are_cut() -> None:
    """They are in each line that is logged of the call."""
    (event,) = opened().receive(wire.call(1, "a/b", "m", (), {}, None, Trace("r" * 600_000, "p" * 600_000)))
    assert isinstance(event, wire.CallReceived)
    assert event.trace == Trace("r" * 512, "p" * 512)


def test_a_named_tuple_arrives_as_the_plain_one_that_it_equals():
    class Pair(NamedTuple):
        first: int
        second: str

    arrived = wire.decode_value(wire.encode_value([Pair(1, "x")]))

    assert arrived == [(1, "x")]
    assert type(arrived[0]) is tuple
