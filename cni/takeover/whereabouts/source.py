"""`--from whereabouts`: what a running Whereabouts holds, and the swap with it.

What must always hold: an address belongs to one of the two at every moment. On the way here the IPPools are frozen before
anything of them is recorded, so nothing is given out of them behind the reading; on the way back the pools give nothing
out for longer than a request may take before what is recorded is read, and the networks are changed last.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from actors.errors import Conflict, NoSuchResource, NotFound, TakeoverUnfinished
from actors.resources.blocks.allocation import Allocation
from actors.store.contract import Store
from cni.takeover.holders import Holders
from cni.takeover.networks import (
    Network,
    attached_networks,
    change_attachment,
    former_sections,
    given_back,
    taken_over,
)
from cni.takeover.pools import (
    disable,
    enable,
    make,
    marked,
    overlap_problems,
    remove,
)
from cni.takeover.reading import Reading, Tell
from cni.takeover.recording import (
    conflicts,
    everything_recorded,
    kept_text,
    must_be_judged,
    recorded_in,
    recorder,
)
from cni.takeover.vetting import vetted
from cni.takeover.whereabouts import objects
from cni.takeover.whereabouts.holding import (
    Holding,
    allocations_of,
    change_of,
    read_holding,
    reservations_of,
    sections_of,
)
from cni.takeover.whereabouts.objects import IP_POOL, RESERVATION, ForeignPool, GivenAddress
from cni.takeover.whereabouts.ranges import IPAM_TYPE, RangeUse, reservation_name

TITLE = "Whereabouts"
SETTLE = 25.0
"""Seconds for which an ADD of Orbweaver's may still be under way when its pool gives out no more: more than an ADD may
take."""
_LONGEST = 3600.0
_TRIES = 20


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the option that every source has whose pools are made here."""
    parser.add_argument(
        "--settle",
        type=_seconds,
        default=SETTLE,
        metavar="SECONDS",
        help="from host-local, and with --back to whereabouts: how long to wait for pods that are being started "
        "(%(default)g)",
    )


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0.0 <= seconds <= _LONGEST:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is no number of seconds, from 0 to {_LONGEST:g}")
    return seconds


def open_source(chosen: argparse.Namespace, store: Store) -> WhereaboutsSource:
    """The Whereabouts of the cluster."""
    return WhereaboutsSource(store, chosen.settle)


