"""The protocol between processes, as a pure core: bytes in, events out; events in, bytes out. No sockets, no
clock.

How it works. A frame is a 4-byte big-endian length and that many bytes of msgpack: an array whose first item
is the type. Both sides open with HELLO (the range of protocol versions they speak, the system's name, the
largest frame they take) and speak the highest version both know.

    type      fields                                            sent by
    HELLO     magic, lowest, highest, system, frame limit       both, first
    CALL      id, actor, method, args, kwargs, deadline, trace  client; deadline is ms left, or nil
    REPLY     id, ok, value or error                            server
    PING      number                                            both
    PONG      number                                            both, at once
    GOODBYE   error or nil                                      both; the sender closes behind it

    state     on receipt                                        next
    HELLO     HELLO with a common version                       OPEN
    OPEN      CALL, REPLY, PING, PONG                           OPEN
    either    GOODBYE                                           CLOSED
    either    anything else                                     CLOSED, raises ProtocolError

Values. What msgpack knows travels as that. Tuples, frozensets of texts, integers over 64 bits, and the dataclasses
and enums registered with `wire_value` travel as extension types, so that they arrive as what they were. Keys of maps are
texts: Python's hash of a text is nobody's to know, while integers can be chosen so that all have the same, and then a
frame of a megabyte took half a minute.
Nothing else can be sent or received: there is no way to name a class that was not registered, and a field that is
not of its declared type is refused.

Two versions. A field with a default is left out while it holds that, and an unknown field is refused. So a version may give
a dataclass one more field: the version before takes everything in which it is not used, and refuses, rather than
misunderstands, the rest. `tests/releases/test_contract.py` holds what is sent here against the version before.

What must always hold: nothing over the frame limit is ever buffered; whatever bytes arrive, the only
exception is `ProtocolError`, and after it the connection is finished.
"""

from __future__ import annotations

import dataclasses
import enum
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

import msgpack

from actors.errors import OrbweaverError, ProtocolError, Unsendable, from_wire
from actors.runtime.scope import Trace
from actors.runtime.shapes import Check, field_checks

C = TypeVar("C", bound=type)

MAGIC = "orbweaver"
LOWEST_VERSION = 1
HIGHEST_VERSION = 2
"""Frames are the same in both. Who speaks 2 knows one message more, `ApplicationPoolsActor.allocate`."""
FRAME_LIMIT = 1 << 20
"""Bytes of one frame, unless the two sides agree on less."""
_DEPTH_LIMIT = 32
"""Values inside values; each level of extension types is a level of Python's stack."""
_INTEGER_BYTES = 32
"""Of an integer: room for an IPv6 address, and less than a float or a text of decimal digits can be made of."""
_LONGEST_LEFT = 86_400_000
"""Milliseconds that a caller can still wait, and are believed: clocks and locks take no more than some centuries."""
_TRACED = 512
"""Characters of each name in a trace."""
_BUFFER = 1024
"""Bytes that a packer begins with; it grows as it must. Values inside values have a packer each, and with the library's own
256 KiB the system maps and clears memory for every one: three quarters of what a call cost."""
_LENGTH = struct.Struct(">I")

_EXT_VALUE, _EXT_TUPLE, _EXT_ENUM, _EXT_INTEGER, _EXT_FROZENSET = 1, 2, 3, 4, 5


class Frame(enum.IntEnum):
    """The type of a frame."""

    HELLO = 1
    CALL = 2
    REPLY = 3
    PING = 4
    PONG = 5
    GOODBYE = 6


# Values.


@dataclass(frozen=True, slots=True)
class _Shape:
    """How a registered dataclass travels."""

    cls: type
    """What is made of it on receipt."""
    always: tuple[str, ...]
    """The names of fields that are sent whatever they hold."""
    defaults: tuple[tuple[str, Any], ...]
    """Those that are left out while they hold this: a peer that does not have the field yet takes the value all the same, and
    means what it means."""
    known: frozenset[str]
    """All names."""
    required: frozenset[str]
    """Those without a default, which must come."""
    checks: dict[str, Check] = dataclasses.field(default_factory=dict)
    """Whether a value is of a field's type. Filled on first receipt: annotations may name classes that are defined later."""


_shapes: dict[str, _Shape] = {}
_enums: dict[str, type[enum.Enum]] = {}
_names: dict[type, str] = {}


