"""What of a Spiderpool will be otherwise with Orbweaver, and what forbids the change.

What must always hold: each sentence says what a person sees differently and what to do if it matters; nothing of the
running configuration is passed over in silence: a key that nobody here knows is named.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from actors.errors import InvalidObject
from actors.networks.attachment import configuration_text, same_configuration
from actors.resources.admission import admit
from actors.resources.fields import shown
from actors.resources.json_text import UnreadableText, read_json
from actors.resources.multus_config import MultusConfig
from actors.store.contract import Object, Store
from cni.takeover.spiderpool.installation import Installation, exists, has_multus, listed

ReadText = Callable[[str, str, str], dict[str, Any]]
"""Reads the one mapping of a YAML text; the source and what it is are for its errors."""

_SAME = (
    *("ipamUnixSocketPath", "enableIPv4", "enableIPv6", "enableStatefulSet", "enableKubevirtStaticIP"),
    *(
        "enableSpiderSubnet",
        "enableAutoPoolForApplication",
        "enableIPConflictDetection",
        "enableGatewayDetection",
    ),
    *("clusterDefaultIPv4IPPool", "clusterDefaultIPv6IPPool"),
)
"""Keys of the ConfigMap that mean the same here."""
_DEFAULTS: dict[str, Any] = {
    "ipamUnixSocketPath": "/var/run/spidernet/spiderpool.sock",
    "enableIPv4": True,
    "enableIPv6": True,
    "enableStatefulSet": True,
    "enableKubevirtStaticIP": True,
    "enableSpiderSubnet": True,
    "enableAutoPoolForApplication": True,
    "enableIPConflictDetection": False,
    "enableGatewayDetection": False,
    "clusterDefaultIPv4IPPool": [],
    "clusterDefaultIPv6IPPool": [],
    "clusterSubnetDefaultFlexibleIPNumber": 1,
}
"""Ours, where our ConfigMap does not say a key."""
_WITHOUT = {
    "enableCleanOutdatedEndpoint": "SpiderEndpoints of pods that are gone always go, in seconds",
    "tuneSysctlConfig": "no sysctls of nodes are changed; set those that you rely on (ARP and IPv6 settings) on the nodes",
    "enableValidatingResourcesDeletedWebhook": (
        "a pool with addresses in use is always kept until the last is back, by its finalizer"
    ),
    "agent.networkResourcePlugin.enabled": (
        "there is no device plugin: resources such as spidernet.io/eth1-nic end with Spiderpool's agents, and new pods that"
        " ask for one stay Pending; take the requests out, or run another device plugin"
    ),
    "podResourceInject.enabled": (
        "pods get no networks and resources injected; name the networks in the pods' own k8s.v1.cni.cncf.io/networks"
    ),
}
"""Keys without a counterpart, and what holds instead."""
_SILENT = (
    *("agent.networkResourcePlugin.", "podResourceInject.", "iaasNetworkProvider.httpRequestTimeout"),
    *(
        "clusterSubnetDefaultFlexibleIPNumber",
        "clusterSubnetAutoPoolDefaultRedundantIPNumber",
        "detectOptions.",
    ),
)
"""Keys that mean something only beside another one, which is told."""

_NAMED = 6
"""Of many changes of one network, so many are told."""
_JUDGED = {
    "SpiderSubnet": "no pools are made from it",
    "SpiderReservedIP": "its addresses are not kept back",
    "SpiderCoordinator": "pods that it is for are refused",
}
"""Kinds whose objects have to be right here, and what comes of one that is not."""


@dataclass(slots=True)
class Comparison:
    """What was noticed; both in the order in which it is told."""

    differences: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def compare(
    store: Store, spiderpool: Installation, ours: Installation | None, read_text: ReadText
) -> Comparison:
    """Everything but the pools and who has their addresses. Raises what the store raises."""
    noticed = Comparison()
    theirs = _settings(store, spiderpool, read_text)
    _compare_settings(theirs, _settings(store, ours, read_text) if ours is not None else {}, noticed)
    _compare_programs(store, spiderpool, noticed)
    for kind, consequence in _JUDGED.items():
        for obj in listed(store, kind):
            try:
                admit(obj, obj)
            except InvalidObject as error:
                noticed.problems.append(f"{error}; {consequence}: correct it where it is now")
    _compare_networks(store, noticed)
    noticed.differences += _ALWAYS
    return noticed


_ALWAYS = (
    "an address that was given back is given out again as late as possible; Spiderpool gives out the lowest free one",
    "a DEL is answered when the address is back; what Spiderpool left of pods that are gone, garbage collection gives back",
    "metrics have Spiderpool's documented names, on ports 5711 of agents and 5721 of controllers",
)


def _settings(store: Store, side: Installation, read_text: ReadText) -> dict[str, Any]:
    """`conf.yml` of a side, its keys with dots between; empty where there is none."""
    obj = exists(store, "ConfigMap", side.configuration, side.namespace) if side.configuration else None
    text = ((obj or {}).get("data") or {}).get("conf.yml", "")
    return dict(_flat(read_text(text, f"ConfigMap {side.namespace}/{side.configuration}", "configuration")))


def _flat(mapping: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in mapping.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _compare_settings(theirs: Mapping[str, Any], ours: Mapping[str, Any], noticed: Comparison) -> None:
    for key, value in theirs.items():
        if key in _SAME:
            here = ours.get(key, _DEFAULTS[key])
            if value != here:
                noticed.differences.append(
                    f"{key} is {shown(value)} there and {shown(here)} here; set it in the ConfigMap orbweaver-conf (with the"
                    f" chart: settings.{key}) before, if it shall stay"
                )
        elif key in _WITHOUT:
            if value:
                noticed.differences.append(f"{key} has no counterpart: {_WITHOUT[key]}")
        elif key == "iaasNetworkProvider.serverUrl":
            if value:
                noticed.problems.append(
                    f"iaasNetworkProvider.serverUrl is {shown(value)}: addresses are made known to a provider, which Orbweaver"
                    " does not do, so that its pods would have no network; only a Spiderpool without it can be taken over"
                )
        elif not key.startswith(_SILENT):
            noticed.differences.append(
                f"{key} is {shown(value)} there, and is not known here: it says nothing any more"
            )
    _compare_spares(theirs, ours, noticed)


def _compare_spares(theirs: Mapping[str, Any], ours: Mapping[str, Any], noticed: Comparison) -> None:
    """Spiderpool's program reads another key than its chart writes, and has none to spare where it does not find it."""
    effective = theirs.get("clusterSubnetAutoPoolDefaultRedundantIPNumber", 0)
    here = ours.get("clusterSubnetDefaultFlexibleIPNumber", _DEFAULTS["clusterSubnetDefaultFlexibleIPNumber"])
    if effective != here and theirs.get("enableSpiderSubnet", False):
        noticed.differences.append(
            f"automatic pools of applications that do not say how many addresses they want have {shown(effective)} to spare"
            f" there and {shown(here)} here (clusterSubnetDefaultFlexibleIPNumber): they grow once their subnets have the room"
        )


