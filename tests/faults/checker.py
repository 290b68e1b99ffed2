"""What must be true of the store after whatever happened; reads the store and nothing else of the product's state.

A `Journal` is the client's side: what it was told. `prove_records` compares the two: no address twice, none leaked,
every acknowledged ADD recorded. `prove_views` derives SpiderEndpoints and pool status from the blocks a second
time, written apart from `actors.views`, and compares.
"""

from __future__ import annotations

import ipaddress
import json
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

from actors.errors import OrbweaverError
from actors.resources.addresses import format_address
from actors.resources.block import Block
from actors.store.contract import Store

Place = tuple[str, str]
"""Container id and interface, the key of an attachment."""


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
    found: dict[str, dict[str, str]] = {}
    for block in store.list("SpiderIPBlock").items:
        name, spec = block["metadata"]["name"], block["spec"]
        network = ipaddress.ip_network(spec["cidr"])
        assert network.num_addresses == 64, f"{name} covers {network}"
        digits = network.max_prefixlen // 4
        assert name == f"v{network.version}-{int(network.network_address):0{digits}x}", (
            f"{name} covers {network}"
        )
        assert spec["ipVersion"] == network.version
        content = Block.from_object(block)
        recorded = {format_address(content.family, value): one for value, one in content.records.items()}
        released = {format_address(content.family, value) for value in content.released}
        assert not set(recorded) & released, f"{name} has an address as recorded and as released"
        for text in json.loads(spec.get("suspect", "[]")):
            assert ipaddress.ip_address(text) in network, f"{name} suspects {text}"
            assert text in recorded or text in released, f"{name} suspects {text} without knowing why"
        for text, record in recorded.items():
            address = ipaddress.ip_address(text)
            assert address in network, f"{name} records {text}"
            assert text not in found, f"{text} is recorded twice"
            assert record.pool, f"{text} has no pool"
            assert record.pod, f"{text} has no pod"
            found[text] = record.to_json()
    return found


def prove_records(store: Store, journal: Journal) -> None:
    """Everything that was acknowledged is recorded, and nothing else is. Call it once every doubt is settled."""
    assert not journal.doubtful, f"settle these with a DEL first: {sorted(journal.doubtful)}"
    recorded: dict[Place, set[str]] = defaultdict(set)
    kept: dict[str, str] = {}
    for address, record in records(store).items():
        if record.get("container"):
            recorded[record["container"], record["interface"]].add(address)
        else:
            kept[address] = record["pod"]
    lost = {place: held for place, held in journal.held.items() if recorded.get(place, set()) != set(held)}
    leaked = {place: held for place, held in recorded.items() if place not in journal.held}
    assert not lost, (
        f"acknowledged and not recorded so: {lost}; recorded is {[recorded.get(one) for one in lost]}"
    )
    assert not leaked, f"recorded and never acknowledged, or released: {leaked}"
    assert journal.kept == kept


def prove_views(store: Store) -> None:
    """SpiderEndpoints and pool status say what the blocks say."""
    recorded = records(store)
    pools = {obj["metadata"]["name"]: obj for obj in store.list("SpiderIPPool").items}
    by_pool: dict[str, dict[str, Any]] = {name: {} for name in pools}
    # A pod's earlier sandbox may still hold an address; what is shown is one sandbox, of the newest.
    by_pod: dict[str, dict[tuple[str, str], dict[str, set[str]]]] = {}
    for address, record in recorded.items():
        by_pool.setdefault(record["pool"], {})[address] = {
            "pod": record["pod"],
            "podUid": record.get("uid", ""),
        }
        sandbox = (record.get("container", ""), record.get("uid", ""))
        interfaces = by_pod.setdefault(record["pod"], {}).setdefault(sandbox, defaultdict(set))
        interfaces[record["interface"]].add(address)
    for name, obj in pools.items():
        status = obj.get("status") or {}
        assert json.loads(status.get("allocatedIPs", "{}")) == by_pool[name], f"status.allocatedIPs of {name}"
        assert status.get("allocatedIPCount") == len(by_pool[name]), f"status.allocatedIPCount of {name}"
    shown: dict[str, dict[str, set[str]]] = {}
    for obj in store.list("SpiderEndpoint").items:
        metadata = obj["metadata"]
        pod = metadata.get("annotations", {}).get("ipam.spidernet.io/pod") or (
            f"{metadata['namespace']}/{metadata['name']}"
        )
        entries = obj["status"]["current"]["ips"]
        shown[pod] = {
            entry["interface"]: {entry[key].partition("/")[0] for key in ("ipv4", "ipv6") if entry.get(key)}
            for entry in entries
        }
    assert set(shown) == set(by_pod), f"SpiderEndpoints: {set(shown) ^ set(by_pod)} are too many or missing"
    for pod, interfaces in shown.items():
        running = [one for sandbox, one in by_pod[pod].items() if sandbox[0]] or list(by_pod[pod].values())
        assert interfaces in running, f"SpiderEndpoint of {pod}"
        dates = [
            max(recorded[address]["since"] for found in one.values() for address in found) for one in running
        ]
        assert dates[running.index(interfaces)] == max(dates), (
            f"SpiderEndpoint of {pod} shows an earlier sandbox"
        )


def eventually(prove: Callable[[], None], within: float = 10.0) -> None:
    """Wait until `prove` passes; after `within` seconds its failure is the test's. Lists that change under it count
    as not yet."""
    until = time.monotonic() + within
    while True:
        try:
            prove()
        except (AssertionError, OrbweaverError):
            if time.monotonic() > until:
                raise
        else:
            return
        time.sleep(0.02)
