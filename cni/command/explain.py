"""`orbweaver explain POD`: which pool would this pod get an address from now, and why not from the others.

What must always hold: it decides by the same function as an ADD, on what the store has at this moment and, on
a cluster, with the settings of its ConfigMap, and writes nothing; a free count is arithmetic on the ranges and
the blocks, never an enumeration. It knows only what is stored: what an agent is giving out in this very moment
may differ.
"""

from __future__ import annotations

import argparse
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from actors.allocation.persistent_claims import PersistentClaims
from actors.decisions.auto_pool import ApplicationPools
from actors.decisions.brief import exhausted
from actors.decisions.candidates import AddressRequest
from actors.decisions.filters import Refusal
from actors.decisions.inherit import Inheritance, claim_of, inherit, machine_of, wanted
from actors.decisions.overlaps import overlapping
from actors.decisions.plan import Plan, Slot, plan
from actors.decisions.routes import InterfaceAddress, unreached
from actors.decisions.settings import Settings
from actors.errors import (
    AddressTaken,
    InvalidObject,
    NoAddress,
    OrbweaverError,
    PoolsExhausted,
    StoreUnavailable,
)
from actors.reclaim.evidence import trimmed_pod
from actors.reclaim.leaving_pods import leaving
from actors.resources.addresses import format_address
from actors.resources.blocks.allocation import Allocation
from actors.resources.blocks.block import block_name, parse_block_name, span_of
from actors.resources.blocks.quarantine import Quarantine
from actors.resources.blocks.record import Record
from actors.resources.intervals import IntervalSet
from actors.resources.ippool import IPPool
from actors.resources.json_text import showable
from actors.resources.pod import Pod
from actors.resources.reservedip import ReservedIP
from actors.store.caches.catalog import Catalog, PoolTable
from actors.store.contract import Store
from cni.command import explain_routes
from cni.command.block_inventory import BlockInventory
from cni.command.explain_networks import PLUGIN, PodNetworks
from cni.command.explain_subnets import Foreseen, foresee
from cni.command.get import print_value
from cni.command.manifest import read_mapping
from cni.command.settings_options import add_settings_options, settings_on
from cni.command.store_choice import add_data_option, open_store
from cni.server import protocol

_RETURNING = 8
"""Addresses on their way back that are told of one pool."""

_LISTED = 64
"""Addresses in quarantine that are told of one pool."""


def add_parser(commands: Any) -> None:
    """Add the command's own parser."""
    parser = commands.add_parser(
        "explain",
        help="dry run: which pool would a pod get, and why not the others",
        description=(__doc__ or "").partition("\n\n")[0],
        epilog="Exit status 1 when the pod would be refused. Example: orbweaver explain default/web-0",
    )
    parser.add_argument("pod", nargs="?", metavar="[NAMESPACE/]POD", help="a pod, which need not exist yet")
    parser.add_argument("-f", "--filename", metavar="FILE", help="a Pod object instead, not applied yet")
    parser.add_argument("-n", "--namespace", default="default", help="(%(default)s)")
    parser.add_argument("--interface", default="eth0", help="the interface that asks (%(default)s)")
    parser.add_argument("--conf", metavar="FILE", help="the CNI configuration of the network, or its list")
    for family in (4, 6):
        parser.add_argument(
            f"--ipv{family}-pool",
            action="append",
            default=[],
            metavar="POOL",
            help=f"as default_ipv{family}_ippool of the CNI configuration; may be repeated",
        )
    parser.add_argument("--ip", action="append", default=[], metavar="ADDRESS", help="ask for this address")
    parser.add_argument("--node", help="the node that it runs on (the pod's spec.nodeName, else this host)")
    parser.add_argument(
        "--routes",
        action="store_true",
        help="instead: the routes that the coordinator makes, and what differs",
    )
    parser.add_argument("--netns", metavar="PATH", help="with --routes: the pod's network namespace")
    parser.add_argument("-o", "--output", choices=("json", "yaml"), help="instead of the text")
    add_settings_options(parser)
    add_data_option(parser)
    parser.set_defaults(run=run)


