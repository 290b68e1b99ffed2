"""One side of the swap: the DaemonSet of agents and the Deployment of controllers, Spiderpool's or ours, found, stopped and
started.

What must always hold: what a side was before it was stopped stands on its own objects, in an annotation, so that whoever
starts it again, whenever that is, needs nothing else. A side counts as stopped when none of its pods is left, also on
nodes that do not answer: a pod that is only being deleted may still give out an address.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from actors.errors import (
    Conflict,
    InvalidObject,
    NoSuchResource,
    NotAllowed,
    NotFound,
    TakeoverUnfinished,
)
from actors.store.contract import Object, Store
from cni.takeover.reading import Tell
from cni.takeover.spiderpool.gap import Gap
from cni.takeover.waiting import wait_until

BEFORE = "orbweaver.io/before-takeover"
"""Annotation: what the command changed in the object, as it was, in JSON."""
PARKED = {"orbweaver.io/parked": "true"}
"""In a DaemonSet's node selector: no node has this label, so that none of its pods runs."""
HOST = "kubernetes.io/hostname"
MULTUS = "multus-cni"
"""The container of Multus, which Spiderpool's chart puts into the pods of its agents: its files on the node hold a token
that ends with the pod."""

ATTEMPTS = 20
GRACE = 2
"""Seconds that pods of Spiderpool have to end: nobody gives out an address meanwhile, nor before the slowest of them is gone.
Its agents end by no signal but the last; ours end when their last request is answered."""
LIMIT = 180.0
"""Seconds for which nothing may come on while pods stop or start: longer than their grace period, and than pulling an image
usually takes."""


@dataclass(frozen=True, slots=True)
class Installation:
    """One side, as it was found."""

    title: str
    """For people."""
    namespace: str
    agents: str
    """The DaemonSet's name."""
    controllers: tuple[str, ...]
    """The Deployments' names."""
    configuration: str
    """The name of the ConfigMap with `conf.yml`, empty where none is mounted."""
    grace: int | None = None
    """Seconds that its pods have to end; None for as many as they say themselves."""


def find_spiderpool(store: Store, namespace: str | None) -> Installation:
    """The running Spiderpool, or one that was stopped by a takeover. Raises `InvalidObject`."""
    return _find(
        store,
        "Spiderpool",
        ("spiderpool-agent", "spiderpool-controller"),
        namespace,
        "name its namespace with --spiderpool-namespace; where it has been uninstalled there is nothing to stop, and"
        " Orbweaver takes over what its pools say when it first starts",
        grace=GRACE,
    )


def find_orbweaver(store: Store) -> Installation:
    """Orbweaver's own installation. Raises `InvalidObject`."""
    return _find(
        store,
        "Orbweaver",
        ("orbweaver agent", "orbweaver controller"),
        None,
        "install it parked (docs/en/takeover-spiderpool.md): helm install orbweaver deploy/chart -n orbweaver-system"
        " --create-namespace --set parked=true --set crds.enabled=false",
    )


def _find(
    store: Store,
    title: str,
    programs: tuple[str, str],
    namespace: str | None,
    remedy: str,
    *,
    grace: int | None = None,
) -> Installation:
    agents = _running(store, "DaemonSet", programs[0], namespace)
    if not agents:
        raise InvalidObject(f"no DaemonSet runs `{programs[0]}`: {title} is not installed here; {remedy}")
    if len(agents) > 1:
        names = ", ".join(f"{obj['metadata']['namespace']}/{obj['metadata']['name']}" for obj in agents)
        raise InvalidObject(f"there are several DaemonSets with `{programs[0]}` ({names}); {remedy}")
    where = agents[0]["metadata"]["namespace"]
    controllers = _running(store, "Deployment", programs[1], where)
    return Installation(
        title,
        where,
        agents[0]["metadata"]["name"],
        tuple(obj["metadata"]["name"] for obj in controllers),
        _configuration(agents[0]),
        grace,
    )


def _running(store: Store, kind: str, program: str, namespace: str | None) -> list[Object]:
    """The objects of a kind whose pods run a program. Names and labels can be chosen in Spiderpool's chart."""
    return [obj for obj in store.list(kind, namespace).items if runs_program(obj, program)]


