"""`orbweaver apply -f FILE`: create and change objects from the YAML that kubectl takes.

What must always hold: every document is validated before the first is written, and when one is refused
nothing is written and every refusal is told; a write is a compare-and-swap on what was validated, so that an
edit made meanwhile is seen, not overwritten. What the manifest no longer has is removed; status, finalizers,
what the system labels on pools and what pools have from their subnet stay.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from actors.errors import Conflict, InvalidObject, InvalidRequest, NoSuchResource, NotFound
from actors.networks.attachment import cni_configuration
from actors.resources.addresses import Subnet, format_address, parse_cidr
from actors.resources.admission import admit
from actors.resources.inheritance import with_inherited
from actors.resources.ippool import IPPool
from actors.resources.multus_config import MultusConfig
from actors.resources.subnet import KIND as SUBNET
from actors.resources.subnet import SpiderSubnet
from actors.resources.subnet_pools import misfit, misplaced
from actors.store import lifecycle
from actors.store.contract import Object, Store
from actors.store.kinds import KINDS, SPIDERPOOL, Kind
from cni.command.block_inventory import BlockInventory
from cni.command.manifest import Document, read_documents
from cni.command.store_choice import add_data_option, open_store
from cni.command.table import resource
from cni.dataplane.own_plugins import check_plugins

ATTEMPTS = 20
POOL = "SpiderIPPool"
NETWORK = "SpiderMultusConfig"
_OURS = "ipam.spidernet.io/"
"""On pools, labels and annotations with this prefix are the system's, not the manifest's."""

_FROM_STORE = (
    *("uid", "resourceVersion", "creationTimestamp", "generation"),
    *("deletionTimestamp", "deletionGracePeriodSeconds"),
)
_DROPPED = (*_FROM_STORE, "managedFields", "selfLink")

T = TypeVar("T")

DocumentKey = tuple[str, str, str]
"""Kind, namespace, name."""


@dataclass(frozen=True, slots=True)
class ManifestWrite:
    """One write to make: `admitted` replaces `current`, or is new when that is None."""

    document: Document
    kind: Kind
    admitted: Object
    current: Object | None

    @property
    def name(self) -> str:
        return resource(self.kind, self.admitted["metadata"]["name"])


def add_parser(commands: Any) -> None:
    """Add the command's own parser."""
    parser = commands.add_parser(
        "apply",
        help="create or change objects from YAML or JSON",
        description=(__doc__ or "").partition("\n\n")[0],
        epilog="Example: orbweaver apply -f pools.yaml",
    )
    parser.add_argument(
        "-f",
        "--filename",
        action="append",
        required=True,
        metavar="FILE",
        help="a file, a directory of .yaml, .yml and .json files, or - for standard input; may be repeated",
    )
    parser.add_argument(
        "-n", "--namespace", default="default", help="for objects that do not name theirs (%(default)s)"
    )
    add_data_option(parser)
    parser.set_defaults(run=run)


def run(chosen: argparse.Namespace) -> int:
    """Validate all, then write all; prints one line an object."""
    documents, refusals = read_documents(chosen.filename)
    with open_store(chosen, create=True) as store:
        batch = Batch(store, documents, chosen.namespace)
        steps = []
        for document in documents:
            try:
                steps.append(batch.prepare(document))
            except InvalidObject as error:
                refusals.append(f"{document.where}: {error}")
        if refusals:
            raise InvalidObject(
                f"nothing was applied, because of {len(refusals)} refusal{'s' if len(refusals) > 1 else ''}",
                details=tuple(refusals),
            )
        for step in steps:
            print(f"{step.name} {batch.write(step)}", flush=True)
            if reason := _withheld(step.admitted):
                print(f"orbweaver: warning: {step.name}: {reason}", file=sys.stderr)
    return 0


