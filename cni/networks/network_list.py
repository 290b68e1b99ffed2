"""A network's configuration as it stands in a NetworkAttachmentDefinition or a file, and what each plugin of it is told.

What must always hold: whoever writes such a text is a tenant of the node, and its plugins run as root there. So only what
lies in CNI_PATH under a bare name can be executed, whatever the text says; its size, depth and number of plugins are
bounded; it never names this plugin itself, which would call itself without end. What a plugin is told is derived as the
CNI specification 1.1.0 says in section 3, "Deriving request configuration from plugin configuration". It is pure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from actors.errors import InvalidRequest
from actors.resources.fields import Fields, shown
from actors.resources.json_text import UnreadableText, read_json
from actors.resources.network_attachment import DEEPEST_CONFIG, LONGEST_CONFIG
from cni.server.protocol import IPAM, VERSIONS
from cni.server.request_names import LONGEST

NAME = "orbweaver-networks"
"""The plugin's type."""
MOST_PLUGINS = 40
"""Plugins of one network; chains of this field have five, and a SpiderMultusConfig may chain 32 to its own."""
UNSAID_VERSION = "0.3.1"
"""The CNI version of a network that says none: the one that SpiderMultusConfigs are written in, which all plugins speak."""

_BARE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,127}")
_CNI_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]*")
_OURS_ALONE = ("capabilities", "prevResult", "runtimeConfig")
"""Keys of a request that nobody but the runtime sets."""


@dataclass(frozen=True, slots=True)
class NetworkList:
    """A network whose plugins may be executed."""

    name: str
    """The CNI network's."""
    version: str
    """The CNI version that its plugins are asked in."""
    plugins: tuple[Mapping[str, Any], ...]
    """The configuration of each, in order."""
    checked: bool = True
    """CHECK is not switched off for it (`disableCheck`)."""
    collected: bool = True
    """Nor is GC (`disableGC`)."""

    @property
    def allocates(self) -> bool:
        """Whether its addresses come from Orbweaver."""
        return any(_ipam_type(plugin) == IPAM for plugin in self.plugins)

    def has(self, command: str) -> bool:
        """Whether its CNI version has the command."""
        since = {"CHECK": "0.4.0", "GC": "1.1.0", "STATUS": "1.1.0"}.get(command, VERSIONS[0])
        return VERSIONS.index(self.version) >= VERSIONS.index(since)

    def lacking(self, wanted: Mapping[str, Any]) -> tuple[str, ...]:
        """Of the capabilities that are asked for, those that no plugin has. Addresses reach Orbweaver's own IPAM by the
        pod's annotation, whether or not a plugin is told of them."""
        offered = {name for plugin in self.plugins for name in _capabilities(plugin)}
        if self.allocates:
            offered.add("ips")
        return tuple(name for name in wanted if name not in offered)

    def to_json(self) -> dict[str, Any]:
        """The form in which a cache keeps it; `read_network_list` takes it back."""
        return {
            "cniVersion": self.version,
            "name": self.name,
            "plugins": [dict(plugin) for plugin in self.plugins],
            "disableCheck": not self.checked,
            "disableGC": not self.collected,
        }


def read_network_list(text: str, subject: str, default_name: str) -> NetworkList:
    """Judge a configuration, or a list of them, in JSON. `default_name`: its name where it says none. Raises
    `InvalidRequest`."""
    try:
        value = read_json(text, longest=LONGEST_CONFIG, deepest=DEEPEST_CONFIG, only_showable=False)
    except UnreadableText as error:
        raise InvalidRequest(f"{subject}: its configuration cannot be read: {error}") from error
    return judge_network_list(value, subject, default_name)


