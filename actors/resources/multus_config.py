"""SpiderMultusConfig: a network in short form, from which the NetworkAttachmentDefinition is made.

What must always hold: a `MultusConfig` can be made into a network; whatever is wrong with an object is told at once, each
with its field. Field names, defaults and meanings are Spiderpool's; the CRD and the admission policy of `deploy/` say the
same to the API server, as far as CEL can. What stands inside (JSON, names of interfaces) is bounded, because whoever may
write objects in a namespace writes these.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from actors.errors import InvalidObject
from actors.resources import coordinator
from actors.resources.coordinator import read_coordinator_fields
from actors.resources.fields import Fields, Refusals, nearest, shown
from actors.resources.json_text import UnreadableText, read_json
from actors.resources.metadata import Metadata, open_object
from actors.resources.names import SUBDOMAIN_RULE, is_subdomain

KIND = "SpiderMultusConfig"

ATTACHMENT_NAME = "multus.spidernet.io/cr-name"
CNI_VERSION = "multus.spidernet.io/cni-version"
NETWORK_NAME = "cni.spidernet.io/cniconfig-name"
RDMA_INJECT = "cni.spidernet.io/rdma-resource-inject"
NETWORK_INJECT = "cni.spidernet.io/network-resource-inject"

CNI_VERSIONS = ("0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
DEFAULT_CNI_VERSION = "0.3.1"

SECTIONS = {
    "macvlan": "macvlan",
    "ipvlan": "ipvlan",
    "vlan": "vlan",
    "sriov": "sriov",
    "ovs": "ovs",
    "ib-sriov": "ibsriov",
    "ipoib": "ipoib",
    "custom": "customCNI",
}
"""The field of `spec` that counts, by `cniType`."""
SPEC_FIELDS = (
    *("cniType", *SECTIONS.values()),
    *("chainCNIJsonData", "coordinator", "enableCoordinator", "disableIPAM"),
)

MOST_MASTERS, MOST_POOLS, MOST_CHAINED, MOST_TRUNKS = 32, 256, 32, 256
VLAN_IDS = range(4095)
LINK_STATES = ("auto", "enable", "disable")
VLAN_MODES = ("manual", "auto")

_NETWORK_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")
_LONGEST_NAME = 253
_LONGEST_INTERFACE = 127
"""Of an alternative name of an interface (ALTIFNAMSIZ in linux/if.h)."""
_LONGEST_TEXT = 256
_UNFIT = re.compile(r"[\s/:\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class Bond:
    """How several masters are joined; `mode` is 0 to 6."""

    name: str
    mode: int
    options: str = ""


@dataclass(frozen=True, slots=True)
class Section:
    """What the section of the chosen type says. A number 0 and an empty text mean "not given" everywhere: no VLAN, no
    limit, the kernel's own MTU."""

    masters: tuple[str, ...] = ()
    """The host's interfaces that the network stands on; several make a bond."""
    vlan: int = 0
    """The tag, 1 to 4094."""
    vlan_mode: str = ""
    """`manual` or `auto`, for the type vlan alone."""
    mtu: int = 0
    """In bytes."""
    bond: Bond | None = None
    """How several masters are joined."""
    resource: str = ""
    """The device plugin's resource that a pod takes one of."""
    min_rate: int = 0
    """Mbit/s of a virtual function."""
    max_rate: int = 0
    """Mbit/s"""
    rdma_isolation: bool = False
    """Whether the RDMA device moves into the pod."""
    pkey: str = ""
    """Of an InfiniBand partition."""
    link_state: str = ""
    """`auto`, `enable` or `disable`, of a virtual function."""
    ib_kubernetes: bool = False
    """Whether ib-kubernetes gives out the GUIDs."""
    bridge: str = ""
    """The Open vSwitch bridge."""
    device: str = ""
    """PCI address of a virtual function."""
    trunk: tuple[Mapping[str, int], ...] = ()
    """VLANs that are let through, each with an id or a range."""
    pools: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    """Names of pools, by family."""
    match_master_subnet: bool = False
    """Whether a pool must be of a subnet that the master is in."""

    @property
    def is_bonded(self) -> bool:
        """Whether several masters are joined."""
        return len(self.masters) > 1

    @property
    def base(self) -> str:
        """The interface that a VLAN would stand on."""
        return self.bond.name if self.is_bonded and self.bond is not None else "".join(self.masters[:1])


