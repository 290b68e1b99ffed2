"""What a SpiderMultusConfig is made into: the CNI configuration and the NetworkAttachmentDefinition. Pure.

The plugins run in this order, as Spiderpool has it: ifacer, the one that makes the interface, rdma, the chained ones in
their order, coordinator, tuning. What is not given is left out: then the plugin's own default holds, or, of the
coordinator, what the SpiderCoordinator says.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from actors.resources import multus_config
from actors.resources.json_text import UnreadableText, read_json
from actors.resources.multus_config import MultusConfig, Section
from actors.resources.network_attachment import API_VERSION, KIND, RESOURCE_NAME, NetworkAttachment
from actors.store.kinds import SPIDERPOOL

COPIED = "multus.spidernet.io/copied-annotations"
"""Names of the annotations that were copied, so that one which its owner takes out is taken out of the network too, and
those of others stay."""

_NOT_COPIED = (
    *("kubectl.kubernetes.io/", "meta.helm.sh/", "argocd.argoproj.io/", "kustomize.toolkit.fluxcd.io/"),
    *(multus_config.ATTACHMENT_NAME, multus_config.CNI_VERSION, multus_config.NETWORK_NAME, COPIED),
    *(multus_config.RDMA_INJECT, multus_config.NETWORK_INJECT),
)
"""Who manages the object, and what was said to us."""

Plugin = dict[str, Any]


def cni_configuration(config: MultusConfig) -> dict[str, Any] | None:
    """The list of plugins; None for a text of somebody's own."""
    if config.cni_type == "custom":
        return None
    plugins = [
        *_ifacer(config.cni_type, config.section),
        _main(config),
        *([{"type": "rdma"}] if config.cni_type == "sriov" and config.section.rdma_isolation else ()),
        *(dict(plugin) for plugin in config.chain),
        *(
            [{"type": "coordinator", **_for_plugin(config.coordinator)}]
            if config.coordinator is not None
            else ()
        ),
        *(
            [{"type": "tuning", "mtu": config.section.mtu}]
            if config.cni_type == "sriov" and config.section.mtu
            else ()
        ),
    ]
    return {"cniVersion": config.cni_version, "name": config.network, "plugins": plugins}


def configuration_text(config: MultusConfig) -> str:
    """`spec.config` of the network."""
    conf = cni_configuration(config)
    return config.custom if conf is None else json.dumps(conf, sort_keys=True, separators=(",", ":"))


def same_configuration(text: str, other: str) -> bool:
    """Whether two texts say the same."""
    if text == other:
        return True
    try:
        return bool(_read(text) == _read(other))
    except UnreadableText:
        return False


def _read(text: str) -> Any:
    return read_json(text, texts_as_they_are=True)


def wanted_annotations(config: MultusConfig) -> dict[str, str]:
    """What the network gets: those of its owner, but for what says who manages him, and the device plugin's resource."""
    copied = {key: value for key, value in config.annotations.items() if not key.startswith(_NOT_COPIED)}
    resource = _resource(config)
    if resource:
        copied[RESOURCE_NAME] = resource
    return {**copied, COPIED: ",".join(sorted(copied))} if copied else {}


