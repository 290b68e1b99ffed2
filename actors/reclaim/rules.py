"""What becomes of a recorded address: whether its holder is gone for good, and how sure that is.

What must always hold: the address of a pod that lives, on a node that is not lost, is never released, and what is not
known speaks for the holder. Evidence goes before timers: where the node's own agent sees its sandboxes, it is left to
that one to release what a pod that is gone held. A StatefulSet's pod that is still wanted loses its address to nobody but
its own next incarnation. These are pure functions; who asks reads the cluster's state anew before it acts on a release,
and releases with the record's own fence.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from actors.decisions.inherit import is_fixed
from actors.decisions.node_watch import NOBODY, NodeWatch
from actors.decisions.settings import GCSettings
from actors.resources.blocks.record import Record
from actors.resources.node import Node
from actors.resources.pod import Pod

RESOLUTION = 1.0
"""The API server cuts times to whole seconds, so a grace period may end this much later than it says."""

_POD = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?/[a-z0-9]([-a-z0-9.]*[a-z0-9])?", re.ASCII)


class Action(Enum):
    """KEEP: leave it. WAIT: leave it, and judge again at `until`. MARK: leave it, but its next claimer probes it.
    KEEP_FOR_NEXT: it stays with the pod's name. RELEASE: give it back to its pool."""

    KEEP = "keep"
    WAIT = "wait"
    MARK = "mark"
    KEEP_FOR_NEXT = "keep for next"
    RELEASE = "release"


@dataclass(frozen=True, slots=True)
class RecordedAddress:
    """One address, without prefix, and who it is recorded for."""

    address: str
    record: Record


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is to be done about one record, and why."""

    action: Action
    """Which of the five things."""
    reason: str = ""
    """One word, for metrics and Events."""
    text: str = ""
    """The same in a sentence."""
    forced: bool = False
    """The holder may still run somewhere."""
    until: float = 0.0
    """With WAIT: when to judge again."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of the holder at one moment."""

    pod: Pod | None
    """The pod that has the record's name now, if any."""
    node: Node | None
    """The node that it runs on, or, without a pod, the record's; None when there is no such object."""
    namespace: bool = True
    """Whether it exists and is to stay."""
    pool: bool = True
    """Whether it exists."""
    wanted: bool | None = None
    """Whether somebody will start a pod of that name again who is to find its address; None: nobody keeps addresses for it."""
    siblings: tuple[RecordedAddress, ...] = ()
    """What else is recorded for the pod's name."""
    noticed: float = 0.0
    """When whoever asks first saw the pod gone or finished."""
    watch: NodeWatch = NOBODY
    """Whether the record's own node sees to it when its sandbox has ended."""


KEEP = Verdict(Action.KEEP)


@dataclass(frozen=True, slots=True)
class Case:
    """One record, what is known of its holder, and when and by which settings it is judged."""

    held: RecordedAddress
    facts: Facts
    now: float
    """Seconds since the epoch."""
    settings: GCSettings

    def once(self, verdict: Verdict, moment: float) -> Verdict:
        """The verdict when the moment has come, until then to wait for it."""
        if self.now >= moment:
            return verdict
        return Verdict(Action.WAIT, verdict.reason, verdict.text, until=moment)


def judge(held: RecordedAddress, facts: Facts, now: float, settings: GCSettings) -> Verdict:
    """The verdict on one record; `now` is in seconds since the epoch. Of RULES, the first that says something decides."""
    if not settings.enabled:
        return KEEP
    case = Case(held, facts, now, settings)
    verdicts = (rule(case) for rule in RULES)
    return next((verdict for verdict in verdicts if verdict is not None), KEEP)


def _misnamed(case: Case) -> Verdict | None:
    record = case.held.record
    if _POD.fullmatch(record.pod) is None:
        return Verdict(Action.RELEASE, "DirtyRecord", f"no pod can be named {record.pod!r}")
    return None