def runs_program(obj: Object, program: str) -> bool:
    """Whether the pods of a DaemonSet or Deployment run a program, or did before a takeover."""
    return any(_runs(container, program) for container in _all_containers(obj))


def _runs(container: Any, program: str) -> bool:
    command = [str(word) for word in (*(container.get("command") or ()), *(container.get("args") or ()))]
    if not command:
        return False
    words = program.split()
    return [command[0].rpartition("/")[2], *command[1 : len(words)]] == words


def _all_containers(obj: Object) -> list[Any]:
    """The containers of its pods, and those that were taken out to stop it."""
    return [*_template(obj).get("containers", ()), *before(obj).get("containers", ())]


def _template(obj: Object) -> dict[str, Any]:
    spec: dict[str, Any] = obj["spec"]["template"]["spec"]
    return spec


def _configuration(agents: Object) -> str:
    for volume in _template(agents).get("volumes") or ():
        name = str((volume.get("configMap") or {}).get("name") or "")
        if name.endswith("conf"):
            return name
    return ""


def before(obj: Object) -> dict[str, Any]:
    """What an object was before it was stopped; empty where the command did not stop it."""
    text = (obj["metadata"].get("annotations") or {}).get(BEFORE)
    return dict(json.loads(text)) if text else {}


@dataclass(frozen=True, slots=True)
class Side:
    """An installation in the hand of who swaps it."""

    store: Store
    installation: Installation
    tell: Tell

    def agents(self) -> Object:
        """The DaemonSet as it is now."""
        return self.store.get("DaemonSet", self.installation.agents, self.installation.namespace)

    def controllers(self) -> list[Object]:
        """The Deployments as they are now."""
        where = self.installation.namespace
        return [self.store.get("Deployment", name, where) for name in self.installation.controllers]

    def pods(self) -> list[Object]:
        """Every pod of it that may still do something. Multus alone gives out no addresses."""
        workloads = [self.agents(), *self.controllers()]
        pods = self.store.list("Pod", self.installation.namespace).items
        return [
            pod
            for pod in pods
            if any(matches(pod, workload) for workload in workloads) and _ended(pod) is False
        ]

    def served(self) -> frozenset[str]:
        """The nodes that an agent of it is ready on."""
        agents = self.agents()
        return frozenset(
            str(pod["spec"].get("nodeName", ""))
            for pod in self.pods()
            if matches(pod, agents) and is_ready(pod) and not pod["metadata"].get("deletionTimestamp")
        )

    def is_stopped(self) -> bool:
        """Whether nothing of it runs, or will."""
        return (
            is_parked(self.agents())
            and not any(obj["spec"].get("replicas", 1) for obj in self.controllers())
            and not self.pods()
        )

    def stop(self) -> None:
        """Stop all of it, and wait until nothing is left. Raises `TakeoverUnfinished`."""
        title = self.installation.title
        for obj in self.controllers():
            self.change(obj, _scaled_down)
        self.tell(f"{title}: controllers are told to end")
        self.change(self.agents(), _parked)
        self.tell(f"{title}: agents are told to end")
        wait_until(
            partial(self._left, set()),
            LIMIT,
            "look at the pods: on a node that does not answer, nobody can tell whether they run; bring it back, or delete its"
            " Node once the machine is off. Then repeat the command",
            self.tell,
        )
        self.tell(f"{title}: nothing of it runs")

    def start_controllers(self, replicas: int) -> None:
        """Start as many controllers as there were, else `replicas`, and wait for the first. Raises `TakeoverUnfinished`."""
        for obj in self.controllers():
            self.change(obj, lambda fresh: _scaled_up(fresh, replicas))
        wait_until(self._no_controller, LIMIT, self._why_not("controller"), self.tell)

    def start_agents(self, gap: Gap, node: str | None = None) -> None:
        """Start the agents, on one node alone where it is named, and wait until all are ready; `gap` is told of each node.
        Raises `TakeoverUnfinished`."""
        self.change(self.agents(), lambda fresh: _unparked(fresh, node))
        wait_until(partial(self._not_ready, gap, node), LIMIT, self._why_not("agent"), self.tell)

    def takes(self, node: Object) -> bool:
        """Whether the node selector of its agents, as it is without parking, lets them run on a node."""
        labels = node["metadata"].get("labels") or {}
        return bool(self.selector().items() <= labels.items())

    def selector(self) -> dict[str, Any]:
        """The node selector of its agents, as it is without parking."""
        return _selector_before(self.agents())

    def settle(self) -> None:
        """Take away what was noted for starting again: it is as it was."""
        for obj in (self.agents(), *self.controllers()):
            self.change(obj, _without_note)

    def change(self, obj: Object, how: Callable[[Object], Object]) -> None:
        """Write what `how` makes of an object, however often somebody else writes it meanwhile."""
        kind, name = obj["kind"], obj["metadata"]["name"]
        for _ in range(ATTEMPTS):
            changed = how(obj)
            if changed == obj:
                return
            try:
                self.store.update(changed)
            except Conflict:
                obj = self.store.get(kind, name, obj["metadata"].get("namespace", ""))
            else:
                return
        raise TakeoverUnfinished(
            f"{kind} {name} is written by somebody else all the time; repeat the command"
        )

    def _left(self, unhurried: set[str]) -> str:
        """`unhurried`: the UIDs of pods that may take their time, because hurrying them was refused."""
        running = self.pods()
        for pod in running:
            self._hurry(pod, unhurried)
        pods = sorted(pod["metadata"]["name"] for pod in running)
        more = f" and {len(pods) - 3} more" if len(pods) > 3 else ""
        return (
            f"{len(pods)} pods of {self.installation.title} still run ({', '.join(pods[:3])}{more})"
            if pods
            else ""
        )

    def _hurry(self, pod: Object, unhurried: set[str]) -> None:
        """Give a pod that is being deleted no longer than `grace`. The kubelet still says when it is gone."""
        metadata, grace = pod["metadata"], self.installation.grace
        if grace is None or metadata["uid"] in unhurried or not metadata.get("deletionTimestamp"):
            return
        if metadata.get("deletionGracePeriodSeconds", 0) <= grace:
            return
        try:
            with suppress(NotFound, Conflict):
                self.store.delete(
                    "Pod", metadata["name"], metadata["namespace"], uid=metadata["uid"], grace=grace
                )
        except (NotAllowed, InvalidObject) as error:  # by RBAC, or by an admission policy
            unhurried.add(metadata["uid"])
            self.tell(f"pod {metadata['name']} is waited for as long as it may take: {error}")

    def _no_controller(self) -> str:
        waiting = [obj for obj in self.controllers() if not _has_ready(obj)]
        return f"no controller of {self.installation.title} is ready" if waiting else ""

    def _not_ready(self, gap: Gap, node: str | None) -> str:
        gap.ends(self.served())
        obj = self.agents()
        status = obj.get("status") or {}
        if not is_observed(obj):
            return f"the agents of {self.installation.title} are not begun"
        wanted = status.get("desiredNumberScheduled", 0)
        if node and not wanted:
            return (
                f"no agent of {self.installation.title} may run on node {node}, which their node selector, affinity or"
                " tolerations leave out (another one is tried with --first-node)"
            )
        ready, current = status.get("numberReady", 0), status.get("updatedNumberScheduled", 0)
        if min(ready, current) >= wanted:
            return ""
        # Each start of an agent has the whole limit: the line is another one when the first is being replaced.
        more = f", {wanted - current} still to be started anew" if current < wanted else ""
        return f"{ready} of {wanted} agents of {self.installation.title} are ready{more}"

    def _why_not(self, what: str) -> str:
        return (
            f"look at the {what} pods in namespace {self.installation.namespace} (kubectl describe, kubectl logs). Then repeat"
            " the command, or go back with --back"
        )


