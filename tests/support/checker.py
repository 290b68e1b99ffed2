"""What must be true of the store after whatever happened; reads the store and nothing else of the product's state.

A `Journal` is the client's side: what it was told. `prove_records` compares the two: no address twice, none leaked,
every acknowledged ADD recorded. The rest is `orbweaver check`'s own audit, which derives what views must say apart
from the actors that write them.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable

from actors.audit import AuditRule, Finding, Snapshot, audit, recorded
from actors.errors import OrbweaverError
from actors.resources.addresses import format_address
from actors.store.contract import Store

Place = tuple[str, str]
"""Container id and interface, the key of an attachment."""

VIEWS = {
    AuditRule.ATTACHMENT,
    AuditRule.FOREIGN,
    AuditRule.FINALIZER,
    AuditRule.LINGERS,
    AuditRule.STATUS,
    AuditRule.ENDPOINT,
}


class Journal:
    """What clients were told, from any number of threads. `held`: each acknowledged ADD that nobody began to undo."""

    def __init__(self) -> None:
        self.held: dict[Place, frozenset[str]] = {}
        self.kept: dict[str, str] = {}
        """Address to pod, for what a StatefulSet's pod left behind."""
        self.doubtful: set[Place] = set()
        """ADD or DEL without an answer, or with an error: the client has to send a DEL."""
        self._holder: dict[str, Place] = {}
        self._lock = threading.Lock()

    def acknowledged(self, place: Place, addresses: Iterable[str]) -> None:
        """An ADD was answered. Fails when somebody else was told the same address and did not begin to release it."""
        mine = frozenset(address.partition("/")[0] for address in addresses)
        with self._lock:
            before = self.held.get(place)
            assert before is None or before == mine, f"repeated ADD of {place} got {mine}, had {before}"
            for address in mine:
                holder = self._holder.setdefault(address, place)
                assert holder == place, f"{address} was given to {place} while {holder} holds it"
            self.held[place] = mine
            self.doubtful.discard(place)

    def releasing(self, place: Place) -> None:
        """A DEL is about to be sent: from now on the address may go to others."""
        with self._lock:
            for address in self.held.pop(place, ()):
                del self._holder[address]
            self.doubtful.add(place)

    def released(self, place: Place) -> None:
        """The DEL was answered."""
        with self._lock:
            self.doubtful.discard(place)

    def unsure(self, place: Place) -> None:
        """An ADD was sent, and what became of it is not known (to the client)."""
        with self._lock:
            if place not in self.held:
                self.doubtful.add(place)


def records(store: Store) -> dict[str, dict[str, str]]:
    """Address to record, out of all blocks; fails when a block is not well formed or two record one address."""
    held, findings = recorded(store.list("SpiderIPBlock").items)
    assert not findings, told(findings)
    return {
        format_address(allocation.family, allocation.value): allocation.record.to_json()
        for allocation in held
    }


def prove_records(store: Store, journal: Journal) -> None:
    """Everything that was acknowledged is recorded, and nothing else is. Call it once every doubt is settled."""
    assert not journal.doubtful, f"settle these with a DEL first: {sorted(journal.doubtful)}"
    attached: dict[Place, set[str]] = defaultdict(set)
    kept: dict[str, str] = {}
    for address, record in records(store).items():
        if record.get("container"):
            attached[record["container"], record["interface"]].add(address)
        else:
            kept[address] = record["pod"]
    lost = {place: held for place, held in journal.held.items() if attached.get(place, set()) != set(held)}
    leaked = {place: held for place, held in attached.items() if place not in journal.held}
    assert not lost, (
        f"acknowledged and not recorded so: {lost}; recorded is {[attached.get(place) for place in lost]}"
    )
    assert not leaked, f"recorded and never acknowledged, or released: {leaked}"
    assert journal.kept == kept


def prove_views(store: Store) -> None:
    """SpiderEndpoints and pool status say what the blocks say; whatever pools a test chose to have."""
    findings = [
        finding for finding in audit(Snapshot.read(store, pods=False)).findings if finding.rule in VIEWS
    ]
    assert not findings, told(findings)


def prove_all(store: Store, journal: Journal) -> None:
    """Everything, for a cluster where every pod has an object."""
    prove_records(store, journal)
    findings = audit(Snapshot.read(store, pods=True), now=time.time()).findings
    assert not findings, told(findings)


def told(findings: Iterable[Finding]) -> str:
    """One line each."""
    return "\n".join(f"{finding.rule.label} {finding.subject}: {finding.what}" for finding in findings)


def equal(actual: object, expected: object) -> None:
    """For `eventually`, whose proof is an expression."""
    assert actual == expected


def eventually(prove: Callable[[], None], within: float = 120.0) -> None:
    """Wait until `prove` passes; after `within` seconds its failure is the test's. What is not there yet (a field, an
    element) and lists that change under it count as not yet."""
    until = time.monotonic() + within
    while True:
        try:
            prove()
        except (AssertionError, LookupError, OrbweaverError, TypeError, ValueError):
            if time.monotonic() > until:
                raise
        else:
            return
        time.sleep(0.02)