@dataclass(frozen=True, slots=True)
class PoolOffer:
    """What one candidate pool has: `free` of `total` addresses. `why_not`: what keeps it from serving."""

    pool: str
    free: int
    total: int
    why_not: Refusal | None = None


@dataclass(frozen=True, slots=True)
class Outlook:
    """What one slot may expect."""

    slot: Slot
    """The address that is asked for."""
    offers: tuple[PoolOffer, ...]
    """What each candidate has, in the order in which they are asked."""
    again: Allocation | None
    """The record that would be taken up again; None for none."""
    again_from: str
    """The pool that would confirm it."""
    notes: tuple[str, ...]
    """Other things that a person should know, such as addresses that are set aside."""

    @property
    def chosen(self) -> PoolOffer | None:
        """The first candidate that can serve."""
        return next((offer for offer in self.offers if offer.why_not is None), None)

    @property
    def served(self) -> bool:
        return self.again is not None or self.chosen is not None

    @property
    def taken(self) -> bool:
        """Whether nothing but the one address that is asked for stands in the way."""
        rules = [offer.why_not.rule for offer in self.offers if offer.why_not is not None]
        return self.slot.exact is not None and all(rule in ("taken", "reserved") for rule in rules)

    def reasons(self) -> tuple[str, ...]:
        return (
            *(f"{self.slot.label}: {offer.why_not}" for offer in self.offers if offer.why_not is not None),
            *(f"{self.slot.label}: {note}" for note in self.notes),
        )


def run(chosen: argparse.Namespace) -> int:
    """Print what would happen; 1 when the pod would be refused."""
    if (chosen.pod is None) == (chosen.filename is None):
        raise InvalidObject("name a pod, as `orbweaver explain default/web-0`, or give a Pod object with -f")
    if chosen.pod is not None and not all(chosen.pod.split("/", 1)):
        raise InvalidObject(
            f"{chosen.pod!r} names no pod; write it as default/web-0, or as web-0 with -n default"
        )
    if chosen.routes:
        if chosen.pod is None:
            raise InvalidObject("--routes is about a pod that has addresses: name it, as default/web-0")
        namespace, slash, name = chosen.pod.rpartition("/")
        return explain_routes.run(chosen, namespace if slash else chosen.namespace, name)
    with open_store(chosen) as store:
        sight = AgentView(store, settings_on(store, chosen))
        pod = sight.pod(chosen)
        if chosen.node or not pod.node:
            pod = replace(pod, node=chosen.node or socket.gethostname())
        networks = PodNetworks()
        answers: list[Answer] = []
        refused: OrbweaverError | None = None
        try:
            networks = PodNetworks.of(store, pod, sight.settings)
            for interface, asks in _requests(chosen, pod, networks):
                if interface not in {slot.interface for answer in answers for slot in answer.plan.slots}:
                    answers.append(sight.answer(pod, asks))
                    answers[-1] = answers[-1].judged(interface, sight.table)
        except StoreUnavailable:
            raise
        except OrbweaverError as error:
            refused = error
    if chosen.output:
        print_value(_as_object(pod, answers, networks, refused), chosen.output)
        return 1 if refused is not None else 0
    if refused is not None:
        raise refused
    _print(pod, answers, networks)
    return 0


@dataclass(frozen=True, slots=True)
class Answer:
    """To one request for addresses: its plan, and what is there for each of its slots."""

    plan: Plan
    outlooks: tuple[Outlook, ...]

    def judged(self, interface: str, table: PoolTable) -> Answer:
        """With warnings. Raises what an ADD would."""
        _require(self.plan, self.outlooks, table)
        warnings = (*self.plan.warnings, *_unreached(self.plan, interface, self.outlooks, table))
        return Answer(replace(self.plan, warnings=warnings), self.outlooks)

    def reasons(self) -> tuple[str, ...]:
        return (*self.plan.reasons(), *(line for outlook in self.outlooks for line in outlook.reasons()))