def is_ready(obj: Object) -> bool:
    """Whether a node, or a pod, says that it is ready."""
    conditions = (obj.get("status") or {}).get("conditions") or ()
    return any(entry.get("type") == "Ready" and entry.get("status") == "True" for entry in conditions)


def is_parked(agents: Object) -> bool:
    """Whether a DaemonSet makes no agents: none of its pods, or only Multus in them."""
    template = _template(agents)
    selector = template.get("nodeSelector") or {}
    only_multus = all(container.get("name") == MULTUS for container in template["containers"])
    return only_multus or PARKED.items() <= selector.items()


def has_multus(agents: Object) -> bool:
    """Whether its pods hold Multus as well."""
    return any(container.get("name") == MULTUS for container in _template(agents)["containers"])


def is_observed(workload: Object) -> bool:
    """Whether its status is of what the object says now."""
    observed: int = (workload.get("status") or {}).get("observedGeneration", 0)
    generation: int = workload["metadata"].get("generation", 0)
    return observed >= generation


def matches(pod: Object, workload: Object) -> bool:
    """Whether a workload's selector means this pod."""
    labels = pod["metadata"].get("labels") or {}
    wanted = (workload["spec"].get("selector") or {}).get("matchLabels") or {}
    return bool(wanted) and all(labels.get(key) == value for key, value in wanted.items())