def _retained(case: Case) -> Verdict | None:
    """What is kept for a pod's next incarnation; a record taken over without a UID looks the same."""
    held, facts = case.held, case.facts
    record, pod = held.record, facts.pod
    if not record.is_retained and not (record.machine and not record.container):
        return None  # with a machine and without a container: another IPAM did not tell in which of its pods it runs
    if pod is not None and not pod.finished and (not is_fixed(record) or _reports(pod, held)):
        return KEEP
    if facts.wanted and facts.pool:
        return KEEP
    if facts.wanted:
        return Verdict(
            Action.RELEASE,
            "DirtyRecord",
            f"it is kept for pod {record.pod} in pool {record.pool}, which is gone",
        )
    return _release_unwanted(record, facts)


def _release_unwanted(record: Record, facts: Facts) -> Verdict:
    if record.ipam_claim:
        claim = f"{record.pod.partition('/')[0]}/{record.ipam_claim}"
        return Verdict(Action.RELEASE, "OwnerGone", f"IPAMClaim {claim} does not exist any more")
    if record.machine:
        return Verdict(
            Action.RELEASE, "OwnerGone", f"virtual machine {record.holder} does not exist any more"
        )
    if is_fixed(record):
        return Verdict(Action.RELEASE, "OwnerGone", f"{record.owner} does not want pod {record.pod} any more")
    return Verdict(
        Action.RELEASE, _why_gone(facts), f"it is kept for pod {record.pod}, which nobody starts again"
    )


def _gone(case: Case) -> Verdict | None:
    facts, pod = case.facts, case.held.record.pod
    if facts.pod is not None:
        return None
    text = f"pod {pod} is gone and no DEL came for it"
    if not facts.namespace:
        text = f"namespace {pod.partition('/')[0]} of pod {pod} is deleted and no DEL came for it"
    action = Action.KEEP_FOR_NEXT if facts.wanted else Action.RELEASE
    return case.once(Verdict(action, _why_gone(facts), text, forced=True), _left_to_node(case))


def _replaced(case: Case) -> Verdict | None:
    held, facts = case.held, case.facts
    uid, pod = held.record.uid, facts.pod
    if pod is None or not uid or not pod.uid or uid == pod.uid:
        return None
    if facts.wanted or (not pod.finished and _reports(pod, held)):
        return KEEP  # the new pod has it, or will take it over with its ADD
    text = f"pod {pod.key} with UID {uid} is gone; the pod of that name has UID {pod.uid}"
    return case.once(Verdict(Action.RELEASE, "PodReplaced", text, forced=True), _left_to_node(case))


def _finished(case: Case) -> Verdict | None:
    pod = case.facts.pod
    if pod is None or not pod.finished:
        return None
    if case.facts.wanted:
        return KEEP
    evicted = pod.phase == "Failed" and pod.reason == "Evicted"
    text = f"pod {pod.key} was evicted" if evicted else f"pod {pod.key} has ended, its phase is {pod.phase}"
    # Its containers have ended, its sandbox perhaps not, and that is what answers for the address.
    verdict = Verdict(Action.RELEASE, "PodEvicted" if evicted else "PodFinished", text, forced=True)
    return case.once(verdict, _left_to_node(case))


def _living(case: Case) -> Verdict:
    """The pod is there and has not ended. Of RULES_OF_A_LIVING_POD the first that does something decides, else the one that
    waits the shortest."""
    answers = (rule(case) for rule in RULES_OF_A_LIVING_POD)
    verdicts = [verdict for verdict in answers if verdict is not None]
    for verdict in verdicts:
        if verdict.action is not Action.WAIT:
            return verdict
    return min(verdicts, key=lambda verdict: verdict.until, default=KEEP)


def _on_lost_node(case: Case) -> Verdict | None:
    """The cluster has given the pod's node up. What its owner will start again is only marked."""
    lost = _lost(case)
    if lost is not None and lost.action is Action.RELEASE and case.facts.wanted:
        return Verdict(Action.MARK, lost.reason, lost.text, forced=True)
    return lost