def judge_network_list(value: object, subject: str, default_name: str) -> NetworkList:
    """The same of a value. Raises `InvalidRequest`."""
    top = Fields.of(subject, "", value, InvalidRequest)
    name = top.text("name") or default_name
    if len(name) > LONGEST or not _CNI_NAME.fullmatch(name):
        raise top.refuse("name", "but a CNI network's name has letters, digits, '_', '.' and '-' only")
    listed = top.has("plugins")
    plugins = top.items("plugins") if listed else (top,)
    if not 0 < len(plugins) <= MOST_PLUGINS:
        raise InvalidRequest(f"{subject}: it has {len(plugins)} plugins, but may have 1 to {MOST_PLUGINS}")
    for plugin in plugins:
        _require_bare(plugin, "type")
        for key in ("ipam", "delegate"):
            inner = plugin.data.get(key)
            if isinstance(inner, Mapping) and inner.get("type"):
                _require_bare(plugin.inner(key), "type")
    return NetworkList(
        name,
        _version(top),
        tuple(dict(plugin.data) for plugin in plugins),
        checked=not (listed and top.flag("disableCheck")),
        collected=not (listed and top.flag("disableGC")),
    )


def _version(top: Fields) -> str:
    """The newest of those that the network names and that are spoken here (specification, section 1, `cniVersions`)."""
    named = [top.text("cniVersion") or UNSAID_VERSION, *top.texts("cniVersions")]
    spoken = [version for version in named if version in VERSIONS]
    if not spoken:
        raise top.refuse("cniVersion", f"but must be one of {', '.join(VERSIONS)}")
    return max(spoken, key=VERSIONS.index)


def _require_bare(plugin: Fields, key: str) -> None:
    """Refuse a type that could lead out of CNI_PATH, or back here."""
    name = plugin.text(key)
    if _BARE.fullmatch(name) is None:
        raise plugin.refuse(
            key, "but must be the bare name of a program in the node's CNI_PATH, such as macvlan"
        )
    if name == NAME:
        raise plugin.refuse(key, "but a network cannot be attached by the plugin that attaches to networks")


def derive(
    network: NetworkList,
    index: int,
    *,
    capabilities: Mapping[str, Any] | None = None,
    arguments: Mapping[str, Any] | None = None,
    previous: Mapping[str, Any] | None = None,
    valid: Sequence[tuple[str, str]] | None = None,
) -> dict[str, Any]:
    """What plugin `index` reads on its standard input. `capabilities`: what is asked for, of which the plugin gets what it
    has; `arguments`: beside those in the network's own `args.cni`, which they outrank; `previous`: the result before it;
    `valid`: with GC, the attachments that are still there."""
    plugin = network.plugins[index]
    conf = {
        key: value
        for key, value in plugin.items()
        if key not in _OURS_ALONE and not key.startswith("cni.dev/") and key != "plugins"
    }
    conf |= {"cniVersion": network.version, "name": network.name}
    given = {name: value for name, value in (capabilities or {}).items() if name in _capabilities(plugin)}
    if given:
        conf["runtimeConfig"] = given
    if arguments:
        args = conf.get("args")
        args = dict(args) if isinstance(args, Mapping) else {}
        known = args.get("cni")
        conf["args"] = {**args, "cni": {**(known if isinstance(known, Mapping) else {}), **arguments}}
    if previous is not None:
        conf["prevResult"] = dict(previous)
    if valid is not None:
        conf["cni.dev/valid-attachments"] = [
            {"containerID": container, "ifname": interface} for container, interface in valid
        ]
    return conf


def type_of(network: NetworkList, index: int) -> str:
    """The plugin's program."""
    return str(network.plugins[index]["type"])


def _capabilities(plugin: Mapping[str, Any]) -> frozenset[str]:
    named = plugin.get("capabilities")
    return (
        frozenset(name for name, on in named.items() if on is True)
        if isinstance(named, Mapping)
        else frozenset()
    )


def _ipam_type(plugin: Mapping[str, Any]) -> str:
    ipam = plugin.get("ipam")
    named = ipam.get("type") if isinstance(ipam, Mapping) else None
    return named if isinstance(named, str) else ""


def told(network: NetworkList) -> str:
    """The network in a message: its name and chain."""
    return f"{shown(network.name)} ({', '.join(type_of(network, index) for index in range(len(network.plugins)))})"