class AgentView:
    """What the store has at one moment, as an agent would see it."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self._store = store
        self.settings = self._settings = settings
        # Never started: an informer without a cache leaves every question to the store.
        self._catalog = Catalog(store, has_pods=False)
        self.table: PoolTable = self._catalog.fresh_pools()
        self._recorded = BlockInventory.read(store)
        self._reserved = _reserved(store)
        self._overlaps = overlapping(self.table.pools.values())
        self._now = time.time()
        self._pods: dict[str, Pod] | None = None
        self._foreseen: Foreseen | None = None

    def pod(self, chosen: argparse.Namespace) -> Pod:
        """The pod that is meant: an object in a file, an applied one, or a name alone."""
        if chosen.filename is not None:
            source, obj = read_mapping(chosen.filename, "the Pod object")
            metadata = obj.get("metadata")
            if isinstance(metadata, dict) and not metadata.get("namespace"):
                obj = {**obj, "metadata": {**metadata, "namespace": chosen.namespace}}
            try:
                return Pod.from_object(obj)
            except InvalidObject as error:
                raise InvalidObject(f"{source}: {error.message}", details=error.details) from error
        namespace, slash, name = chosen.pod.partition("/")
        if not slash:
            namespace, name = chosen.namespace, chosen.pod
        stored = self._catalog.pod(namespace, name, "")
        return Catalog(self._store, has_pods=self._settings.networks_annotated).proven(stored)

    def plan(self, pod: Pod, asks: AddressRequest) -> Plan:
        """As the Endpoint would."""
        auto = self._application(pod)
        return plan(
            pod,
            self._catalog.namespace(pod.namespace),
            self._catalog.node(pod.node),
            self.table.pools,
            asks,
            self._settings,
            self.table.damaged,
            auto=auto,
            claims=PersistentClaims(self._store).of_pod(pod),
        )

    def _application(self, pod: Pod) -> ApplicationPools | None:
        """The pools of the pod's application, where it asks for addresses of SpiderSubnets, with those that would be made."""
        if self._foreseen is None:
            self._foreseen = foresee(self._store, self.table, self._reserved, pod, self._settings)
            self.table = self._foreseen.table
        return self._foreseen.pools

    def answer(self, pod: Pod, asks: AddressRequest) -> Answer:
        """What one request would get."""
        planned = self.plan(pod, asks)
        notes = self._foreseen.notes if self._foreseen is not None else ()
        planned = replace(planned, notes=(*planned.notes, *notes))
        return Answer(planned, tuple(self.outlook(slot, pod) for slot in planned.slots))

    def outlook(self, slot: Slot, pod: Pod) -> Outlook:
        """What the slot's candidates have to give."""
        inheritance, notes = self._held(slot, pod)
        again = None if inheritance.taken is None else Allocation(slot.family, *inheritance.taken)
        again_from = inheritance.pools[0] if again is not None else ""
        for name in slot.candidates:
            if others := self._overlaps.get(name):
                notes.append(f"pool {name} has addresses in common with {', '.join(others)}")
            if reason := self.table.pools[name].withheld_reason:
                notes.append(f"pool {name}: {reason}")
            notes += self._quarantine_notes(self.table.pools[name])
        offers = tuple(self._offer(self.table.pools[name], slot) for name in slot.candidates)
        if again is None and slot.exact is None and all(offer.why_not is not None for offer in offers):
            notes += [
                note for name in slot.candidates for note in self._returning_notes(self.table.pools[name])
            ]
        return Outlook(slot, offers, again, again_from, tuple(notes))

    def _held(self, slot: Slot, pod: Pod) -> tuple[Inheritance, list[str]]:
        """What a new sandbox of the pod would take up, and what becomes of others of its name."""
        names = {pod.key, machine_of(pod)} if pod.machine is not None else {pod.key}
        if slot.claim:
            names = {claim_of(pod, slot.claim)}
        recorded = [
            (held.value, held.record)
            for held in self._recorded.of_pods(names)
            if held.family == slot.family and (slot.claim or held.record.interface == slot.interface)
        ]
        inheritance = inherit(slot, recorded, pod, "", self.table.pools, self._settings)
        notes: list[str] = []
        for value, record in recorded:
            text = f"{format_address(slot.family, value)} of pool {record.pool}"
            whose = f"container {record.container}" if record.container else "its next sandbox"
            if (value, record) == inheritance.taken:
                becomes = "and would be given again"
            elif (value, record) in inheritance.given_back:
                becomes = "and would be given back first"
            else:
                becomes = "and stays with it until its DEL"
            notes.append(f"{text} is recorded for {whose} since {record.since} {becomes}")
        return inheritance, notes

    def _offer(self, pool: IPPool, slot: Slot) -> PoolOffer:
        reserved = self._reserved.get(pool.family, IntervalSet())
        usable = pool.available.minus(reserved)
        readable = usable.minus(span_of(self._unreadable(pool.family)))
        taken: dict[int, str] = {}
        for block in self._recorded.blocks:
            if block.family == pool.family:
                taken |= {value: entry.pod for value, entry in block.records.items() if value in readable}
        quarantined = self._quarantined(pool.family, readable)
        unjudged = self._unjudged(pool.family, readable)
        free = readable.size - len(taken) - len(quarantined) - len(unjudged)
        refusal: Refusal | None = None
        if slot.exact is not None:
            text = format_address(pool.family, slot.exact)
            if slot.exact in taken:
                refusal = Refusal(pool.name, "taken", f"{text} is recorded for pod {taken[slot.exact]}")
            elif slot.exact in unjudged:
                refusal = Refusal(pool.name, "unjudged", f"{text} cannot be given: {unjudged[slot.exact]}")
            elif slot.exact in reserved:
                refusal = Refusal(pool.name, "reserved", f"{text} is reserved by a SpiderReservedIP")
            elif slot.exact not in readable:
                refusal = Refusal(pool.name, "address", f"{text} is not one that it can give")
        elif free == 0:
            refusal = Refusal(
                pool.name,
                "exhausted",
                self._exhausted(pool, usable, readable, len(quarantined), unjudged),
            )
        return PoolOffer(pool.name, free, usable.size, refusal)

    def _unjudged(self, family: int, within: IntervalSet) -> dict[int, str]:
        """The addresses of which nobody knows who has them, and why."""
        return {
            value: f"its record cannot be judged ({entry.why}), so nobody knows who has it; once nothing uses it, "
            f"`orbweaver ip release {format_address(family, value)} --force` frees it"
            for block in self._recorded.blocks
            if block.family == family
            for value, entry in sorted(block.unjudged.items())
            if value in within
        }

    def _quarantined(self, family: int, within: IntervalSet) -> dict[int, Quarantine]:
        """The addresses that are recorded for nobody and that nobody gets for now."""
        return {
            value: quarantine
            for block in self._recorded.blocks
            if block.family == family
            for value, quarantine in sorted(block.quarantines.items())
            if value in within
            and value not in block.records
            and value not in block.unjudged
            and quarantine.holds(self._now)
        }

    def _quarantine_notes(self, pool: IPPool) -> list[str]:
        quarantined = self._quarantined(pool.family, pool.available)
        notes = [
            f"pool {pool.name}: {format_address(pool.family, value)} is set aside for "
            f"{quarantine.until - self._now:.0f} s: {quarantine.why}"
            for value, quarantine in list(quarantined.items())[:_LISTED]
        ]
        if len(quarantined) > _LISTED:
            notes.append(f"pool {pool.name}: {len(quarantined) - _LISTED} more addresses are set aside")
        return notes

    def _returning_notes(self, pool: IPPool) -> list[str]:
        """Whether an ADD would wait instead of being refused at once."""
        returning = [
            f"{format_address(held.family, held.value)} ({why})"
            for held in self._recorded.held()
            if held.family == pool.family
            and held.value in pool.available
            and not wanted(held.record, self._catalog, self._settings)
            and (why := self._leaving(held.record))
        ]
        if not returning:
            return []
        named = ", ".join(returning[:_RETURNING])
        more = f" and {len(returning) - _RETURNING} more" if len(returning) > _RETURNING else ""
        return [f"pool {pool.name}: an ADD would wait, for half of its time at most, for {named}{more}"]

    def _leaving(self, record: Record) -> str | None:
        if record.is_retained:
            return None
        if self._pods is None:
            try:
                pods = [Pod.from_object(trimmed_pod(obj)) for obj in self._store.list("Pod").items]
            except OrbweaverError:
                pods = []  # who may not read them is told what the blocks say
            self._pods = {pod.key: pod for pod in pods}
        return leaving(record, self._pods.get(record.pod), self._catalog.node(record.node), complete=False)

    def _exhausted(
        self,
        pool: IPPool,
        usable: IntervalSet,
        readable: IntervalSet,
        quarantined: int,
        unjudged: Mapping[int, str],
    ) -> str:
        family = pool.family
        if not usable:
            return "it has no address to give; add some to spec.ips"
        bases = [base for base in self._unreadable(family) if usable.intersect(span_of([base]))]
        blocks = {name: self._recorded.damaged[name] for name in (block_name(family, base) for base in bases)}
        why = exhausted(
            usable.size,
            quarantine=quarantined,
            lost=usable.size - readable.size,
            blocks=list(blocks),
            unjudged=len(unjudged),
            automatic=pool.auto_created,
        )
        listed = [
            f"{format_address(family, value)}: {why}" for value, why in list(unjudged.items())[:_LISTED]
        ]
        return "; ".join((why, *blocks.values(), *listed))

    def _unreadable(self, family: int) -> list[int]:
        """The first addresses of the damaged blocks."""
        bases = []
        for name in self._recorded.damaged:
            try:
                of_family, base = parse_block_name(name)
            except InvalidObject:
                continue  # an object that is no block of ours covers no address
            if of_family == family:
                bases.append(base)
        return sorted(bases)


