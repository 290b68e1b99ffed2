"""Spiderpool and ours side by side on one real API server, with who starts and stops them, and pods that come and go.

Played are the DaemonSet and Deployment controllers with their kubelets, Kubernetes' garbage collector, and the container
runtime, which repeats an ADD with a new sandbox and a DEL until it is answered. Real are the API server, our controllers and
agents, the plugins, and Spiderpool's programs where there are some.
What must always hold: a side that was stopped does nothing any more when its pods are gone; everything has ended when the
stage is left.
"""

from __future__ import annotations

import contextlib
import json
import random
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import yaml

from actors.cluster.leadership import NAMESPACE
from actors.errors import Conflict, NotFound, OrbweaverError
from actors.store.contract import Object
from tests.support.agent_process import AgentProcess
from tests.support.checker import Journal
from tests.support.cluster import ClusterStore
from tests.support.leaders import ControllerProcess
from tests.support.played_spiderpool import Failed, PlayedAgent, RealAgent
from tests.tools import spiderpool
from tests.tools.apiserver import ApiServer
from tests.tools.gomodule import ProgramMissing

ROOT = Path(__file__).resolve().parent.parent.parent
THEIRS = "kube-system"
NODES = ("n1", "n2")
LIMIT = 180.0
"""Seconds that a pod waits for its addresses at most."""
PARKED = {"orbweaver.io/parked": "true"}
WEBHOOK = {
    "name": "spiderippool.spiderpool.spidernet.io",
    "admissionReviewVersions": ["v1"],
    "sideEffects": "None",
    "failurePolicy": "Fail",
    "clientConfig": {"service": {"name": "spiderpool-controller", "namespace": THEIRS, "path": "/validate"}},
    "rules": [
        {
            "apiGroups": ["spiderpool.spidernet.io"],
            "apiVersions": ["v2beta1"],
            "operations": ["DELETE"],
            "resources": ["spiderippools"],
        }
    ],
}
"""Of deletions alone: nobody answers it here."""


@dataclass(slots=True)
class Machine:
    """A node: what serves there now, and the pods on it."""

    name: str
    theirs: PlayedAgent | RealAgent
    ours: AgentProcess
    serving: str = ""
    """`spiderpool-agent`, `orbweaver-agent`, or nothing."""
    lock: threading.Lock = field(default_factory=threading.Lock)
    """Held while a played agent works, so that it has ended when it is stopped."""


