"""The network configuration list that a node's runtime shall find: one that is given, or the node's own with plugins of ours
behind it.

What must always hold: pure functions; the node's own file is read and never changed, so whoever wrote it may write it again,
and removing ours restores what was there before; nothing is written over what cannot be understood.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from actors.decisions.node_cni import META_FILES, META_PLUGINS, SUFFIXES
from actors.errors import InvalidObject
from actors.resources.fields import Fields
from actors.resources.json_text import UnreadableText, read_json

NAME = "04-orbweaver.conflist"
"""Before the files of Calico and Flannel (10) and of Cilium (05), behind Multus' (00)."""
_MOST_PLUGINS = 32


@dataclass(frozen=True, slots=True)
class WantedConf:
    """`whole`: the list itself, as first plugin; else `chain` is put behind the plugins of the node's own list, and `ipam`,
    unless it is None, in the place of that of its first plugin that has one."""

    whole: Mapping[str, Any] | None = None
    chain: tuple[Mapping[str, Any], ...] = ()
    ipam: Mapping[str, Any] | None = None


def read_wanted(text: str) -> WantedConf:
    """What somebody asks for: a network configuration list, or an object with `chain` or `ipam`. Raises `InvalidObject`."""
    conf = _object(text, "what --cni-conf names")
    if "plugins" in conf.data or "type" in conf.data:
        if conf.data.keys() & {"chain", "ipam"} and "type" not in conf.data:
            raise InvalidObject(
                "a network configuration list has no chain and no ipam; name it or them, not both"
            )
        return WantedConf(_as_list(conf))
    unknown = sorted(conf.data.keys() - {"chain", "ipam"})
    if unknown or not conf.data:
        raise InvalidObject(
            f"what --cni-conf names must be a network configuration list, or have chain or ipam; it has {unknown or 'nothing'}"
        )
    ipam = conf.inner("ipam") if conf.has("ipam") else None
    if ipam is not None:
        _require(ipam, "type", 'such as {"type": "spiderpool"}')
    return WantedConf(None, _plugins(conf, "chain"), None if ipam is None else ipam.data)


def conf_for(wanted: WantedConf, files: Iterable[tuple[str, str]]) -> str | None:
    """The text of our file; None while the node has no file to put something behind. `files`: name and text of those that are
    there. Raises `InvalidObject` where the node's own cannot be understood, or lacks what is to be replaced."""
    if wanted.whole is not None:
        return _text(wanted.whole)
    for name, text in sorted(files):
        if name == NAME or not name.endswith(SUFFIXES) or name.startswith(META_FILES):
            continue
        conf = _as_list(_object(text, name))
        plugins = conf["plugins"]
        if any(plugin["type"] in META_PLUGINS for plugin in plugins):
            continue
        return _text({**conf, "plugins": [*_with_ipam(plugins, wanted.ipam, name), *wanted.chain]})
    return None


def _with_ipam(plugins: list[Any], ipam: Mapping[str, Any] | None, name: str) -> list[Any]:
    if ipam is None:
        return plugins
    for number, plugin in enumerate(plugins):
        if "ipam" in plugin:
            return [*plugins[:number], {**plugin, "ipam": ipam}, *plugins[number + 1 :]]
    raise InvalidObject(f"no plugin of {name} has an ipam that could be replaced")


def _as_list(conf: Fields) -> dict[str, Any]:
    """A list, also where there is one plugin alone. Raises `InvalidObject`."""
    _require(conf, "name", "a network configuration needs one")
    if "plugins" in conf.data:
        return {**conf.data, "plugins": list(_plugins(conf, "plugins", least=1))}
    _require(conf, "type", "a plugin needs one")
    version = {key: conf.data[key] for key in ("cniVersion",) if key in conf.data}
    plugin = {key: value for key, value in conf.data.items() if key not in ("name", "cniVersion")}
    return {**version, "name": conf.data["name"], "plugins": [plugin]}


def _plugins(conf: Fields, key: str, least: int = 0) -> tuple[Mapping[str, Any], ...]:
    plugins = conf.items(key)
    if not least <= len(plugins) <= _MOST_PLUGINS:
        raise conf.refuse(key, f"but must be a list of {least} to {_MOST_PLUGINS} plugins")
    for plugin in plugins:
        _require(plugin, "type", "a plugin needs one")
    return tuple(plugin.data for plugin in plugins)


def _require(fields: Fields, key: str, why: str) -> None:
    if not fields.text(key):
        raise fields.refuse(key, "but must be a text", why)


def _object(text: str, source: str) -> Fields:
    try:
        mapping = read_json(text, texts_as_they_are=True)
    except UnreadableText as error:
        raise InvalidObject(f"{source} cannot be read: {error}") from error
    return Fields.of(source, "", mapping)


def _text(conf: Mapping[str, Any]) -> str:
    return json.dumps(conf, indent=2) + "\n"
