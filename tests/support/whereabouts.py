"""Whereabouts in tests: its kinds in a cluster, and its real IPAM plugin as a main plugin calls it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from actors.store.kinds import WHEREABOUTS

NAMESPACE = "kube-system"
"""Where it keeps its objects."""


class Failed(Exception):
    """The plugin answered with an error, or did not answer in time."""


@dataclass(frozen=True)
class Whereabouts:
    """Its plugin, which keeps what it gives out in the cluster of a kubeconfig."""

    plugin: Path
    kubeconfig: Path
    directory: Path
    """For a file that it needs."""
    node: str = "node1"

    def add(self, pod: str, container: str, conf: Mapping[str, Any], interface: str = "net1") -> list[str]:
        """The addresses, with their prefixes, that a pod of namespace `default` gets. Raises `Failed`."""
        answer = json.loads(self._ask("ADD", pod, container, conf, interface))
        return [ip["address"] for ip in answer["ips"]]

    def delete(self, pod: str, container: str, conf: Mapping[str, Any], interface: str = "net1") -> None:
        """Give them back. Raises `Failed`."""
        self._ask("DEL", pod, container, conf, interface)

    def _node_file(self) -> Path:
        """What its installer leaves on each node, and without which it does nothing."""
        file = self.directory / "whereabouts.conf"
        if not file.exists():
            file.write_text(json.dumps({"kubernetes": {"kubeconfig": str(self.kubeconfig)}}))
        return file

    def _ask(self, command: str, pod: str, container: str, conf: Mapping[str, Any], interface: str) -> bytes:
        whole = {**conf, "ipam": {**conf["ipam"], "configuration_path": str(self._node_file())}}
        environment = {
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": container,
            "CNI_IFNAME": interface,
            "CNI_NETNS": "/run/netns/none",
            "CNI_PATH": str(self.plugin.parent),
            "CNI_ARGS": f"IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME={pod}",
            "NODENAME": self.node,
        }
        try:
            done = subprocess.run(
                [str(self.plugin)],
                input=json.dumps(whole).encode(),
                env=environment,
                capture_output=True,
                timeout=150,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise Failed(f"{command} of {pod} did not end") from error
        if done.returncode:
            raise Failed(done.stdout.decode())
        return done.stdout


def crds() -> list[dict[str, Any]]:
    """Its kinds, as strict as its own CRDs are: what an IPPool must have, and a reservation."""
    text = {"type": "string"}
    entry = {
        "type": "object",
        "properties": {"id": text, "podref": text, "ifname": text},
        "required": ["id", "podref"],
    }
    slice_ = {
        "type": "object",
        "properties": {"nodeName": text, "sliceRange": text},
        "required": ["nodeName", "sliceRange"],
    }
    return [
        _crd(
            "IPPool",
            {"range": text, "allocations": {"type": "object", "additionalProperties": entry}},
            ["range", "allocations"],
        ),
        _crd(
            "OverlappingRangeIPReservation",
            {"containerid": text, "podref": text, "ifname": text},
            ["podref"],
        ),
        _crd(
            "NodeSlicePool",
            {"range": text, "sliceSize": text},
            ["range", "sliceSize"],
            {"allocations": {"type": "array", "items": slice_}},
        ),
    ]


def _crd(
    kind: str, spec: Mapping[str, Any], required: list[str], status: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    plural = f"{kind.lower()}s"
    properties: dict[str, Any] = {"spec": {"type": "object", "properties": spec, "required": required}}
    if status:
        properties["status"] = {"type": "object", "properties": status}
    version = {
        "name": "v1alpha1",
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": {"type": "object", "properties": properties}},
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{WHEREABOUTS}"},
        "spec": {
            "group": WHEREABOUTS,
            "scope": "Namespaced",
            "names": {"kind": kind, "plural": plural, "singular": kind.lower(), "listKind": f"{kind}List"},
            "versions": [version],
        },
    }
