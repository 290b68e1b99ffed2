"""Which routing table each of a pod's interfaces has: the main one for the interface with the default route, one from 100
on for every other.

What must always hold: an interface has one table, and replies leave by the interface by which they were
asked.
"""

from __future__ import annotations

from actors.errors import InvalidRequest
from cni.dataplane.coordinator.settings import CoordinatorSettings
from cni.dataplane.state import MAIN, Nic, PodState

FIRST_TABLE = 100


def policy_tables(
    settings: CoordinatorSettings,
    pod: PodState,
    nics: tuple[Nic, ...],
    added: str,
    expected: tuple[str, ...],
) -> dict[str, int]:
    """The policy table of every interface that is not the one with the default route. While the chosen one is still to
    come, every interface gets the table that it will have afterwards; the first alone waits."""
    names = [nic.name for nic in nics]
    holder = settings.default_nic
    if holder and holder not in names:
        _require_coming(settings, names, added, expected)
        if added == settings.first_nic and len(names) == 1:
            holder = ""
    if not holder:
        with_default = {route.dev for route in pod.routes if route.default and route.table == MAIN}
        holder = next((name for name in names if name in with_default), names[0])
    others = [name for name in names if name != holder]
    return {name: FIRST_TABLE + place for place, name in enumerate(others)}


def _require_coming(
    settings: CoordinatorSettings, names: list[str], added: str, expected: tuple[str, ...]
) -> None:
    """Raise unless the chosen interface may still come. What a configuration chose is for pods with several interfaces;
    what a pod chose for itself must be."""
    if settings.default_nic in expected:
        return
    alone = added == settings.first_nic and len(names) == 1
    if alone and (not expected or (len(expected) == 1 and not settings.pod_chose)):
        return
    known = ", ".join(dict.fromkeys((*names, *expected)))
    raise InvalidRequest(
        f"the default route is to be on {settings.default_nic} (podDefaultRouteNIC or the annotation "
        f"ipam.spidernet.io/default-route-nic), but the pod has only {known}; choose one of these, or, if it is still to "
        "come, list its network in the pod's annotation k8s.v1.cni.cncf.io/networks"
    )


def possible_tables(pod: PodState, limit: int) -> frozenset[int]:
    """The policy tables that a pod with these interfaces may have, and `limit`, the one for marked replies."""
    return frozenset({*range(FIRST_TABLE, FIRST_TABLE + max(len(pod.nics), 1)), limit})
