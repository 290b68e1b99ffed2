"""Waiting for what others do in a cluster, with words for the person who waits too.

What must always hold: a wait ends, and a line says what is waited for each time that it is something else.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from actors.errors import TakeoverUnfinished
from cni.takeover.reading import Tell

LOOK = 0.2
"""Seconds between two looks."""


def wait_until(missing: Callable[[], str], limit: float, remedy: str, tell: Tell) -> None:
    """Wait until nothing is `missing`. Raises `TakeoverUnfinished` when that has stayed the same for `limit` seconds; the
    `remedy` says what to do then."""
    shown, since = "", time.monotonic()
    while what := missing():
        if what != shown:
            tell(f"waiting: {what}")
            shown, since = what, time.monotonic()
        elif time.monotonic() - since > limit:
            raise TakeoverUnfinished(f"{what}, for {limit:g} seconds now; {remedy}")
        time.sleep(LOOK)