def wire_value(cls: C) -> C:
    """Let instances of a frozen dataclass, or members of an enum, travel between processes, by the class's
    name.

    Raises TypeError for anything else, and for a second class of the same name.
    """
    name = cls.__name__
    if _names.get(cls) == name:
        return cls
    if name in _shapes or name in _enums:
        raise TypeError(f"{name!r} is registered for {(_enums.get(name) or _shapes[name].cls)!r} already")
    if issubclass(cls, enum.Enum):
        _enums[name] = cls
    elif dataclasses.is_dataclass(cls) and cls.__dataclass_params__.frozen:  # type: ignore[attr-defined]
        sent = [field for field in dataclasses.fields(cls) if field.init]
        required = frozenset(
            field.name
            for field in sent
            if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        )
        defaults = {field.name: field.default for field in sent if field.default is not dataclasses.MISSING}
        names = [field.name for field in sent]
        always = tuple(field for field in names if field not in defaults)
        _shapes[name] = _Shape(cls, always, tuple(defaults.items()), frozenset(names), required)
    else:
        raise TypeError(f"{cls!r} is neither a frozen dataclass nor an enum")
    _names[cls] = name
    return cls


def _extend(value: Any) -> msgpack.ExtType:
    """Called by msgpack for whatever it does not know, and, as types are strict, for subclasses of what it
    does."""
    cls = type(value)
    name = _names.get(cls)
    if isinstance(value, tuple):  # a named one arrives as a plain one
        return msgpack.ExtType(_EXT_TUPLE, _pack(list(value)))
    if name is not None:
        if isinstance(value, enum.Enum):
            return msgpack.ExtType(_EXT_ENUM, _pack([name, value.value]))
        shape = _shapes[name]
        content = {field: getattr(value, field) for field in shape.always}
        for field, default in shape.defaults:
            held = getattr(value, field)
            if held is not default and (held != default or type(held) is not type(default)):
                content[field] = held
        return msgpack.ExtType(_EXT_VALUE, _pack([name, content]))
    if cls is int:
        size = value.bit_length() // 8 + 1
        if size > _INTEGER_BYTES:
            raise Unsendable(f"an integer of {size} bytes cannot be sent, the most is {_INTEGER_BYTES}")
        return msgpack.ExtType(_EXT_INTEGER, value.to_bytes(size, "big", signed=True))
    if cls is frozenset:
        if not _are_texts(value):
            raise Unsendable("only frozensets of texts can be sent")
        return msgpack.ExtType(_EXT_FROZENSET, _pack(list(value)))
    raise Unsendable(f"{cls.__name__!r} cannot be sent to another process: it is no wire_value")


def _pack(value: Any) -> bytes:
    packed: bytes = msgpack.packb(value, default=_extend, strict_types=True, buf_size=_BUFFER)
    return packed


class _Unpacker:
    """Unpacks one frame, and counts how deep it goes."""

    __slots__ = ("_depth",)

    def __init__(self) -> None:
        self._depth = 0

    def unpack(self, data: bytes) -> Any:
        return msgpack.unpackb(data, ext_hook=self._restore)

    def _restore(self, code: int, data: bytes) -> Any:
        if code == _EXT_INTEGER:
            if len(data) > _INTEGER_BYTES:
                raise ProtocolError(f"an integer has {len(data)} bytes, the most is {_INTEGER_BYTES}")
            return int.from_bytes(data, "big", signed=True)
        self._depth += 1
        if self._depth > _DEPTH_LIMIT:
            raise ProtocolError(f"values are nested deeper than {_DEPTH_LIMIT}")
        inner = self.unpack(data)
        self._depth -= 1
        if not isinstance(inner, list):
            raise ProtocolError(f"extension type {code} holds no array")
        if code == _EXT_TUPLE:
            return tuple(inner)
        if code == _EXT_FROZENSET and _are_texts(inner):
            return frozenset(inner)
        if code == _EXT_VALUE and len(inner) == 2:
            return self._rebuild(*inner)
        if code == _EXT_ENUM and len(inner) == 2 and inner[0] in _enums:
            return _enums[inner[0]](inner[1])
        raise ProtocolError(f"extension type {code} with {inner[:1]!r} is not known here")

    def _rebuild(self, name: Any, fields: Any) -> Any:
        shape = _shapes.get(name)
        if shape is None or not isinstance(fields, dict):
            raise ProtocolError(f"the type {name!r} is not known here")
        if not fields.keys() <= shape.known:
            unknown = min(map(str, fields.keys() - shape.known))
            raise ProtocolError(f"{name} has no field {unknown!r} here")
        if not fields.keys() >= shape.required:
            raise ProtocolError(f"{name} came without its field {min(shape.required - fields.keys())!r}")
        if not shape.checks:
            shape.checks.update(field_checks(shape.cls))
        for field, value in fields.items():
            if not shape.checks[field](value):
                raise ProtocolError(f"{name}.{field} came as {type(value).__name__}")
        return shape.cls(**fields)


def _are_texts(values: Iterable[Any]) -> bool:
    return all(type(value) is str for value in values)