@dataclass(frozen=True, slots=True)
class MultusConfig:
    """One SpiderMultusConfig, parsed."""

    namespace: str
    """Of the object, and of its network."""
    name: str
    """Of the object."""
    uid: str
    """Of the object, by which its network names its owner."""
    version: str
    """Of the object, as it was read."""
    generation: int
    """Of its spec: what its status speaks of."""
    created: str
    """RFC 3339; the older of two claimants is served."""
    terminating: bool
    """Whether it is being deleted."""
    annotations: Mapping[str, str]
    """Of the object, some of which its network gets."""
    status: Mapping[str, Any]
    """As it stands, to see whether there is news."""
    attachment: str
    """The name of the NetworkAttachmentDefinition."""
    network: str
    """The CNI network's name."""
    cni_version: str
    """Of the configuration that is made."""
    cni_type: str
    """As the object names it (`macvlan`, `sriov`, `custom`, ...)."""
    section: Section
    """What stands under that type."""
    chain: tuple[Mapping[str, Any], ...]
    """Further plugins, behind ours."""
    coordinator: Mapping[str, Any] | None
    """What its plugin gets, None for no such plugin; empty means that all is the SpiderCoordinator's."""
    has_ipam: bool
    """Whether the network asks us for addresses."""
    custom: str
    """The text of type custom."""

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.name}"

    @classmethod
    def from_object(cls, obj: Mapping[str, Any]) -> MultusConfig:
        """Parse the API object. Raises `InvalidObject` with all that is wrong."""
        meta, top = open_object(obj, KIND)
        spec = top.inner("spec")
        wrong = Refusals(top.subject)
        cni_type, section, custom = _chosen(spec, wrong)
        attachment, version, network = _names(meta, top, wrong)
        chain: tuple[Mapping[str, Any], ...] = ()
        with wrong:
            chain = _chain(spec)
        of_coordinator: Mapping[str, Any] | None = None
        with wrong:
            of_coordinator = _coordinator(spec)
        has_ipam = True
        with wrong:
            has_ipam = not spec.flag("disableIPAM")
        with wrong:
            spec.only(*SPEC_FIELDS)
        _check_injection(meta, top, cni_type, section, wrong)
        status: Mapping[str, Any] = {}
        with wrong:
            status = top.inner("status").data
        wrong.require_none()
        metadata = top.inner("metadata")
        return cls(
            namespace=meta.namespace,
            name=meta.name,
            uid=meta.uid,
            version=meta.version,
            generation=metadata.number("generation", 0),
            created=metadata.text("creationTimestamp"),
            terminating=meta.deleted_at is not None,
            annotations=meta.annotations,
            status=status,
            attachment=attachment,
            network=network,
            cni_version=version,
            cni_type=cni_type,
            section=section,
            chain=chain,
            coordinator=of_coordinator,
            has_ipam=has_ipam,
            custom=custom,
        )


def attachment_name(meta: Metadata) -> str:
    """The name of the network that an object's metadata asks for."""
    return meta.annotations.get(ATTACHMENT_NAME, meta.name)


def admit_multus_config(
    new: Mapping[str, Any], old: Mapping[str, Any] | None, others: Iterable[Mapping[str, Any]]
) -> None:
    """Refuse what could not be made into a network. `others`: those that are stored. Raises `InvalidObject`."""
    meta, top = open_object(new, KIND)
    top.only("apiVersion", "kind", "metadata", "spec", "status")
    wrong = Refusals(top.subject)
    with wrong:
        MultusConfig.from_object(new)
    annotations = top.inner("metadata").inner("annotations")
    if old is not None and ATTACHMENT_NAME in meta.annotations:
        before, _ = open_object(old, KIND)
        with wrong:
            if before.annotations.get(ATTACHMENT_NAME) != meta.annotations[ATTACHMENT_NAME]:
                raise annotations.refuse(
                    ATTACHMENT_NAME,
                    f"but it was {shown(before.annotations.get(ATTACHMENT_NAME))} and cannot change",
                    "create another object with that name for its network",
                )
    for obj in others:
        other, _ = open_object(obj, KIND)
        if (other.namespace, attachment_name(other)) == (meta.namespace, attachment_name(meta)) and (
            other.name != meta.name
        ):
            with wrong:
                raise InvalidObject(
                    f"{top.subject}: its network would be named {attachment_name(meta)}, as that of {KIND} "
                    f"{other.namespace}/{other.name}; give one of them another name by the annotation {ATTACHMENT_NAME}"
                )
    wrong.require_none()