def _reserved(store: Store) -> dict[int, IntervalSet]:
    by_family: dict[int, IntervalSet] = {}
    for obj in store.list("SpiderReservedIP").items:
        try:
            reserved = ReservedIP.from_object(obj)
        except InvalidObject:
            continue  # the agent's informer leaves it out as well, and logs it
        by_family[reserved.family] = by_family.get(reserved.family, IntervalSet()).union(reserved.ips)
    return by_family


def _requests(
    chosen: argparse.Namespace, pod: Pod, networks: PodNetworks
) -> Iterator[tuple[str, AddressRequest]]:
    """What the ADDs would ask for, interface by interface: first the one that was named, then those of the pod's networks
    that ask us."""
    first = networks.on(chosen.interface)
    conf = _configuration(chosen)
    if chosen.conf is None and first is not None and first.asking is not None:
        conf = {**conf, **first.asking}
    ipam = dict(conf.get("ipam") or {})
    for family in (4, 6):
        if names := getattr(chosen, f"ipv{family}_pool"):
            ipam[f"default_ipv{family}_ippool"] = names
    if first is None or not first.ipam:
        yield chosen.interface, _asks(pod, chosen.interface, {**conf, "ipam": ipam}, chosen.ip)
    for network in networks:
        if network.interface != chosen.interface and network.asking is not None:
            yield network.interface, _asks(pod, network.interface, network.asking, ())


