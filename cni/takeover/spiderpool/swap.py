"""The swap itself: Spiderpool out and Orbweaver in, or back, in steps that can be interrupted anywhere and repeated.

What must always hold: there is no moment at which both sides have a process that can give out an address. The side that
leaves is stopped on all nodes, controllers too, and seen to be gone, before the first process of the other one starts; what
is recorded is put into the form of the one that comes between the two. README.md beside this says why it is not done
with both at work. How far it is stands in the cluster, in an annotation of Spiderpool's DaemonSet.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from actors.errors import InvalidObject, InvalidRequest, TakeoverUnfinished
from actors.resources.fields import shown
from actors.resources.ippool import IPPool
from actors.resources.pool_status import foreign_allocations
from actors.store.contract import Object, Store
from cni.takeover.reading import Tell
from cni.takeover.spiderpool.gap import Gap
from cni.takeover.spiderpool.giving_back import (
    Holdings,
    delete_blocks,
    free_coordinators,
    give_back_endpoints,
    give_back_pools,
    give_back_uids,
    make_foreign,
)
from cni.takeover.spiderpool.installation import HOST, LIMIT, Installation, Side, is_parked
from cni.takeover.spiderpool.webhooks import Webhooks
from cni.takeover.waiting import wait_until

PHASE = "orbweaver.io/takeover"
"""Annotation of Spiderpool's DaemonSet: a `Phase`."""
REPLICAS = 2
"""Controllers of ours, where nothing says how many: as many as the manifests have."""


class Phase(StrEnum):
    """How far it is."""

    NONE = ""
    """Spiderpool serves."""
    STOPPING = "stopping-spiderpool"
    """Spiderpool is being stopped, or is; its word counts, and nothing of ours runs."""
    STARTING = "starting-orbweaver"
    """Spiderpool is stopped, nothing of an earlier stay is left, and ours is being started."""
    TAKEN = "taken"
    """Ours serves."""
    RETURNING = "returning"
    """Ours is being stopped, or is; the blocks count, and nothing of Spiderpool runs."""
    RETURNED = "returned"
    """What the blocks say stands in Spiderpool's form, and counts; Spiderpool is being started."""