def _ended(pod: Object) -> bool:
    """Whether all of a pod that gives out addresses has ended for good."""
    containers = (pod.get("spec") or {}).get("containers") or ()
    if containers and all(container.get("name") == MULTUS for container in containers):
        return True
    return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")


def _has_ready(deployment: Object) -> bool:
    status = deployment.get("status") or {}
    return is_observed(deployment) and bool(status.get("readyReplicas"))


def _parked(obj: Object) -> Object:
    if is_parked(obj):
        return obj
    template = _template(obj)
    selector = dict(template.get("nodeSelector") or {})
    if has_multus(obj):
        kept = [container for container in template["containers"] if container.get("name") == MULTUS]
        note = {"containers": template["containers"], "updateStrategy": obj["spec"].get("updateStrategy")}
        # All at once: until the last one has ended nobody can give out an address.
        strategy = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "100%"}}
        parked = _with_template(obj, {**template, "containers": kept})
        return _noted({**parked, "spec": {**parked["spec"], "updateStrategy": strategy}}, note)
    note = before(obj) or {"nodeSelector": selector}
    return _noted(_with_template(obj, {**template, "nodeSelector": selector | PARKED}), note)


def _unparked(obj: Object, node: str | None) -> Object:
    template, note = dict(_template(obj)), before(obj)
    if "containers" in note:
        started = _with_template(obj, {**template, "containers": note["containers"]})
        return {**started, "spec": {**started["spec"], "updateStrategy": note.get("updateStrategy") or {}}}
    # Where it was installed parked, this is the first that is known of it.
    selector = note.setdefault("nodeSelector", _selector_before(obj))
    wanted = {**selector, HOST: node} if node else selector
    return _noted(_with_template(obj, {**template, "nodeSelector": wanted}), note)


def _selector_before(obj: Object) -> dict[str, Any]:
    """The node selector of a DaemonSet before it was parked."""
    selector = before(obj).get("nodeSelector", _template(obj).get("nodeSelector")) or {}
    return {key: value for key, value in selector.items() if key not in PARKED}


def _scaled_down(obj: Object) -> Object:
    replicas = obj["spec"].get("replicas", 1)
    if not replicas:
        return obj
    return _noted({**obj, "spec": {**obj["spec"], "replicas": 0}}, {"replicas": replicas})


def _scaled_up(obj: Object, replicas: int) -> Object:
    if obj["spec"].get("replicas", 1):
        return obj
    return {**obj, "spec": {**obj["spec"], "replicas": before(obj).get("replicas") or replicas}}


def _with_template(obj: Object, template: dict[str, Any]) -> Object:
    spec = obj["spec"]
    return {**obj, "spec": {**spec, "template": {**spec["template"], "spec": template}}}


def _noted(obj: Object, note: dict[str, Any]) -> Object:
    metadata = obj["metadata"]
    annotations = {**(metadata.get("annotations") or {}), BEFORE: json.dumps(note, separators=(",", ":"))}
    return {**obj, "metadata": {**metadata, "annotations": annotations}}


def _without_note(obj: Object) -> Object:
    metadata = obj["metadata"]
    annotations = {key: value for key, value in (metadata.get("annotations") or {}).items() if key != BEFORE}
    if annotations == (metadata.get("annotations") or {}):
        return obj
    return {**obj, "metadata": {**metadata, "annotations": annotations}}


def listed(store: Store, kind: str) -> tuple[Object, ...]:
    """All objects of a kind; none where the cluster has no such kind."""
    try:
        return store.list(kind).items
    except NoSuchResource:
        return ()


def exists(store: Store, kind: str, name: str, namespace: str = "") -> Object | None:
    """An object, None where there is none."""
    try:
        return store.get(kind, name, namespace)
    except NotFound:
        return None