def _names(meta: Metadata, top: Fields, wrong: Refusals) -> tuple[str, str, str]:
    """The names of the attachment and of the CNI network, with the CNI version between."""
    annotations = top.inner("metadata").inner("annotations")
    name = attachment_name(meta)
    version = meta.annotations.get(CNI_VERSION, DEFAULT_CNI_VERSION)
    network = meta.annotations.get(NETWORK_NAME, name)
    with wrong:
        if not is_subdomain(name):
            raise annotations.refuse(
                ATTACHMENT_NAME, "but must be the name of an object", f"write {SUBDOMAIN_RULE}"
            )
    with wrong:
        if version not in CNI_VERSIONS:
            raise annotations.refuse(
                CNI_VERSION, "but must be a version of CNI", f"write one of {', '.join(CNI_VERSIONS)}"
            )
    with wrong:
        if len(network) > _LONGEST_NAME or not _NETWORK_NAME.fullmatch(network):
            raise annotations.refuse(
                NETWORK_NAME,
                "but must be the name of a CNI network",
                "write letters, digits, '_', '.' and '-', with a letter or digit in front",
            )
    return name, version, network


def _chosen(spec: Fields, wrong: Refusals) -> tuple[str, Section, str]:
    """The type, its section and its custom text."""
    cni_type = "custom"
    with wrong:
        cni_type = spec.text("cniType", "custom")
        if cni_type not in SECTIONS:
            raise spec.refuse(
                "cniType", f"but must be one of {', '.join(SECTIONS)}", nearest(cni_type, [*SECTIONS])
            )
    chosen = SECTIONS.get(cni_type)
    for key in SECTIONS.values():
        with wrong:
            given = bool(spec.text(key)) if key == "customCNI" else spec.has(key)
            if given and chosen is not None and key != chosen:
                raise InvalidObject(
                    f"{spec.subject}: {spec.at(key)} is given, but cniType is {cni_type}; remove it, or choose that type"
                )
    if chosen is None:
        return cni_type, Section(), ""
    if chosen == "customCNI":
        custom = ""
        with wrong:
            custom = spec.text(chosen)
            if custom.strip():
                _json_object(spec, chosen, custom)
        return cni_type, Section(), custom
    if not spec.has(chosen):
        with wrong:
            raise spec.refuse(chosen, f"but cniType {cni_type} needs it")
        return cni_type, Section(), ""
    section = Section()
    with wrong:
        fields = spec.inner(chosen)
        section = _READERS[cni_type](fields, wrong)
    return cni_type, section, ""


# -- sections -----------------------------------------------------------------------------------------------


def _interfaces(fields: Fields, wrong: Refusals) -> Section:
    """macvlan, ipvlan and vlan."""
    given = _Given(fields, wrong)
    is_vlan = fields.path.endswith(".vlan")
    given.only(
        "master", "mtu", "vlanID", "bond", "rdmaResourceName", "ippools", *(["vlanMode"] if is_vlan else [])
    )
    masters = given.masters()
    bond = given.bond()
    if len(masters) > 1 and bond is None and not fields.has("bond"):
        with wrong:
            raise fields.refuse("bond", "but several masters are joined to a bond", "add its name and mode")
    pools, match = given.pools()
    if match:
        with wrong:
            raise fields.inner("ippools").refuse(
                "matchMasterSubnet", "which only sriov knows", "remove it, or name the pools of this network"
            )
    mode = given.word("vlanMode", VLAN_MODES, "manual") if is_vlan else ""
    vlan = given.number("vlanID", VLAN_IDS[-1])
    if mode == "auto" and fields.has("vlanID") and vlan:
        with wrong:
            raise fields.refuse("vlanID", "but vlanMode auto takes it from elsewhere", "remove one of them")
    return Section(
        masters=masters,
        vlan=vlan,
        vlan_mode=mode,
        mtu=given.number("mtu"),
        bond=bond,
        resource=given.text("rdmaResourceName"),
        pools=pools,
    )


def _sriov(fields: Fields, wrong: Refusals) -> Section:
    given = _Given(fields, wrong)
    given.only(
        *("resourceName", "vlanID", "mtu", "minTxRateMbps", "maxTxRateMbps", "rdmaIsolation", "ippools")
    )
    pools, match = given.pools()
    low, high = given.number("minTxRateMbps"), given.number("maxTxRateMbps")
    if high and low > high:
        with wrong:
            raise fields.refuse("minTxRateMbps", f"but maxTxRateMbps is {high}", "write a smaller one")
    return Section(
        resource=given.text("resourceName", needed=True),
        vlan=given.number("vlanID", VLAN_IDS[-1]),
        mtu=given.number("mtu"),
        min_rate=low,
        max_rate=high,
        rdma_isolation=given.flag("rdmaIsolation", default=False),
        pools=pools,
        match_master_subnet=match,
    )


