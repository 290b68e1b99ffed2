"""In which order the pools that fit are tried: the more specific first.

What must always hold: a pool with pod affinity comes before one without; among equals, node names, then node
affinity, then namespace names, then namespace affinity, then multus names decide likewise, as Spiderpool
ranks them. Pools that are equal in all of this keep the order in which they were named. (Spiderpool shuffles
those; its documentation promises the order of the annotation, which is what we keep.)
"""

from __future__ import annotations

from collections.abc import Iterable

from actors.resources.ippool import IPPool


def rank(pool: IPPool) -> tuple[bool, ...]:
    """Lower is tried earlier."""
    return (
        pool.pod_affinity is None,
        not pool.node_names,
        pool.node_affinity is None,
        not pool.namespace_names,
        pool.namespace_affinity is None,
        not pool.multus_names,
    )


def by_affinity(pools: Iterable[IPPool]) -> tuple[IPPool, ...]:
    """The pools in the order of trying; stable."""
    return tuple(sorted(pools, key=rank))
