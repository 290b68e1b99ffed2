"""`orbweaver delete KIND NAME…`, or `-f FILE`: remove objects.

What must always hold: a pool with addresses in use does not go before the last of them. It is marked first,
so that it gives out no more, and only then are its addresses counted. A subnet goes with the last of its pools, which
whoever looks after it deletes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from actors.errors import Conflict, InvalidObject, NotFound, OrbweaverError
from actors.resources.addresses import format_address
from actors.resources.admission import FINALIZER
from actors.resources.blocks.allocation import Allocation
from actors.resources.subnet import KIND as SUBNET
from actors.resources.subnet import Controlled, SpiderSubnet
from actors.store import lifecycle
from actors.store.contract import Object, Store
from actors.store.kinds import Kind, find_kind
from cni.command.block_inventory import BlockInventory
from cni.command.manifest import read_documents
from cni.command.store_choice import add_data_option, open_store
from cni.command.table import resource_type

ATTEMPTS = 20
POOL = "SpiderIPPool"
NAMED = 3
"""How many of the addresses that hold a pool are named."""

Target = tuple[Kind, str, str]
"""Kind, namespace, name."""


def add_parser(commands: Any) -> None:
    """Add the command's own parser."""
    parser = commands.add_parser(
        "delete",
        help="remove objects",
        description=(__doc__ or "").partition("\n\n")[0],
        epilog="A pool with addresses in use goes with the last of them; until then it gives out no more.",
    )
    parser.add_argument("kind", nargs="?", metavar="KIND", help="name, plural or short name")
    parser.add_argument("names", nargs="*", metavar="NAME", help="the objects' names")
    parser.add_argument(
        "-f",
        "--filename",
        action="append",
        default=[],
        metavar="FILE",
        help="delete the objects in this file or directory, or - for standard input; may be repeated",
    )
    parser.add_argument("-n", "--namespace", default="default", help="(%(default)s)")
    parser.add_argument(
        "--ignore-not-found", action="store_true", help="succeed when there is no such object"
    )
    add_data_option(parser)
    parser.set_defaults(run=run)


def run(chosen: argparse.Namespace) -> int:
    """Delete one by one; 1 when one of them could not be."""
    targets = _targets(chosen)
    failed = False
    with open_store(chosen) as store:
        for kind, namespace, name in targets:
            try:
                print(_delete(store, kind, namespace, name), flush=True)
            except NotFound as error:
                if not chosen.ignore_not_found:
                    print(f"orbweaver: {error}", file=sys.stderr)
                    failed = True
            except InvalidObject as error:
                print(f"orbweaver: {error}", file=sys.stderr)
                failed = True
    return 1 if failed else 0


def _targets(chosen: argparse.Namespace) -> list[Target]:
    if chosen.filename:
        if chosen.kind:
            raise InvalidObject("name the objects either by KIND and NAME or by -f FILE, not both")
        return _in_files(chosen.filename, chosen.namespace)
    if not chosen.kind or not chosen.names:
        raise InvalidObject("say what to delete: `orbweaver delete KIND NAME`, or `orbweaver delete -f FILE`")
    kind = find_kind(chosen.kind)
    return [(kind, chosen.namespace if kind.namespaced else "", name) for name in chosen.names]


def _in_files(names: Sequence[str], namespace: str) -> list[Target]:
    documents, refusals = read_documents(names)
    targets: list[Target] = []
    for document in documents:
        obj = document.object
        metadata = obj.get("metadata")
        try:
            if not isinstance(metadata, dict) or not isinstance(metadata.get("name"), str):
                raise InvalidObject("has no metadata.name, so it cannot be found")
            kind = lifecycle.kind_named(str(obj.get("kind")))
            within = str(metadata.get("namespace") or namespace) if kind.namespaced else ""
            targets.append((kind, within, metadata["name"]))
        except OrbweaverError as error:
            refusals.append(f"{document.where}: {error}")
    if refusals:
        raise InvalidObject("nothing was deleted, the manifest cannot be used", details=tuple(refusals))
    return targets


def _delete(store: Store, kind: Kind, namespace: str, name: str) -> str:
    """Delete one object; tells what became of it. Raises `NotFound`, `InvalidObject`, `StoreUnavailable`."""
    if kind.name in ("SpiderIPBlock", "SpiderEndpoint"):
        raise InvalidObject(
            f"{kind.name} {name} is written by Orbweaver only and goes with the last address it tells of;"
            " end the pod (CNI DEL) to release those"
        )
    store.delete(kind.name, name, namespace)
    title = f'{resource_type(kind)} "{name}"'
    for _ in range(ATTEMPTS):
        try:
            left = store.get(kind.name, name, namespace)
        except NotFound:
            return f"{title} deleted"
        metadata = left["metadata"]
        if not metadata.get("deletionTimestamp"):
            return f"{title} deleted, and created again by somebody else"
        if kind.name == SUBNET and FINALIZER in metadata.get("finalizers", ()):
            if holders := SpiderSubnet.from_object(left).controlled:
                return (
                    f"{title} is terminating: {_pools(holders)}; it goes with the last of them, and each of them with its"
                    " last address"
                )
            return (
                f"{title} is terminating: it goes as soon as a leader, or the agent of this host, has seen it"
            )
        if kind.name != POOL or FINALIZER not in metadata.get("finalizers", ()):
            others = ", ".join(metadata["finalizers"])
            return f"{title} is being deleted; it goes when its finalizers do: {others}"
        recorded = BlockInventory.read(store)
        if recorded.damaged:
            return (
                f"{title} is terminating: whether its addresses are in use is not known, because "
                f"{'; '.join(recorded.damaged.values())}"
            )
        if held := recorded.of_pool(name):
            return f"{title} is terminating: {_holders(held)}; it gives out no more and goes with the last"
        try:
            _let_go(store, left)
        except (Conflict, NotFound):
            continue
    raise Conflict(f"{title} was changed by others {ATTEMPTS} times in a row; run this again")


def _let_go(store: Store, pool: Object) -> None:
    metadata = pool["metadata"]
    finalizers = [finalizer for finalizer in metadata["finalizers"] if finalizer != FINALIZER]
    store.update({**pool, "metadata": {**metadata, "finalizers": finalizers}})


def _pools(holders: Mapping[str, Controlled]) -> str:
    largest = sorted(holders.items(), key=lambda item: (-item[1].ips.size, item[0]))
    named = ", ".join(f"{name} with {entry.ips.size}" for name, entry in largest[:NAMED])
    rest = f" and {len(largest) - NAMED} more" if len(largest) > NAMED else ""
    return f"{len(largest)} pool{'s have' if len(largest) > 1 else ' has'} addresses of it ({named}{rest})"


def _holders(held: Sequence[Allocation]) -> str:
    named = ", ".join(
        f"{format_address(allocation.family, allocation.value)} by pod {allocation.record.pod}"
        for allocation in held[:NAMED]
    )
    rest = f" and {len(held) - NAMED} more" if len(held) > NAMED else ""
    return f"{len(held)} address{'es are' if len(held) > 1 else ' is'} in use ({named}{rest})"
