"""What is asked of a cluster about a record's holder, whoever answers: caches, the API server, or a snapshot of everything.

What must always hold: all who judge a record ask for the same facts, so that the audit finds nothing leaked that the GC
would keep.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from actors.decisions.inherit import wanted
from actors.decisions.node_watch import NOBODY, NodeWatch
from actors.decisions.settings import Settings
from actors.reclaim.rules import Facts, RecordedAddress
from actors.resources.blocks.record import Record
from actors.resources.node import Node
from actors.resources.pod import Pod
from actors.resources.statefulset import StatefulSet


class ClusterState(Protocol):
    """What a verdict asks for; None and False mean that there is no such object, or, of a namespace, that it is being
    deleted. `pod` is `namespace/name`."""

    def pod(self, pod: str) -> Pod | None: ...

    def node(self, name: str) -> Node | None: ...

    def statefulset(self, namespace: str, name: str) -> StatefulSet | None: ...

    def machine_lives(self, namespace: str, name: str) -> bool: ...

    def claim_lives(self, namespace: str, name: str) -> bool: ...

    def namespace(self, name: str) -> bool: ...

    def pool(self, name: str) -> bool: ...


def facts_of(
    record: Record,
    siblings: Sequence[RecordedAddress],
    source: ClusterState,
    settings: Settings,
    noticed: float,
    watch: NodeWatch = NOBODY,
) -> Facts:
    """What a source knows of a record's holder; `siblings`, `noticed` and `watch` as in `Facts`."""
    pod = source.pod(record.pod)
    return Facts(
        pod=pod,
        node=source.node(pod.node if pod is not None else record.node),
        namespace=source.namespace(record.pod.partition("/")[0]),
        pool=source.pool(record.pool),
        wanted=wanted(record, source, settings),
        siblings=tuple(siblings),
        noticed=noticed,
        watch=watch,
    )
