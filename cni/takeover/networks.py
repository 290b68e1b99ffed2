"""CNI configurations that name another IPAM, and what they have to say when Orbweaver has its place.

What must always hold: nothing but the `ipam` of a plugin is changed, and what stood there is kept, so that the way back
writes the same again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from actors.errors import Conflict, InvalidObject, NoSuchResource
from actors.resources.fields import Fields
from actors.resources.json_text import UnreadableText, read_json
from actors.resources.network_attachment import KIND, NetworkAttachment
from actors.store.contract import Object, Store

FORMER = "ipam.spidernet.io/former-ipam"
"""Annotation of a NetworkAttachmentDefinition: by the plugin's place in the list, the `ipam` that stood there."""

OURS = "spiderpool"
"""The type of Orbweaver's IPAM plugin, which is Spiderpool's."""


_TRIES = 20


@dataclass(frozen=True, slots=True)
class IpamSection:
    """One `ipam` in a configuration."""

    place: int
    """Which plugin of the list it is in; 0 where the configuration is one plugin."""
    ipam: Fields
    """What it says."""


@dataclass(frozen=True, slots=True)
class Network:
    """A CNI configuration with the sections of one IPAM."""

    title: str
    """Where it is, for people: `NetworkAttachmentDefinition default/blue`, or a file."""
    name: str
    """What CNI calls it."""
    configuration: Mapping[str, Any]
    """All of it."""
    sections: tuple[IpamSection, ...]
    """Of the IPAM that was looked for; not empty."""
    key: str = ""
    """`namespace/name` of the NetworkAttachmentDefinition; empty for a file."""
    is_ours: bool = False
    """It names Orbweaver already, and the sections are what stood there before."""


def network_of(title: str, text: str, ipam_type: str, *, name: str = "", key: str = "") -> Network | None:
    """The network of a configuration; None if no plugin of it has such an IPAM. `name`: what it is called where it has no
    name of its own. Raises `InvalidObject`."""
    try:
        configuration = read_json(text, only_showable=False)
    except UnreadableText as error:
        raise InvalidObject(f"{title} is no CNI configuration: {error}; correct it") from error
    top = Fields.of(title, "", configuration)
    sections = tuple(
        IpamSection(place, plugin.inner("ipam"))
        for place, plugin in enumerate(_plugins(top))
        if isinstance(plugin.data.get("ipam"), dict) and plugin.inner("ipam").data.get("type") == ipam_type
    )
    if not sections:
        return None
    return Network(title, top.text("name") or name, top.data, sections, key)


def _plugins(top: Fields) -> tuple[Fields, ...]:
    return top.items("plugins") if top.has("plugins") else (top,)


def attached_networks(store: Store, ipam_type: str) -> tuple[tuple[Network, ...], tuple[str, ...]]:
    """The NetworkAttachmentDefinitions that have such an IPAM, or had it before a takeover; and a sentence for each that
    cannot be read. There are none where the cluster does not know the kind."""
    networks, problems = [], []
    try:
        listed = store.list(KIND).items
    except NoSuchResource:
        return (), ()
    for obj in listed:
        try:
            network = _attached(obj, ipam_type)
        except InvalidObject as error:
            problems.append(str(error))
        else:
            networks += [network] if network is not None else []
    return tuple(networks), tuple(problems)


def _attached(obj: Object, ipam_type: str) -> Network | None:
    attachment = NetworkAttachment.from_object(obj)
    if not attachment.config.strip():
        return None
    title = f"{KIND} {attachment.key}"
    network = network_of(title, attachment.config, ipam_type, name=attachment.name, key=attachment.key)
    former = former_sections(obj, ipam_type)
    if network is not None or not former:
        return network
    configuration = attachment.configuration()
    sections = tuple(
        IpamSection(place, Fields.of(title, "ipam", ipam)) for place, ipam in sorted(former.items())
    )
    name = configuration.text("name") or attachment.name
    return Network(title, name, configuration.data, sections, attachment.key, is_ours=True)


def ours(pools: Mapping[int, Iterable[str]]) -> dict[str, Any]:
    """The `ipam` that stands for one whose addresses are in these pools, by family."""
    return {
        "type": OURS,
        **{f"default_ipv{family}_ippool": list(names) for family, names in sorted(pools.items()) if names},
    }


def with_sections(configuration: Mapping[str, Any], sections: Mapping[int, Any]) -> dict[str, Any]:
    """The configuration with these `ipam` in the plugins at these places."""
    if "plugins" not in configuration:
        return {**configuration, "ipam": sections[0]}
    plugins = [
        {**plugin, "ipam": sections[place]} if place in sections else plugin
        for place, plugin in enumerate(configuration["plugins"])
    ]
    return {**configuration, "plugins": plugins}


def taken_over(obj: Object, network: Network, sections: Mapping[int, Any]) -> Object:
    """The NetworkAttachmentDefinition with our `ipam`, which remembers what stood there."""
    former = {str(section.place): dict(section.ipam.data) for section in network.sections}
    metadata = obj["metadata"]
    annotations = {**(metadata.get("annotations") or {}), FORMER: json.dumps(former)}
    config = json.dumps(with_sections(network.configuration, sections), indent=2)
    return {
        **obj,
        "metadata": {**metadata, "annotations": annotations},
        "spec": {**obj["spec"], "config": config},
    }


def former_sections(obj: Object, ipam_type: str) -> dict[int, Any]:
    """By place, the `ipam` of this type that a NetworkAttachmentDefinition had; empty where it never had one, or where what it
    remembers cannot be read."""
    text = (obj["metadata"].get("annotations") or {}).get(FORMER, "")
    try:
        former = {int(place): ipam for place, ipam in read_json(text, only_showable=False).items()}
    except (UnreadableText, ValueError, AttributeError):
        return {}
    kept = all(isinstance(ipam, dict) and ipam.get("type") == ipam_type for ipam in former.values())
    return former if kept else {}


def given_back(obj: Object, sections: Mapping[int, Any]) -> Object:
    """The NetworkAttachmentDefinition with the `ipam` that it had. Raises `InvalidObject` when such plugins are not there any
    more."""
    title = f"{KIND} {obj['metadata'].get('namespace', '')}/{obj['metadata']['name']}"
    try:
        configuration = read_json(obj["spec"]["config"], only_showable=False)
        places = range(len(_plugins(Fields.of(title, "", configuration))))
    except (UnreadableText, KeyError, TypeError) as error:
        raise InvalidObject(f"{title} is no CNI configuration any more: {error}; correct it") from error
    if not all(place in places for place in sections):
        raise InvalidObject(
            f"{title} has not the plugins any more that it had at the takeover; write its ipam yourself, and take annotation "
            f"{FORMER} away"
        )
    metadata = obj["metadata"]
    annotations = {name: text for name, text in metadata["annotations"].items() if name != FORMER}
    return {
        **obj,
        "metadata": {**metadata, "annotations": annotations},
        "spec": {**obj["spec"], "config": json.dumps(with_sections(configuration, sections), indent=2)},
    }


def change_attachment(store: Store, network: Network, change: Callable[[Object], Object]) -> None:
    """Change a network's NetworkAttachmentDefinition, whoever else writes it. Raises what `change` does, and `Conflict`."""
    namespace, _, name = network.key.partition("/")
    for _ in range(_TRIES):
        try:
            store.update(change(store.get(KIND, name, namespace)))
        except Conflict:
            continue
        return
    raise Conflict(f"{network.title} is written by others without end; repeat the command")