@dataclass(frozen=True, slots=True)
class WhereaboutsSource:
    """The Whereabouts of one cluster."""

    store: Store
    settle: float = field(default=SETTLE)
    """Seconds that the way back waits for ADDs under way."""

    def read(self) -> Reading:
        """Its ranges as pools, and who has which address."""
        try:
            holding = read_holding(self.store)
        except NoSuchResource:
            return Reading(
                TITLE,
                problems=("the cluster has no IPPools of Whereabouts: it is not installed here",),
            )
        holders = Holders.read(self.store)
        allocations, differences, problems = allocations_of(holding, holders)
        changes = tuple(change_of(network, holding) for network in holding.networks if not network.is_ours)
        return Reading(
            TITLE,
            holding.pools.objects,
            allocations,
            (*changes, *holding.differences, *differences),
            (
                *holding.problems,
                *problems,
                *overlap_problems(self.store, holding.pools.objects, IPAM_TYPE),
                *conflicts(allocations, everything_recorded(self.store)),
            ),
        )

    def read_back(self) -> Reading:
        """What is recorded in the pools that stand for its ranges."""
        reading = recorded_in(self.store, self._pool_names(), TITLE)
        networks, problems = attached_networks(self.store, IPAM_TYPE)
        changes = tuple(
            f"{network.title}: its ipam is {json.dumps(dict(section.ipam.data))} again"
            for network in networks
            if network.is_ours
            for section in network.sections
        )
        return replace(
            reading,
            differences=(*changes, *reading.differences),
            problems=(*reading.problems, *problems),
        )

    def take(self, reading: Reading, tell: Tell) -> None:
        """Put Orbweaver in its place; what was read is read again behind the freezing."""
        for pool in reading.pools:
            make(self.store, pool, IPAM_TYPE)
        tell(f"{len(reading.pools)} pools are there, and give nothing out yet")
        before = read_holding(self.store)
        self._complete(before)
        for ip_pool in before.ip_pools:
            self._freeze(ip_pool, empty=False)
        holding, holders = read_holding(self.store), Holders.read(self.store)
        allocations, _, problems = allocations_of(holding, holders)
        _must_come_over(
            vetted(
                Reading(TITLE, holding.pools.objects, allocations, (), (*holding.problems, *problems))
            ).problems
        )
        for pool in holding.pools.objects:
            make(self.store, pool, IPAM_TYPE)  # once more, with what was given out meanwhile
        tell("Whereabouts gives nothing out of these ranges any more, and takes nothing back")
        with recorder(self.store) as at_work:
            recorded = at_work.record(allocations, holders.pods)
        tell(f"{len(allocations)} addresses are recorded, {recorded.new} of them now")
        for sentence in recorded.refused:
            tell(f"warning: {sentence}")
        for pool in holding.pools.objects:  # with those of networks that came after what was shown
            enable(self.store, pool["metadata"]["name"])
        for network in holding.networks:
            if not network.is_ours:
                self._switch(network, holding)
                tell(f"{network.title} names Orbweaver's pools")
        self._forget(holding)
        tell(
            "done; pods get their next address from Orbweaver. Leave Whereabouts' plugin on the nodes until no pod is left "
            "that it set up: a runtime that remembers the former configuration ends such pods with it"
        )

    def give_back(self, tell: Tell) -> None:
        """Put Whereabouts back, with everything that is recorded in the pools that were made for it."""
        names = self._pool_names()
        for name in names:
            disable(self.store, name)
        tell(
            f"{len(names)} pools give nothing out any more; waiting {self.settle:g} s for pods that are being started"
        )
        time.sleep(self.settle)
        must_be_judged(self.store, marked(self.store, IPAM_TYPE))
        self._complete(read_holding(self.store))
        written = self._write_back(tell, names, before=())
        for network in read_holding(self.store).networks:
            if network.is_ours:
                self._switch_back(network)
                tell(f"{network.title} names Whereabouts again")
        written = (*written, *self._write_back(tell, names, before=written))
        with recorder(self.store) as at_work:
            at_work.release(written)
        for name in names:
            remove(self.store, name)
        tell(
            f"done; {len(written)} addresses are Whereabouts' again, and the pools that stood for its ranges are gone"
        )

    def _pool_names(self) -> tuple[str, ...]:
        return tuple(pool["metadata"]["name"] for pool in marked(self.store, IPAM_TYPE))

    # -- private --------------------------------------------------------------------------------------------

    def _complete(self, holding: Holding) -> None:
        """Make the IPPools that Whereabouts would make with the first address of a range, frozen: else it would do so behind
        the freezing of the others, and on the way back what is recorded would have no place."""
        there = {pool.name for pool in holding.ip_pools}
        for use in holding.uses:
            if use.ip_pool not in there:
                there.add(use.ip_pool)
                try:
                    self.store.create(objects.frozen_new(use.ip_pool, holding.namespace, use.ip_range))
                except Conflict:
                    pool = objects.ip_pool_of(self.store.get(IP_POOL, use.ip_pool, holding.namespace))
                    self._freeze(pool, empty=False)

    def _freeze(self, pool: ForeignPool, *, empty: bool) -> None:
        """Until it is, whoever writes it meanwhile."""
        for _ in range(_TRIES):
            if pool.is_frozen and not (empty and pool.entries):
                return
            try:
                self.store.update(objects.frozen(pool, empty=empty))
            except Conflict:
                pool = objects.ip_pool_of(self.store.get(IP_POOL, pool.name, pool.namespace))
            else:
                return
        raise Conflict(f"{pool.title} is written by others without end; repeat the command")

    def _forget(self, holding: Holding) -> None:
        """Leave nothing in Whereabouts' objects of what is recorded here: it would be wrong with the first pod that ends."""
        for obj, _, _ in reservations_of(holding):
            try:
                self.store.delete(RESERVATION, obj["metadata"]["name"], obj["metadata"]["namespace"])
            except NotFound:
                continue
        for ip_pool in holding.ip_pools:
            self._freeze(ip_pool, empty=True)

    def _switch(self, network: Network, holding: Holding) -> None:
        change_attachment(
            self.store, network, lambda obj: taken_over(obj, network, sections_of(network, holding))
        )

    def _switch_back(self, network: Network) -> None:
        change_attachment(self.store, network, lambda obj: given_back(obj, former_sections(obj, IPAM_TYPE)))

    def _write_back(
        self, tell: Tell, names: Sequence[str], before: tuple[Allocation, ...]
    ) -> tuple[Allocation, ...]:
        """Write what is recorded in the pools `names` into the IPPools, but for what was written `before`; returns it."""
        done = {(held.family, held.value) for held in before}
        held = [
            allocation
            for allocation in everything_recorded(self.store)
            if allocation.record.pool in names and (allocation.family, allocation.value) not in done
        ]
        for allocation in held:
            if allocation.record.is_retained:
                tell(kept_text(allocation, TITLE))
        running = [allocation for allocation in held if not allocation.record.is_retained]
        holding, holders = read_holding(self.store), Holders.read(self.store)
        for pool in holding.ip_pools:
            self._fill(
                tell,
                holding,
                holders,
                pool,
                [allocation for allocation in running if _home(allocation, holding) is pool],
            )
        return tuple(held)

    def _fill(
        self, tell: Tell, holding: Holding, holders: Holders, pool: ForeignPool, held: Sequence[Allocation]
    ) -> None:
        for _ in range(_TRIES):
            entries = {entry.value: entry for entry in pool.entries}
            new: list[GivenAddress] = []
            for allocation in held:
                record = allocation.record
                if not pool.is_frozen and not _runs(record.pod, record.uid, holders):
                    continue  # Whereabouts is at work, and has given it back
                other = entries.get(allocation.value)
                if other is None:
                    new.append(GivenAddress(allocation.value, record.container, record.pod, record.interface))
                elif other.container != record.container:
                    tell(
                        f"warning: {allocation.address.text} of pod {record.pod} is given to pod {other.pod} by Whereabouts"
                    )
            if not new and not pool.is_frozen:
                return
            for use in holding.uses_of(pool):
                if use.is_reserved:
                    self._reserve(use, pool, new)
            try:
                self.store.update(objects.given_back(pool, (*pool.entries, *new)))
            except Conflict:
                pool = objects.ip_pool_of(self.store.get(IP_POOL, pool.name, pool.namespace))
            else:
                return
        raise Conflict(f"{pool.title} is written by others without end; repeat the command")

    def _reserve(self, use: RangeUse, pool: ForeignPool, entries: Iterable[GivenAddress]) -> None:
        for entry in entries:
            name = reservation_name(pool.subnet.family, entry.value, use.network_name)
            wanted = objects.reservation(name, pool.namespace, entry)
            try:
                self.store.create(wanted)
            except Conflict:
                there = self.store.get(RESERVATION, name, pool.namespace)
                if there["spec"].get("podref") != entry.pod:
                    self.store.update({**there, "kind": RESERVATION, "spec": wanted["spec"]})


def _must_come_over(problems: tuple[str, ...]) -> None:
    """Raise `TakeoverUnfinished` for what came between the first reading and the freezing, and forbids to go on."""
    if problems:
        raise TakeoverUnfinished(
            "what Whereabouts gave out meanwhile cannot all be taken over; its ranges are frozen, and its networks name it yet."
            " Mend it, and repeat the command, or go back with --back",
            details=problems,
        )


def _home(allocation: Allocation, holding: Holding) -> ForeignPool | None:
    """The IPPool in which an address belongs."""
    return next(
        (
            pool
            for pool in holding.ip_pools
            if pool.subnet.family == allocation.family and pool.subnet.contains(allocation.value)
        ),
        None,
    )


def _runs(pod: str, uid: str, holders: Holders) -> bool:
    holder = holders.pods.get(pod)
    return holder is not None and (not uid or holder.uid == uid)