class Batch:
    """The documents of one command, each validated as if the others were stored already."""

    def __init__(self, store: Store, documents: Sequence[Document], namespace: str) -> None:
        self._store = store
        self._namespace = namespace
        self._recorded: BlockInventory | None = None
        self._stored: dict[str, list[tuple[Subnet, Object]]] = {}
        self._stored_networks: dict[str, list[Object]] = {}
        self._wanted = {
            _key(wanted): wanted for document in documents if _named(wanted := self._placed(document.object))
        }

    def prepare(self, document: Document) -> ManifestWrite:
        """Read what is stored and validate against it. Raises `InvalidObject`."""
        wanted = self._placed(document.object)
        admit(wanted)  # its shape first: what follows relies on names and mappings
        where = lifecycle.address_of(lifecycle.private_copy({**wanted, "metadata": _sent(wanted)}))
        try:
            current = self._store.get(where.kind.name, where.name, where.namespace)
        except NotFound:
            current = None
        new = merged(wanted, current)
        if where.kind.name == SUBNET:
            admitted = admit(new, current, self._near(SUBNET, wanted))
            self._check_subnet(admitted, current)
        elif where.kind.name == POOL:
            old = None if current is None else self._with_recorded(current)
            admitted = admit(new, old, self._near(POOL, wanted))
            self._check_pool(admitted, current)
        elif where.kind.name == NETWORK:
            admitted = admit(new, current, self._networks(where.namespace))
            _check_plugins(admitted)
        else:
            admitted = admit(new, current)
        return ManifestWrite(document, where.kind, admitted, current)

    def _networks(self, namespace: str) -> list[Object]:
        """The SpiderMultusConfigs of a namespace, as they will be."""
        if namespace not in self._stored_networks:
            objects = {_key(obj): obj for obj in self._store.list(NETWORK, namespace).items}
            objects |= {key: obj for key, obj in self._wanted.items() if key[:2] == (NETWORK, namespace)}
            self._stored_networks[namespace] = list(objects.values())
        return self._stored_networks[namespace]

    def _check_pool(self, admitted: Object, current: Object | None) -> None:
        """A pool in a subnet of its CIDR has no other addresses. Raises `InvalidObject`."""
        pool = IPPool.from_object(admitted)
        subnets = _readable(SpiderSubnet.from_object, self._near(SUBNET, admitted))
        before = [old_pool.listed for old_pool in _readable(IPPool.from_object, [current] if current else [])]
        if why := misplaced(pool, subnets, before[0] if before else None):
            raise InvalidObject(why)

    def _check_subnet(self, admitted: Object, current: Object | None) -> None:
        """A new subnet fits the pools that are there. Raises `InvalidObject`."""
        if current is not None:
            return
        subnet = SpiderSubnet.from_object(admitted)
        others = _readable(SpiderSubnet.from_object, self._near(SUBNET, admitted))
        pools = _readable(IPPool.from_object, self._near(POOL, admitted))
        if why := misfit(subnet, pools, others):
            raise InvalidObject(why)

    def write(self, step: ManifestWrite) -> str:
        """Write; prepared anew when somebody else wrote meanwhile. Tells what became of the object."""
        for _ in range(ATTEMPTS):
            try:
                if step.current is None:
                    self._store.create(step.admitted)
                    return "created"
                stored = self._store.update(step.admitted)
            except (Conflict, NotFound):
                self._recorded = None
                self._stored.clear()
                self._stored_networks.clear()
                step = self.prepare(step.document)
                continue
            version = step.current["metadata"]["resourceVersion"]
            done = "unchanged" if stored["metadata"]["resourceVersion"] == version else "configured"
            if stored["metadata"].get("deletionTimestamp"):
                return f"{done}, but it is being deleted; apply it again when it is gone"
            return done
        raise Conflict(
            f"{step.name} was changed by others {ATTEMPTS} times in a row; what is listed was applied, run"
            " this again"
        )

    def _placed(self, obj: Object) -> Object:
        """With the namespace that it does not name."""
        kind = KINDS.get(kind_name) if isinstance(kind_name := obj.get("kind"), str) else None
        metadata = obj.get("metadata")
        if kind is None or not kind.namespaced or not isinstance(metadata, dict) or metadata.get("namespace"):
            return obj
        return {**obj, "metadata": {**metadata, "namespace": self._namespace}}

    def _near(self, kind: str, wanted: Object) -> list[Object]:
        """The pools or subnets that may share an address with this object, as they will be: those in the store, with the
        batch's in place of theirs."""
        if kind not in self._stored:
            objects = {_key(obj): obj for obj in self._list(kind)}
            objects |= {key: obj for key, obj in self._wanted.items() if key[0] == kind}
            self._stored[kind] = [
                (subnet, obj) for obj in objects.values() if (subnet := _subnet(obj)) is not None
            ]
        mine = _subnet(wanted)
        return [obj for subnet, obj in self._stored[kind] if mine is not None and _meet(mine, subnet)]

    def _list(self, kind: str) -> tuple[Object, ...]:
        try:
            return self._store.list(kind).items
        except NoSuchResource:  # a cluster without SpiderSubnets
            return ()

    def _with_recorded(self, pool: Object) -> Object:
        """With the blocks' records as its `allocatedIPs`: they are the truth, and there before the view."""
        if self._recorded is None:
            self._recorded = BlockInventory.read(self._store)
            for why in self._recorded.damaged.values():
                print(f"orbweaver: warning: {why}", file=sys.stderr)
        allocated = {
            format_address(held.family, held.value): {"pod": held.record.pod}
            for held in self._recorded.of_pool(pool["metadata"]["name"])
        }
        return {**pool, "status": {"allocatedIPs": json.dumps(allocated)}}