def encode_value(value: Any) -> bytes:
    """The msgpack form. Raises `Unsendable` for a value that cannot travel."""
    try:
        return _pack(value)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise Unsendable(f"a value cannot be sent to another process: {error}") from error


def decode_value(data: bytes) -> Any:
    """The value. Raises ProtocolError for bytes that are none."""
    try:
        return _Unpacker().unpack(data)
    except ProtocolError:
        raise
    except Exception as error:
        # msgpack has half a dozen exceptions for broken bytes, and a value's own checks may raise any other.
        raise ProtocolError(f"not a message: {type(error).__name__}: {error}") from error


# Frames.


def _frame(body: list[Any]) -> bytes:
    data = encode_value(body)
    return _LENGTH.pack(len(data)) + data


def _trace_out(trace: Trace | None) -> list[str] | None:
    if trace is None:
        return None
    return [part[:_TRACED] for part in (trace.request, trace.pod, trace.container)]


def hello(
    system: str, limit: int = FRAME_LIMIT, lowest: int = LOWEST_VERSION, highest: int = HIGHEST_VERSION
) -> bytes:
    """The first frame of either side."""
    return _frame([Frame.HELLO.value, MAGIC, lowest, highest, system, limit])


def call(
    number: int, actor: str, method: str, args: tuple[Any, ...], kwargs: dict[str, Any],
    left: float | None, trace: Trace | None,
) -> bytes:  # fmt: skip
    """A CALL. `left` is in seconds. Raises `Unsendable` when the arguments cannot travel."""
    milliseconds = None if left is None else max(0, int(left * 1000))
    return _frame(
        [Frame.CALL.value, number, actor, method, list(args), kwargs, milliseconds, _trace_out(trace)]
    )


def reply(number: int, value: Any) -> bytes:
    """A REPLY with a value. Raises `Unsendable` when it cannot travel."""
    return _frame([Frame.REPLY.value, number, True, value])


def failure(number: int, error: OrbweaverError) -> bytes:
    """A REPLY with an error."""
    return _frame([Frame.REPLY.value, number, False, error.to_wire()])


def ping(number: int) -> bytes:
    return _frame([Frame.PING.value, number])


def pong(number: int) -> bytes:
    return _frame([Frame.PONG.value, number])


def goodbye(error: OrbweaverError | None = None) -> bytes:
    return _frame([Frame.GOODBYE.value, None if error is None else error.to_wire()])


@dataclass(frozen=True, slots=True)
class Hello:
    """The peer is there, speaks `version`, and takes frames up to `limit` bytes."""

    system: str
    version: int
    limit: int


@dataclass(frozen=True, slots=True)
class CallReceived:
    """The peer calls an actor."""

    number: int
    """Of the call on this connection; its answer bears the same."""
    actor: str
    """`kind/key`."""
    method: str
    """Of the actor's class."""
    args: tuple[Any, ...]
    """As they were sent, not yet checked against the method."""
    kwargs: dict[str, Any]
    """Likewise."""
    left: float | None
    """Seconds until the deadline."""
    trace: Trace | None
    """Of the request on whose behalf it is made."""


@dataclass(frozen=True, slots=True)
class ReplyReceived:
    """The peer answers call `number`, by a value or an error."""

    number: int
    value: Any
    error: OrbweaverError | None


@dataclass(frozen=True, slots=True)
class PingReceived:
    """The peer wants to see a sign of life."""

    number: int


@dataclass(frozen=True, slots=True)
class PongReceived:
    """The peer gives the sign of life that was asked for."""

    number: int


@dataclass(frozen=True, slots=True)
class GoodbyeReceived:
    """The peer ends the connection, and why."""

    error: OrbweaverError | None


PeerEvent = Hello | CallReceived | ReplyReceived | PingReceived | PongReceived | GoodbyeReceived


class WireState(enum.Enum):
    """How far a connection is."""

    HELLO = "waiting for the peer's hello"
    OPEN = "open"
    CLOSED = "closed"


