"""One node: kubelet, containerd and kube-proxy in namespaces of their own, and what tests do to the agent's pod on it.

What must always hold: what the node mounts and writes is seen by nobody else; a process of the node is one of this
session or a container's shim that names this node's own containerd socket.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.cluster.images import PAUSE
from tests.cluster.pod_logs import NAMESPACE, PodLogs
from tests.cluster.processes import ClusterFailed, Processes, run
from tests.cluster.programs import CGROUPS, CONTROLLERS, UNIFIED
from tests.tools.control_plane import proxy_arguments

if TYPE_CHECKING:
    from tests.cluster.cluster import Cluster

# What a node must have for itself although its place in the file system is fixed.
MOUNT_POINTS = tuple(
    Path(name)
    for name in (
        "/run/netns",
        "/run/spidernet",
        "/run/containerd",
        "/var/log/pods",
        "/var/log/containers",
        "/var/lib/kubelet",
        "/var/lib/cni",
        "/var/lib/orbweaver",
        "/var/log/spidernet",
    )
)
# What stands in the node's directory, where its own processes look for it.
BINDS = {Path("/opt/cni/bin"): "cni-bin", Path("/etc/cni/net.d"): "cni.d"}
AWAY = "tests/no-agent"
"""A label of nodes; the DaemonSet is deployed so that it keeps away from them."""


class Node:
    """Its address is 10.99.0.(10 + number); what it owns stands in `directory`."""

    def __init__(self, cluster: Cluster, number: int) -> None:
        self.name = f"n{number}"
        self.address = f"10.99.0.{10 + number}"
        self._noted: set[str] = set()
        self.directory = cluster.directory / self.name
        self.plugins = self.directory / "cni-bin"
        self._cluster = cluster
        self._netns = f"{cluster.name}-{self.name}"
        self._cgroup = f"{cluster.name}/{self.name}"
        self._socket = self.directory / "c.sock"
        self._processes = Processes(self.directory)
        self._holder: int | None = None
        self._logs = PodLogs()

    @property
    def root(self) -> Path:
        """Its file system, as its own processes see it."""
        return Path(f"/proc/{self._holder}/root")

    def start(self) -> None:
        """Start its programs; it becomes Ready a few seconds later. Raises ClusterFailed."""
        for name in ("cni-bin", "cni.d", "mounted", "static-pods"):
            (self.directory / name).mkdir(parents=True)
        for plugin in self._cluster.programs.cni.iterdir():
            (self.plugins / plugin.name).symlink_to(plugin)
        self._network()
        self._cgroups()
        self._namespaces()
        self._write_configurations()
        self._containerd()
        self._start_kubelet()
        programs = self._cluster.programs.kubernetes
        proxy = proxy_arguments(self._cluster.kubeconfig("proxy"), self.name)
        self.run_here("kube-proxy", [str(programs / "kube-proxy"), *proxy])

    def stop(self) -> None:
        """End its programs and containers, and take away what it made."""
        self._logs.close()
        for name in ("kubelet", "kube-proxy"):
            self._processes.end(name)
        self._end_containers()
        self._processes.end_all()
        run("ip", "netns", "del", self._netns, check=False)
        for root in (*(CGROUPS / controller for controller in CONTROLLERS), UNIFIED):
            _remove_cgroups(root / self._cgroup)

    def configure(self, conflist: Mapping[str, Any]) -> None:
        """Give the node its CNI configuration, which makes it Ready."""
        (self.directory / "cni.d" / "10-tests.conflist").write_text(json.dumps(conflist))

    def unconfigure(self) -> None:
        """Take its CNI configuration away again."""
        (self.directory / "cni.d" / "10-tests.conflist").unlink()

    def note_state(self) -> None:
        """Note what `changed_state` compares with."""
        self._noted = self._state()

    def changed_state(self) -> set[str]:
        """What of files, rules, routes and interfaces was not there when it was noted, or is there no more."""
        return self._noted ^ self._state()

    def _state(self) -> set[str]:
        script = """
            find /etc/cni /opt/cni /run/spidernet /run/netns /var/lib/orbweaver /var/lib/cni -printf '%p %y %l\n'
            for family in -4 -6; do ip $family rule; ip $family route show table all; done
            ip -br link
        """
        lines = self.call("sh", "-c", script).splitlines()
        # The kernel adds and takes routes as neighbours come and go, and that of a link-local address once it has seen that
        # nobody else has it; the runtime makes the directory for its first pod.
        unsteady = ("multicast", "anycast", "local fe80:", "/var/lib/cni/results d ")
        return {line for line in lines if not any(word in line for word in unsteady)}

    def static_pod(self, name: str, manifest: Mapping[str, Any] | None) -> None:
        """Give the kubelet a pod of its own, or take it away (None)."""
        path = self.directory / "static-pods" / f"{name}.json"
        if manifest is None:
            path.unlink()
            return
        written = path.with_name(f".{name}")  # which the kubelet passes over
        written.write_text(json.dumps(manifest))
        written.rename(path)

    def run_here(self, name: str, command: Sequence[str], extra: Mapping[str, str] | None = None) -> None:
        """Start a process in the node's namespaces."""
        self._processes.start(name, [*self._inside(), *command], extra)

    def call(self, *command: str) -> str:
        """Run a short command in the node's namespaces; returns what it printed."""
        return run(*self._inside(), *command)

    def start_command(self, *command: str) -> subprocess.Popen[str]:
        """Start a command in the node's namespaces, for as long as the caller wants."""
        return subprocess.Popen([*self._inside(), *command], stdout=subprocess.PIPE, text=True)

    def import_image(self, archive: Path) -> None:
        """Give the node an image."""
        self._ctr("images", "import", str(archive))

    def start_agent_again(self) -> None:
        """Let the DaemonSet have its pod here again. Raises ClusterFailed when it does not get ready."""
        self._cluster.kubectl("label", "node", self.name, f"{AWAY}-")
        self.wait_for_agent()

    def wait_for_agent(self) -> None:
        """Wait until the agent's pod is ready. Raises ClusterFailed."""
        self._cluster.wait(
            f"the agent of {self.name} is ready", lambda: self._agent_pod_ready() is not None, 120
        )
        self._logs.look(self._log_directory)

    def kill_agent(self) -> None:
        """SIGKILL, and wait until the kubelet has started it again. Raises ClusterFailed."""
        of_agent = (
            f'labels."io.kubernetes.container.name"==agent,labels."io.kubernetes.pod.namespace"=={NAMESPACE}'
        )
        before = self._agent_pod_ready()
        for container in self._ctr("containers", "list", "--quiet", of_agent).split():
            self._ctr("tasks", "kill", "--signal", "KILL", container, check=False)
        self._cluster.wait(
            f"the agent of {self.name} was started again",
            lambda: (again := self._agent_pod_ready()) is not None and again != before,
            120,
        )

    def restart_kubelet(self) -> None:
        """End the kubelet, as an upgrade would, and start it again; its pods run on."""
        self._processes.end("kubelet")
        self._start_kubelet()

    def signal(self, name: str, number: int) -> None:
        """Send a signal to one of its programs."""
        self._processes.signal(name, number)

    def stand_still(self, name: str) -> None:
        """SIGSTOP one of its programs."""
        self._processes.stand_still(name)

    def kill_sandbox(self, container: str) -> None:
        """End a sandbox behind the kubelet's back."""
        self._ctr("tasks", "kill", "--signal", "KILL", container)

    def stop_agent(self) -> int | None:
        """Take the DaemonSet's pod away, as an upgrade would; the exit status of its container, None when there was none."""
        self._logs.look(self._log_directory)
        (pod,) = (one["metadata"]["name"] for one in self._agent_pods())
        status = '{.status.containerStatuses[0].state.terminated.exitCode}{"\\n"}'
        # The kubelet reports the status before the object goes.
        watch = self._cluster.start_kubectl(
            *("-n", NAMESPACE, "get", "pod", pod, "--watch", "-o", f"jsonpath={status}")
        )
        assert watch.stdout is not None
        try:
            watch.stdout.readline()  # what it is now: from here on nothing is missed
            self._cluster.kubectl("label", "node", self.name, f"{AWAY}=true")
            self._cluster.kubectl("-n", NAMESPACE, "wait", "--for=delete", f"pod/{pod}", "--timeout=180s")
        finally:
            watch.terminate()
            said, _ = watch.communicate(timeout=180)
        codes = said.split()
        return int(codes[-1]) if codes else None

    def agent_log(self) -> str:
        """All that agents here have logged."""
        return self._logs.text(self._log_directory, "agent")

    def controller_log(self) -> str:
        """All that controllers here have logged."""
        return self._logs.text(self._log_directory, "controller")

    def sandbox(self, uid: str) -> tuple[str, str]:
        """The container id and the network namespace of a pod's sandbox: the one that runs, where the kubelet needed more
        than one attempt."""
        of_pod = f'labels."io.kubernetes.pod.uid"=={uid},labels."io.cri-containerd.kind"==sandbox'
        tasks = [line.split() for line in self._ctr("tasks", "list").splitlines()]
        running = {words[0] for words in tasks if words[-1] == "RUNNING"}
        attempts = self._ctr("containers", "list", "--quiet", of_pod).split()
        (container,) = [one for one in attempts if one in running]
        spec = json.loads(self._ctr("containers", "info", container))["Spec"]
        paths = [one["path"] for one in spec["linux"]["namespaces"] if one["type"] == "network"]
        return container, paths[0]

    def pod_namespaces(self) -> list[str]:
        """The network namespaces of pods that are there."""
        return self.call("ls", "/run/netns").split()

    # -- parts ----------------------------------------------------------------------------------------------

    def _start_kubelet(self) -> None:
        programs = self._cluster.programs.kubernetes
        self.run_here(
            "kubelet",
            [
                str(programs / "kubelet"),
                f"--config={self.directory / 'kubelet.json'}",
                f"--kubeconfig={self._cluster.kubeconfig(self.name)}",
                f"--hostname-override={self.name}",
                f"--node-ip={self.address}",
                f"--root-dir={self.directory / 'kubelet'}",
                f"--cert-dir={self.directory / 'kubelet-pki'}",
                f"--container-runtime-endpoint=unix://{self._socket}",
            ],
            # Else it asks for 6 s whether this is a machine of that cloud.
            {"AWS_ACCESS_KEY_ID": "none", "AWS_SECRET_ACCESS_KEY": "none"},
        )

    def _inside(self) -> list[str]:
        assert self._holder is not None
        # With the root as well: entering a mount namespace leaves a chroot.
        return ["nsenter", "--target", str(self._holder), "--mount", "--net", "--root", "--wd"]

    def _network(self) -> None:
        cluster, port = self._cluster.netns, f"v-{self.name}"
        run("ip", "netns", "add", self._netns)
        run(
            *("ip", "-n", cluster, "link", "add", port, "type", "veth"),
            *("peer", "name", "eth0", "netns", self._netns),
        )
        run("ip", "-n", cluster, "link", "set", port, "master", "br0", "up")
        for command in (
            "link set lo up",
            f"addr add {self.address}/16 dev eth0",
            "link set eth0 up",
            "route add default via 10.99.0.1",
        ):
            run("ip", "-n", self._netns, *command.split())
        # What kubeadm asks of a node before it joins.
        run("nsenter", f"--net=/run/netns/{self._netns}", "sysctl", "-q", "net.ipv4.ip_forward=1")

    def _cgroups(self) -> None:
        for controller in CONTROLLERS:
            path = CGROUPS / controller
            for part in self._cgroup.split("/"):
                path /= part
                path.mkdir(exist_ok=True)
                if controller == "cpuset":  # a new one is empty, and takes no process so
                    for name in ("cpuset.cpus", "cpuset.mems"):
                        (path / name).write_text((CGROUPS / controller / name).read_text())

    def _namespaces(self) -> None:
        """A process that does nothing but hold the mount namespace."""
        ready = self.directory / "mounted" / "ready"
        # Not seen outside, but passed on to the namespaces of the node's own containers.
        lines = ["set -e", "mount --make-rprivate /", "mount --make-rshared /"]
        lines += [f"mount -t tmpfs tmpfs {point}" for point in MOUNT_POINTS]
        lines += [
            f"mount --bind {shlex.quote(str(self.directory / name))} {point}" for point, name in BINDS.items()
        ]
        lines += [f"touch {shlex.quote(str(ready))}", "exec sleep infinity"]
        self._holder = self._processes.start(
            "namespaces",
            [
                *("nsenter", f"--net=/run/netns/{self._netns}"),
                *("unshare", "--mount", "sh", "-c", "\n".join(lines)),
            ],
        )
        self._processes.wait("namespaces", ready.exists)

    def _write_configurations(self) -> None:
        kubelet = {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": self.address,
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"/{self._cgroup}",
            "failSwapOn": False,
            "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
            "authorization": {"mode": "AlwaysAllow"},
            "resolvConf": "",
            "evictionHard": {"memory.available": "50Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
            "imageGCHighThresholdPercent": 100,
            "nodeStatusUpdateFrequency": "1s",
            "staticPodPath": str(self.directory / "static-pods"),
            "fileCheckFrequency": "1s",
            "kubeAPIQPS": 50,
            "kubeAPIBurst": 100,
        }
        (self.directory / "kubelet.json").write_text(json.dumps(kubelet))
        cri = 'plugins."io.containerd.grpc.v1.cri"'
        (self.directory / "containerd.toml").write_text(
            f"""version = 2
root = "{self.directory}/containerd"
state = "{self.directory}/state"
disabled_plugins = [{", ".join(f'"io.containerd.snapshotter.v1.{name}"' for name in _SNAPSHOTTERS)}]
[grpc]
address = "{self._socket}"
[{cri}]
sandbox_image = "{PAUSE}"
restrict_oom_score_adj = true
[{cri}.containerd]
snapshotter = "overlayfs"
default_runtime_name = "runc"
[{cri}.containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[{cri}.cni]
bin_dir = "{self.plugins}"
conf_dir = "{self.directory}/cni.d"
"""
        )

    def _containerd(self) -> None:
        binaries = self._cluster.programs.containerd
        extra = {
            "PATH": f"{binaries}:{os.environ['PATH']}",  # where it finds its shim
            # Plugins inherit it. On a machine with other work the next agent may take longer than their ten seconds.
            "ORBWEAVER_SHIM_WAIT": "60",
            "ORBWEAVER_SHIM_TIMEOUT": "120",
        }
        self.run_here(
            "containerd", [str(binaries / "containerd"), "-c", str(self.directory / "containerd.toml")], extra
        )
        self._processes.wait("containerd", self._containerd_ready)
        self._ctr("images", "import", str(self._cluster.images))

    def _containerd_ready(self) -> bool:
        with contextlib.suppress(ClusterFailed):
            self._ctr("images", "list")
            return True
        return False

    def _ctr(self, *arguments: str, check: bool = True) -> str:
        ctr = str(self._cluster.programs.containerd / "ctr")
        return run(
            *self._inside(),
            ctr,
            "--address",
            str(self._socket),
            "--namespace",
            "k8s.io",
            *arguments,
            check=check,
        )

    @property
    def _log_directory(self) -> Path:
        return self.root / "var" / "log" / "pods"

    def _agent_pods(self) -> list[dict[str, Any]]:
        here = f"--field-selector=spec.nodeName={self.name}"
        return self._cluster.items("pods", "-n", NAMESPACE, "-l", "app.kubernetes.io/component=agent", here)

    def _agent_pod_ready(self) -> tuple[str, int] | None:
        """The agent's pod and how often it was started again, once it is ready."""
        for pod in self._agent_pods():
            for status in pod["status"].get("containerStatuses", ()):
                if status["ready"] and "deletionTimestamp" not in pod["metadata"]:
                    return pod["metadata"]["uid"], status["restartCount"]
        return None

    def _end_containers(self) -> None:
        if self._holder is None:
            return
        for task in self._ctr("tasks", "list", "--quiet", check=False).split():
            self._ctr("tasks", "kill", "--signal", "KILL", task, check=False)
        # A shim outlives containerd by design; it takes its containers along when it is told to end.
        for process in self._shims():
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        deadline = time.monotonic() + 60
        while self._shims() and time.monotonic() < deadline:
            time.sleep(0.05)

    def _shims(self) -> list[int]:
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                words = path.read_bytes().split(b"\0")
                if words[0].endswith(b"containerd-shim-runc-v2") and str(self._socket).encode() in words:
                    found.append(int(path.parent.name))
        return found


_SNAPSHOTTERS = ("btrfs", "zfs", "aufs", "devmapper")


def _remove_cgroups(path: Path) -> None:
    """Remove a cgroup and all below, as soon as the last of its processes is gone."""
    deadline = time.monotonic() + 60
    while path.exists():
        for folder, _, _ in os.walk(path, topdown=False):
            with contextlib.suppress(OSError):
                Path(folder).rmdir()
        if time.monotonic() > deadline:
            raise ClusterFailed(f"{path} still has processes")
        time.sleep(0.02)