def _ib_sriov(fields: Fields, wrong: Refusals) -> Section:
    given = _Given(fields, wrong)
    given.only("resourceName", "pkey", "linkState", "rdmaIsolation", "enableIbKubernetes", "ippools")
    return Section(
        resource=given.text("resourceName", needed=True),
        pkey=given.text("pkey"),
        link_state=given.word("linkState", LINK_STATES, "enable"),
        rdma_isolation=given.flag("rdmaIsolation", default=True),
        ib_kubernetes=given.flag("enableIbKubernetes", default=False),
        pools=given.pools()[0],
    )


def _ipoib(fields: Fields, wrong: Refusals) -> Section:
    given = _Given(fields, wrong)
    given.only("master", "ippools")
    masters: tuple[str, ...] = ()
    with wrong:
        master = fields.text("master")
        if not master:
            raise fields.refuse("master", "but must name an interface of the node")
        masters = (_interface(fields, "master", master),)
    return Section(masters=masters, pools=given.pools()[0])


def _ovs(fields: Fields, wrong: Refusals) -> Section:
    given = _Given(fields, wrong)
    given.only("bridge", "vlan", "trunk", "deviceID", "ippools")
    return Section(
        bridge=given.text("bridge", needed=True),
        vlan=given.number("vlan", VLAN_IDS[-1]),
        device=given.text("deviceID"),
        trunk=given.trunk(),
        pools=given.pools()[0],
    )


_READERS = {
    "macvlan": _interfaces,
    "ipvlan": _interfaces,
    "vlan": _interfaces,
    "sriov": _sriov,
    "ib-sriov": _ib_sriov,
    "ipoib": _ipoib,
    "ovs": _ovs,
}


@dataclass(frozen=True, slots=True)
class _Given:
    """One section, read field by field; each refusal is kept, and the field then counts as not given."""

    fields: Fields
    wrong: Refusals

    def only(self, *known: str) -> None:
        with self.wrong:
            self.fields.only(*known)

    def number(self, key: str, most: int = 2**31 - 1) -> int:
        with self.wrong:
            value = self.fields.number(key, 0)
            if not 0 <= value <= most:
                raise self.fields.refuse(key, f"but must be a whole number from 0 to {most}")
            return value
        return 0

    def text(self, key: str, *, needed: bool = False) -> str:
        with self.wrong:
            value = self.fields.text(key)
            if needed and not value:
                raise self.fields.refuse(key, "but must be given")
            if len(value) > _LONGEST_TEXT or not value.isprintable():
                raise self.fields.refuse(
                    key, f"but must be a text of {_LONGEST_TEXT} characters at most that can be shown"
                )
            return value
        return ""

    def flag(self, key: str, *, default: bool) -> bool:
        with self.wrong:
            return self.fields.flag(key, default)
        return default

    def word(self, key: str, words: Sequence[str], default: str) -> str:
        with self.wrong:
            value = self.fields.text(key) or default
            if value not in words:
                raise self.fields.refuse(key, f"but must be one of {', '.join(words)}", nearest(value, words))
            return value
        return default

    def masters(self) -> tuple[str, ...]:
        fields = self.fields
        with self.wrong:
            names = fields.texts("master")
            if not names:
                raise fields.refuse("master", "but must name at least one interface of the node")
            if len(names) > MOST_MASTERS:
                raise fields.refuse("master", f"but may name {MOST_MASTERS} interfaces at most")
            for index, name in enumerate(names):
                _interface(fields, f"master[{index}]", name)
            if len(set(names)) < len(names):
                raise fields.refuse("master", "but names an interface twice", "name it once")
            return names
        return ()

    def bond(self) -> Bond | None:
        if not self.fields.has("bond"):
            return None
        with self.wrong:
            bond = self.fields.inner("bond")
            bond.only("name", "mode", "options")
            if not bond.has("mode"):
                raise bond.refuse("mode", "but a bond needs a mode", "write one from 0 to 6")
            name, mode = bond.text("name"), bond.number("mode", 0)
            if not name:
                raise bond.refuse("name", "but a bond needs a name", "write one, such as bond0")
            _interface(bond, "name", name)
            if not 0 <= mode <= 6:
                raise bond.refuse("mode", "but must be a whole number from 0 to 6")
            return Bond(name, mode, bond.text("options"))
        return None

    def pools(self) -> tuple[dict[int, tuple[str, ...]], bool]:
        with self.wrong:
            pools = self.fields.inner("ippools")
            pools.only("ipv4", "ipv6", "matchMasterSubnet")
            by_family = {}
            for family in (4, 6):
                names = pools.texts(f"ipv{family}")
                if len(names) > MOST_POOLS:
                    raise pools.refuse(f"ipv{family}", f"but may name {MOST_POOLS} pools at most")
                for index, name in enumerate(names):
                    if not name or len(name) > _LONGEST_NAME or not name.isprintable():
                        raise InvalidObject(
                            f"{pools.subject}: {pools.at(f'ipv{family}')}[{index}] is {shown(name)}, but must be the name of "
                            "a pool"
                        )
                if names:
                    by_family[family] = names
            return by_family, pools.flag("matchMasterSubnet")
        return {}, False

    def trunk(self) -> tuple[Mapping[str, int], ...]:
        entries = []
        with self.wrong:
            items = self.fields.items("trunk")
            if len(items) > MOST_TRUNKS:
                raise self.fields.refuse("trunk", f"but may have {MOST_TRUNKS} entries at most")
            for item in items:
                item.only("id", "minID", "maxID")
                entry = {key: item.number(key, 0) for key in ("id", "minID", "maxID") if item.has(key)}
                for key, value in entry.items():
                    if value not in VLAN_IDS:
                        raise item.refuse(key, f"but a VLAN id is 0 to {VLAN_IDS[-1]}")
                if entry.get("minID", 0) > entry.get("maxID", VLAN_IDS[-1]):
                    raise item.refuse(
                        "minID", f"but maxID is {entry['maxID']}", "write the smaller one in minID"
                    )
                if entry:
                    entries.append(entry)
        return tuple(entries)


