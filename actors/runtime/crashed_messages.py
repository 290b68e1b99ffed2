"""Messages on which an actor crashed: one that did it twice is dropped, so that whoever repeats it hurts nobody else.

A crash throws away the instance, and whoever waits for it is answered with `PeerLost`. That is right for a bug that
needs a rare state. A bug that one message triggers is met again with each repetition, and repeating is what kubelets do.

What must always hold: only the very same message counts, to the same actor and with the same arguments; a message is
dropped for `KEPT` seconds at a time, so that one which crashed for the state of that moment is served in the end; what is
kept is small whatever the messages say, and costs nothing before the first crash.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING

from actors.errors import Unsendable
from actors.runtime import wire

if TYPE_CHECKING:
    from actors.runtime.call import Call

KEPT = 60.0
"""Seconds for which a message is dropped after its last crash."""
MOST = 1024
"""Messages that are remembered; the one that crashed longest ago is forgotten first."""


class CrashedMessages:
    """Safe from any thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._crashes: OrderedDict[bytes, tuple[int, float]] = OrderedDict()
        self.there_are = False
        """Whether any actor has crashed so far; before that no message is looked for."""

    def crashed(self, call: Call) -> None:
        """Note that an actor crashed while it handled `call`."""
        name = _name(call)
        with self._lock:
            times, _ = self._crashes.pop(name, (0, 0.0))
            self._crashes[name] = (times + 1, self._clock())
            self.there_are = True
            while len(self._crashes) > MOST:
                self._crashes.popitem(last=False)

    def is_dropped(self, call: Call) -> bool:
        """Whether it crashed its actor twice, the last time a short while ago."""
        with self._lock:
            times, last = self._crashes.get(_name(call), (0, 0.0))
        return times > 1 and self._clock() - last < KEPT


def _name(call: Call) -> bytes:
    """What tells the message from others; of one that cannot be written down, what Python shows of it."""
    content = (call.name, call.method, call.args, sorted(call.kwargs.items()))
    try:
        octets = wire.encode_value(content)
    except Unsendable:
        try:
            octets = repr(content).encode(errors="replace")
        except Exception:  # a value's own way of showing itself is no business of ours
            octets = repr((call.name, call.method, id(call))).encode()
    return hashlib.sha256(octets).digest()