def _lost(case: Case) -> Verdict | None:
    """`not_ready_delay` is 300 s unless it is set (`decisions/settings.py`)."""
    pod, node, settings = case.facts.pod, case.facts.node, case.settings
    if pod is None or not settings.lost_nodes or not pod.node:
        return None
    if node is None:
        return Verdict(
            Action.RELEASE, "NodeGone", f"node {pod.node} of pod {pod.key} was deleted", forced=True
        )
    if node.ready:
        return None
    if node.out_of_service:
        # As kube-controller-manager's pod garbage collector: the taint counts on a node that is not Ready.
        text = f"node {node.name} of pod {pod.key} is out of service"
        return Verdict(Action.RELEASE, "NodeOutOfService", text, forced=True)
    if node.not_ready_since is None or (pod.stays_bound and pod.deleted_at is None):
        return None
    text = f"node {node.name} of pod {pod.key} has not been Ready for {settings.not_ready_delay:g} s"
    verdict = Verdict(Action.RELEASE, "NodeNotReady", text, forced=True)
    return case.once(verdict, node.not_ready_since + settings.not_ready_delay)


def _terminating(case: Case) -> Verdict | None:
    """The pod is Terminating and has outlived its grace period."""
    pod, node, settings = case.facts.pod, case.facts.node, case.settings
    if pod is None or pod.deleted_at is None or case.facts.wanted:
        return None
    ready = node is not None and node.ready
    if not (settings.dead_on_ready if ready else settings.dead_on_not_ready):
        return None
    delay = settings.dead_on_ready_delay + settings.own_del if ready else settings.dead_on_not_ready_delay
    state = "Ready" if ready else "not Ready"
    text = f"pod {pod.key} is Terminating past its grace period, on a node that is {state}"
    reason = "TerminatingOnReadyNode" if ready else "TerminatingOnNotReadyNode"
    verdict = Verdict(Action.RELEASE, reason, text, forced=True)
    return case.once(verdict, max(pod.deleted_at + RESOLUTION + delay, _watched_until(case)))


def _superseded(case: Case) -> Verdict | None:
    record, pod = case.held.record, case.facts.pod
    if pod is None or pod.deleted_at is not None or not _uses_another(case.held, pod, case.facts.siblings):
        return None
    text = f"pod {pod.key} uses another address for interface {record.interface}"
    return Verdict(Action.RELEASE, "Superseded", text)


RULES: tuple[Callable[[Case], Verdict | None], ...] = (
    _misnamed,
    _retained,
    _gone,
    _replaced,
    _finished,
    _living,
)
"""In this order: each may take for granted that those before it said nothing."""
RULES_OF_A_LIVING_POD: tuple[Callable[[Case], Verdict | None], ...] = (
    _on_lost_node,
    _terminating,
    _superseded,
)


def _uses_another(held: RecordedAddress, pod: Pod, siblings: tuple[RecordedAddress, ...]) -> bool:
    """Whether the pod is seen to use another record's address for the same interface and family, and not this one.

    Only a sibling that is not older counts: what the pod shows may still be from before its present sandbox.
    """
    mine = held.record
    reported = pod.reported
    if held.address in reported:
        return False
    return any(
        other.address != held.address
        and (":" in other.address) == (":" in held.address)
        and other.record.interface == mine.interface
        and other.record.uid == mine.uid
        and bool(other.record.container)
        and (other.record.container == mine.container or other.record.since > mine.since)
        and other.address in reported
        for other in siblings
    )


def _left_to_node(case: Case) -> float:
    """Until when the node itself is left to release: its agent as long as that watches over it, and else its runtime, which
    may still send its DEL. Where there is neither, nothing is waited for."""
    node, since = case.facts.node, case.facts.noticed
    own_del = since + case.settings.own_del if node is not None and node.ready else since
    return max(own_del, _watched_until(case))


def _watched_until(case: Case) -> float:
    """Until when the agent of the record's node is believed to see to it. On a node that is not Ready, perhaps only because
    its kubelet stands, it counts if it was heard, and until the cluster gives the node up."""
    node, watch, settings = case.facts.node, case.facts.watch, case.settings
    if node is None or not (node.ready or watch.heard):
        return 0.0
    if node.ready or not settings.lost_nodes:
        return watch.until
    if node.out_of_service:
        return 0.0
    given_up = (
        float("inf") if node.not_ready_since is None else node.not_ready_since + settings.not_ready_delay
    )
    return min(watch.until, given_up)


def _why_gone(facts: Facts) -> str:
    return "PodGone" if facts.namespace else "NamespaceGone"


def _reports(pod: Pod, held: RecordedAddress) -> bool:
    return held.address in pod.reported