def _asks(pod: Pod, interface: str, conf: Mapping[str, Any], exact: Sequence[str]) -> AddressRequest:
    """What an ADD would ask for, read by the same parser as a real one."""
    arguments = f"K8S_POD_NAMESPACE={pod.namespace};K8S_POD_NAME={pod.name}"
    if exact:
        arguments += f";IP={','.join(exact)}"
    environment = {
        "CNI_COMMAND": "ADD",
        "CNI_CONTAINERID": "explain",
        "CNI_NETNS": "explain",
        "CNI_IFNAME": interface,
        "CNI_ARGS": arguments,
    }
    return protocol.parse_decoded(environment, dict(conf)).asks


def _configuration(chosen: argparse.Namespace) -> dict[str, Any]:
    """The configuration of the one plugin that has our IPAM, with what its list says for all."""
    bare = {"cniVersion": protocol.NEWEST, "name": "explain"}
    if chosen.conf is None:
        return bare
    source, conf = read_mapping(chosen.conf, "the CNI configuration")
    plugins = conf.get("plugins", [conf])
    ours = [
        plugin
        for plugin in (plugins if isinstance(plugins, list) else ())
        if isinstance(plugin, dict)
        and isinstance(plugin.get("ipam"), dict)
        and plugin["ipam"].get("type") == PLUGIN
    ]
    if len(ours) != 1:
        raise InvalidObject(
            f"{source}: {len(ours)} of its plugins have ipam.type {PLUGIN}, but one must: that one asks for"
            " the address"
        )
    return {**bare, **ours[0], **{key: conf[key] for key in ("cniVersion", "name") if key in conf}}


