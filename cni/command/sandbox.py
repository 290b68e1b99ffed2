"""A network sandbox of its own, and pods in it: what a container runtime does, small enough for a demo.

What must always hold: nothing outside is touched. `enter` runs a command in new network, mount and process
namespaces (and, for a plain user, a user namespace), so that everything made inside goes when it ends, also when
it, or whoever called `enter`, is killed.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from actors.errors import InvalidRequest, OrbweaverError

PLUGIN_DIRECTORIES = ("/opt/cni/bin", "/usr/lib/cni", "/usr/libexec/cni")
_PACKAGES = {
    "ip": "iproute2",
    "ping": "iputils-ping",
    "unshare": "util-linux",
    "setpriv": "util-linux",
    "nsenter": "util-linux",
    "mount": "mount",
}
_COMMAND_TIMEOUT = 60.0


def find_plugins(name: str, wanted: Path | None = None) -> Path:
    """The directory that holds the CNI plugin `name`. Raises `InvalidRequest` that says what to install."""
    from_environment = os.environ.get("CNI_PATH", "").split(":")
    places = [str(wanted)] if wanted else [*filter(None, from_environment), *PLUGIN_DIRECTORIES]
    for place in places:
        if os.access(Path(place) / name, os.X_OK):
            return Path(place)
    raise InvalidRequest(
        f"the CNI plugin {name!r} is in none of {', '.join(places)}; install it (Debian and Ubuntu: apt-get install "
        "containernetworking-plugins) or name its directory with --cni-bin"
    )


def missing_tools(tools: Sequence[str]) -> dict[str, str]:
    """Which of the programs are not installed, with the Debian package of each."""
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    return {tool: _PACKAGES.get(tool, tool) for tool in tools if shutil.which(tool, path=path) is None}


def enter(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run a command in a sandbox and return its exit status. Raises `InvalidRequest` where that is not allowed."""
    missing = missing_tools(tuple(_PACKAGES))
    if missing:
        packages = " ".join(sorted(set(missing.values())))
        raise InvalidRequest(
            f"{', '.join(sorted(missing))} not found; install with: apt-get install {packages}"
        )
    unshare = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    if os.geteuid() != 0:
        unshare += ["--user", "--map-root-user"]
    probe = subprocess.run([*unshare, "true"], capture_output=True, text=True, check=False)
    if probe.returncode != 0:
        raise InvalidRequest(
            f"this user may not make network namespaces here ({probe.stderr.strip()}); run it as root, or allow user "
            "namespaces (sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone, "
            "kernel.apparmor_restrict_unprivileged_userns)"
        )
    # unshare goes when this process does, however it ends, and with it (--kill-child) all that runs inside.
    bound = ["setpriv", "--pdeathsig", "KILL", *unshare]
    return subprocess.run([*bound, *command], env=dict(environment), check=False).returncode


def run(*command: str) -> str:
    """Run a program; its output. Raises `OrbweaverError` with what it said."""
    environment = {**os.environ, "PATH": os.environ.get("PATH", "") + ":/usr/sbin:/sbin"}
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=environment, timeout=_COMMAND_TIMEOUT
    )
    if done.returncode != 0:
        raise OrbweaverError(f"`{' '.join(command)}` failed: {(done.stderr or done.stdout).strip()}")
    return done.stdout


def lay_cable(uplink: str, fabric: str = "fabric0") -> None:
    """Make the stand-in for the node's network card: a veth pair, both ends up, and a place for named namespaces."""
    run("mount", "-t", "tmpfs", "tmpfs", "/run")
    run("ip", "link", "set", "lo", "up")
    run("ip", "link", "add", uplink, "type", "veth", "peer", "name", fabric)
    for end in (uplink, fabric):
        run("ip", "link", "set", end, "up")