def _interface(fields: Fields, key: str, name: str) -> str:
    if (
        not name
        or len(name.encode(errors="replace")) > _LONGEST_INTERFACE
        or _UNFIT.search(name)
        or not name.isprintable()
    ):
        raise InvalidObject(
            f"{fields.subject}: {fields.at(key)} is {shown(name)}, but must be the name of an interface, without blanks, "
            "slashes and colons"
        )
    return name


# -- what stands beside the section ---------------------------------------------------------------------------


def _chain(spec: Fields) -> tuple[Mapping[str, Any], ...]:
    texts = spec.texts("chainCNIJsonData")
    if len(texts) > MOST_CHAINED:
        raise spec.refuse("chainCNIJsonData", f"but may have {MOST_CHAINED} entries at most")
    plugins = []
    for index, text in enumerate(texts):
        key = f"chainCNIJsonData[{index}]"
        plugin = _json_object(spec, key, text)
        if not plugin.text("type"):
            raise plugin.refuse("type", "but every plugin is named by its type", "write one, such as tuning")
        plugins.append(plugin.data)
    return tuple(plugins)


def _json_object(spec: Fields, key: str, text: str) -> Fields:
    try:
        value = read_json(text, only_showable=False)
    except UnreadableText as error:
        raise InvalidObject(
            f"{spec.subject}: {spec.at(key)} is no CNI configuration: {error}; write a JSON object"
        ) from error
    return Fields.of(spec.subject, spec.at(key), value)


def _coordinator(spec: Fields) -> Mapping[str, Any] | None:
    fields = spec.inner("coordinator")
    fields.only(*coordinator.SPEC_FIELDS)
    settings = read_coordinator_fields(fields)
    return settings if spec.flag("enableCoordinator", True) else None


def _check_injection(meta: Metadata, top: Fields, cni_type: str, section: Section, wrong: Refusals) -> None:
    """What the webhook for pods injects must exist: a resource, and pools for the interface."""
    annotations = top.inner("metadata").inner("annotations")
    for key in (RDMA_INJECT, NETWORK_INJECT):
        if key not in meta.annotations:
            continue
        with wrong:
            if cni_type in ("ovs", "custom"):
                raise annotations.refuse(
                    key, f"which cniType {cni_type} does not know", "remove the annotation"
                )
            if key == RDMA_INJECT and cni_type != "ipoib" and not section.resource:
                raise annotations.refuse(
                    key, "but the network names no resource", "name it in rdmaResourceName or resourceName"
                )
            if (key == RDMA_INJECT or section.resource) and not section.pools:
                raise annotations.refuse(key, "but the network names no pool", "name one in ippools")