def attachment(config: MultusConfig, stored: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The object as it is to be written. Of `stored`, the one that is there, everything else is kept: what others wrote on
    it, whom it belongs to besides, and what keeps it from being removed."""
    before: Mapping[str, Any] = {} if stored is None else stored
    metadata = {**before.get("metadata", {}), "name": config.attachment, "namespace": config.namespace}
    annotations = _of_others(metadata.get("annotations") or {}) | wanted_annotations(config)
    metadata.pop("annotations", None)
    if annotations:
        metadata["annotations"] = annotations
    metadata["ownerReferences"] = [
        owner_reference(config),
        *(
            owner
            for owner in metadata.get("ownerReferences") or ()
            if owner.get("kind") != multus_config.KIND
        ),
    ]
    spec = {key: value for key, value in (before.get("spec") or {}).items() if key != "config"}
    text = configuration_text(config)
    if text.strip():
        spec["config"] = text
    return {"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "spec": spec}


def is_as_wanted(config: MultusConfig, there: NetworkAttachment) -> bool:
    """Whether the network is as its SpiderMultusConfig says; what others wrote beside does not matter."""
    owner = there.owner
    return (
        owner is not None
        and owner.uid == config.uid
        and there.annotations == _of_others(there.annotations) | wanted_annotations(config)
        and same_configuration(there.config.strip(), configuration_text(config).strip())
    )


def owner_reference(config: MultusConfig) -> dict[str, Any]:
    """That the network is the object's: it goes with it, by Kubernetes' own garbage collection."""
    return {
        "apiVersion": SPIDERPOOL,
        "kind": multus_config.KIND,
        "name": config.name,
        "uid": config.uid,
        "controller": True,
    }


def shown_master(config: MultusConfig) -> str:
    """What a person is told of where the interface comes from."""
    section = config.section
    if section.masters:
        return _master(config.cni_type, section)
    return section.bridge or section.resource


def _of_others(annotations: Mapping[str, str]) -> dict[str, str]:
    ours = {*annotations.get(COPIED, "").split(","), COPIED}
    return {key: value for key, value in annotations.items() if key not in ours}


def _resource(config: MultusConfig) -> str:
    if config.cni_type in ("sriov", "ib-sriov"):
        return config.section.resource
    if config.cni_type == "ovs" and config.section.device:
        return f"ovs-cni.network.kubevirt.io/{config.section.bridge}"
    return ""


# -- plugins ------------------------------------------------------------------------------------------------


def _ifacer(cni_type: str, section: Section) -> list[Plugin]:
    """What makes the master: a VLAN, a bond, or a VLAN of a bond. The plugin vlan makes its VLAN itself."""
    vlan = section.vlan if cni_type in ("macvlan", "ipvlan") else 0
    if cni_type not in ("macvlan", "ipvlan", "vlan") or not (vlan or section.is_bonded):
        return []
    plugin: Plugin = {"type": "ifacer", "interfaces": list(section.masters)}
    if vlan:
        plugin["vlanID"] = vlan
    if section.is_bonded and section.bond is not None:
        bond = {"name": section.bond.name, "mode": section.bond.mode}
        plugin["bond"] = bond | ({"options": section.bond.options} if section.bond.options else {})
    return [plugin]


def _master(cni_type: str, section: Section) -> str:
    vlan = section.vlan if cni_type in ("macvlan", "ipvlan") else 0
    return f"{section.base}.{vlan}" if vlan else section.base


def _main(config: MultusConfig) -> Plugin:
    plugin = _MAIN[config.cni_type](config.section)
    plugin = {
        "type": config.cni_type,
        **{key: value for key, value in plugin.items() if value not in (0, "", [])},
    }
    if config.has_ipam:
        plugin["ipam"] = _ipam(config.section)
    return plugin


def _ipam(section: Section) -> Plugin:
    plugin: Plugin = {"type": "spiderpool"}
    for family, names in section.pools.items():
        plugin[f"default_ipv{family}_ippool"] = list(names)
    if section.match_master_subnet:
        plugin["match_master_subnet"] = True
    return plugin


def _macvlan(section: Section) -> Plugin:
    return {"master": _master("macvlan", section), "mode": "bridge", "mtu": section.mtu}


def _ipvlan(section: Section) -> Plugin:
    return {"master": _master("ipvlan", section), "mtu": section.mtu}


def _vlan(section: Section) -> Plugin:
    return {
        "master": section.base,
        "vlanMode": section.vlan_mode,
        "vlanId": section.vlan if section.vlan_mode == "manual" else 0,
        "mtu": section.mtu,
    }


def _sriov(section: Section) -> Plugin:
    return {"vlan": section.vlan, "min_tx_rate": section.min_rate, "max_tx_rate": section.max_rate}


def _ib_sriov(section: Section) -> Plugin:
    plugin: Plugin = {"pkey": section.pkey, "link_state": section.link_state}
    return plugin | {
        key: True
        for key, given in (
            ("rdmaIsolation", section.rdma_isolation),
            ("ibKubernetesEnabled", section.ib_kubernetes),
        )
        if given
    }


def _ipoib(section: Section) -> Plugin:
    return {"master": section.base}


def _ovs(section: Section) -> Plugin:
    return {
        "bridge": section.bridge,
        "vlan": section.vlan,
        "deviceID": section.device,
        "trunk": [dict(entry) for entry in section.trunk],
    }


_MAIN = {
    "macvlan": _macvlan,
    "ipvlan": _ipvlan,
    "vlan": _vlan,
    "sriov": _sriov,
    "ib-sriov": _ib_sriov,
    "ipoib": _ipoib,
    "ovs": _ovs,
}

_PLUGIN_WORDS = {"podDefaultRouteNIC": "podDefaultRouteNic"}
"""Fields that the plugin names otherwise than the object."""


def _for_plugin(conf: Mapping[str, Any]) -> Plugin:
    return {_PLUGIN_WORDS.get(key, key): value for key, value in conf.items()}
