"""A real cluster on one machine: a control plane and nodes, each in network and mount namespaces of its own.

What must always hold: it shares nothing with the machine's network but the kernel, so several can run side by side;
after `stop` no process, namespace, mount, cgroup or directory of it is left, and what kubelet changes of the kernel's
settings is as it was.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.cluster.images import write_images
from tests.cluster.machine import Machine
from tests.cluster.node import BINDS, MOUNT_POINTS, Node
from tests.cluster.processes import ClusterFailed, Processes, run
from tests.cluster.programs import CGROUPS, CONTROLLERS, UNIFIED, Programs
from tests.tools.control_plane import (
    SERVICES,
    apiserver_arguments,
    authority,
    etcd_arguments,
    proxy_arguments,
    write_kubeconfig,
)

API = "10.99.0.1"
PORT = 6443
URL = f"https://{API}:{PORT}"
ADMIN = "the-tests-own-administrator"


class Cluster:
    """`start` comes first, `stop` last, whatever happened between."""

    def __init__(self, programs: Programs, nodes: int = 2) -> None:
        self.programs = programs
        self.name = f"orbweaver-{os.getpid()}"
        self.directory = Path(tempfile.mkdtemp(prefix=f"{self.name}-"))
        self.netns = f"{self.name}-cp"
        self._processes = Processes(self.directory)
        self.nodes = {f"n{number}": Node(self, number) for number in range(1, nodes + 1)}
        self._machine = Machine()
        self.images = self.directory / "images.tar"
        self.authority = authority(self.directory)

    def start(self) -> None:
        """Start everything; the nodes become Ready when they are given a CNI configuration. Raises ClusterFailed."""
        write_images(self.images)
        self._machine.take((*MOUNT_POINTS, *BINDS))
        self._network()
        self._control_plane(self._users())
        for node in self.nodes.values():
            node.start()
        self.wait("all nodes are there", lambda: len(self.items("nodes")) == len(self.nodes))
        # So that the API server reaches webhooks by their Services, as on a control plane that is a node; that one only
        # counts for traffic which stays on its node.
        self._start("kube-proxy", *proxy_arguments(self.kubeconfig("proxy"), next(iter(self.nodes))))

    def stop(self) -> None:
        """End everything and take it away."""
        for node in self.nodes.values():
            node.stop()
        self._processes.end_all()
        run("ip", "netns", "del", self.netns, check=False)
        self._machine.give_back()
        for root in (*(CGROUPS / controller for controller in CONTROLLERS), UNIFIED):
            with contextlib.suppress(FileNotFoundError):
                (root / self.name).rmdir()
        shutil.rmtree(self.directory)

    # -- clients --------------------------------------------------------------------------------------------

    def kubectl(self, *arguments: str, check: bool = True) -> str:
        """kubectl as the administrator; returns what it printed. Raises ClusterFailed with what it said."""
        return run(*self._kubectl(), *arguments, check=check)

    def _kubectl(self) -> list[str]:
        inside = ["nsenter", f"--net=/run/netns/{self.netns}"]
        return [*inside, str(self.programs.kubectl), "--kubeconfig", str(self.kubeconfig("admin"))]

    def get(self, *arguments: str) -> Any:
        """What `kubectl get … -o json` answers."""
        return json.loads(self.kubectl("get", *arguments, "-o", "json"))

    def items(self, *arguments: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.get(*arguments)["items"]
        return found

    def apply(self, *manifests: dict[str, Any]) -> None:
        """`kubectl apply` of objects."""
        path = self.directory / "apply.json"
        path.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": manifests}))
        self.kubectl("apply", "-f", str(path))

    def wait(self, what: str, holds: Callable[[], bool], seconds: float = 180.0) -> None:
        """Wait until `holds`; a question that is not answered counts as not yet. Raises ClusterFailed with what was waited
        for, and what the pods look like."""
        deadline = time.monotonic() + seconds
        unanswered: ClusterFailed | None = None
        while True:
            try:
                if holds():
                    return
            except ClusterFailed as failed:
                unanswered = failed
            if time.monotonic() > deadline:
                raise ClusterFailed(f"not in {seconds:g} s: {what}\n{self.state()}") from unanswered
            time.sleep(0.2)

    def state(self) -> str:
        """What a failed test is told: the pods, the last Events, the end of what controllers logged."""
        pods = self.kubectl("get", "pods", "-A", "-o", "wide", check=False)
        events = self.kubectl("get", "events", "-A", check=False)[-3000:]
        return f"{pods}\n{events}\n{self.controller_log()[-3000:]}"

    def kubeconfig(self, user: str, token: str | None = None) -> Path:
        """The kubeconfig of a user; `token` makes it."""
        path = self.directory / f"{user}.kubeconfig"
        if token is not None:
            write_kubeconfig(path, {"server": URL, "certificate-authority": str(self.authority)}, token)
        return path

    def nodes_ready(self) -> bool:
        """Whether pods are scheduled to every node."""
        ready = 0
        for node in self.items("nodes"):
            conditions = {one["type"]: one["status"] for one in node["status"].get("conditions", ())}
            ready += conditions.get("Ready") == "True" and not node["spec"].get("taints")
        return ready == len(self.nodes)

    def start_kubectl(self, *arguments: str) -> subprocess.Popen[str]:
        """kubectl as the administrator, for as long as the caller wants."""
        command = [*self._kubectl(), *arguments]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def call(self, *command: str) -> str:
        """Run a short command in the control plane's network; returns what it printed. Raises ClusterFailed."""
        return run("nsenter", f"--net=/run/netns/{self.netns}", *command)

    def controller_log(self) -> str:
        """All that controllers have logged, by node."""
        return "".join(node.controller_log() for node in self.nodes.values())

    # -- parts ----------------------------------------------------------------------------------------------

    def _network(self) -> None:
        run("ip", "netns", "add", self.netns)
        for command in (
            "link set lo up",
            "link add br0 type bridge",
            f"addr add {API}/16 dev br0",
            "link set br0 up",
            f"route add {SERVICES} dev br0",  # the kernel asks for a route before kube-proxy's rules apply
        ):
            run("ip", "-n", self.netns, *command.split())
        # It is the pods' gateway, too, and a router knows no Services: kube-proxy here is for the API server alone.
        for command in (
            "add table ip router",
            "add chain ip router services { type filter hook prerouting priority raw; }",
            f"add rule ip router services ip daddr {SERVICES} drop",
        ):
            run("ip", "netns", "exec", self.netns, "nft", command)

    def _users(self) -> list[str]:
        """Make their kubeconfigs; returns the lines of the token file."""
        users = {
            "admin": (ADMIN, "admin", "system:masters"),
            "manager": ("manager", "system:kube-controller-manager", ""),
            "scheduler": ("scheduler", "system:kube-scheduler", ""),
            "proxy": ("proxy", "system:kube-proxy", ""),
        } | {name: (f"node-{name}", f"system:node:{name}", "system:nodes") for name in self.nodes}
        for name, (token, _, _) in users.items():
            self.kubeconfig(name, token)
        return [f'{token},{user},{user},"{groups}"' for token, user, groups in users.values()]

    def _control_plane(self, tokens: Sequence[str]) -> None:
        client, peer = "http://127.0.0.1:2379", "http://127.0.0.1:2380"
        self._start("etcd", *etcd_arguments(self.directory, client, peer))
        self._start(
            "kube-apiserver",
            *apiserver_arguments(self.directory, client, API, PORT, tokens),
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--kubelet-preferred-address-types=InternalIP",
        )
        self._processes.wait("kube-apiserver", self._api_ready)
        self._start(
            "kube-controller-manager",
            f"--kubeconfig={self.kubeconfig('manager')}",
            f"--authentication-kubeconfig={self.kubeconfig('manager')}",
            f"--authorization-kubeconfig={self.kubeconfig('manager')}",
            f"--cert-dir={self.authority.parent}",
            "--leader-elect=false",
            f"--service-account-private-key-file={self.authority.parent / 'apiserver.key'}",
            f"--root-ca-file={self.authority}",
            "--use-service-account-credentials=true",
        )
        self._start(
            "kube-scheduler",
            f"--kubeconfig={self.kubeconfig('scheduler')}",
            f"--authentication-kubeconfig={self.kubeconfig('scheduler')}",
            f"--authorization-kubeconfig={self.kubeconfig('scheduler')}",
            "--leader-elect=false",
        )

    def _start(self, name: str, *arguments: str) -> None:
        program = str(self.programs.kubernetes / name)
        self._processes.start(name, ["nsenter", f"--net=/run/netns/{self.netns}", program, *arguments])

    def _api_ready(self) -> bool:
        return self.authority.exists() and self.kubectl("get", "--raw", "/readyz", check=False) == "ok"