def _require(planned: Plan, outlooks: tuple[Outlook, ...], table: PoolTable) -> None:
    """Raise what an ADD would: `NoAddress` with every reason when a slot cannot be served."""
    more = [line for outlook in outlooks for line in outlook.reasons()]
    more += [f"pool {name} cannot be used: {why}" for name, why in table.damaged.items()]
    try:
        planned.require([outlook.slot.label for outlook in outlooks if outlook.again is not None])
    except NoAddress as error:
        raise NoAddress(error.message, details=tuple(dict.fromkeys((*error.details, *more)))) from error
    unserved = [outlook for outlook in outlooks if not outlook.served]
    if unserved:
        taken = all(outlook.taken for outlook in unserved)
        what = "the address that it asks for" if taken else "an address for every interface it asks for"
        refusal = AddressTaken if taken else PoolsExhausted
        raise refusal(f"no pool can give pod {planned.pod} {what}", details=(*planned.reasons(), *more))


def _unreached(
    planned: Plan, interface: str, outlooks: tuple[Outlook, ...], table: PoolTable
) -> tuple[str, ...]:
    """Warnings of routes that no interface would reach the gateway of."""
    chosen = [
        (outlook.slot, outlook.again_from or (outlook.chosen.pool if outlook.chosen is not None else ""))
        for outlook in outlooks
    ]
    leases = [
        InterfaceAddress(slot.interface, table.pools[name].subnet.first, table.pools[name])
        for slot, name in chosen
        if name in table.pools
    ]
    return unreached(planned, interface, leases)


def _print(pod: Pod, answers: Sequence[Answer], networks: PodNetworks) -> None:
    print(f"pod {pod.key} on node {pod.node} would get")
    for outlook in (outlook for answer in answers for outlook in answer.outlooks):
        print(f"  {outlook.slot.label}: {_expected(outlook)}")
    if networks.networks:
        print("on these networks")
        for network in networks:
            print(f"  {network.line()}")
    print("because")
    for line in dict.fromkeys(line for answer in answers for line in answer.reasons()):
        print(f"  {showable(line)}")


def _expected(outlook: Outlook) -> str:
    if outlook.again is not None:
        held = outlook.again
        return f"{format_address(held.family, held.value)} of pool {outlook.again_from}, as before"
    offer = outlook.chosen
    assert offer is not None
    exact = outlook.slot.exact
    what = "an address" if exact is None else format_address(outlook.slot.family, exact)
    return f"{what} of pool {offer.pool} ({offer.free} of {offer.total} free)"


def _as_object(
    pod: Pod, answers: Sequence[Answer], networks: PodNetworks, refused: OrbweaverError | None
) -> dict[str, Any]:
    return {
        "pod": pod.key,
        "node": pod.node,
        "allowed": refused is None,
        "slots": [_slot_object(outlook) for answer in answers for outlook in answer.outlooks],
        "networks": [network.as_object() for network in networks],
        "warnings": [warning for answer in answers for warning in answer.plan.warnings],
        "reasons": [*dict.fromkeys(line for answer in answers for line in answer.reasons())],
        "error": None
        if refused is None
        else {"code": refused.cni_code, "msg": refused.message, "details": list(refused.details)},
    }


def _slot_object(outlook: Outlook) -> Mapping[str, Any]:
    slot, again, offer = outlook.slot, outlook.again, outlook.chosen
    address = again.value if again is not None else slot.exact
    pool = outlook.again_from if again is not None else offer.pool if offer is not None else None
    refusals = (*slot.refusals, *(offer.why_not for offer in outlook.offers if offer.why_not is not None))
    return {
        "interface": slot.interface,
        "ipVersion": slot.family,
        "source": slot.source,
        "pool": pool,
        "address": None if address is None else format_address(slot.family, address),
        "again": again is not None,
        "candidates": [
            {"pool": offer.pool, "free": offer.free, "total": offer.total} for offer in outlook.offers
        ],
        "refusals": [
            {"pool": refusal.pool, "rule": refusal.rule, "reason": refusal.reason} for refusal in refusals
        ],
    }
