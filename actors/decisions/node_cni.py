"""Which kind of cluster network a node has, by the files in which its runtime finds it.

A container runtime takes the first file of its CNI directory, by name. Files of meta plugins, which call others, are passed
over, so that what counts is what they call. Names of networks and plugins are those that the projects' own installers
write.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from actors.resources.json_text import UnreadableText, read_json

KINDS = ("calico", "cilium", "cluster", "none")
"""As `podCIDRType` says them; `cluster`: pods have addresses out of the cluster's own CIDR, as with flannel."""

_NETWORKS = {"calico": "calico", "k8s-pod-network": "calico", "cilium": "cilium", "cbr0": "cluster"}
_PLUGINS = {"calico": "calico", "cilium-cni": "cilium", "flannel": "cluster"}
META_PLUGINS = ("multus", "multus-shim", "orbweaver-networks")
META_FILES = "00-multus"
SUFFIXES = (".conf", ".conflist", ".json")


def node_cni(files: Iterable[tuple[str, str]]) -> str:
    """The kind that the first file tells of which `files` gives name and text; empty when there is none, or it cannot be
    read."""
    for name, text in sorted(files):
        if not name.endswith(SUFFIXES) or name.startswith(META_FILES):
            continue
        try:
            conf = read_json(text, texts_as_they_are=True)
        except UnreadableText:
            return ""
        if not isinstance(conf, Mapping):
            return ""
        types = _types(conf)
        if any(kind in META_PLUGINS for kind in types):
            continue
        known = [_PLUGINS[kind] for kind in types if kind in _PLUGINS]
        network = conf.get("name")
        return _NETWORKS.get(network if isinstance(network, str) else "", known[0] if known else "none")
    return ""


def _types(conf: Mapping[str, Any]) -> list[str]:
    plugins = conf.get("plugins")
    entries = plugins if isinstance(plugins, list) else [conf]
    return [
        kind for entry in entries if isinstance(entry, Mapping) and isinstance(kind := entry.get("type"), str)
    ]


@dataclass(frozen=True, slots=True)
class NodeCniTypes:
    """What the nodes' agents tell: which nodes have which kind. `early`: the leader has just begun, and most have not told
    it yet."""

    nodes: Mapping[str, Sequence[str]]
    early: bool = False

    def or_as_before(self, kind: str) -> NodeCniTypes:
        """The same, but what was found before where nobody has told anything yet."""
        return (
            NodeCniTypes({kind: ()}, early=True) if self.early and not self.nodes and kind in KINDS else self
        )

    @property
    def majority(self) -> str:
        """What most nodes have; of equals the first by name, so that it does not change by itself. Empty without any."""
        return min(self.nodes, key=lambda kind: (-len(self.nodes[kind]), kind), default="")

    @property
    def difference(self) -> str:
        """How the nodes differ, for people; empty when they do not."""
        if len(self.nodes) < 2:
            return ""
        most = self.majority
        rest = [f"{kind} on {_named(nodes)}" for kind, nodes in sorted(self.nodes.items()) if kind != most]
        return (
            f"the nodes' CNI directories differ: {most} on {len(self.nodes[most])} nodes, {', '.join(rest)}"
        )


_NAMED = 3


def _named(nodes: Sequence[str]) -> str:
    more = f" and {len(nodes) - _NAMED} more" if len(nodes) > _NAMED else ""
    return ", ".join(sorted(nodes)[:_NAMED]) + more