class Stage:
    """Make it with `stage`."""

    def __init__(self, store: ClusterStore, server: ApiServer, directory: Path, *, multus: bool) -> None:
        self.store, self.server = store, server
        self.journal = Journal()
        self.added = 0
        """Pods that got all their addresses."""
        self.slowest = 0.0
        """Seconds that the slowest of them waited, since this was last set to 0."""
        self.overlap = False
        """Whether both sides ever ran at once."""
        self.brought = 0
        """Pods that brought our image to a node, so far."""
        self._images: set[str] = set()
        self.errors: list[BaseException] = []
        self.real = _has_real()
        self._controller = ControllerProcess(directory / "controller", server.kubeconfig)
        self._controllers: set[str] = set()
        self.machines = {name: self._machine(directory / name, name) for name in NODES}
        self._over = threading.Event()
        self._pods: dict[str, tuple[str, int]] = {}
        self._multus = multus

    def _machine(self, directory: Path, name: str) -> Machine:
        theirs = RealAgent(self.server, directory, name) if self.real else PlayedAgent(self.store, name)
        options = ("--timeout", "20")
        return Machine(
            name,
            theirs,
            AgentProcess(directory / "ours", *options, kubeconfig=self.server.kubeconfig, node=name),
        )

    # -- what is installed ---------------------------------------------------------------------------------

    def install(self) -> None:
        for obj in (*self._nodes(), *self._spiderpool(), *self._orbweaver()):
            self.store.create(obj)

    def _nodes(self) -> Iterator[Object]:
        ready = {"type": "Ready", "status": "True", "lastTransitionTime": "2025-01-31T12:00:00Z"}
        for name in NODES:
            metadata = {
                "name": name,
                "labels": {"kubernetes.io/hostname": f"{name}.example", "kubernetes.io/os": "linux"},
            }
            yield {
                "apiVersion": "v1",
                "kind": "Node",
                "metadata": metadata,
                "status": {"conditions": [ready]},
            }

    def _spiderpool(self) -> Iterator[Object]:
        configuration = {"enableIPv4": True, "enableIPv6": True, "tuneSysctlConfig": True}
        yield {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "spiderpool-conf", "namespace": THEIRS},
            "data": {"conf.yml": yaml.safe_dump(configuration)},
        }
        containers = [
            {
                "name": "spiderpool-agent",
                "image": "none",
                "command": ["/usr/bin/spiderpool-agent"],
                "args": ["daemon"],
            }
        ]
        if self._multus:
            containers.append({"name": "multus-cni", "image": "none", "command": ["/home/entrypoint.sh"]})
        volumes = [{"name": "config-path", "configMap": {"name": "spiderpool-conf"}}]
        template = {
            "containers": containers,
            "volumes": volumes,
            "nodeSelector": {"kubernetes.io/os": "linux"},
        }
        yield _workload("DaemonSet", THEIRS, "spiderpool-agent", template)
        command = ["/usr/bin/spiderpool-controller", "daemon"]
        template = {"containers": [{"name": "spiderpool-controller", "image": "none", "command": command}]}
        yield _workload("Deployment", THEIRS, "spiderpool-controller", template, replicas=1)
        yield {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingWebhookConfiguration",
            "metadata": {"name": "spiderpool-controller"},
            "webhooks": [WEBHOOK],
        }

    def _orbweaver(self) -> Iterator[Object]:
        """From the manifests, stopped as the page says."""
        agents = yaml.safe_load((ROOT / "deploy/agent/daemonset.yaml").read_text())
        agents["spec"]["template"]["spec"]["nodeSelector"] |= PARKED
        yield agents
        controllers = next(yaml.safe_load_all((ROOT / "deploy/controller/deployment.yaml").read_text()))
        controllers["spec"]["replicas"] = 0
        yield controllers

    # -- who starts and stops programs -----------------------------------------------------------------------

    def play(self) -> None:
        """Until the stage is left."""
        while not self._over.is_set():
            try:
                self._deployments()
                self._daemonset("spiderpool-agent", THEIRS)
                self._daemonset("orbweaver-agent", NAMESPACE)
                self._bring_images()
                self._collect_garbage()
            except (Conflict, NotFound):
                continue
            except BaseException as error:
                self.errors.append(error)
                return
            time.sleep(0.02)

    def _deployments(self) -> None:
        for name, namespace in (("spiderpool-controller", THEIRS), ("orbweaver-controller", NAMESPACE)):
            obj = self.store.get("Deployment", name, namespace)
            wanted = obj["spec"].get("replicas", 1) > 0
            pod = f"{name}-0"
            if wanted and name not in self._controllers:
                self._create_pod(obj, pod, namespace, NODES[0])
                if name == "orbweaver-controller":
                    self._controller.start()
                self._controllers.add(name)
            elif not wanted and name in self._controllers:
                if name == "orbweaver-controller":
                    self._controller.stop()
                self._controllers.discard(name)
                self._delete_pod(pod, namespace)
            ready = 1 if name in self._controllers else 0
            status = {
                "readyReplicas": ready,
                "replicas": ready,
                "observedGeneration": obj["metadata"]["generation"],
            }
            self._set_status(obj, status)

    def _daemonset(self, name: str, namespace: str) -> None:
        obj = self.store.get("DaemonSet", name, namespace)
        template = obj["spec"]["template"]["spec"]
        selector = template.get("nodeSelector") or {}
        generation = obj["metadata"]["generation"]
        acts = any(container["name"] != "multus-cni" for container in template["containers"])
        desired = 0
        for machine in self.machines.values():
            labels = {"kubernetes.io/hostname": f"{machine.name}.example", "kubernetes.io/os": "linux"}
            wanted = selector.items() <= labels.items()
            desired += wanted
            pod = f"ds-{name}-{machine.name}"
            present = self._pods.get(pod)
            if present is not None and (not wanted or present[1] != self._revision(obj)):
                self._end(machine, name)
                self._delete_pod(pod, namespace)
                del self._pods[pod]
                present = None
            if wanted and present is None:
                self._create_pod(obj, pod, namespace, machine.name)
                self._pods[pod] = (machine.name, self._revision(obj))
                if acts:
                    self._begin(machine, name)
        status = {
            "desiredNumberScheduled": desired,
            "numberReady": desired,
            "updatedNumberScheduled": desired,
            "currentNumberScheduled": desired,
            "numberMisscheduled": 0,
            "observedGeneration": generation,
        }
        self._set_status(obj, status)

    def _bring_images(self) -> None:
        """The DaemonSet that brings our image to the nodes, while there is one."""
        name = "orbweaver-agent-image"
        pods = {f"ds-{name}-{machine}": machine for machine in self.machines}
        try:
            obj = self.store.get("DaemonSet", name, NAMESPACE)
        except NotFound:
            for pod in self._images:
                self._delete_pod(pod, NAMESPACE)
            self._images.clear()
            return
        for pod, machine in pods.items():
            if pod not in self._images:
                self._create_pod(obj, pod, NAMESPACE, machine)
                self._images.add(pod)
                self.brought += 1
        status = {
            "desiredNumberScheduled": len(pods),
            "currentNumberScheduled": len(pods),
            "numberMisscheduled": 0,
            "numberReady": 0,
            "observedGeneration": obj["metadata"]["generation"],
        }
        self._set_status(obj, status)

    @staticmethod
    def _revision(obj: Object) -> int:
        return hash(json.dumps(obj["spec"]["template"], sort_keys=True))

    def _begin(self, machine: Machine, name: str) -> None:
        if name == "spiderpool-agent":
            machine.theirs.start()
        else:
            machine.ours.start()
        machine.serving = name
        sides = {other.serving for other in self.machines.values() if other.serving}
        self.overlap = self.overlap or len(sides) > 1

    def _end(self, machine: Machine, name: str) -> None:
        if machine.serving != name:
            return
        machine.serving = ""
        with machine.lock:
            if name == "spiderpool-agent":
                machine.theirs.stop()
            else:
                machine.ours.stop()

    def _create_pod(self, workload: Object, name: str, namespace: str, node: str) -> None:
        template = workload["spec"]["template"]
        containers = [{"name": entry["name"], "image": "none"} for entry in template["spec"]["containers"]]
        metadata = {"name": name, "namespace": namespace, "labels": template["metadata"]["labels"]}
        spec = {"nodeName": node, "containers": containers}
        pod = self.store.create({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
        statuses = [
            {
                "name": entry["name"],
                "image": "none",
                "imageID": "sha256:none",
                "ready": True,
                "restartCount": 0,
            }
            for entry in containers
        ]
        ready = {"type": "Ready", "status": "True"}
        pod["status"] = {"phase": "Running", "conditions": [ready], "containerStatuses": statuses}
        self.store.update_status(pod)

    def _delete_pod(self, name: str, namespace: str) -> None:
        path = f"/api/v1/namespaces/{namespace}/pods/{name}"
        self.server.ask("DELETE", path, {"gracePeriodSeconds": 0})

    def _set_status(self, obj: Object, status: dict[str, Any]) -> None:
        before = obj.get("status") or {}
        if any(before.get(key, 0) != value for key, value in status.items()):
            self.store.update_status({**obj, "status": {**before, **status}})

    def _collect_garbage(self) -> None:
        """Objects go with the last of their owners (k8s.io, "Garbage Collection")."""
        pods: set[str] | None = None
        for obj in self.store.list("SpiderEndpoint").items:
            metadata = obj["metadata"]
            owners = [owner["uid"] for owner in metadata.get("ownerReferences") or ()]
            if not owners or metadata.get("deletionTimestamp"):
                continue
            if pods is None:
                pods = {pod["metadata"]["uid"] for pod in self.store.list("Pod").items}
            if not pods.intersection(owners):
                with contextlib.suppress(NotFound):
                    self.store.delete("SpiderEndpoint", metadata["name"], metadata["namespace"])

    # -- the runtime ---------------------------------------------------------------------------------------------

    def start_pod(
        self, name: str, node: str, interfaces: tuple[str, ...] = ("eth0",), owner: str = ""
    ) -> Object:
        """Make a pod on a node and attach it, however long that takes; `owner`: its StatefulSet."""
        metadata: dict[str, Any] = {"name": name, "namespace": "default", "annotations": {}}
        if len(interfaces) > 1:
            pools = [{"interface": each, "ipv4": [_pool(each)]} for each in interfaces]
            metadata["annotations"] |= {
                "ipam.spidernet.io/ippools": json.dumps(pools),
                "k8s.v1.cni.cncf.io/networks": "default/second",  # becomes net1
            }
        if owner:
            metadata["ownerReferences"] = [
                {
                    "apiVersion": "apps/v1",
                    "kind": "StatefulSet",
                    "name": owner,
                    "uid": "u",
                    "controller": True,
                }
            ]
        spec = {"nodeName": node, "containers": [{"name": "main", "image": "none"}]}
        pod = self.store.create({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
        began = time.monotonic()
        for attempt in count():
            container = f"{pod['metadata']['uid']}-{attempt}"
            try:
                got = {each: self._attach(pod, node, container, each) for each in interfaces}
            except (Failed, OrbweaverError, OSError) as error:
                if time.monotonic() - began > LIMIT:
                    raise AssertionError(f"{name} has no address: {error}") from error
                self._detach(pod, node, container, interfaces, once=True)
                time.sleep(0.1)
                continue
            break
        pod = self.store.get("Pod", name, "default")
        pod["status"] = {"phase": "Running", "podIPs": [{"ip": got["eth0"]}], "podIP": got["eth0"]}
        self.store.update_status(pod)
        for interface, address in got.items():
            self.journal.acknowledged((pod["metadata"]["uid"], interface), [address])
        self.slowest = max(self.slowest, time.monotonic() - began)
        self.added += 1
        pod["container"] = container
        pod["got"] = got
        return pod

    def end_pod(self, pod: Object) -> None:
        """Delete a pod as a kubelet does: DEL, until it is answered, then the object."""
        metadata = pod["metadata"]
        path = f"/api/v1/namespaces/default/pods/{metadata['name']}"
        self.server.ask("DELETE", path, {"gracePeriodSeconds": 30})
        for interface in pod["got"]:
            self.journal.releasing((metadata["uid"], interface))
        self._detach(pod, pod["spec"]["nodeName"], pod["container"], tuple(pod["got"]))
        self.server.ask("DELETE", path, {"gracePeriodSeconds": 0})

    def _attach(self, pod: Object, node: str, container: str, interface: str) -> str:
        machine = self.machines[node]
        if machine.serving == "spiderpool-agent":
            with machine.lock:
                if machine.serving != "spiderpool-agent":
                    raise Failed("no agent answers")
                return machine.theirs.add(pod, container, interface, _pool(interface))
        if machine.serving == "orbweaver-agent":
            answer = self._plugin(machine, "ADD", pod, container, interface)
            return str(answer["ips"][0]["address"]).partition("/")[0]
        raise Failed("no agent answers")

    def _detach(
        self, pod: Object, node: str, container: str, interfaces: tuple[str, ...], *, once: bool = False
    ) -> None:
        machine, began = self.machines[node], time.monotonic()
        while True:
            try:
                if machine.serving == "spiderpool-agent":
                    with machine.lock:
                        for interface in interfaces:
                            machine.theirs.delete(pod, container, interface)
                    return
                if machine.serving == "orbweaver-agent":
                    for interface in interfaces:
                        self._plugin(machine, "DEL", pod, container, interface)
                    return
            except (Failed, OrbweaverError, OSError):
                pass
            if once or time.monotonic() - began > LIMIT:
                return
            time.sleep(0.1)

    def _plugin(
        self, machine: Machine, command: str, pod: Object, container: str, interface: str
    ) -> dict[str, Any]:
        ipam = {**machine.ours.ipam, "default_ipv4_ippool": [_pool(interface)]}
        netconf = {"cniVersion": "1.0.0", "name": "net", "type": "macvlan", "ipam": ipam}
        metadata = pod["metadata"]
        done = subprocess.run(
            [machine.ours.plugins / "spiderpool"],
            input=json.dumps(netconf).encode(),
            env={
                "CNI_COMMAND": command,
                "CNI_CONTAINERID": container,
                "CNI_NETNS": "/run/netns/none",
                "CNI_IFNAME": interface,
                "CNI_PATH": str(machine.ours.plugins),
                "CNI_ARGS": f"IgnoreUnknown=1;K8S_POD_NAMESPACE={metadata['namespace']};K8S_POD_NAME={metadata['name']}"
                f";K8S_POD_UID={metadata['uid']}",
            },
            capture_output=True,
            check=False,
            timeout=180,  # it gives up by itself after a minute
        )
        if done.returncode:
            raise Failed(done.stdout.decode(errors="replace"))
        return dict(json.loads(done.stdout or b"{}"))

    # -- pods that come and go -------------------------------------------------------------------------------

    @contextmanager
    def churn(self, seed: int) -> Iterator[None]:
        """Pods come and go on all nodes meanwhile; those that are left stay."""
        over = threading.Event()
        threads = [
            threading.Thread(
                target=self._guarded,
                args=(lambda node=node, number=number: self._churn(node, seed + number, over),),
            )
            for number, node in enumerate(NODES)
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            over.set()
            for thread in threads:
                thread.join()

    def _churn(self, node: str, seed: int, over: threading.Event) -> None:
        chance = random.Random(seed)
        mine: list[Object] = []
        number = 0
        while not over.is_set():
            if len(mine) < 2 or (len(mine) < 6 and chance.random() < 0.5):
                interfaces = ("eth0", "net1") if chance.random() < 0.3 else ("eth0",)
                mine.append(self.start_pod(f"{node}-{seed}-{number}", node, interfaces))
                number += 1
            else:
                self.end_pod(mine.pop(chance.randrange(len(mine))))
        self.left.extend(mine)

    @property
    def left(self) -> list[Object]:
        """Pods that churns left behind."""
        if not hasattr(self, "_left"):
            self._left: list[Object] = []
        return self._left

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            self.errors.append(error)

    def wait_added(self, more: int) -> None:
        """Until so many more pods have their addresses."""
        wanted, deadline = self.added + more, time.monotonic() + LIMIT + 60
        while self.added < wanted:
            assert not self.errors, self.errors
            assert time.monotonic() < deadline, (
                f"{wanted - self.added} of {more} pods are still without address"
            )
            time.sleep(0.02)

    def close(self) -> None:
        self._over.set()

    def end_all(self) -> None:
        for machine in self.machines.values():
            if self.real:
                machine.theirs.stop()
            if machine.ours.running:
                machine.ours.kill()
        if self._controller.running:
            self._controller.kill()
        for path in (
            f"/api/v1/namespaces/{THEIRS}/configmaps/spiderpool-conf",
            "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/spiderpool-controller",
        ):
            self.server.ask("DELETE", path)


@contextmanager
def stage(
    store: ClusterStore, server: ApiServer, directory: Path, *objects: Object, multus: bool = False
) -> Iterator[Stage]:
    """Spiderpool serves, ours is installed and stopped, `objects` are applied."""
    stage = Stage(store, server, directory, multus=multus)
    with ExitStack() as stack:
        stack.callback(stage.end_all)
        stage.install()
        for obj in objects:
            store.create(obj)
        player = threading.Thread(target=stage.play)
        player.start()
        stack.callback(player.join)
        stack.callback(stage.close)
        deadline = time.monotonic() + 180
        while any(machine.serving != "spiderpool-agent" for machine in stage.machines.values()):
            assert not stage.errors, stage.errors
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield stage
    assert not stage.errors, stage.errors


def _workload(kind: str, namespace: str, name: str, template: dict[str, Any], **spec: Any) -> Object:
    labels = {"app.kubernetes.io/name": "spiderpool", "app.kubernetes.io/component": name}
    return {
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {**labels, "app.kubernetes.io/version": "1.2.2"},
        },
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": template},
            **spec,
        },
    }


def _pool(interface: str) -> str:
    return "blue" if interface == "eth0" else "red"


def _has_real() -> bool:
    try:
        spiderpool.assets()
    except ProgramMissing:
        return False
    return True
