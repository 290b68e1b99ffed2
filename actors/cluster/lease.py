"""Election of a leader by a Lease (coordination.k8s.io/v1), as Kubernetes' own controllers do it.

What must always hold:

* Every write of the Lease is a compare-and-swap, so of several candidates one wins.
* Whether a Lease has run out is judged by how long this process has seen it unchanged, on its own clock; clocks of two
  machines are never compared.
* A holder that could not renew within the renew deadline, which is shorter than the lease, no longer holds, from that
  moment on and before it does anything else: `holds` asks the clock, so that a process that was paused knows it when it
  wakes up. The clock is the boot clock, which goes on while the machine sleeps.

A Lease is no fence: a leader that is paused between looking and writing may write late. What leaders write is safe
because each write is a compare-and-swap of its own.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from actors.errors import Conflict, InvalidObject, NotFound, OrbweaverError, StoreUnavailable
from actors.store.contract import Object, Store

log = logging.getLogger("orbweaver.lease")

ADDRESS = "orbweaver.io/address"
"""Annotation of the Lease: where the holder serves, `host:port`."""
CERTIFICATE = "orbweaver.io/certificate"
"""Annotation of the Lease: what the holder shows there, in PEM; whoever connects trusts this and nothing else."""
REPLACE = "orbweaver.io/replace-certificate"
"""Annotation of the Lease: somebody asks the holder for another certificate; it is gone once there is one."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds. `lease`: unchanged for so long, others take it; `renew`: a holder that could not renew for so long gives
    up; `retry`: between attempts. The defaults are those of Kubernetes' own controllers and of Spiderpool."""

    lease: float = 15.0
    renew: float = 10.0
    retry: float = 2.0

    def __post_init__(self) -> None:
        if not 0 < self.retry < self.renew < self.lease:
            raise InvalidObject(
                f"leader election: lease {self.lease:g} s, renew deadline {self.renew:g} s and retry {self.retry:g} s must "
                "be in this order, the longest first"
            )


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a Lease, where it serves, and what it shows there."""

    identity: str
    address: str
    certificate: str = ""


class Shown(Protocol):
    """The holder's certificate."""

    @property
    def certificate(self) -> str: ...

    def replace(self) -> None:
        """Show another one from now on."""

    def on_replaced(self) -> object:
        """Called when the Lease shows the one that was asked for."""


def read_holder(store: Store, name: str, namespace: str, *, timeout: float = 5.0) -> Holder | None:
    """The holder that a Lease names, which need not be alive; None when it names none."""
    try:
        return holder_of(store.get("Lease", name, namespace, timeout=timeout))
    except NotFound:
        return None


def holder_of(lease: Object) -> Holder | None:
    """The holder that a Lease object names."""
    identity = str((lease.get("spec") or {}).get("holderIdentity") or "")
    annotations = lease["metadata"].get("annotations") or {}
    address, certificate = (str(annotations.get(name) or "") for name in (ADDRESS, CERTIFICATE))
    return Holder(identity, address, certificate) if identity else None