@dataclass(frozen=True, slots=True)
class CniNetwork:
    """A CNI network configuration and where its plugins are. `plugins` is CNI_PATH."""

    conf: Mapping[str, Any]
    plugins: tuple[Path, ...]

    def call(
        self, command: str, environment: Mapping[str, str], extra: Mapping[str, Any] | None = None
    ) -> Any:
        """Execute the network's plugin. Returns its result; raises `OrbweaverError` with its CNI error."""
        plugin = next(
            (place / self.conf["type"] for place in self.plugins if (place / self.conf["type"]).exists()),
            None,
        )
        if plugin is None:
            raise InvalidRequest(
                f"there is no plugin {self.conf['type']} in {', '.join(map(str, self.plugins))}"
            )
        variables = {
            "PATH": os.environ.get("PATH", "") + ":/usr/sbin:/sbin",
            "CNI_COMMAND": command,
            "CNI_PATH": ":".join(map(str, self.plugins)),
            **environment,
        }
        done = subprocess.run(
            [str(plugin)],
            input=json.dumps({**self.conf, **(extra or {})}).encode(),
            capture_output=True,
            env=variables,
            check=False,
            timeout=_COMMAND_TIMEOUT,
        )
        answer = json.loads(done.stdout) if done.stdout.strip() else {}
        if done.returncode != 0:
            code = answer.get("code")
            raise OrbweaverError(
                str(answer.get("msg") or done.stderr.decode(errors="replace").strip()),
                details=tuple(filter(None, str(answer.get("details", "")).splitlines())),
                cni_code=code if isinstance(code, int) else None,
            )
        return answer


@dataclass(slots=True)
class SandboxPod:
    """A pod as the runtime sees it: a network namespace, a container id, and a name."""

    name: str
    """Of the pod, and of its namespace file."""
    network: CniNetwork
    """The one that it is attached to."""
    namespace: str = "default"
    """The pod's, for CNI_ARGS."""
    interface: str = "eth0"
    """CNI_IFNAME."""
    container: str = field(default_factory=lambda: uuid.uuid4().hex + uuid.uuid4().hex)
    """CNI_CONTAINERID, by chance."""
    addresses: tuple[str, ...] = ()
    """In CIDR form, once it was added."""
    result: Mapping[str, Any] = field(default_factory=dict)
    """Of the ADD, for CHECK and for the reader."""

    @property
    def netns(self) -> str:
        return f"/run/netns/{self.name}"

    def start(self) -> tuple[str, ...]:
        """Make the namespace and ADD; the addresses in CIDR form."""
        run("ip", "netns", "add", self.name)
        # The plugin waits until the kernel has probed for another holder of each IPv6 address, which takes 1.5 s and
        # in this sandbox finds nobody.
        run(
            "nsenter",
            f"--net={self.netns}",
            "sh",
            "-c",
            "echo 0 > /proc/sys/net/ipv6/conf/default/accept_dad",
        )
        self.result = self.network.call("ADD", self.environment())
        self.addresses = tuple(entry["address"] for entry in self.result.get("ips", ()))
        return self.addresses

    def check(self) -> None:
        """CHECK."""
        self.network.call("CHECK", self.environment(), {"prevResult": self.result})

    def stop(self) -> None:
        """DEL, and remove the namespace, as a runtime does."""
        self.network.call("DEL", self.environment(), {"prevResult": self.result} if self.result else None)
        self.vanish()

    def vanish(self) -> None:
        """Remove the namespace without DEL, as when a node's runtime is lost."""
        run("ip", "netns", "del", self.name)

    def ping(self, address: str) -> float:
        """Milliseconds to `address` from inside the pod. Raises `OrbweaverError` when there is no answer."""
        output = run(
            "nsenter", f"--net={self.netns}", "ping", "-n", "-c", "1", "-W", "5", address.partition("/")[0]
        )
        return float(output.partition("time=")[2].split()[0])

    def environment(self) -> dict[str, str]:
        """The variables of every request for this pod."""
        return {
            "CNI_CONTAINERID": self.container,
            "CNI_NETNS": self.netns,
            "CNI_IFNAME": self.interface,
            "CNI_ARGS": f"IgnoreUnknown=1;K8S_POD_NAMESPACE={self.namespace};K8S_POD_NAME={self.name}",
        }
