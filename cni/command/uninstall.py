"""`orbweaver uninstall`: take all of it off a cluster and its nodes; `orbweaver uninstall node`: off this node alone.

Without `--yes` nothing is changed: it says what would go.
What must always hold: nothing goes while a pod has an address, or may have one by records that cannot be judged, unless
`--force` says so; what was interrupted is finished by the same command.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from actors.errors import InvalidObject, InvalidRequest, NoSuchResource, OrbweaverError, StoreUnavailable
from actors.resources.addresses import format_address
from actors.resources.blocks.block import Block
from actors.resources.coordinator_rules import KERNEL_TABLES
from actors.resources.ippool import IPPool
from actors.resources.json_text import showable
from actors.resources.pool_status import DIGEST, digest_of, foreign_allocations
from actors.resources.virtualmachine import INSTANCE
from actors.store.contract import Object, Store
from cni.command.block_inventory import BlockInventory
from cni.command.config_file import own_namespace
from cni.command.option_values import count, seconds
from cni.command.store_choice import add_data_option, cluster_access
from cni.uninstall.cluster import ClusterUninstall, UninstallOptions
from cni.uninstall.node import NodeCleanup, NodeDirectories
from cni.uninstall.node_pods import BY_HAND, leave_word

DONE, NOT_ALL = 0, 1
NAMED = 5
_ENDED = ("Succeeded", "Failed")


def add_parser(commands: Any) -> None:
    """Add the command's own parser."""
    parser = commands.add_parser(
        "uninstall",
        help="take all of it off a cluster, or off this node",
        description=(__doc__ or "").partition("\nWhat must")[0],
        epilog=f"Exit status: {DONE} all of it is gone, but for what is named; {NOT_ALL} it was refused, or could not go on.",
    )
    parser.add_argument("node", nargs="?", choices=("node",), help="this node alone, without any API server")
    extent = parser.add_mutually_exclusive_group()
    extent.add_argument(
        "--dry-run", action="store_true", help="only say what would go, as it is without --yes"
    )
    extent.add_argument("--yes", action="store_true", help="do it")
    parser.add_argument(
        "--spiderpool-stays",
        action="store_true",
        help="leave what Spiderpool uses as well: pools and all objects but SpiderIPBlocks; sockets, rules and routes",
    )
    _add_node_options(parser)
    cluster = parser.add_argument_group("of a cluster")
    cluster.add_argument(
        "--force", action="store_true", help="although pods have addresses; they can hardly be ended then"
    )
    cluster.add_argument(
        "-n", "--namespace", default=own_namespace(), help="of the installation (%(default)s)"
    )
    cluster.add_argument("--keep-namespace", action="store_true", help="leave it")
    cluster.add_argument(
        "--image",
        default="",
        help="for the pods that clean nodes (that of the agents' DaemonSet)",
    )
    cluster.add_argument(
        "--skip-node",
        action="append",
        default=[],
        metavar="NODE",
        help=f"leave a node as it is; `{BY_HAND}` cleans it; may be repeated",
    )
    cluster.add_argument(
        "--patience",
        type=seconds,
        default=120.0,
        metavar="SECONDS",
        help="wait for so long for the next node or object (%(default)s)",
    )
    add_data_option(parser)
    parser.set_defaults(run=run)


def _add_node_options(parser: argparse.ArgumentParser) -> None:
    usual = NodeDirectories()
    group = parser.add_argument_group("of nodes", "in a cluster, what the DaemonSet says comes first")
    for flag, default, what in (
        ("--cni-bin-dir", usual.plugins, "of the CNI plugins"),
        ("--cni-conf-dir", usual.configurations, "of the runtime's network configurations"),
        ("--socket-dir", usual.sockets, "of the agent's socket"),
    ):
        group.add_argument(
            flag, type=Path, default=default, metavar="DIRECTORY", help=f"{what} (%(default)s)"
        )
    group.add_argument(
        "--root",
        type=Path,
        default=Path("/"),
        metavar="DIRECTORY",
        help="of `uninstall node`: where the node's file system is mounted (%(default)s)",
    )
    group.add_argument(
        "--host-rule-table",
        type=count(2**32 - 1),
        action="append",
        default=[],
        metavar="NUMBER",
        help="of `uninstall node`: the routing table for pods (500); may be repeated",
    )