class LeaseCandidate:
    """Takes part in the election, on a thread of its own. `on_won` and `on_lost(why)` are called there, in turn; `on_won`
    may raise OrbweaverError, and then the Lease is given up."""

    def __init__(
        self,
        store: Store,
        name: str,
        namespace: str,
        *,
        identity: str,
        address: str,
        timing: Timing,
        on_won: Callable[[], object],
        on_lost: Callable[[str], object],
        shown: Shown | None = None,
        clock: Callable[[], float] = lambda: time.clock_gettime(time.CLOCK_BOOTTIME),
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.name, self.namespace, self.identity = name, namespace, identity
        self.address = address
        self._store = store
        self._timing = timing
        self._on_won, self._on_lost = on_won, on_lost
        self._shown = shown
        self._clock, self._wall = clock, wall
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lease", daemon=True)
        self._object: Object | None = None
        """The Lease as it was last written or read."""
        self._seen: tuple[str, float] | None = None
        """The version that another holder wrote, and since when it stands."""
        self._renewed: float | None = None
        """Begin of the last renewal that succeeded; None: not the holder."""

    def start(self) -> None:
        """Begin to try."""
        self._thread.start()

    def stop(self) -> None:
        """Give the Lease up, if it is held, so that another candidate need not wait. The caller has stopped leading."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()
        if self.holds():
            try:
                self._write("", self._timing.renew)
            except OrbweaverError as error:
                log.warning("the Lease could not be given up; it runs out", extra={"error": str(error)})
        self._renewed = None

    def holds(self) -> bool:
        """Whether this process may act as the leader at this moment."""
        renewed = self._renewed
        return renewed is not None and self._clock() < renewed + self._timing.renew

    @property
    def holder(self) -> Holder | None:
        """Who was the holder when it was last looked at."""
        lease = self._object
        return holder_of(lease) if lease is not None else None

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self.turn()
            except OrbweaverError as error:
                log.warning("the Lease cannot be read or written", extra={"error": str(error)})
            # Half of the wait is random, so that candidates do not collide in step.
            self._stopping.wait(self._timing.retry * (0.5 + random.random() / 2))

    def turn(self) -> None:
        """Try once to win, or to renew. Raises what the store raises."""
        if self._renewed is None:
            self._try()
        else:
            self._renew()

    def _try(self) -> None:
        try:
            lease: Object | None = self._store.get(
                "Lease", self.name, self.namespace, timeout=self._timing.renew
            )
        except NotFound:
            lease = None
        self._object = lease
        if lease is not None and not self._is_free(lease):
            return
        began = self._clock()
        if self._shown is not None:
            self._shown.replace()  # what it showed when it led before is over
        try:
            self._write(self.identity, self._timing.renew)
        except Conflict:
            return  # another candidate was faster
        self._renewed, self._seen = began, None
        log.info(
            "won the Lease", extra={"lease": self.name, "identity": self.identity, "address": self.address}
        )
        try:
            self._on_won()
        except OrbweaverError as error:
            log.error("cannot lead, the Lease is given up", exc_info=error)
            self._write("", self._timing.renew)
            self._lost(str(error))

    def _is_free(self, lease: Object) -> bool:
        spec, version = lease.get("spec") or {}, lease["metadata"]["resourceVersion"]
        holder = spec.get("holderIdentity")
        if not holder or holder == self.identity:
            return True
        now = self._clock()
        if self._seen is None or self._seen[0] != version:
            self._seen = (version, now)
        lasts = float(spec.get("leaseDurationSeconds") or self._timing.lease)
        return now - self._seen[1] >= lasts

    def _renew(self) -> None:
        assert self._renewed is not None
        began = self._clock()
        left = self._renewed + self._timing.renew - began
        if left <= 0:
            self._lost(f"it could not be renewed within {self._timing.renew:g} s")
            return
        try:
            try:
                self._write(self.identity, left)
            except Conflict:
                # Its own write, whose answer was lost, or another holder's.
                self._object = self._store.get("Lease", self.name, self.namespace, timeout=left)
                holder = self.holder
                if holder is None or holder.identity != self.identity:
                    self._lost(f"{holder.identity if holder else 'nobody'} holds it")
                    return
                self._write(self.identity, left)
        except NotFound:
            self._lost("somebody deleted it")
        except (StoreUnavailable, Conflict) as error:
            log.warning("the Lease was not renewed yet", extra={"error": str(error)})
            if not self.holds():
                self._lost(f"it could not be renewed within {self._timing.renew:g} s: {error}")
        else:
            self._renewed = began

    def _lost(self, why: str) -> None:
        self._renewed = None
        log.warning("lost the Lease", extra={"lease": self.name, "identity": self.identity, "why": why})
        self._on_lost(why)

    def _write(self, identity: str, timeout: float) -> None:
        """Write the Lease as the holder `identity`, empty to give it up."""
        before = self._object
        now = datetime.fromtimestamp(self._wall(), UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        spec: dict[str, Any] = dict((before or {}).get("spec") or {})
        if identity and spec.get("holderIdentity") != identity:
            spec["leaseTransitions"] = int(spec.get("leaseTransitions") or 0) + (before is not None)
            spec["acquireTime"] = now
        spec["holderIdentity"] = identity
        spec["renewTime"] = now
        # Whole seconds, not fewer than meant; one that nobody holds is free at once.
        spec["leaseDurationSeconds"] = max(1, -int(-self._timing.lease // 1)) if identity else 1
        metadata = dict((before or {}).get("metadata") or {"name": self.name, "namespace": self.namespace})
        annotations = {**(metadata.get("annotations") or {}), ADDRESS: self.address}
        is_replacing = (
            annotations.pop(REPLACE, None) is not None and bool(identity) and self._renewed is not None
        )
        if self._shown is not None:
            if is_replacing:
                self._shown.replace()
            annotations[CERTIFICATE] = self._shown.certificate
        lease: Object = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {**metadata, "annotations": annotations},
            "spec": spec,
        }
        write = self._store.update if before is not None else self._store.create
        self._object = write(lease, timeout=max(0.05, timeout))
        if is_replacing and self._shown is not None:
            log.info("the leader's certificate was replaced, as somebody asked", extra={"lease": self.name})
            self._shown.on_replaced()