def _check_plugins(admitted: Object) -> None:
    """Refuse a network that our own plugins would refuse when a pod starts. Raises `InvalidObject`."""
    config = MultusConfig.from_object(admitted)
    conf = cni_configuration(config)
    try:
        if conf is not None:
            check_plugins(conf)
    except InvalidRequest as error:
        raise InvalidObject(f"{NETWORK} {config.key}: its network cannot be used: {error}") from error


def merged(wanted: Object, current: Object | None) -> Object:
    """What the manifest says, with what is not the manifest's to say."""
    metadata = _sent(wanted)
    result = {key: value for key, value in wanted.items() if key != "status"}
    result["metadata"] = metadata
    if current is None:
        return result
    before = current["metadata"]
    metadata |= {key: before[key] for key in _FROM_STORE if key in before}
    held = [*(before.get("finalizers") or ())]
    if finalizers := list(dict.fromkeys((*held, *(metadata.get("finalizers") or ())))):
        metadata["finalizers"] = finalizers
    if wanted["apiVersion"] == SPIDERPOOL:
        for field in ("labels", "annotations"):
            kept = {key: value for key, value in (before.get(field) or {}).items() if key.startswith(_OURS)}
            if kept or metadata.get(field):
                metadata[field] = {**kept, **(metadata.get(field) or {})}
    if wanted["kind"] == POOL:
        result["spec"] = with_inherited(wanted["spec"], current)
        if "ownerReferences" in before:  # the subnet's
            metadata.setdefault("ownerReferences", before["ownerReferences"])
    return result


def _readable(read: Callable[[Object], T], objects: Iterable[Object]) -> list[T]:
    """Those that can be read: what is stored and cannot be gives out nothing, and keeps nobody from being stored."""
    readable = []
    for obj in objects:
        with suppress(InvalidObject):
            readable.append(read(obj))
    return readable


def _withheld(obj: Object) -> str:
    """Which of the addresses that a pool or subnet lists are nobody's, and why."""
    if obj["kind"] == POOL:
        return IPPool.from_object(obj).withheld_reason
    return SpiderSubnet.from_object(obj).withheld_reason if obj["kind"] == SUBNET else ""


def _subnet(obj: Mapping[str, Any]) -> Subnet | None:
    """The CIDR of a pool or subnet; None for one that cannot be read, which admission refuses or passes over itself."""
    spec = obj.get("spec")
    text = spec.get("subnet") if isinstance(spec, dict) else None
    try:
        return parse_cidr(text) if isinstance(text, str) else None
    except InvalidObject:
        return None


def _meet(first: Subnet, second: Subnet) -> bool:
    return first.family == second.family and first.first <= second.last and second.first <= first.last


def _sent(wanted: Object) -> dict[str, Any]:
    return {
        key: value for key, value in wanted["metadata"].items() if key not in _DROPPED and value is not None
    }


def _named(obj: Mapping[str, Any]) -> bool:
    metadata = obj.get("metadata")
    texts = (metadata.get("name"), obj.get("kind")) if isinstance(metadata, dict) else (None,)
    return all(isinstance(text, str) for text in texts)


def _key(obj: Mapping[str, Any]) -> DocumentKey:
    metadata = obj["metadata"]
    return str(obj["kind"]), str(metadata.get("namespace") or ""), str(metadata["name"])
