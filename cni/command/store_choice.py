"""The options that choose the store, the same in every command, and the store that they choose.

A cluster's API server or the embedded store's file; the first that applies: `--data` (or `--standalone`);
`--kubeconfig` or `--context`; ORBWEAVER_DATA; $KUBECONFIG; the service account of the pod that this runs in;
~/.kube/config if there is one; the file at its usual place. What must always hold: who names a cluster is never
answered from a file; a command that only asks leaves no empty store behind a mistyped name.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from actors.errors import InvalidRequest, OrbweaverError, StoreUnavailable
from actors.store.contract import Store

if TYPE_CHECKING:
    from actors.store.kubernetes.access import Access
    from actors.store.kubernetes.store import KubernetesStore

VARIABLE = "ORBWEAVER_DATA"
DATABASE = Path("/var/lib/orbweaver/orbweaver.db")


def add_data_option(parser: argparse.ArgumentParser) -> None:
    """Add `--data FILE`, `--kubeconfig FILE` and `--context NAME`."""
    group = parser.add_argument_group("store", "a cluster, or the embedded store of a host without one")
    group.add_argument(
        "--data",
        type=Path,
        metavar="FILE",
        help=f"the embedded store's file (or set {VARIABLE}; {DATABASE} where there is no kubeconfig)",
    )
    group.add_argument(
        "--kubeconfig",
        metavar="FILE",
        help="for a cluster ($KUBECONFIG, the pod's service account, ~/.kube/config)",
    )
    group.add_argument("--context", metavar="NAME", help="the kubeconfig's context (its current one)")


@contextmanager
def open_store(chosen: argparse.Namespace, *, create: bool = False) -> Iterator[Store]:
    """The store that the options choose; without `create` a file must exist. Raises `StoreUnavailable`."""
    named = _file(chosen)
    access = None if named else cluster_access(chosen)
    store: Store
    # Only the chosen store is imported: that is a third of what a short command takes.
    if access is not None:
        from actors.store.kubernetes.store import KubernetesStore

        store = KubernetesStore(access)
    else:
        from actors.store.sqlite.store import SQLiteStore

        path = named or DATABASE
        if not create:
            _must_exist(path)
        store = SQLiteStore(path)
    try:
        yield store
    finally:
        store.close()


def cluster_access(chosen: argparse.Namespace) -> Access | None:
    """Access to the cluster that the options, or where this runs, choose; None for none.

    Raises `InvalidRequest`."""
    from actors.store.kubernetes import kubeconfig
    from actors.store.kubernetes.access import in_cluster

    if chosen.kubeconfig or chosen.context or os.environ.get(kubeconfig.VARIABLE):
        return kubeconfig.from_kubeconfig(chosen.kubeconfig, chosen.context, read=_mapping)
    pod = in_cluster()
    if pod is not None or not kubeconfig.present():
        return pod
    return kubeconfig.from_kubeconfig(read=_mapping)


def agent_store(chosen: argparse.Namespace, node: str) -> Store:
    """The store of an agent: the file if it is to be standalone, else a cluster. Of pods, it lists those of its
    node only. Raises `StoreUnavailable` when there is neither, `InvalidRequest` when both are asked for."""
    if chosen.standalone and (chosen.kubeconfig or chosen.context):
        raise InvalidRequest(
            "--standalone is for a host without Kubernetes, and --kubeconfig and --context name a cluster:"
            " leave one of them out"
        )
    named = _file(chosen)
    if chosen.standalone or named:
        from actors.store.sqlite.store import SQLiteStore

        return SQLiteStore(named or DATABASE, for_agent=True)
    return cluster_store(chosen, node_selectors(node))


def cluster_store(chosen: argparse.Namespace, selectors: Mapping[str, str] | None = None) -> KubernetesStore:
    """The store of a process that works in a cluster only. Without `selectors` it lists pods of the whole cluster, and of
    each what garbage collection asks for. Raises `StoreUnavailable` when there is no cluster."""
    access = cluster_access(chosen)
    if access is None:
        raise StoreUnavailable(
            "this is no pod with a service account, and there is no kubeconfig: name one with --kubeconfig, or"
            " run `orbweaver agent --standalone` on a host without Kubernetes",
            maybe_written=False,
        )
    from actors.store.caches.excerpts import EXCERPTS, pod_excerpt
    from actors.store.kubernetes.store import KubernetesStore

    if selectors is not None:
        return KubernetesStore(access, selectors=selectors, trim={**EXCERPTS, "Pod": pod_excerpt})
    # An agent has no use for what garbage collection knows of pods.
    from actors.reclaim.evidence import trimmed_pod

    return KubernetesStore(access, trim={**EXCERPTS, "Pod": trimmed_pod})


def node_selectors(node: str) -> Mapping[str, str]:
    """What restricts lists and watches to one node."""
    return {"Pod": f"spec.nodeName={node}"}


def _file(chosen: argparse.Namespace) -> Path | None:
    """The embedded store's file if it was named. Raises `InvalidRequest` when a cluster was named as well."""
    cluster = chosen.kubeconfig or chosen.context
    named: Path | None = chosen.data
    if named and cluster:
        raise InvalidRequest(
            "--data names an embedded store, and --kubeconfig and --context a cluster: leave one of them out"
        )
    if named or cluster:
        return named
    variable = os.environ.get(VARIABLE)
    return Path(variable) if variable else None


def _mapping(path: Path) -> Mapping[str, Any]:
    from cni.command.manifest import read_mapping

    try:
        return read_mapping(str(path), "kubeconfig")[1]
    except OrbweaverError:
        return {}  # what is wrong with it is said by who reads it next


def _must_exist(path: Path) -> None:
    try:
        path.stat()
    except FileNotFoundError as error:
        raise StoreUnavailable(
            f"there is no store at {path}; name the agent's file with --data or {VARIABLE}, or make one"
            " with `orbweaver apply`, or name a cluster with --kubeconfig",
            maybe_written=False,
        ) from error
    except OSError as error:
        raise StoreUnavailable(
            f"the store {path} cannot be opened: {error.strerror}; run this as the agent's user, or name"
            f" another file with --data or {VARIABLE}",
            maybe_written=False,
        ) from error
