"""The plugins of one network, executed one after the other as a container runtime does.

What must always hold: the order, the previous result and what is an error are those of the CNI specification 1.1.0,
section 3: ADD and CHECK go forward, DEL backward; GC goes on after an error and tells all.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from actors.errors import OrbweaverError
from cni.networks.attachment_cache import Attached
from cni.networks.execution import NodePlugins, PluginParameters, Stop, execute
from cni.networks.network_list import NetworkList, derive, type_of
from cni.networks.results import read_result

PLUGIN_TIMEOUT = 15.0
"""Seconds for one execution of one plugin; a DHCP client takes ten."""


@dataclass(frozen=True, slots=True)
class Chain:
    """Executes for one request. `deadline`: of the monotonic clock, for all of it."""

    node: NodePlugins
    deadline: float
    stop: Stop

    def add(self, attached: Attached, attachment: PluginParameters) -> dict[str, Any]:
        """Attach; the last plugin's result. Raises `OrbweaverError`."""
        result: dict[str, Any] | None = None
        for index in range(len(attached.network.plugins)):
            conf = derive(
                attached.network,
                index,
                capabilities=attached.capabilities,
                arguments=attached.cni_arguments,
                previous=result,
            )
            plugin = type_of(attached.network, index)
            result = read_result(self._execute(plugin, "ADD", conf, attachment), plugin)
        assert result is not None
        return result

    def delete(self, attached: Attached, attachment: PluginParameters) -> None:
        """Detach. Raises the error of the plugin at which it stopped."""
        for index in reversed(range(len(attached.network.plugins))):
            self._again("DEL", attached, index, attachment)

    def check(self, attached: Attached, attachment: PluginParameters) -> None:
        """Raises what a plugin finds wrong."""
        if attached.network.checked and attached.network.has("CHECK"):
            for index in range(len(attached.network.plugins)):
                self._again("CHECK", attached, index, attachment)

    def status(self, network: NetworkList) -> None:
        """Raises what keeps a plugin from serving ADD."""
        if network.has("STATUS"):
            for index in range(len(network.plugins)):
                self._execute(type_of(network, index), "STATUS", derive(network, index), PluginParameters())

    def collect(self, network: NetworkList, valid: Sequence[tuple[str, str]]) -> list[OrbweaverError]:
        """GC: every plugin is told what is still there; returns what went wrong."""
        errors: list[OrbweaverError] = []
        if network.collected and network.has("GC"):
            for index in range(len(network.plugins)):
                try:
                    conf = derive(network, index, valid=valid)
                    self._execute(type_of(network, index), "GC", conf, PluginParameters())
                except OrbweaverError as error:
                    errors.append(error)
        return errors

    def _again(self, command: str, attached: Attached, index: int, attachment: PluginParameters) -> None:
        conf = derive(
            attached.network,
            index,
            capabilities=attached.capabilities,
            arguments=attached.cni_arguments,
            previous=attached.result,
        )
        self._execute(type_of(attached.network, index), command, conf, attachment)

    def _execute(
        self, plugin: str, command: str, conf: dict[str, Any], attachment: PluginParameters
    ) -> bytes:
        deadline = min(self.deadline, time.monotonic() + PLUGIN_TIMEOUT)
        return execute(plugin, command, conf, attachment, self.node, deadline, self.stop)
