"""Whether our own plugins would take a network's configuration, asked before any pod has it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from cni.dataplane.coordinator.settings import read_settings
from cni.dataplane.ifacer.settings import read_ifacer_settings
from cni.networks.network_list import read_network_list

READERS: Mapping[str, Callable[[Mapping[str, Any]], object]] = {
    "coordinator": read_settings,
    "ifacer": read_ifacer_settings,
}


def check_plugins(conf: Mapping[str, Any]) -> None:
    """Raise `InvalidRequest` where `orbweaver-networks` could not read it, for its size also, and for the first of `plugins`
    that is ours and would be refused at ADD."""
    read_network_list(json.dumps(conf), "the network", str(conf["name"]))
    for plugin in conf["plugins"]:
        reader = READERS.get(plugin["type"])
        if reader is not None:
            reader({**plugin, "name": conf["name"], "cniVersion": conf["cniVersion"]})
