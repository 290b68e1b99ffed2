"""The certificate of this controller: made in memory, shown in the Lease while it leads, and replaced in time.

What must always hold: its key is in no other process and on no disk; each time that this controller comes to lead it has a
new one, so what was trusted before is trusted no more, and nothing has to be withdrawn. Who replaces it in between does so
in this order: the listener shows the new one, then the Lease; an agent that reads the Lease between the two reads it again.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable
from datetime import datetime, timedelta

from actors.cluster.certificates import Pair, make_certificate, utc_now
from actors.cluster.credentials import server_context

log = logging.getLogger("orbweaver.certificates")

LIFE = timedelta(days=90)


class LeaderCertificate:
    """One per controller. `renewed` and `replaced` are called in the Lease's thread, `context` may be asked by any."""

    def __init__(
        self,
        *,
        life: timedelta = LIFE,
        now: Callable[[], datetime] = utc_now,
        on_replaced: Callable[[], object] = lambda: None,
    ) -> None:
        """`on_replaced`: the Lease shows another certificate because somebody asked for it, so that connections made
        with the one before are to end."""
        self._life = life
        self._now = now
        self.on_replaced = on_replaced
        self._made = now()
        self._pair: Pair
        self._context: ssl.SSLContext
        self.replace()

    @property
    def certificate(self) -> str:
        """PEM, as the Lease shows it. One that is due is replaced before; connections that are there go on."""
        if self._now() >= self._made + self._life * 2 / 3:
            log.info("the leader's certificate is due and is replaced")
            self.replace()
        return self._pair.certificate

    def context(self) -> ssl.SSLContext:
        """What the listener shows now."""
        return self._context

    def replace(self) -> None:
        """Make a new key and certificate, and show it from now on."""
        self._made = self._now()
        self._pair = make_certificate(self._made, self._life)
        self._context = server_context(self._pair.certificate, self._pair.key)