def run(chosen: argparse.Namespace) -> int:
    """Say it, and with `--yes` do it."""
    directories = NodeDirectories(chosen.cni_bin_dir, chosen.cni_conf_dir, chosen.socket_dir)
    if chosen.node:
        return _node(chosen, directories)
    store = _open(chosen)
    try:
        return _cluster(chosen, directories, store)
    finally:
        store.close()


def _node(chosen: argparse.Namespace, directories: NodeDirectories) -> int:
    tables = frozenset(chosen.host_rule_table)
    if own := tables & {0, *KERNEL_TABLES}:
        raise InvalidRequest(
            f"--host-rule-table {min(own)} is the node's own table; name that of the coordinator"
        )
    options = {"tables": tables} if tables else {}
    cleanup = NodeCleanup(directories, root=chosen.root, shared=chosen.spiderpool_stays, **options)
    outcome = cleanup.run(_tell, dry=not chosen.yes)
    for line in outcome.left:
        _tell(f"left: {line}")
    if outcome.failed:
        what = "removed" if chosen.yes else "looked at"
        raise OrbweaverError(
            f"not all of it could be {what}; run this as root", details=tuple(outcome.failed)
        )
    leave_word(outcome.left)
    if not chosen.yes:
        _tell("Nothing was changed. Repeat it with --yes to do it.")
    elif not outcome.removed:
        _tell("nothing of it is here")
    return DONE


def _cluster(chosen: argparse.Namespace, directories: NodeDirectories, store: Store) -> int:
    work = ClusterUninstall(
        store,
        UninstallOptions(
            namespace=chosen.namespace,
            image=chosen.image,
            directories=directories,
            patience=chosen.patience,
            shared=chosen.spiderpool_stays,
            skipped=frozenset(chosen.skip_node),
            keep_namespace=chosen.keep_namespace,
        ),
        _tell,
    )
    work.refuse_beside_spiderpool()
    refusal = in_use(store, spiderpool_stays=chosen.spiderpool_stays)
    if not chosen.yes:
        for line in work.plan():
            _tell(f"would go: {line}")
        if refusal is not None:
            _tell(f"forbidden without --force: {refusal}")
        _tell("Nothing was changed. Repeat it with --yes to do it.")
        return DONE
    if refusal is not None and not chosen.force:
        raise refusal
    for node, why in sorted(work.run().items()):
        _tell(f"left: node {node}: {why}")
    _tell("Orbweaver is gone from this cluster" + (", but for these nodes" if chosen.skip_node else ""))
    return DONE


def in_use(store: Store, *, spiderpool_stays: bool) -> InvalidRequest | None:
    """The refusal while pods have addresses, or while it cannot be told whether they have; what is kept for pods that are
    gone is not in use."""
    try:
        recorded = BlockInventory.read(store)
    except NoSuchResource:  # an earlier run came that far
        return None
    running = _running(store)
    used = [
        _Use(held.family, held.value, held.record.pod)
        for held in recorded.held()
        if any(pod in running for pod in held.record.pods)
    ]
    unknown = [*recorded.damaged.values(), *_unjudged(recorded.blocks)]
    for obj in () if spiderpool_stays else _pools(store):  # where it does, the statuses stay with it
        try:
            used += [use for use in _not_taken_over(obj) if use.pod in running]
        except InvalidObject as error:
            unknown.append(str(error))
    if not used:
        return _of_unknown(unknown) if unknown else None
    used = list(dict.fromkeys(used))
    there = f"{len(used)} address{'es are' if len(used) > 1 else ' is'} in use ({_named(used)})"
    if spiderpool_stays:
        remedy = (
            "give them back first, by `orbweaver takeover --from spiderpool --back --yes`. With --force nobody"
            " knows any more who has them, and they are given to others"
        )
    else:
        remedy = (
            "delete these pods first. With --force they lose their addresses to others and the plugins that end them,"
            " so that they stay Terminating until it is installed again"
        )
    return InvalidRequest(f"{there}: {remedy}", details=(str(_of_unknown(unknown)),) if unknown else ())


