"""Who is at the other end of a connection, and how a peer shows it.

What must always hold: a process learns who its peer is before it takes a message of it, from what the peer shows inside
TLS, and never from what its messages say.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

from actors.errors import ProtocolError
from actors.runtime.reference import ObjectRef

TOKEN_LIMIT = 8192
"""Bytes of a token; a service account's has about 1,200."""
_LENGTH = struct.Struct(">I")


@dataclass(frozen=True, slots=True)
class PeerIdentity:
    """A peer that has shown who it is: `account` in words for the log, `node` where it runs."""

    account: str
    node: str

    def __str__(self) -> str:
        return f"{self.account} on node {self.node}"


Identify = Callable[[str, str], ObjectRef[PeerIdentity]]
"""Finds out whose token it is that came from an address; fails with why it is nobody's."""


def introduction(token: str) -> bytes:
    """The first bytes that a client sends inside TLS."""
    data = token.encode()
    if not 0 < len(data) <= TOKEN_LIMIT:
        raise ProtocolError(f"a token of {len(data)} bytes cannot be shown; the limit is {TOKEN_LIMIT}")
    return _LENGTH.pack(len(data)) + data


class Introduction:
    """Reads what `introduction` wrote, and not a byte more, so that what follows is left for the one who reads on."""

    __slots__ = ("_buffer", "_size")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._size: int | None = None

    @property
    def wanted(self) -> int:
        """How many bytes may be read now; 0 when it is whole."""
        return (_LENGTH.size if self._size is None else self._size) - len(self._buffer)

    def feed(self, data: bytes) -> None:
        """Take `wanted` bytes or fewer. Raises `ProtocolError` for a length that no token has."""
        self._buffer += data
        if self._size is None and len(self._buffer) == _LENGTH.size:
            (self._size,) = _LENGTH.unpack(self._buffer)
            self._buffer.clear()
            if not 0 < self._size <= TOKEN_LIMIT:
                raise ProtocolError(
                    f"what was shown has {self._size} bytes, and a token {TOKEN_LIMIT} at most"
                )

    def token(self) -> str:
        """The token, once nothing more is wanted. Raises `ProtocolError` for what is no text."""
        try:
            return self._buffer.decode("ascii")
        except UnicodeDecodeError as error:
            raise ProtocolError("what was shown is no token") from error