@dataclass(frozen=True, slots=True)
class Swap:
    """Both sides, and the store that they share."""

    store: Store
    """The cluster's."""
    spiderpool: Side
    """Theirs."""
    ours: Side
    """Ours."""
    tell: Tell
    """Where each step is told."""
    gap: Gap
    """Of this run."""

    @classmethod
    def between(cls, store: Store, spiderpool: Installation, ours: Installation, tell: Tell) -> Swap:
        """The swap of two installations."""
        return cls(store, Side(store, spiderpool, tell), Side(store, ours, tell), tell, Gap(tell))

    @property
    def phase(self) -> Phase:
        """How far it is, as the cluster says."""
        return phase_of(self.spiderpool.agents())

    def there(self, first: str | None) -> None:
        """Put ours in Spiderpool's place; `first` is the node that our agents are tried on. Raises `InvalidRequest` when
        a way back is not finished, and `TakeoverUnfinished`."""
        if self.phase in (Phase.RETURNING, Phase.RETURNED):
            raise InvalidRequest(
                "a way back to Spiderpool is not finished; finish it with --back --yes first"
            )
        if self.phase is Phase.NONE:
            self._must_be_stopped(self.ours)
            self._note(Phase.STOPPING)
        if self.phase is Phase.STOPPING:
            Webhooks(self.spiderpool).switch_off()
            self.gap.begins(self.spiderpool.served())
            self.spiderpool.stop()
            self._must_be_stopped(self.ours)
            make_foreign(self.store)
            free_coordinators(self.store)
            delete_blocks(self.store, self.tell)
            self._note(Phase.STARTING)
        if self.phase is Phase.TAKEN and is_parked(self.ours.agents()):
            self.tell(
                "Orbweaver: had taken over and is parked now, as where it is installed anew; started again"
            )
            self._note(Phase.STARTING)
        if self.phase is Phase.STARTING:
            self._must_be_stopped(self.spiderpool)
            self.ours.start_controllers(REPLICAS)
            wait_until(
                self._not_taken_over,
                LIMIT,
                "see what the leading controller logs of them (kubectl logs -n"
                f" {self.ours.installation.namespace} deploy/{self.ours.installation.controllers[0]}). Then repeat the"
                " command, or go back with --back",
                self.tell,
            )
            if first:
                self.tell(f"Orbweaver: the first agent, on node {first}")
                self.ours.start_agents(self.gap, self._host_name(first))
            else:
                self.tell("Orbweaver: no node that is Ready is one for its agents; none is tried first")
            self.ours.start_agents(self.gap)
            self.ours.settle()
            self._note(Phase.TAKEN)
            self.tell(self.gap.summary())
        self._must_be_stopped(self.spiderpool)
        self.tell("Orbweaver serves every node; Spiderpool is stopped, and comes back with --back --yes")

    def back(self) -> None:
        """Put Spiderpool in our place again. Raises `InvalidRequest` when nothing was taken, and `TakeoverUnfinished`."""
        phase = self.phase
        if phase is Phase.NONE:
            raise InvalidRequest("Spiderpool was not taken over from, or has everything back already")
        if phase is Phase.STOPPING:
            self._must_be_stopped(self.ours)
            give_back_uids(self.store)
            self._start_spiderpool()
            return
        if phase in (Phase.STARTING, Phase.TAKEN):
            self._note(Phase.RETURNING)
        if self.phase is Phase.RETURNING:
            self._must_be_stopped(self.spiderpool)
            self.gap.begins(self.ours.served())
            self.ours.stop()
            holdings = Holdings.read(self.store)
            if holdings.problems:
                raise TakeoverUnfinished(
                    "what is recorded cannot all be given back; ours is stopped and nothing was written. Mend it, and repeat"
                    " the command",
                    details=holdings.problems,
                )
            give_back_endpoints(self.store, holdings, self.tell)
            give_back_pools(self.store, holdings, self.tell)
            self._note(Phase.RETURNED)
        if self.phase is Phase.RETURNED:
            self._must_be_stopped(self.ours)
            delete_blocks(self.store, self.tell)
            self._start_spiderpool()

    def _not_taken_over(self) -> str:
        """Before an agent answers a DEL, the address that it means has to be recorded."""
        pools = self.store.list("SpiderIPPool").items
        left = sorted(obj["metadata"]["name"] for obj in pools if _is_foreign(obj))
        named = f"{', '.join(left[:3])}{', …' if len(left) > 3 else ''}"
        return f"{len(left)} of {len(pools)} pools are to be taken over yet ({named})" if left else ""

    def _host_name(self, node: str) -> str:
        """By which a node selector means the node. Raises `NotFound`."""
        labels = self.store.get("Node", node)["metadata"].get("labels") or {}
        return str(labels.get(HOST, node))

    def _start_spiderpool(self) -> None:
        self.spiderpool.start_controllers(1)
        Webhooks(self.spiderpool).switch_on()
        self.spiderpool.start_agents(self.gap)
        self.spiderpool.settle()
        self._note(Phase.NONE)
        self.tell(self.gap.summary())
        self.tell("Spiderpool serves every node; Orbweaver is stopped")

    def _must_be_stopped(self, side: Side) -> None:
        if not side.is_stopped():
            where = f"{side.installation.title} in namespace {side.installation.namespace}"
            raise TakeoverUnfinished(
                f"{where} runs, or is started by somebody else (Helm, an operator, GitOps), while it has to be stopped: two"
                " that give out addresses give one twice. Scale its Deployment to 0, add the node selector"
                " orbweaver.io/parked=true to its DaemonSet, wait until its pods are gone, and repeat the command"
            )

    def _note(self, phase: Phase) -> None:
        self.spiderpool.change(self.spiderpool.agents(), lambda obj: _with_phase(obj, phase))


def _is_foreign(pool: Object) -> bool:
    try:
        return bool(foreign_allocations(IPPool.from_object(pool), pool.get("status") or {}))
    except InvalidObject:
        return True


def phase_of(agents: Object) -> Phase:
    """How far it is, by Spiderpool's DaemonSet. Raises `InvalidObject` where that is not known here."""
    metadata = agents["metadata"]
    text = (metadata.get("annotations") or {}).get(PHASE, "")
    try:
        return Phase(text)
    except ValueError as error:
        raise InvalidObject(
            f"annotation {PHASE} of DaemonSet {metadata.get('namespace', '')}/{metadata['name']} says {shown(text)}, which this"
            " version does not know: a newer one has written it; finish the takeover, or the way back, with that version"
        ) from error


def _with_phase(obj: Object, phase: Phase) -> Object:
    metadata = obj["metadata"]
    annotations = {key: value for key, value in (metadata.get("annotations") or {}).items() if key != PHASE}
    if phase:
        annotations[PHASE] = phase.value
    return {**obj, "metadata": {**metadata, "annotations": annotations}}