@dataclass(frozen=True, slots=True)
class _Use:
    """An address, and the pod that has it by what is recorded."""

    family: int
    value: int
    pod: str


def _running(store: Store) -> frozenset[str]:
    """The pods that have not ended, and the virtual machines in them, in whose names Spiderpool records."""
    names = set()
    for pod in store.list("Pod").items:
        if (pod.get("status") or {}).get("phase") in _ENDED:
            continue
        names.add(_title(pod))
        for owner in pod["metadata"].get("ownerReferences") or ():
            if owner.get("kind") == INSTANCE:
                names.add(f"{pod['metadata']['namespace']}/{owner.get('name')}")
    return frozenset(names)


def _pools(store: Store) -> Sequence[Object]:
    try:
        return store.list("SpiderIPPool").items
    except NoSuchResource:  # an earlier run took their definition away, and not yet that of blocks
        return ()


def _unjudged(blocks: Iterable[Block]) -> list[str]:
    return [
        f"nobody can tell who has {format_address(block.family, value)}: {unjudged.why}; discard its record with"
        " `orbweaver ip release --force` once nobody uses it"
        for block in blocks
        for value, unjudged in sorted(block.unjudged.items())
    ]


def _not_taken_over(obj: Object) -> list[_Use]:
    """What a pool's status tells of that another IPAM wrote and no block records yet. Raises `InvalidObject` where it
    cannot be read."""
    status = obj.get("status") or {}
    allocated = status.get("allocatedIPs") or ""
    if not allocated or status.get(DIGEST) == digest_of(allocated):
        return []
    pool = IPPool.from_object(obj)
    return [
        _Use(pool.family, value, pod) for value, (pod, _) in sorted(foreign_allocations(pool, status).items())
    ]


def _of_unknown(unknown: Sequence[str]) -> InvalidRequest:
    more = f"; and {len(unknown) - NAMED} more" if len(unknown) > NAMED else ""
    return InvalidRequest(
        f"it cannot be told whether pods have addresses: {'; '.join(unknown[:NAMED])}{more}. With --force whoever has them"
        " loses them to others"
    )


def _named(used: Sequence[_Use]) -> str:
    named = [f"{format_address(use.family, use.value)} by pod {use.pod}" for use in used[:NAMED]]
    return ", ".join(named) + (f" and {len(used) - NAMED} more" if len(used) > NAMED else "")


def _open(chosen: argparse.Namespace) -> Store:
    from actors.store.kubernetes.store import KubernetesStore

    access = None if chosen.data else cluster_access(chosen)
    if access is None:
        raise StoreUnavailable(
            "there is no cluster here, and none is named by --kubeconfig; on a host without Kubernetes, `orbweaver"
            " uninstall node` takes all of it away",
            maybe_written=False,
        )
    return KubernetesStore(access, trim={"Pod": _pod_excerpt})


def _pod_excerpt(pod: Object) -> Object:
    """What is asked of pods here, of which a cluster has many."""
    metadata, status = pod["metadata"], pod.get("status") or {}
    kept = ("name", "namespace", "labels", "deletionTimestamp", "ownerReferences")
    return {
        "metadata": {key: metadata[key] for key in kept if key in metadata},
        "spec": {"nodeName": (pod.get("spec") or {}).get("nodeName", "")},
        "status": {
            "phase": status.get("phase", ""),
            **{key: status[key] for key in ("reason", "message", "containerStatuses") if key in status},
        },
    }


def _title(pod: Object) -> str:
    return f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"


def _tell(line: str) -> None:
    print(showable(line), flush=True)
