"""Multus' calls, played: the order of its delegates, the arguments it gives them, its cache and its status.

The programs behind it are real: each delegate is attached by the CNI project's own client (`cnitool`), which is libcni, as
in Multus. Written from Multus' public behaviour (k8snetworkplumbingwg/multus-cni 4, docs/ and pkg/): the first network has
the runtime's interface, the others net1, net2, …; every delegate's CNI_ARGS name the pod anew, and, where Multus runs as a
program of the runtime ("thin"), end with the runtime's own once more; addresses and MAC that the pod asks for come as `IP`
and `MAC` and as capabilities; what is to be deleted is kept in a file for each container before the first delegate runs;
a failure deletes from the one that failed backward; DEL goes backward through all of them and goes on after an error.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from actors.errors import OrbweaverError

NETWORKS = "k8s.v1.cni.cncf.io/networks"


@dataclass(frozen=True)
class Delegate:
    """One network of a pod: the configuration list, and what the pod's selection element asks for."""

    name: str
    conf: Mapping[str, Any]
    element: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Multus:
    """`thick`: it is a daemon, to which a program of the runtime hands its request; its environment is its own. `cluster`:
    the first network; `networks`: those that pods may name, by `namespace/name`."""

    directory: Path
    cnitool: Path
    plugins: Sequence[Path]
    cluster: Delegate
    networks: Mapping[str, Mapping[str, Any]]
    thick: bool

    def add(self, pod: Mapping[str, Any], netns: str) -> list[dict[str, Any]]:
        """ADD: the status of each network, as Multus writes it. Raises the delegate's error, after what was attached is
        detached."""
        delegates = self._delegates(pod)
        self._cache(netns).parent.mkdir(parents=True, exist_ok=True)
        self._cache(netns).write_text(
            json.dumps([[delegate.name, delegate.conf, delegate.element] for delegate in delegates])
        )
        status = []
        for index, delegate in enumerate(delegates):
            try:
                result = self._call("add", delegate, self._interface(index, delegate), pod, netns)
            except OrbweaverError:
                for before in reversed(range(index + 1)):
                    self._try_del(delegates[before], self._interface(before, delegates[before]), pod, netns)
                raise
            status.append(self._status(delegate, json.loads(result), default=index == 0))
        return status

    def delete(self, pod: Mapping[str, Any], netns: str) -> list[OrbweaverError]:
        """DEL, from the cache alone; what went wrong."""
        kept = json.loads(self._cache(netns).read_text())
        delegates = [Delegate(*entry) for entry in kept]
        errors = [
            error
            for index in reversed(range(len(delegates)))
            if (
                error := self._try_del(delegates[index], self._interface(index, delegates[index]), pod, netns)
            )
        ]
        self._cache(netns).unlink()
        return errors

    def check(self, pod: Mapping[str, Any], netns: str) -> None:
        """CHECK of every network, which a runtime asks for."""
        for index, delegate in enumerate(self._delegates(pod)):
            self._call("check", delegate, self._interface(index, delegate), pod, netns)

    def _delegates(self, pod: Mapping[str, Any]) -> list[Delegate]:
        metadata = pod["metadata"]
        delegates = [self.cluster]
        for element in json.loads(metadata["annotations"].get(NETWORKS, "[]")):
            key = f"{element.get('namespace', metadata['namespace'])}/{element['name']}"
            delegates.append(Delegate(key, self.networks[key], element))
        return delegates

    def _interface(self, index: int, delegate: Delegate) -> str:
        return str(delegate.element.get("interface") or ("eth0" if index == 0 else f"net{index}"))

    def _try_del(
        self, delegate: Delegate, interface: str, pod: Mapping[str, Any], netns: str
    ) -> OrbweaverError | None:
        try:
            self._call("del", delegate, interface, pod, netns)
        except OrbweaverError as error:
            return error
        return None

    def _call(
        self, command: str, delegate: Delegate, interface: str, pod: Mapping[str, Any], netns: str
    ) -> str:
        nets = self.directory / "delegates"
        nets.mkdir(parents=True, exist_ok=True)
        name = str(delegate.conf["name"])
        (nets / f"{name}.conflist").write_text(json.dumps(delegate.conf))
        capabilities = {
            key: delegate.element[key]
            for key in ("ips", "mac", "portMappings", "bandwidth")
            if key in delegate.element
        }
        environment = {
            "PATH": os.environ["PATH"] + ":/usr/sbin:/sbin",
            "NETCONFPATH": str(nets),
            "CNI_PATH": ":".join(map(str, self.plugins)),
            "CNI_IFNAME": interface,
            "CNI_ARGS": self._arguments(pod, delegate, netns),
            "CAP_ARGS": json.dumps(capabilities),
        }
        done = subprocess.run(
            [self.cnitool, command, name, netns], env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise OrbweaverError(
                f"{command} {delegate.name} {interface}: {done.stderr.strip() or done.stdout.strip()}"
            )
        return done.stdout

    def _arguments(self, pod: Mapping[str, Any], delegate: Delegate, netns: str) -> str:
        metadata = pod["metadata"]
        named = [
            ("K8S_POD_NAMESPACE", metadata["namespace"]),
            ("K8S_POD_NAME", metadata["name"]),
            ("K8S_POD_INFRA_CONTAINER_ID", Path(netns).name),
            ("K8S_POD_UID", metadata.get("uid", "")),
        ]
        pairs = [("IgnoreUnknown", "true"), *named]
        if not self.thick:
            pairs += [("IgnoreUnknown", "1"), *named]
        if "mac" in delegate.element:
            pairs.append(("MAC", delegate.element["mac"]))
        if "ips" in delegate.element:
            pairs.append(("IP", ",".join(delegate.element["ips"])))
        return ";".join(f"{key}={value}" for key, value in pairs)

    def _status(self, delegate: Delegate, result: Mapping[str, Any], *, default: bool) -> dict[str, Any]:
        inside = next(nic for nic in result["interfaces"] if nic.get("sandbox"))
        ips = [ip["address"].partition("/")[0] for ip in result.get("ips", ())]
        status = {
            "name": delegate.name,
            "interface": inside["name"],
            "ips": ips,
            "mac": inside["mac"],
            "dns": {},
        }
        return {**status, "default": True} if default else status

    def _cache(self, netns: str) -> Path:
        return self.directory / "multus" / Path(netns).name