def _compare_programs(store: Store, spiderpool: Installation, noticed: Comparison) -> None:
    agents = store.get("DaemonSet", spiderpool.agents, spiderpool.namespace)
    if has_multus(agents):
        noticed.differences.append(
            f"Multus runs in the pods of DaemonSet {spiderpool.namespace}/{spiderpool.agents}: those stay, with Multus alone in"
            " them, so that its token stays good; all of them restart once. Install Multus by itself before you uninstall"
            " Spiderpool"
        )
    installers = [
        container["name"]
        for container in agents["spec"]["template"]["spec"].get("initContainers") or ()
        if container.get("name") == "install-plugins"
    ]
    if installers:
        noticed.differences.append(
            "the CNI plugins that Spiderpool installed on the nodes (macvlan, sriov, ovs and others) stay as they are; nobody"
            " brings newer ones"
        )


def _compare_networks(store: Store, noticed: Comparison) -> None:
    """What becomes of the networks: whose configuration would be written otherwise, and which cannot be looked after."""
    networks = {_key(obj): obj for obj in listed(store, "NetworkAttachmentDefinition")}
    for obj in listed(store, "SpiderMultusConfig"):
        try:
            config = MultusConfig.from_object(obj)
        except InvalidObject as error:
            noticed.differences.append(
                f"{error}; its network stays as it is and is not looked after until the object is corrected"
            )
            continue
        network = networks.get(f"{config.namespace}/{config.attachment}")
        text = str(((network or {}).get("spec") or {}).get("config") or "")
        if text and not same_configuration(text, configuration_text(config)):
            changes = _changes(text, configuration_text(config))
            more = f" and {len(changes) - _NAMED} more" if len(changes) > _NAMED else ""
            noticed.differences.append(
                f"network {config.namespace}/{config.attachment} will be configured otherwise, for pods that start then:"
                f" {'; '.join(changes[:_NAMED])}{more}"
            )


def _changes(text: str, wanted: str) -> list[str]:
    """What differs between two CNI configurations."""
    try:
        before = dict(_leaves(read_json(text, texts_as_they_are=True)))
        after = dict(_leaves(read_json(wanted, texts_as_they_are=True)))
    except UnreadableText as error:
        return [f"what is there cannot be read ({error})"]
    return [
        f"{path}: {shown(before.get(path, 'not there'))} becomes {shown(after.get(path, 'not there'))}"
        for path in sorted({*before, *after})
        if before.get(path) != after.get(path) or (path in before) != (path in after)
    ]


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Each value that holds no others, with where it stands; plugins by their types."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _leaves(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list) and value and all(isinstance(entry, Mapping) for entry in value):
        for number, entry in enumerate(value):
            yield from _leaves(entry, f"{path}[{entry.get('type', number)}]")
    else:
        yield path, value


def _key(obj: Object) -> str:
    return f"{obj['metadata'].get('namespace', '')}/{obj['metadata']['name']}"