class Incoming:
    """The receiving half of one connection."""

    def __init__(
        self, limit: int = FRAME_LIMIT, lowest: int = LOWEST_VERSION, highest: int = HIGHEST_VERSION
    ) -> None:
        self.state = WireState.HELLO
        self.limit = limit
        self._versions = (lowest, highest)
        self._buffer = bytearray()

    def receive(self, data: bytes) -> Iterable[PeerEvent]:
        """Yield what `data` completes. Raises ProtocolError, behind the events before the fault."""
        buffer = self._buffer
        buffer += data
        start = 0
        try:
            while self.state is not WireState.CLOSED and len(buffer) - start >= _LENGTH.size:
                (length,) = _LENGTH.unpack_from(buffer, start)
                if length > self.limit:
                    raise ProtocolError(f"a frame of {length} bytes is over the limit of {self.limit}")
                end = start + _LENGTH.size + length
                if len(buffer) < end:
                    break
                body = bytes(buffer[start + _LENGTH.size : end])
                start = end
                yield self._event(body)
        except ProtocolError:
            self.state = WireState.CLOSED
            raise
        finally:
            del buffer[:start]

    def _event(self, body: bytes) -> PeerEvent:
        frame = decode_value(body)
        if not isinstance(frame, list) or not frame or type(frame[0]) is not int:
            raise ProtocolError("a frame is an array that begins with its type")
        read = _READERS.get(frame[0])
        if read is None:
            raise ProtocolError(f"there are no frames of type {frame[0]}")
        opening = frame[0] == Frame.HELLO
        if frame[0] != Frame.GOODBYE and opening is not (self.state is WireState.HELLO):
            raise ProtocolError(f"a frame of type {frame[0]} is out of place: {self.state.value}")
        try:
            event: PeerEvent | _Offered = read(*frame[1:])
        except TypeError as error:
            raise ProtocolError(f"a frame of type {frame[0]} has the wrong number of fields") from error
        if isinstance(event, _Offered):
            return self._agree(event)
        if isinstance(event, GoodbyeReceived):
            self.state = WireState.CLOSED
        return event

    def _agree(self, offered: _Offered) -> Hello:
        lowest, highest = self._versions
        version = min(highest, offered.highest)
        if version < max(lowest, offered.lowest):
            raise ProtocolError(
                f"{offered.system} speaks protocol versions {offered.lowest} to {offered.highest},"
                f" this process {lowest} to {highest}: upgrade the older of the two"
            )
        self.state = WireState.OPEN
        return Hello(offered.system, version, offered.limit)


@dataclass(frozen=True, slots=True)
class _Offered:
    lowest: int
    highest: int
    system: str
    limit: int


def _check(ok: bool, what: str) -> None:
    if not ok:
        raise ProtocolError(f"broken frame: {what}")


def _is_number(value: Any) -> bool:
    return type(value) is int and value >= 0


def _read_hello(magic: Any, lowest: Any, highest: Any, system: Any, limit: Any) -> _Offered:
    _check(magic == MAGIC, "this is not an orbweaver peer")
    _check(_is_number(lowest) and _is_number(highest) and lowest <= highest, "version range")
    _check(isinstance(system, str), "system name")
    _check(_is_number(limit) and limit > 0, "frame limit")
    return _Offered(lowest, highest, system, limit)


def _read_call(
    number: Any, actor: Any, method: Any, args: Any, kwargs: Any, left: Any, trace: Any
) -> CallReceived:  # fmt: skip
    _check(_is_number(number), "call id")
    _check(isinstance(actor, str) and isinstance(method, str), "actor and method are strings")
    _check(isinstance(args, list), "arguments are an array")
    _check(isinstance(kwargs, dict) and all(isinstance(key, str) for key in kwargs), "keywords are a map")
    _check(left is None or _is_number(left), "deadline in milliseconds")
    fine = trace is None or (
        isinstance(trace, list) and len(trace) == 3 and all(isinstance(part, str) for part in trace)
    )
    _check(fine, "trace")
    return CallReceived(
        number, actor, method, tuple(args), kwargs,
        None if left is None else min(left, _LONGEST_LEFT) / 1000,
        None if trace is None else Trace(*(part[:_TRACED] for part in trace)),
    )  # fmt: skip


def _read_reply(number: Any, ok: Any, value: Any) -> ReplyReceived:
    _check(_is_number(number) and isinstance(ok, bool), "reply id and outcome")
    if ok:
        return ReplyReceived(number, value, None)
    return ReplyReceived(number, None, _read_error(value))


def _read_error(value: Any) -> OrbweaverError:
    _check(isinstance(value, dict), "an error is a map")
    details = value.get("details")
    _check(details is None or isinstance(details, (list, tuple)), "an error's details are an array")
    return from_wire(value)


def _read_ping(number: Any) -> PingReceived:
    _check(_is_number(number), "ping number")
    return PingReceived(number)


def _read_pong(number: Any) -> PongReceived:
    _check(_is_number(number), "pong number")
    return PongReceived(number)


def _read_goodbye(error: Any) -> GoodbyeReceived:
    return GoodbyeReceived(None if error is None else _read_error(error))


_READERS: dict[int, Callable[..., Any]] = {
    Frame.HELLO: _read_hello,
    Frame.CALL: _read_call,
    Frame.REPLY: _read_reply,
    Frame.PING: _read_ping,
    Frame.PONG: _read_pong,
    Frame.GOODBYE: _read_goodbye,
}
